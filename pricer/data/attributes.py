"""A description made of several columns, for tables that have attributes (brand, year, mileage) and no text."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

# What spreadsheets and statistics programs write into an empty cell.
_EMPTY = {"", "#n/a", "<na>", "n/a", "na", "nan", "null"}
_WHOLE = re.compile(r"(-?[0-9]+)\.0+")


def describe(values: Mapping[str, Any], columns: Sequence[str]) -> str:
    """The columns of a row as a text: `brand: Audi, year: 2017`. Empty cells are left out, so the text may be empty."""
    cells = {column: write_cell(values.get(column)) for column in columns}
    return ", ".join(f"{column.strip()}: {cell}" for column, cell in cells.items() if cell)


def described_columns(description: str | Sequence[str]) -> tuple[str, ...]:
    """The columns that `data.description` names: one, or several."""
    return (description,) if isinstance(description, str) else tuple(description)


def read_description(values: Mapping[str, Any], description: str | Sequence[str]) -> Any:
    """The description of a row, as `data.description` says: the value of one column, or the text of several."""
    return values.get(description) if isinstance(description, str) else describe(values, description)


def write_cell(value: Any) -> str:
    """The cell as a text on one line; empty for an empty cell. A whole number has no decimals, because it can be 2017
    in one file and 2017.0 in another.
    """
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    text = ", ".join(map(write_cell, value)) if isinstance(value, list | tuple) else " ".join(str(value).split())
    if whole := _WHOLE.fullmatch(text):
        return whole[1]
    return "" if text.casefold() in _EMPTY else text
