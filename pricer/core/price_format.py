"""What `auto` stands for in price format and estimator, and the notes that tell the user why."""

from typing import Literal

from pricer.core.prices import PriceFormat, PriceStyle, width_for
from pricer.errors import ConfigError

# Maximum number of digits of prices that are tokenized one by one: 100,000 take a few seconds.
MAX_PLAIN_DIGITS = 5
# Dollars up to which a distribution over plain prices can be computed.
_MAX_PLAIN_PRICE = 10**MAX_PLAIN_DIGITS - 1


def choose_price_format(
    wanted: PriceStyle | Literal["auto"], width: int | None, *, auto: PriceStyle, max_price: float
) -> PriceFormat:
    """The format for training prices of up to `max_price` dollars. `auto` is what that setting stands for, `width` the
    number of digits of padded prices; None: as many as `max_price` needs. A ConfigError if the settings contradict
    each other or the prices.
    """
    style = auto if wanted == "auto" else wanted
    if style == "plain":
        if width is not None:
            raise ConfigError(
                [f"prompt.price_width is {width}, but a plain price has no width"], "prompt.price_format: padded"
            )
        return PriceFormat("plain")
    needed = width_for([max_price])
    if width is not None and width < needed:
        raise ConfigError(
            [f"prompt.price_width is {width}, the dearest training item costs {max_price:g}"],
            f"prompt.price_width: {needed}",
        )
    return PriceFormat("padded", width or needed)


def choose_estimator(wanted: str, *, has_distribution: bool) -> str:
    """The estimator, with `auto` settled; a ConfigError if it needs a distribution that cannot be computed."""
    if wanted == "auto":
        return "median" if has_distribution else "greedy"
    if wanted != "greedy" and not has_distribution:
        raise ConfigError(
            [f"eval.estimator is {wanted}, but no distribution can be computed from this tokenizer's price tokens"],
            f"data.max_price: {_MAX_PLAIN_PRICE}, or prompt.price_format: padded, or eval.estimator: greedy",
        )
    return wanted


def explain_left_out(too_dear: int, max_price: float | None) -> list[str]:
    """A note on the items that `data.max_price` left out, or none."""
    if max_price is None or not too_dear:
        return []
    items = "item that costs" if too_dear == 1 else "items that cost"
    return [f"left out: {too_dear:,} {items} more than {_dollars(max_price)} (data.max_price)"]


def explain_padding(width: int, max_price: float) -> str:
    """Why a dear item made `prompt.price_format: auto` padded where the tokenizer does not split digits."""
    return (
        f"the dearest training item costs {_dollars(max_price)}, so prices are padded to {width} digits "
        f"(prompt.price_format: auto): the median cannot be computed from plain prices of more than {MAX_PLAIN_DIGITS} "
        f"digits; --set data.max_price={_MAX_PLAIN_PRICE} keeps them plain"
    )


def explain_greedy(width: int | None, max_price: float, *, can_pad: bool) -> str:
    """Why there is no distribution for prices of this width (None: plain), and which setting would bring one.
    `can_pad`: padded prices of that many digits would.
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
