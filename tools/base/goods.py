"""Made-up goods: kinds whose log-price adds up their attributes, an endless supply of text with a known price.

Each kind ("walnut bookcase", "office computer") has a base price, five to nine attributes and a weight for
each: the attribute's general weight plus a deviation of its own. An item names some of them; one that it does
not name counts as average. All figures here are drawn from a seeded generator or made up by hand; none is
fitted to any data.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from tools.base.vocabulary import FAMILIES, GRADES, Family, Measure
from tools.rendering import describe, feature, listed, quantity

MAX_PRICE = 9_999


@dataclass(frozen=True, slots=True)
class Item:
    """One thing as text, with its price in whole dollars."""

    description: str
    price: int
    running: tuple[tuple[int, float], ...] = ()
    """(end of a phrase in the description, log-price that the text up to there implies); none for real goods."""


Part = Callable[[Random], tuple[str, float]]
"""Draws one attribute of an item: its wording and what it adds to the log-price."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of goods: how its items are named, worded and priced."""

    nouns: tuple[str, ...]
    log_base: float
    havings: tuple[Part, ...]
    states: tuple[Part, ...]
    pairs: tuple[tuple[int, int, float], ...]
    """Attributes, by place in havings then states, that matter more (or less) together, and how much so."""
    noise: float
    ending: int | None
    """Last digit that prices are rounded to, as in $149; None leaves them as they come."""


def make_kinds(count: int, seed: int) -> tuple[Kind, ...]:
    """`count` kinds, the same for the same seed."""
    rng = Random(f"kinds:{seed}")
    shares = [family.share for family in FAMILIES]
    names: set[str] = set()
    kinds: list[Kind] = []
    while len(kinds) < count:
        family = rng.choices(FAMILIES, shares)[0]
        name = f"{rng.choice(family.adjectives)} {rng.choice(family.nouns)}".strip()
        if rng.random() < 0.5 or name in names:
            name = f"{name} {rng.choice('ABCDEFGHKLMNPRSTXZ')}"
        if name not in names:
            names.add(name)
            kinds.append(_make_kind(family, name, rng))
    return tuple(kinds)


def make_item(kinds: tuple[Kind, ...], max_attributes: int, rng: Random) -> Item:
    """One item of a random kind that names one to `max_attributes` attributes."""
    while True:
        kind = rng.choice(kinds)
        parts = kind.havings + kind.states
        # Half of the items name as much as they may: full descriptions are what the model is for.
        limit = min(max_attributes, len(parts))
        count = limit if rng.random() < 0.5 else rng.randint(1, limit)
        havings: list[str] = []
        states: list[str] = []
        effects = [0.0] * len(parts)
        effect_of_wording: dict[str, float] = {}
        for place in rng.sample(range(len(parts)), count):
            wording, effects[place] = parts[place](rng)
            effect_of_wording[wording] = effects[place]
            (havings if place < len(kind.havings) else states).append(wording)
        log_price = kind.log_base + sum(effects) + rng.gauss(0.0, kind.noise)
        log_price += sum(weight * effects[one] * effects[other] for one, other, weight in kind.pairs)
        price = _round_price(math.exp(log_price), kind.ending)
        if 1 <= price <= MAX_PRICE:
            noun = rng.choice(kind.nouns)
            effect_of_wording[noun] = kind.log_base
            description = describe(noun, havings, states, rng)
            return Item(description, price, _running(description, noun, effect_of_wording))


def _running(description: str, noun: str, effect_of_wording: dict[str, float]) -> tuple[tuple[int, float], ...]:
    """The log-price after each phrase, from the noun on; nothing when a phrase cannot be told from another."""
    text = description.lower()
    ends = {}
    for wording, effect in effect_of_wording.items():
        place = text.find(wording.lower())
        if place != text.rfind(wording.lower()):
            return ()
        ends[place + len(wording)] = effect
    noun_end = text.find(noun.lower()) + len(noun)
    ordered = sorted(ends)
    sums = accumulate(ends[end] for end in ordered)
    return tuple((end, total) for end, total in zip(ordered, sums, strict=True) if end >= noun_end)


def _round_price(price: float, ending: int | None) -> int:
    if ending is None or price < 20:
        return round(price)
    return int(price // 10) * 10 + ending


def _make_kind(family: Family, name: str, rng: Random) -> Kind:
    # Nothing has two hard disks: one measure for each name.
    by_noun = {measure.nouns: measure for measure in rng.sample(family.measures, len(family.measures))}
    chosen = rng.sample(list(by_noun.values()), rng.randint(3, 6))
    havings = [_measure_part(measure, rng) for measure in chosen]
    havings += [_feature_part(noun, rng) for noun in rng.sample(family.features, rng.randint(0, 3))]
    states = [_grade_part(grade, rng) for grade in rng.sample(GRADES, rng.randint(0, 2))]
    if rng.random() < 0.6:
        states.append(_month_part(rng))
    places = range(len(havings) + len(states))
    pairs = [(rng.sample(places, 2), rng.gauss(0.0, 2.0)) for _ in range(3)]
    low, high = family.base_range
    return Kind(
        nouns=(name,),
        log_base=rng.uniform(math.log(low), math.log(high)),
        havings=tuple(havings),
        states=tuple(states),
        pairs=tuple((one, other, weight) for (one, other), weight in pairs),
        noise=math.exp(rng.uniform(math.log(0.01), math.log(0.1))),
        ending=rng.choice((None, None, None, 9, 5)),
    )


def _measure_part(measure: Measure, rng: Random) -> Part:
    """Log-linear with a slight bend over a part of the measure's range.

    Half of them come in a few sizes only, and then each size has a whim of its own, as with real goods.
    """
    log_low, log_high = math.log(measure.low), math.log(measure.high)
    span = min(log_high - log_low, rng.uniform(1.0, 3.0))
    start = rng.uniform(log_low, log_high - span)
    middle = start + span / 2
    # A wide range must not swamp the other attributes.
    steepest = 0.6 / (span / 2)
    weight = max(-steepest, min(steepest, measure.weight + rng.gauss(0.0, 0.2)))
    bend = rng.gauss(0.0, 0.06)
    noun = rng.choice(measure.nouns)

    def size() -> int:
        return _round_value(math.exp(rng.uniform(start, start + span)))

    def effect(value: int) -> float:
        offset = math.log(value) - middle
        return weight * offset + bend * offset * offset

    whim = rng.uniform(0.0, 0.12)
    sizes = [(value, effect(value) + rng.gauss(0.0, whim)) for value in {size() for _ in range(rng.randint(3, 14))}]
    stepped = rng.random() < 0.6

    def draw(item_rng: Random) -> tuple[str, float]:
        if stepped:
            value, change = item_rng.choice(sizes)
        else:
            value = _round_value(math.exp(item_rng.uniform(start, start + span)))
            change = effect(value)
        return quantity(noun, value, measure.unit, item_rng), change

    return draw


def _round_value(value: float) -> int:
    """Whole, and round as often as not: 340 and 1000 are commoner than 343 and 1017."""
    whole = max(1, round(value))
    return whole if whole < 100 or whole % 3 else round(whole, -1)


def _feature_part(noun: str, rng: Random) -> Part:
    effect = rng.gauss(0.1, 0.1)
    share = rng.uniform(0.2, 0.8)

    def draw(item_rng: Random) -> tuple[str, float]:
        present = item_rng.random() < share
        return feature(noun, present, item_rng), effect / 2 if present else -effect / 2

    return draw


def _grade_part(grade: tuple[tuple[str, float], ...], rng: Random) -> Part:
    effects = [(wording, effect + rng.gauss(0.0, 0.08)) for wording, effect in grade]

    def draw(item_rng: Random) -> tuple[str, float]:
        return item_rng.choice(effects)

    return draw


def _month_part(rng: Random) -> Part:
    """A price that drifts from month to month over one to six years, somewhere from 1985 to 2005."""
    months = rng.randint(12, 72)
    first = rng.randint(1985 * 12, 2005 * 12 - months)
    drift = rng.gauss(-0.5, 0.5) / months
    walk = list(accumulate(rng.gauss(drift, 0.025) for _ in range(months)))
    middle = sum(walk) / months

    def draw(item_rng: Random) -> tuple[str, float]:
        month = item_rng.randrange(months)
        return listed(first + month, item_rng), walk[month] - middle

    return draw
