"""Texts to price, from the command line, a file or standard input. Every row is checked."""

import math
from collections.abc import Iterator, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, BinaryIO

from pricer.config import DataConfig
from pricer.core.items import Item
from pricer.data.attributes import described_columns, read_description, write_cell
from pricer.data.cleaning import clean_text
from pricer.data.csv_rows import read_csv_columns, read_csv_rows
from pricer.data.json_rows import read_json_values
from pricer.data.json_values import parse_json, replace_surrogates
from pricer.data.parquet_rows import read_parquet_columns, read_parquet_rows
from pricer.data.rows import SourceFile, list_columns, shorten
from pricer.data.source_files import file_kind, source_file
from pricer.data.text_files import open_text, read_lines
from pricer.errors import DataError

# Missing columns that a message names.
_NAMED = 2
_JSON_HINT = "a line is an object or a string in quotes; plain texts come in a .txt file"


def read_input(text: str | None, file: Path | None, standard_input: BinaryIO, config: DataConfig) -> list[Item]:
    """Read the Items from `text`, or else from `file`, or else from JSON lines on standard input."""
    if text is not None:
        return [parse_text(text)]
    if file:
        return read_texts(file, config)
    return parse_texts(standard_input.read(), config, "standard input")


def parse_text(text: str) -> Item:
    """A single text as an Item."""
    if not text.strip():
        raise DataError("the text is empty")
    return _item(1, text)


def read_texts(path: Path, config: DataConfig) -> list[Item]:
    """The Items of a file: the rows of a .csv, .tsv, .json, .jsonl or .parquet file, the lines of any other. The run's
    config names the columns of description, title and category. An `id` is kept; other rows get their number.
    """
    if not path.exists():
        raise DataError(f"there is no file {path}")
    file = source_file(path, str(path))
    kind = file_kind(path.name)
    if kind == "json":
        with closing(read_json_values(file, config)) as found:
            values = enumerate(found, start=1)
            items = [_parse(value, number, config, f"({file.place(line)})") for number, (line, _, value) in values]
    elif kind is not None:
        items = list(_read_table(file, kind, config))
    else:
        with open_text(file, "utf-8") as text:
            lines = enumerate(read_lines(text, file), start=1)
            items = [_item(number, line.rstrip("\r\n")) for number, line in lines if line.strip()]
    return _require_any(items, str(path))


def parse_texts(data: bytes, config: DataConfig, where: str) -> list[Item]:
    """The Items of JSON lines. A line is a string in quotes, or an object with the columns of the run's config. A
    DataError names the first invalid line.
    """
    items: list[Item] = []
    for line_number, line in enumerate(data.split(b"\n"), start=1):
        place = f"({where}, line {line_number})"
        try:
            text = line.decode("utf-8-sig" if line_number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8: byte 0x{line[error.start]:02x} {place}") from None
        if not text.strip():
            continue
        try:
            value = parse_json(text)
        except ValueError as error:
            value = error
        items.append(_parse(value, len(items) + 1, config, place))
    return _require_any(items, where)


def _read_table(file: SourceFile, kind: str, config: DataConfig) -> Iterator[Item]:
    config = config.model_copy(update={"delimiter": None})  # it belongs to the run's own data
    columns = read_parquet_columns(file) if kind == "parquet" else read_csv_columns(file, config)
    needed = (*described_columns(config.description), *([config.title] if config.title else []))
    if lacking := [name for name in needed if name not in columns]:
        named = " and no column ".join(shorten(name, 40) for name in lacking[:_NAMED])
        more = f" and {len(lacking) - _NAMED} more" if len(lacking) > _NAMED else ""
        raise DataError(
            f"{file.name} has no column {named}{more}; it has {list_columns(columns)}",
            "the columns need the names that the run's own data has",
        )
    with closing(read_parquet_rows(file, 0) if kind == "parquet" else read_csv_rows(file, 0, config)) as rows:
        for number, row in enumerate(rows, start=1):
            place = f"({file.place(row.line)})"
            if row.problem:
                raise DataError(f"{row.problem} {place}", "mend or remove the row")
            yield _convert(row.values, number, config, place)


def _parse(value: Any, number: int, config: DataConfig, place: str) -> Item:
    """The Item of a JSON value; an exception stands for what is wrong with it."""
    if isinstance(value, Exception):
        raise DataError(f"{value} {place}", _JSON_HINT)
    if isinstance(value, str) and value.strip():
        return _item(number, value)
    if not isinstance(value, dict):
        raise DataError(f"a line is an object or a string, this is {shorten(str(value), 40)} {place}", _JSON_HINT)
    columns = described_columns(config.description)
    if not any(name in value for name in columns):
        raise DataError(f"there is no {list_columns(columns)}, only {list_columns(value)} {place}")
    return _convert(value, number, config, place)


def _convert(values: Mapping[str, Any], number: int, config: DataConfig, place: str) -> Item:
    text, title = read_description(values, config.description), values.get(config.title) if config.title else None
    category = clean_text(write_cell(values.get(config.category)), config) if config.category else None
    if not isinstance(text, str) or not text.strip():
        columns = list_columns(described_columns(config.description))
        raise DataError(f"{columns} is {'no text' if text else 'empty'} {place}")
    key = values.get("id")
    return _item(number if key in (None, "") else key, text, str(title) if title else None, category or None)


def _item(key: Any, text: str, title: str | None = None, category: str | None = None) -> Item:
    # The price is unknown. Prompts do not depend on it. Arguments that are not UTF-8 reach Python as lone surrogates.
    return Item(str(key), replace_surrogates(text), math.nan, title, category)


def _require_any(items: list[Item], where: str) -> list[Item]:
    if not items:
        raise DataError(f"nothing to price in {where}", "a description in each line")
    return items
