"""What a sample of rows says about one column: its kind, its length, its numbers, and the currency of its texts."""

import math
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pricer.data.attributes import write_cell

Mark = Literal[".", ","]

CURRENCY_CODES = {"USD": "$", "EUR": "€", "GBP": "£", "JPY": "¥", "CNY": "¥", "RMB": "¥", "INR": "₹", "CHF": "CHF"}
CURRENCY_CODES |= {
    code: code for code in ("AUD", "CAD", "BRL", "PLN", "SEK", "NOK", "DKK", "CZK", "TRY", "RUB", "KRW", "ZAR")
}
_NAMES = {"DOLLAR": "$", "DOLLARS": "$", "EURO": "€", "EUROS": "€", "POUNDS": "£"}
_CODE = re.compile(rf"(?<![A-Za-z])({'|'.join([*CURRENCY_CODES, *_NAMES])})(?![A-Za-z])", re.IGNORECASE)
# A number with grouping marks, and nothing but a currency around it.
_NUMBER = re.compile(r"[-+−]?[0-9]+(?:[.,'’\s][0-9]+)*")
_COMMA_DECIMALS = re.compile(r"(?:\.[0-9]{3})+,[0-9]+$|^[0-9]+,(?:[0-9]{1,2}|[0-9]{4,})$|^0,[0-9]+$")
_POINT_DECIMALS = re.compile(r"(?:,[0-9]{3})+\.[0-9]+$|^[0-9]+\.(?:[0-9]{1,2}|[0-9]{4,})$|^0\.[0-9]+$")
_GROUPS = re.compile(r"^[1-9][0-9]{0,2}(?:([.,])[0-9]{3})+$")
# Maximum number of characters of a number with its currency.
_LONGEST_AMOUNT = 40
# Texts of a column that are searched for a currency.
_SEARCHED = 200
_LINK = re.compile(r"(?:https?|ftp|s3)://\S+$")


@dataclass(frozen=True, slots=True)
class ColumnFacts:
    """Facts about one column of a sample. Shares are of the filled cells, `filled` is a share of all cells.

    `numbers` has the number in each cell, NaN where there is none. `texts` is the share of texts that are no number,
    `nested` the share of objects, `links` the share of web addresses. `words` and `characters` are means of the texts.
    `currency` is the unit in at least half of the texts or in the name, else None.
    """

    name: str
    filled: float
    distinct: int
    distinct_share: float
    numeric: float
    positive: float
    texts: float
    nested: float
    links: float
    words: float
    characters: float
    numbers: Sequence[float]
    currency: str | None

    @property
    def is_numeric(self) -> bool:
        """Whether most cells are numbers."""
        return self.filled > 0 and self.numeric >= 0.8

    @property
    def counts_rows(self) -> bool:
        """Whether it numbers the rows, one after the other, from any number on."""
        steps = {after - before for before, after in zip(self.numbers, self.numbers[1:], strict=False)}
        return len(self.numbers) > 2 and len(steps) == 1 and steps in ({1.0}, {-1.0})


def look_at(name: str, cells: Sequence[Any], mark: Mark) -> ColumnFacts:
    """The facts about a column with these cells. `mark` is the decimal mark of numbers that are texts."""
    written = [write_cell(cell) if not isinstance(cell, Mapping) else "{}" for cell in cells]
    filled = [text for text in written if text]
    numbers = [read_amount(cell, mark) for cell in cells]
    texts = [text for text, number in zip(written, numbers, strict=True) if text and math.isnan(number)]
    count = max(len(filled), 1)
    distinct = len(set(filled))
    nested = sum(isinstance(cell, Mapping) or (isinstance(cell, list) and _is_nested(cell)) for cell in cells)
    return ColumnFacts(
        name=name,
        filled=len(filled) / max(len(cells), 1),
        distinct=distinct,
        distinct_share=distinct / count,
        numeric=sum(not math.isnan(number) for number in numbers) / count,
        positive=sum(number > 0 for number in numbers) / count,
        texts=len(texts) / count,
        nested=nested / count,
        links=sum(bool(_LINK.match(text)) for text in texts) / count,
        words=sum(len(text.split()) for text in texts) / max(len(texts), 1),
        characters=sum(map(len, texts)) / max(len(texts), 1),
        numbers=numbers,
        currency=_currency(name, filled),
    )


def read_amount(cell: Any, mark: Mark) -> float:
    """The number in a cell, which may have a currency before or after it. NaN if it holds anything else."""
    if isinstance(cell, bool) or cell is None:
        return math.nan
    if isinstance(cell, int | float):
        return float(cell) if math.isfinite(cell) else math.nan
    digits = amount_digits(cell) if isinstance(cell, str) else ""
    if not digits:
        return math.nan
    grouping = "," if mark == "." else "."
    digits = digits.replace(grouping, "").replace(mark, ".").replace("−", "-")
    try:
        return float(digits)
    except ValueError:
        return math.nan


def amount_digits(text: str) -> str:
    """The digits and marks of a text that is a number with at most a currency around it, else an empty text."""
    if len(text) > _LONGEST_AMOUNT or not any("0" <= letter <= "9" for letter in text):
        return ""
    bare = _CODE.sub(" ", "".join(" " if unicodedata.category(letter) == "Sc" else letter for letter in text))
    bare = bare.replace(",-", "").strip()
    return re.sub(r"['’\s]", "", bare) if _NUMBER.fullmatch(bare) else ""


def find_decimal_mark(cells: Sequence[Any]) -> Mark | None:
    """The decimal mark of prices that are texts: `.` if nothing contradicts it. None if the texts do not decide it,
    because all that have a mark look like `1.299`.
    """
    texts = [digits for cell in cells if isinstance(cell, str) and (digits := amount_digits(cell))]
    commas = sum(bool(_COMMA_DECIMALS.search(text)) for text in texts)
    points = sum(bool(_POINT_DECIMALS.search(text)) for text in texts)
    if commas or points:
        return "," if commas > points else "."
    groups = Counter(match[1] for text in texts if (match := _GROUPS.match(text)))
    return None if groups["."] > groups[","] else "."


def _is_nested(cell: Sequence[Any]) -> bool:
    return any(isinstance(part, Mapping | list) for part in cell)


def _currency(name: str, texts: Sequence[str]) -> str | None:
    searched = texts[:_SEARCHED]
    found = Counter(unit for text in searched if amount_digits(text) and (unit := _unit_in(text)))
    (unit, count), *_ = [*found.most_common(1), ("", 0)]
    return unit if 2 * count >= len(searched) > 0 else _unit_in(name.replace("_", " "))


def _unit_in(text: str) -> str | None:
    sign = next((letter for letter in text if unicodedata.category(letter) == "Sc"), None)
    if sign:
        return sign
    code = _CODE.search(text)
    return {**CURRENCY_CODES, **_NAMES}[code[1].upper()] if code else None
