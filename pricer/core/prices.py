"""Prices as text and back: how a completion is written for training, how an answer is parsed, and how `auto` settings
are resolved.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

from pricer.errors import ConfigError, DataError

PriceStyle = Literal["plain", "padded"]

_MAX_DIGITS = 15


@dataclass(frozen=True, slots=True)
class PriceFormat:
    """How a price is written.

    `plain` is `227.00`: whole dollars with two zeros, as in the training of the published models. `padded` is `0227`:
    whole dollars with leading zeros up to `width` digits, so that digit order is numeric order.
    """

    style: PriceStyle
    width: int | None = None

    def __post_init__(self) -> None:
        if (self.style == "padded") != (self.width is not None):
            raise ValueError("a padded price needs a width, a plain one has none")


def width_for(prices: Iterable[float]) -> int:
    """The number of digits of the highest price in whole dollars: the width of the padded format."""
    return len(str(round(max(prices))))


def format_price(price: float, style: PriceFormat) -> str:
    """The completion that the model is trained to write for a price. The price is rounded to whole dollars (halves to
    even). A price with more digits than the padded width is a ValueError.
    """
    dollars = round(price)
    if style.width is None:
        return f"{dollars}.00"
    text = f"{dollars:0{style.width}d}"
    if len(text) > style.width:
        raise ValueError(f"a price of {price:g} has more than {style.width} digits")
    return text


# A number with its grouping and decimal marks. It must not touch a letter, a sign, a slash or another number:
# "12-pack", "-12", "B2", "1/2", "9.5%" and "$5-$9" contain no price; "$99", "US$99" and "99." do. The possessive `++`
# and `*+` never backtrack: otherwise, "9.5%" would be read as 9.
_NUMBER = re.compile(
    r"(?<![0-9]['’])(?:(?<![0-9.,+\-−–/])\$\s?|(?<![\w.,+\-−–/$]))([0-9]++(?:[.,][0-9]++)*+)(?![\w\-−–/]|\s?%|['’][0-9])"
)
_PADDED = re.compile(r"\s*([0-9]+)(?![0-9]|[.,][0-9]|[\w\-−–/%])")


def parse_price(completion: str, style: PriceFormat) -> float | None:
    """The price in dollars that a completion states, or None.

    A `padded` completion must start with exactly `width` digits: with fewer digits, the model stopped early, and the
    number would be wrong by a power of ten. In a `plain` completion, the price is the first free-standing number after
    a dollar sign, or without a dollar sign the first free-standing number.
    """
    if style.width is not None:
        match = _PADDED.match(completion)
        return float(match[1]) if match and len(match[1]) == style.width else None
    numbers = list(_NUMBER.finditer(completion))
    numbers.sort(key=lambda match: not match[0].startswith("$"))  # stable: the order is kept within each kind
    return _read_number(numbers[0][1]) if numbers else None


def _read_number(text: str) -> float | None:
    """Read a number with either grouping mark: `1,299.00`, `1.299,00`, `1,299` or `1.299`. (A price never has three
    decimals.)
    """
    marks = re.findall(r"[.,]", text)
    groups = re.split(r"[.,]", text)
    if not marks:
        return _finite(text)
    # The last mark is a decimal mark if one or two digits follow it, and no other mark is the same.
    has_decimals = len(groups[-1]) <= 2 and marks[-1] not in marks[:-1]
    whole = groups[:-1] if has_decimals else groups
    grouping = marks[:-1] if has_decimals else marks
    if len(set(grouping)) > 1 or (len(whole) > 1 and (not 1 <= len(whole[0]) <= 3 or whole[0][0] == "0")):
        return None
    if any(len(group) != 3 for group in whole[1:]):
        return None
    return _finite("".join(whole) + ("." + groups[-1] if has_decimals else ""))


def _finite(text: str) -> float | None:
    return float(text) if len(text) <= _MAX_DIGITS else None  # longer numbers are no prices, and no exact floats


# Maximum number of digits for which all prices are tokenized one by one. 100,000 prices take a few seconds.
MAX_PLAIN_DIGITS = 5
# The highest price in dollars for which a distribution over plain prices can be computed.
_MAX_PLAIN_PRICE = 10**MAX_PLAIN_DIGITS - 1


def choose_price_format(
    wanted: PriceStyle | Literal["auto"], width: int | None, *, auto: PriceStyle, max_price: float
) -> PriceFormat:
    """Choose the format for training prices of up to `max_price` dollars. A padded format has `width` digits; None
    means the number of digits of `max_price`. A ConfigError if the settings contradict each other or the prices.
    """
    style = auto if wanted == "auto" else wanted
    if style == "plain":
        if width is not None:
            problem = f"prompt.price_width is {width}, but a plain price has no width"
            raise ConfigError([problem], "prompt.price_format: padded")
        return PriceFormat("plain")
    needed = width_for([max_price])
    if width is not None and width < needed:
        problem = f"prompt.price_width is {width}, the dearest training item costs {max_price:g}"
        raise ConfigError([problem], f"prompt.price_width: {needed}")
    return PriceFormat("padded", width or needed)


def refuse_inexact(price_format: PriceFormat, max_price: float) -> None:
    """Raise a PricerError if the highest price, or a padded price, has more digits than a float can hold."""
    needed = width_for([max_price])
    if (price_format.width or 0) > _MAX_DIGITS >= needed:
        problem = f"prompt.price_width is {price_format.width}: prices of more than {_MAX_DIGITS} digits are not exact"
        raise ConfigError([problem], f"prompt.price_width: {needed}")
    if needed > _MAX_DIGITS:
        raise DataError(
            f"the dearest training item costs {max_price:g}: prices of more than {_MAX_DIGITS} digits are not exact",
            "data.max_price leaves out items that cost more",
        )


def choose_estimator(wanted: str, *, has_distribution: bool) -> str:
    """Resolve `auto` to an estimator. A ConfigError if the estimator needs a distribution and none can be computed."""
    if wanted == "auto":
        return "median" if has_distribution else "greedy"
    if wanted != "greedy" and not has_distribution:
        problem = f"eval.estimator is {wanted}, but no distribution can be computed from this tokenizer's price tokens"
        hint = f"data.max_price: {_MAX_PLAIN_PRICE}, or prompt.price_format: padded, or eval.estimator: greedy"
        raise ConfigError([problem], hint)
    return wanted


def explain_left_out(items_above_max_price: int, max_price: float | None) -> list[str]:
    """A note about the items that `data.max_price` left out; an empty list if there are none."""
    if max_price is None or not items_above_max_price:
        return []
    items = "item that costs" if items_above_max_price == 1 else "items that cost"
    return [f"left out: {items_above_max_price:,} {items} more than {_dollars(max_price)} (data.max_price)"]


def explain_padding(width: int, max_price: float) -> str:
    """Explain why `prompt.price_format: auto` chose padded prices for a tokenizer that does not split digits."""
    return (
        f"the dearest training item costs {_dollars(max_price)}, so prices are padded to {width} digits "
        f"(prompt.price_format: auto): the median cannot be computed from plain prices of more than {MAX_PLAIN_DIGITS} "
        f"digits; --set data.max_price={_MAX_PLAIN_PRICE} keeps them plain"
    )


def explain_greedy(width: int | None, max_price: float, *, can_pad: bool) -> str:
    """Explain why there is no distribution for prices of this width (None: plain), and which setting would enable one.
    `can_pad`: padded prices would enable it.
    """
    needed = width_for([max_price])
    if (width or needed) <= MAX_PLAIN_DIGITS:
        return (
            "this tokenizer gives different prices the same tokens: the median cannot be computed, answers are greedy"
        )
    remedy = f"--set data.max_price={_MAX_PLAIN_PRICE}"
    if needed <= MAX_PLAIN_DIGITS:
        remedy = f"--set prompt.price_width={needed}"
    elif can_pad and width is None:
        remedy += " or --set prompt.price_format=padded"
    return (
        f"the dearest training item costs {_dollars(max_price)}, so answers are greedy: with this tokenizer the median "
        f"cannot be computed from {'plain' if width is None else 'padded'} prices of more than {MAX_PLAIN_DIGITS} "
        f"digits; train with {remedy} to have it"
    )


def _dollars(price: float) -> str:
    return f"${price:,.2f}".removesuffix(".00")
