"""Descriptions: how a thing's attributes are worded, the same for real tables and for made-up goods.

One grammar for all of them is the point: what the base model learns about a phrase on one kind of goods
carries over to another. A description is a noun, things it has ("8 MB RAM", "no CD-ROM drive") and states it
is in ("premium brand", "listed in March 1994"), in an order and a wording drawn from the given generator.
"""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

MONTHS = (
    "January", "February", "March", "April", "May", "June",
    "July", "August", "September", "October", "November", "December",
)  # fmt: skip

QUESTION = "What does this cost to the nearest dollar?"
PRICE_PREFIX = "Price is $"
PRICE_WIDTH = 4


def prompt(description: str) -> str:
    """The text before the price."""
    return f"{QUESTION}\n\n{description}\n\n{PRICE_PREFIX}"


def completion(price: int) -> str:
    """The price in whole dollars, zero-padded to `PRICE_WIDTH` digits."""
    return f"{price:0{PRICE_WIDTH}d}"


def quantity(noun: str, value: float, unit: str, rng: Random) -> str:
    """A measured attribute, as in "340 MB hard disk"; an empty unit makes it a count, as in "6 drawers"."""
    number = f"{value:g}"
    if not unit:
        return f"{number} {noun}"
    if rng.random() < 0.7:
        return f"{number} {unit} {noun}"
    return f"{noun} of {number} {unit}"


def feature(noun: str, present: bool, rng: Random) -> str:
    """A yes/no attribute, as in "CD-ROM drive included" or "no CD-ROM drive"."""
    if not present:
        return f"no {noun}"
    return noun if rng.random() < 0.5 else f"{noun} included"


def listed(month_index: int, rng: Random) -> str:
    """When it was for sale; `month_index` counts months from January of year 0."""
    year, month = divmod(month_index, 12)
    verb = "listed in" if rng.random() < 0.7 else "on sale in"
    return f"{verb} {MONTHS[month]} {year}"


def describe(noun: str, havings: Sequence[str], states: Sequence[str], rng: Random) -> str:
    """One or two sentences that name every attribute, in a drawn order and layout."""
    havings, states = list(havings), list(states)
    rng.shuffle(havings)
    rng.shuffle(states)
    choice = rng.random()
    if choice < 0.4 or not havings:
        phrases = havings + states
        rng.shuffle(phrases)
        text = f"{noun}: {', '.join(phrases)}." if phrases else f"{noun}."
    elif choice < 0.75 or not states:
        text = f"{noun} with {_enumerate(havings)}" + "".join(f", {state}" for state in states) + "."
    else:
        tail = "".join(f", {state}" for state in states[1:])
        text = f"{states[0]}: {noun} with {_enumerate(havings)}{tail}."
    return text[0].upper() + text[1:]


def _enumerate(phrases: Sequence[str]) -> str:
    if len(phrases) == 1:
        return phrases[0]
    return f"{', '.join(phrases[:-1])} and {phrases[-1]}"
