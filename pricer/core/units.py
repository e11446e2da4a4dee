"""Units of prices: their symbol, the step that prices are rounded to, and how amounts, question and lead are written.

A step is 10^-decimals of the unit. With `$` and 2 decimals it is $0.01, with `$` and -2 decimals $100.
"""

import math
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

MAX_DECIMALS = 6
"""The maximum number of decimals of a step, and of zeros in a step above 1."""
_MAX_SYMBOL = 16
# Characters of a symbol besides letters, digits and currency signs: those of `kWh/m²`, `% vol.` and the like.
_MARKS = "%°/·.- ²³"
# Name of one, of several, and of a hundredth.
_NAMES = {
    "$": ("dollar", "dollars", "cent"),
    "€": ("euro", "euros", "cent"),
    "£": ("pound", "pounds", "penny"),
    "¥": ("yen", "yen", None),
    "₹": ("rupee", "rupees", "paisa"),
}
# Whole steps are fine enough if they change the lower quartile by at most half of a step in ten.
_MIN_QUARTILE_STEPS = 10
# A lower quartile from which on prices in a currency have two decimals, not three.
_MIN_CENTS = 0.05
# Above this median, prices are written in steps above 1, with about this number of digits.
_LARGE_MEDIAN = 1e5
_LARGE_DIGITS = 4


def check_symbol(symbol: str) -> str:
    """The symbol if it can be a unit. A ValueError if it is empty, too long, begins with a digit, or has characters
    that have a meaning in a prompt, a model card or a chart.
    """
    currency = sum(unicodedata.category(c) == "Sc" for c in symbol)
    known = all(c.isalnum() or c in _MARKS or unicodedata.category(c) == "Sc" for c in symbol)
    is_plain = known and currency <= 1 and "  " not in symbol and not symbol.endswith(" ")
    begins = not symbol[:1].isdigit() and symbol[:1] not in "/·.- "
    if not symbol or len(symbol) > _MAX_SYMBOL or not is_plain or not begins:
        raise ValueError(
            f"{symbol[:40]!a} is no unit: it has 1 to {_MAX_SYMBOL} letters, digits, single spaces and signs of "
            f"{_MARKS.replace(' ', '')}, at most one currency sign, and begins with a letter, a currency sign, % or °"
        )
    return symbol


@dataclass(frozen=True, slots=True)
class PriceUnit:
    """The unit of prices. `symbol` is `$`, `kWh` or the like; a ValueError if it cannot be one."""

    symbol: str = "$"
    decimals: int = 0

    def __post_init__(self) -> None:
        check_symbol(self.symbol)
        if abs(self.decimals) > MAX_DECIMALS:
            raise ValueError(f"decimals is {str(self.decimals)[:20]}, not between {-MAX_DECIMALS} and {MAX_DECIMALS}")

    @property
    def is_before(self) -> bool:
        """Whether the symbol stands before the number: `$`, `€` and `US$`, but not `kWh`, `CHF` or `€/kWh`."""
        letters = self.symbol[:-1]
        return unicodedata.category(self.symbol[-1]) == "Sc" and (not letters or letters.isalpha())

    @property
    def name(self) -> str:
        """The name of one unit: `dollar`; the symbol if no name is known."""
        return _NAMES[self.symbol][0] if self.symbol in _NAMES else self.symbol

    @property
    def plural(self) -> str:
        """The name of several units: `dollars`; the symbol if no name is known."""
        return _NAMES[self.symbol][1] if self.symbol in _NAMES else self.symbol

    @property
    def step(self) -> float:
        """The step in units: 1 for 0 decimals, 0.01 for 2, 100 for -2."""
        return self.from_steps(1)

    @property
    def price_digits(self) -> int:
        """Decimals of a written price: those of the step, and at least two for a currency with whole or finer steps."""
        return max(2, self.decimals) if self.is_before and self.decimals >= 0 else max(0, self.decimals)

    @property
    def error_digits(self) -> int:
        """Decimals of an error, which is a mean and so finer than a step: one more, at least two; none if a step is
        above 1.
        """
        return max(2, self.decimals + 1) if self.decimals >= 0 else 0

    def to_steps(self, price: float) -> int:
        """The price in whole steps, halves to even. A ValueError unless it is a number above zero."""
        if not 0 < price < math.inf:  # NaN also fails this comparison
            raise ValueError(f"a price of {price:g} is not above zero")
        return round(price * int(10**self.decimals) if self.decimals > 0 else price / int(10**-self.decimals))

    def from_steps(self, steps: float) -> float:
        """A number of steps in units. Without decimals, it is the same number."""
        return steps / int(10**self.decimals) if self.decimals >= 0 else steps * float(10**-self.decimals)

    def round_down(self, amount: float) -> float:
        """The amount in hundredths of a step, rounded down."""
        return self._round(amount, math.floor)

    def round_up(self, amount: float) -> float:
        """The amount in hundredths of a step, rounded up."""
        return self._round(amount, math.ceil)

    def _round(self, amount: float, towards: Callable[[float], int]) -> float:
        decimals = self.decimals + 2
        if decimals >= 0:
            scale = int(10**decimals)
            return towards(amount * scale) / scale
        scale = int(10**-decimals)
        return float(towards(amount / scale) * scale)

    def price(self, amount: float) -> str:
        """A price: `$227.00`, `12.5 kWh`."""
        return self._write(amount, self.price_digits)

    def error(self, amount: float, half_width: float | None = None, *, signed: bool = False) -> str:
        """An error, a width or a difference, with half the width of its interval: `$41.20`, `12.50 ± 0.31 kWh`. With
        `signed`, amounts from zero on have a plus sign.
        """
        half = "" if half_width is None else f" ± {half_width:,.{self.error_digits}f}"
        return self._write(amount, self.error_digits, "+" if signed else "", half)

    def short_price(self, amount: float) -> str:
        """A price with no more decimals than its step has: `$227`."""
        return self._write(amount, max(0, self.decimals))

    def price_range(self, low: float, high: float) -> str:
        """Two prices: `$10.00–34.00`."""
        return self.mark(f"{low:,.{self.price_digits}f}–{high:,.{self.price_digits}f}")

    def short_range(self, low: float, high: float) -> str:
        """Two prices with no more decimals than their step has: `$10–34`."""
        digits = max(0, self.decimals)
        return self.mark(f"{low:,.{digits}f}–{high:,.{digits}f}")

    def exact(self, amount: float) -> str:
        """An amount that a setting has, with as many decimals as it needs: `$0.005`, `$1,234.50`, `$999`."""
        is_short = math.isclose(round(amount, 2), amount, rel_tol=1e-9)
        return self.mark(f"{amount:,.2f}".removesuffix(".00") if is_short else f"{amount:,.10g}")

    def rounded(self, amount: float) -> str:
        """A price of the data, with two decimals at most, or those of the step if they are more: `$318.34`, `$7.50`,
        `$999`. A price that this would make zero is exact.
        """
        return self.exact(round(amount, max(2, self.decimals)) or amount)

    def mark(self, number: str) -> str:
        """A written number with its unit."""
        return f"{self.symbol}{number}" if self.is_before else f"{number} {self.symbol}"

    def number(self, text: str) -> str:
        """A text of this unit without its symbol: the ends of an interval share one."""
        return text.replace(self.symbol, "") if self.is_before else text.removesuffix(f" {self.symbol}")

    def _write(self, amount: float, digits: int, plus: str = "", half: str = "") -> str:
        return ("−" if amount < 0 else plus) + self.mark(f"{abs(amount):,.{digits}f}{half}")


DOLLARS = PriceUnit()
"""The default: `$` without decimals."""


def choose_decimals(
    wanted: int | Literal["auto"], symbol: str, *, lowest: float, lower_quartile: float, median: float
) -> tuple[int, str]:
    """The decimals of a step and the reason. `auto` is decided from training prices: 0 for most data, more if whole
    units are too coarse, fewer if the median is above 100,000.
    """
    if wanted != "auto":
        return wanted, "set in the config"
    unit = PriceUnit(symbol)
    zeros = min(MAX_DECIMALS, math.floor(math.log10(median)) - _LARGE_DIGITS + 1) if median > _LARGE_MEDIAN else 0
    # A skewed data set has low prices that such a step would change too much.
    while zeros > 0 and not (_is_fine(lower_quartile, -zeros) and PriceUnit(symbol, -zeros).to_steps(lowest)):
        zeros -= 1
    if zeros:
        return -zeros, f"the median price is {unit.short_price(median)}: about {_LARGE_DIGITS} digits are written"
    decimals = next((number for number in range(MAX_DECIMALS) if _is_fine(lower_quartile, number)), MAX_DECIMALS)
    if decimals:
        # Nobody writes $1.5, and prices of several cents are whole cents.
        is_in_cents = unit.is_before and lower_quartile >= _MIN_CENTS
        decimals = 2 if is_in_cents else decimals
        quartile = PriceUnit(symbol, decimals).price(lower_quartile)
        return decimals, f"whole units would change the lower quartile of prices, {quartile}, by more than 5 %"
    if not unit.to_steps(lowest) and PriceUnit(symbol, 2).to_steps(lowest):
        return 2, f"the lowest price, {unit.exact(lowest)}, would be written as 0 in whole units"
    return 0, "whole units are fine enough for these prices"


def _is_fine(lower_quartile: float, decimals: int) -> bool:
    return lower_quartile * 10.0**decimals >= _MIN_QUARTILE_STEPS


def choose_question(wanted: str, unit: PriceUnit, found: str | None = None) -> str:
    """The first line of every prompt. `auto`: `found` (the question of ready-made prompts) or one that fits the unit
    and its step.
    """
    if wanted != "auto":
        return wanted
    if found is not None:
        return found
    step = f"{unit.step:,.{max(0, unit.decimals)}f}"
    if not unit.is_before:
        return f"How many {unit.symbol} is this, to the nearest {step}?"
    hundredth = _NAMES.get(unit.symbol, ("", "", None))[2]
    nearest = {0: unit.name if unit.symbol in _NAMES else None, 2: hundredth}.get(unit.decimals)
    return f"What does this cost to the nearest {nearest or unit.mark(step)}?"


def choose_lead(wanted: str, unit: PriceUnit, *, is_padded: bool, found: str | None = None) -> str:
    """The last line of every prompt, which the completion continues. `auto`: `found` (the lead of ready-made prompts)
    or one that fits the unit. Padded prices are numbers of steps, so their lead says a step other than 1.
    """
    if wanted != "auto":
        return wanted
    if found is not None:
        return found
    in_steps = is_padded and unit.decimals != 0
    if unit.is_before and not in_steps:
        return f"Price is {unit.symbol}"
    what = unit.mark(f"{unit.step:,.{max(0, unit.decimals)}f}") if in_steps else unit.symbol
    # No space at the end: many tokenizers join a space and the digits after it into other tokens.
    return f"{'Price' if unit.is_before else 'Value'} in {what}:"
