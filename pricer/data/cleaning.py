"""One row becomes an Item's texts and price, or the reason why it does not."""

import math
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from typing import Any

from pricer.config import DataConfig
from pricer.data.attributes import described_columns, write_cell
from pricer.data.layouts import Cells, Rejection
from pricer.data.markup import strip_markup
from pricer.data.numbers import NO_PRICE, NOT_ABOVE_ZERO, RANGE, Price, read_price

NO_DESCRIPTION = "no description"
NOT_TEXT = "description is not text"
CANNOT_BE_READ = "cannot be read"

BELOW_MIN_PRICE, ABOVE_MAX_PRICE = "below min_price", "above max_price"
TOO_SHORT, TOO_LONG = "too short", "too long"
PRICE_IN_DESCRIPTION = "price in description"

# Without a maximum, a text of nothing but digits and commas would take quadratic time.
_NUMBER = r"[0-9][0-9.,'’]{0,30}"
_SIGN = r"[$€£¥₹]|\b(?:USD|EUR|GBP|dollars?|euros?)\b"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that could be used, but that a rule of the config leaves out."""

    reason: str


@dataclass(frozen=True, slots=True)
class Cleaned:
    """A row that can be used. `had_markup`: markup or control characters were removed. `shows_price`: title or
    description contains the price, `states_price`: one of them begins or ends with it.
    """

    description: str
    price: Price
    title: str | None
    category: str | None
    had_markup: bool
    shows_price: bool
    states_price: bool

    @property
    def text(self) -> str:
        """The text of the Item."""
        return f"{self.title}\n{self.description}" if self.title else self.description


def clean(cells: Cells, config: DataConfig, price_column: str) -> Cleaned | Rejection | Drop:
    """Check and clean the cells of one row by the rules of the config. `price_column` names the price in messages."""
    column, description = ", ".join(described_columns(config.description)), cells.description
    if description is None or (isinstance(description, str) and not description.strip()):
        return Rejection(NO_DESCRIPTION, f"{column} is empty")
    if not isinstance(description, str):
        return Rejection(NOT_TEXT, f"{column} is {quote(description)}, not text")
    text = clean_text(description, config)
    if not any(unicodedata.category(letter)[0] not in "CMZ" for letter in text):
        return Rejection(NO_DESCRIPTION, f"{column} is {quote(description)}, which has no text")
    price = read_price(cells.price, config.decimal_mark, config.unit)
    if isinstance(price, str):
        return Rejection(price, f"{price_column} is {_price_problem(price, cells.price)}")
    title, category = (clean_text(write_cell(cell), config) or None for cell in (cells.title, cells.category))
    found = [find_price(shown, price.value, config) for shown in (title, text) if shown]
    shows_price, states_price = map(any, zip(*found, strict=True))
    cleaned = Cleaned(text, price, title, category, text != description, shows_price, states_price)
    reason = _rule_against(cleaned, config)
    return Drop(reason) if reason else cleaned


def _rule_against(cleaned: Cleaned, config: DataConfig) -> str | None:
    """The rule of the config that leaves an item out, or None."""
    price, length = cleaned.price.value, len(cleaned.text)
    if config.min_price is not None and price < config.min_price:
        return BELOW_MIN_PRICE
    if config.max_price is not None and price > config.max_price:
        return ABOVE_MAX_PRICE
    if length < config.min_characters:
        return TOO_SHORT
    if config.max_characters is not None and length > config.max_characters:
        return TOO_LONG
    return PRICE_IN_DESCRIPTION if cleaned.shows_price and config.price_in_description == "drop" else None


def clean_text(text: str, config: DataConfig) -> str:
    """The text as the run's items have it: without broken characters, and without markup if the config says so."""
    # Half a character pair cannot be written to a file. Two halves that stand together become their character.
    if not text.isascii() and _SURROGATE.search(text):
        text = text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return strip_markup(text) if config.strip_markup else text


def find_price(text: str, price: float, config: DataConfig) -> tuple[bool, bool]:
    """Whether the text contains the price or the rounded price, and whether it begins or ends with it. A number without
    a currency sign or a word such as `price` before it counts only there: sizes and years are numbers, too.
    """

    def is_price(number: str) -> bool:
        found = read_price(number.rstrip(".,'’"), config.decimal_mark)
        return isinstance(found, Price) and (abs(found.value - price) < 0.005 or found.value == round(price))

    # Most texts do not have the price's digits, and need no slow search. A group of thousands has three digits.
    if not any(f"{number:.0f}"[-3:] in text for number in (math.floor(price), round(price))):
        return False, False
    marked, first, last = _price_patterns(config.unit)
    edges = (first.match(text[:60]), last.search(text[-60:]))
    if any(is_price(found[1]) for found in edges if found):
        return True, True
    return any(is_price(found[1] or found[2]) for found in marked.finditer(text)), False


@cache
def _price_patterns(unit: str) -> tuple[re.Pattern[str], ...]:
    """The patterns of a number with a sign beside it, and of one that stands apart at the beginning or at the end, as a
    label does: `12.50 – a lamp`, `a lamp, 12.50 USD`.
    """
    sign = rf"(?:{_SIGN}|{re.escape(unit)})"
    patterns = (
        rf"(?:{sign}|\b(?:price|costs?)\b[^0-9\n]{{0,10}})\s?({_NUMBER})|({_NUMBER})\s?{sign}",
        rf"\W*({_NUMBER})\s?{sign}?\s*[–—:;|\n-]",
        rf"(?<![\w.,'’])({_NUMBER})\s?{sign}?\W*$",
    )
    return tuple(re.compile(pattern, re.IGNORECASE) for pattern in patterns)


def quote(value: Any, length: int = 80) -> str:
    """A value as it stands in a message: at most `length` characters."""
    try:
        text = repr(value[: length + 1] if isinstance(value, str) else value)
    except ValueError:  # Python does not write whole numbers of more than 4,300 digits
        return "a number of thousands of digits"
    return text if len(text) <= length + 2 else f"{text[:length]}…"


def _price_problem(reason: str, value: Any) -> str:
    """What is wrong with a price, to go on after `is`."""
    if reason == NO_PRICE:
        return "missing" if value is None or value == "" else f"{quote(value)}, no price"
    if reason == RANGE:
        return f"{quote(value)}, a range"
    return f"{quote(value)}, not above zero" if reason == NOT_ABOVE_ZERO else f"{quote(value)}, not a number"
