"""Prices as text and back: how a completion is written for training, how an answer is parsed, and how `auto` settings
are resolved.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Literal

from pricer.core.units import MAX_DECIMALS, PriceUnit
from pricer.errors import ConfigError

PriceStyle = Literal["plain", "padded"]


@dataclass(frozen=True, slots=True)
class PriceFormat:
    """How a price is written. It is a whole number of steps of 10^-`decimals` of the `unit`.

    `plain` is the price as people write it: `227.00` for `$` without decimals (as in the training of the published
    models), `12.99` with two. `padded` is the number of steps with leading zeros up to `width` digits, so that digit
    order is numeric order: `0227`, or `01299` for $12.99 with two decimals.
    """

    style: PriceStyle
    width: int | None = None
    decimals: int = 0
    unit: str = "$"

    def __post_init__(self) -> None:
        if (self.style == "padded") != (self.width is not None):
            raise ValueError("a padded price needs a width, a plain one has none")
        PriceUnit(self.unit, self.decimals)  # raises a ValueError

    @property
    def price_unit(self) -> PriceUnit:
        """The unit and its step."""
        return _unit(self.unit, self.decimals)


# Every item asks for it, and making one checks the symbol.
_unit = cache(PriceUnit)


def width_for(prices: Iterable[float], decimals: int = 0) -> int:
    """The number of digits of the highest price in whole steps: the width of the padded format."""
    return len(str(PriceUnit(decimals=decimals).to_steps(max(prices))))


def format_price(price: float, style: PriceFormat) -> str:
    """The completion that the model is trained to write for a price. The price is rounded to whole steps (halves to
    even). A ValueError if the price is not above zero, would be written as 0, or has more digits than the padded width.
    """
    steps = style.price_unit.to_steps(price)
    if not steps:
        raise ValueError(f"a price of {price:g} would be written as 0 with {style.decimals} decimals")
    return format_steps(steps, style)


def format_steps(steps: int, style: PriceFormat) -> str:
    """The text of a whole number of steps, 0 included. More digits than the padded width are a ValueError."""
    unit = style.price_unit
    if style.width is None:
        whole, rest = divmod(steps, 10**style.decimals) if style.decimals > 0 else (steps * 10**-style.decimals, 0)
        if not unit.price_digits:
            return str(whole)
        decimals = f"{rest:0{style.decimals}d}" if style.decimals > 0 else ""
        return f"{whole}.{decimals.ljust(unit.price_digits, '0')}"
    text = f"{steps:0{style.width}d}"
    if len(text) > style.width:
        raise ValueError(f"a price of {unit.from_steps(steps):g} has more than {style.width} digits")
    return text


def refuse_zeros(prices: Sequence[float], unit: PriceUnit) -> None:
    """Raise a ConfigError if training prices would be written as 0. It names their number and a setting that helps."""
    zeros = [price for price in prices if not unit.to_steps(price)]
    if not zeros:
        return
    fitting = (d for d in range(unit.decimals + 1, MAX_DECIMALS + 1) if PriceUnit(unit.symbol, d).to_steps(min(zeros)))
    # Nobody writes $1.5.
    enough = next(({1: 2}.get(d, d) if unit.is_before else d for d in fitting), None)
    above = f"data.min_price: {0.51 * unit.step:g} leaves them out"
    raise ConfigError(
        [
            f"{len(zeros):,} of {len(prices):,} training prices would be written as 0, the lowest of them "
            f"{unit.exact(min(zeros))} (data.decimals is {unit.decimals})"
        ],
        above if enough is None else f"data.decimals: {enough}, or {above}",
    )


# Signs of currencies, which may stand before a number.
_SIGNS = "$€£¥₹₩₽₺₪₫₴₱฿"
# A number with its grouping and decimal marks. It must not touch a letter, a sign, a slash or another number:
# "12-pack", "-12", "B2", "1/2", "9.5%" and "$5-$9" contain no price; "$99", "US$99" and "99." do. The possessive `++`
# and `*+` never backtrack: otherwise, "9.5%" would be read as 9. The unit itself may follow: "12.5kWh", "9.5%".
_NUMBER = (
    rf"(?<![0-9]['’])(?:(?<![0-9.,+\-−–/])(?P<sign>[{_SIGNS}])\s?|(?<![\w.,+\-−–/{_SIGNS}]))"
    r"(?P<number>[0-9]++(?:[.,][0-9]++)*+)(?:(?P<unit>\s?UNIT)(?![\w/])|(?![\w\-−–/]|\s?%|['’][0-9]))"
)
_PADDED = re.compile(r"\s*([0-9]+)(?![0-9]|[.,][0-9]|[\w\-−–/%])")


def parse_price(completion: str, style: PriceFormat) -> float | None:
    """The price in units that a completion states, or None.

    A `padded` completion must start with `width` digits. Fewer digits are read as a person reads them, `14` as 14 where
    `0014` was taught, if they are whole units. After a leading zero they are None: the model stopped early, and the
    number would be wrong by a power of ten. In a `plain` completion, the price is the first free-standing number beside
    the unit, or without a unit the first free-standing number.
    """
    unit = style.price_unit
    if style.width is not None:
        start = _PADDED.match(completion)
        digits = start[1] if start else ""
        is_short = 0 < len(digits) < style.width and digits[0] != "0" and not style.decimals
        return unit.from_steps(float(digits)) if is_short or len(digits) == style.width else None
    numbers = list(_number_pattern(unit.symbol, unit.is_before).finditer(completion))
    # Stable: the order is kept within each kind.
    numbers.sort(key=lambda match: not (match["unit"] or (unit.is_before and match["sign"] == unit.symbol[-1])))
    return _read_number(numbers[0]["number"], style.decimals) if numbers else None


@cache
def _number_pattern(symbol: str, is_before: bool) -> re.Pattern[str]:
    # `(?!)` never matches: nothing of a unit that stands before the number follows it.
    return re.compile(_NUMBER.replace("UNIT", "(?!)" if is_before else re.escape(symbol)))


def _read_number(text: str, decimals: int) -> float | None:
    """Read a number with either grouping mark: `1,299.00`, `1.299,00`, `1,299` or `1.299`. Three digits after a single
    point are decimals only if prices have that many.
    """
    marks = re.findall(r"[.,]", text)
    groups = re.split(r"[.,]", text)
    if not marks:
        return _finite(text)
    # The last mark is a decimal mark if one or two digits follow it, and no other mark is the same.
    is_fine = marks[-1] == "." and len(groups[-1]) <= decimals
    has_decimals = (len(groups[-1]) <= 2 or is_fine) and marks[-1] not in marks[:-1]
    whole = groups[:-1] if has_decimals else groups
    grouping = marks[:-1] if has_decimals else marks
    if len(set(grouping)) > 1 or (len(whole) > 1 and (not 1 <= len(whole[0]) <= 3 or whole[0][0] == "0")):
        return None
    if any(len(group) != 3 for group in whole[1:]):
        return None
    return _finite("".join(whole) + ("." + groups[-1] if has_decimals else ""))


def _finite(text: str) -> float | None:
    return float(text) if len(text) <= 15 else None  # longer numbers are no prices, and no exact floats


# Maximum number of digits for which all prices are tokenized one by one. 100,000 prices take a few seconds.
MAX_PLAIN_DIGITS = 5


def choose_price_format(
    wanted: PriceStyle | Literal["auto"], width: int | None, *, auto: PriceStyle, max_price: float, unit: PriceUnit
) -> PriceFormat:
    """Choose the format for training prices of up to `max_price`. A padded format has `width` digits; None means the
    number of digits of `max_price` in steps. A ConfigError if the settings contradict each other or the prices.
    """
    style = auto if wanted == "auto" else wanted
    if style == "plain":
        if width is not None:
            problem = f"prompt.price_width is {width}, but a plain price has no width"
            raise ConfigError([problem], "prompt.price_format: padded")
        return PriceFormat("plain", None, unit.decimals, unit.symbol)
    needed = width_for([max_price], unit.decimals)
    if width is not None and width < needed:
        in_steps = f", {needed} digits with data.decimals {unit.decimals}" if unit.decimals else ""
        problem = f"prompt.price_width is {width}, the dearest training item costs {max_price:g}{in_steps}"
        raise ConfigError([problem], f"prompt.price_width: {needed}")
    return PriceFormat("padded", width or needed, unit.decimals, unit.symbol)


def choose_estimator(wanted: str, unit: PriceUnit, *, has_distribution: bool) -> str:
    """Resolve `auto` to an estimator. A ConfigError if the estimator needs a distribution and none can be computed."""
    if wanted == "auto":
        return "median" if has_distribution else "greedy"
    if wanted != "greedy" and not has_distribution:
        problem = f"eval.estimator is {wanted}, but no distribution can be computed from this tokenizer's price tokens"
        hint = f"data.max_price: {_max_plain_price(unit)}, or prompt.price_format: padded, or eval.estimator: greedy"
        raise ConfigError([problem], hint)
    return wanted


def explain_padding(width: int, max_price: float, unit: PriceUnit) -> str:
    """Explain why `prompt.price_format: auto` chose padded prices for a tokenizer that does not split digits."""
    return (
        f"the dearest training item costs {unit.rounded(max_price)}, so prices are padded to {width} digits "
        f"(prompt.price_format: auto): the median cannot be computed from plain prices of more than {MAX_PLAIN_DIGITS} "
        f"digits; --set data.max_price={_max_plain_price(unit)} keeps them plain"
    )


def explain_greedy(width: int | None, max_price: float, unit: PriceUnit, *, can_pad: bool) -> str:
    """Explain why there is no distribution for prices of this width (None: plain), and which setting would enable one.
    `can_pad`: padded prices would enable it.
    """
    needed = width_for([max_price], unit.decimals)
    if (width or needed) <= MAX_PLAIN_DIGITS:
        return (
            "this tokenizer gives different prices the same tokens: the median cannot be computed, answers are greedy"
        )
    remedy = f"--set data.max_price={_max_plain_price(unit)}"
    if needed <= MAX_PLAIN_DIGITS:
        remedy = f"--set prompt.price_width={needed}"
    elif can_pad and width is None:
        remedy += " or --set prompt.price_format=padded"
    return (
        f"the dearest training item costs {unit.rounded(max_price)}, so answers are greedy: with this tokenizer the "
        f"median cannot be computed from {'plain' if width is None else 'padded'} prices of more than "
        f"{MAX_PLAIN_DIGITS} digits; train with {remedy} to have it"
    )


def _max_plain_price(unit: PriceUnit) -> str:
    """The highest price for which a distribution over plain prices can be computed, as a setting."""
    return f"{unit.from_steps(10**MAX_PLAIN_DIGITS - 1):.12g}"
