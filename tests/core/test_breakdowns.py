"""Breakdowns: every item in one band and one category, and sums that agree with the whole."""

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.breakdowns import Breakdown, Group, Miss, NearCopies, Tail, break_down
from pricer.core.calibration import Calibration, CalibrationGroup, Correction
from pricer.core.evaluation import ScoreTable, score_predictions
from pricer.core.items import Item
from pricer.core.metrics import ScoreRule, wilson_interval
from pricer.core.predictions import Prediction
from pricer.core.units import PriceUnit
from tests.builders import a_distribution, an_item, predictions_of

FALLBACK = 150.0


def scores_of(items: Sequence[Item], estimates: Sequence[float | None]) -> ScoreTable:
    return score_predictions(predictions_of(items, estimates), items, FALLBACK)


def priced(prices: Sequence[float], categories: Sequence[str | None] | None = None) -> list[Item]:
    """Items a, b, c … of these prices."""
    categories = categories or [None] * len(prices)
    return [
        Item(chr(ord("a") + place), f"Lamp {place}", price, category=category)
        for place, (price, category) in enumerate(zip(prices, categories, strict=True))
    ]


def broken_down(
    prices: Sequence[float], estimates: Sequence[float | None], categories: Sequence[str | None] | None = None
) -> Breakdown:
    items = priced(prices, categories)
    return break_down(scores_of(items, estimates), items)


def bands(prices: Sequence[float]) -> list[tuple[str | None, int]]:
    return [(band.name, band.n) for band in broken_down(prices, prices).price_bands]


def test_bands_are_named_in_the_unit_of_the_prices() -> None:
    items = priced([0.05, 0.1, 0.2, 0.3, 0.4, 0.5])
    predictions = predictions_of(items, [0.1] * 6)

    def names(unit: PriceUnit) -> list[str | None]:
        rule = ScoreRule(unit, hit_error=None)
        return [
            band.name for band in break_down(score_predictions(predictions, items, 0.1, rule=rule), items).price_bands
        ]

    assert names(PriceUnit("$", 2)) == ["$0.05–0.10", "$0.20", "$0.30", "$0.40", "$0.50"]
    assert names(PriceUnit("kWh", 1))[1:] == ["0.2 kWh", "0.3 kWh", "0.4 kWh", "0.5 kWh"]


# --- groups ---


def test_a_group_sums_up_its_scores() -> None:
    # Errors +10, −50, +30, and no price, for which 150 is imputed: −250. 110 and 530 are hits; 250 is, by 20 % of 300.
    found = broken_down([100.0, 300.0, 500.0, 400.0], [110.0, 250.0, 530.0, None]).overall

    assert (found.name, found.n, found.no_price) == ("all", 4, 1)
    assert (found.lowest, found.median, found.highest) == (100.0, 350.0, 500.0)  # (300 + 400)/2
    assert found.mae == 85.0  # (10 + 50 + 30 + 250)/4
    assert found.bias == -65.0  # (10 − 50 + 30 − 250)/4
    # From 85: 75² + 35² + 55² + 165² = 37,100; s = √(37,100/3) = 111.205516; × 1.959964/√4 = 108.979403
    assert found.mae_interval == pytest.approx((85 - 108.979403, 85 + 108.979403), abs=1e-5)
    # From −65: 75² + 15² + 95² + 185² = 49,100; s = √(49,100/3) = 127.932274; × 1.959964/√4 = 125.371324
    assert found.bias_interval == pytest.approx((-65 - 125.371324, -65 + 125.371324), abs=1e-5)
    assert (found.hit_rate, found.hit_rate_interval) == (0.75, wilson_interval(3, 4))


def test_one_item_has_no_interval_of_a_mean() -> None:
    found = broken_down([100.0], [110.0])

    assert found.overall == Group("all", 1, 100.0, 100.0, 100.0, 10.0, None, 10.0, None, 1.0, wilson_interval(1, 1), 0)
    assert [(band.name, band.n, band.mae) for band in found.price_bands] == [("$100.00", 1, 10.0)]
    assert found.tail == Tail(1, 1.0, 1.0)


def test_a_model_that_says_no_price_has_errors_and_no_hits() -> None:
    found = broken_down([100.0, 150.0, 250.0], [None, None, None])

    # 150 is imputed: +50, 0, −100
    assert (found.overall.mae, found.overall.hit_rate, found.overall.no_price) == (50.0, 0.0, 3)
    assert found.overall.bias == pytest.approx(-50 / 3)
    assert [band.no_price for band in found.price_bands] == [1, 1, 1]
    assert [miss.estimate for miss in found.worst] == [None, None, None]


def test_nothing_to_break_down_is_an_error() -> None:
    with pytest.raises(ValueError, match="nothing to break down"):
        break_down(scores_of([], []), [])


@pytest.mark.parametrize("keys", [["a"], ["a", "c"], ["a", "b", "c"], ["a", "a"], ["b", "a"]])
def test_scores_of_other_items_are_refused(keys: list[str]) -> None:
    scores = scores_of(priced([1.0, 2.0]), [1.0, 2.0])

    with pytest.raises(ValueError, match="do not match"):
        break_down(scores, [an_item(key) for key in keys])


# --- price bands ---


def test_bands_are_fifths_of_the_items_and_named_by_the_prices_in_them() -> None:
    assert bands([949.0, 5399.0, 1200.0, 1500.0, 1999.99, 2500.0, 3000.0, 3500.0, 4000.0, 1000.0]) == [
        ("$949.00–1,000.00", 2),
        ("$1,200.00–1,500.00", 2),
        ("$1,999.99–2,500.00", 2),
        ("$3,000.00–3,500.00", 2),
        ("$4,000.00–5,399.00", 2),
    ]


@pytest.mark.parametrize(
    ("prices", "expected"),
    [
        # Edges are the ⌈7/5⌉ = 2nd, ⌈14/5⌉ = 3rd, ⌈21/5⌉ = 5th, ⌈28/5⌉ = 6th and 7th price
        ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0], ["$1.00–2.00", "$3.00", "$4.00–5.00", "$6.00", "$7.00"]),
        ([1.0, 2.0], ["$1.00", "$2.00"]),
        ([2.0, 2.0, 2.0], ["$2.00"]),
        # Edges are the 2nd, 4th, 6th, 8th and 10th: 1, 5, 5, 5, 9. All the fives share the band that ends there.
        ([1.0, 1.0, 4.0, 5.0, 5.0, 5.0, 5.0, 5.0, 8.0, 9.0], ["$1.00", "$4.00–5.00", "$8.00–9.00"]),
    ],
)
def test_equal_prices_share_a_band(prices: list[float], expected: list[str]) -> None:
    assert [name for name, _ in bands(prices)] == expected


@given(st.lists(st.integers(1, 30), min_size=1, max_size=60), st.randoms())
def test_every_item_is_in_exactly_one_band(prices: list[int], chance: random.Random) -> None:
    items = [an_item(str(key), float(price)) for key, price in enumerate(prices)]
    scores = scores_of(items, [0.0] * len(items))

    found = break_down(scores, items).price_bands

    assert 1 <= len(found) <= 5
    assert sum(band.n for band in found) == len(prices)
    assert all(cheaper.highest < dearer.lowest for cheaper, dearer in pairwise(found))
    for band in found:
        assert band.n == sum(band.lowest <= price <= band.highest for price in prices)
    chance.shuffle(items)
    again = break_down(scores_of(items, [0.0] * len(items)), items).price_bands
    assert [(band.name, band.n) for band in again] == [(band.name, band.n) for band in found]


# --- categories ---


def test_categories_are_in_the_order_of_their_size() -> None:
    found = broken_down(
        [100.0] * 7,
        [110.0, 120.0, 90.0, 100.0, None, 101.0, 102.0],
        ["toys", "tools", "toys", None, "audio", "audio", None],
    )

    # Ties by name, those without one last
    assert [(group.name, group.n, group.mae, group.bias, group.no_price) for group in found.categories] == [
        ("audio", 2, 25.5, 25.5, 1),  # 150 is imputed, and 101
        ("toys", 2, 10.0, 0.0, 0),
        (None, 2, 1.0, 1.0, 0),
        ("tools", 1, 20.0, 20.0, 0),
    ]


def test_items_that_have_no_categories_are_not_taken_apart_by_them() -> None:
    assert broken_down([100.0, 200.0], [110.0, 220.0]).categories == ()


NAMES = st.none() | st.sampled_from(["toys", "tools", "audio"])


@given(st.lists(st.tuples(st.integers(1, 999), st.none() | st.integers(0, 999), NAMES), min_size=1, max_size=40))
def test_groups_add_up_to_the_whole(rows: list[tuple[int, int | None, str | None]]) -> None:
    found = broken_down([float(row[0]) for row in rows], [row[1] for row in rows], [row[2] for row in rows])

    for groups in filter(None, (found.price_bands, found.categories)):
        assert sum(group.n for group in groups) == found.overall.n == len(rows)
        assert sum(group.no_price for group in groups) == found.overall.no_price
        assert sum(group.n * group.mae for group in groups) == pytest.approx(len(rows) * found.overall.mae)
        assert sum(group.n * group.bias for group in groups) == pytest.approx(len(rows) * found.overall.bias)
        assert sum(group.n * group.hit_rate for group in groups) == pytest.approx(len(rows) * found.overall.hit_rate)


def test_the_median_price_of_a_category_is_the_one_in_the_middle() -> None:
    # Not the mean of the lowest and the highest, which one dear item moves to $505.
    (found,) = broken_down([10.0, 20.0, 1000.0], [10.0] * 3, ["toys"] * 3).categories

    assert (found.lowest, found.median, found.highest) == (10.0, 20.0, 1000.0)


# --- the worst ---


@pytest.mark.parametrize(
    ("errors", "tail"),
    [
        ([1.0] * 19 + [81.0], Tail(1, 0.05, 0.81)),  # the worst of 20 has 81 of 100 dollars
        ([1.0] * 19 + [20.0, 61.0], Tail(2, 2 / 21, 0.81)),  # ⌈1.05⌉ = 2 of 21 have 20 + 61 of 100
        ([2.0] * 40, Tail(2, 0.05, 0.05)),  # errors all alike have no tail
        ([3.0, 1.0], Tail(1, 0.5, 0.75)),
        ([0.0, 0.0], Tail(1, 0.5, None)),
    ],
)
def test_the_tail_is_the_share_of_the_error_that_the_worst_carry(errors: list[float], tail: Tail) -> None:
    assert broken_down([100.0] * len(errors), [100.0 + error for error in errors]).tail == tail


def test_the_worst_items_are_shown_with_what_was_known_of_them() -> None:
    items = [
        an_item("a", 100.0, "Red"),
        an_item("b", 400.0, "Blue", title="Sofa"),
        an_item("c", 90.0, "Green"),
        an_item("d", 20.0, "Grey"),
    ]

    found = break_down(scores_of(items, [130.0, None, 60.0, 20.0]), items, worst=3).worst

    # For b, 150 is imputed; a and c are off by $30 each, the one too dear, the other too cheap
    assert found == (
        Miss("b", "Sofa\nBlue", 400.0, None, -250.0),
        Miss("a", "Red", 100.0, 130.0, 30.0),
        Miss("c", "Green", 90.0, 60.0, -30.0),
    )


def test_the_order_of_the_items_does_not_show() -> None:
    items, estimates = (
        priced([100.0, 90.0, 100.0, 200.0], ["toys", "tools", "tools", "toys"]),
        [110.0, 100.0, 90.0, None],
    )

    turned = break_down(scores_of(items[::-1], estimates[::-1]), items[::-1])

    assert turned == break_down(scores_of(items, estimates), items)


def test_the_error_without_near_copies_of_training_items_is_apart() -> None:
    items = [an_item("a", 100.0), an_item("b", 100.0), an_item("c", 100.0)]
    scores = scores_of(items, [100.0, 130.0, 150.0])

    found = break_down(scores, items, near_copies={"a", "of another split"}).near_copies

    # Without a, the errors are 30 and 50.
    assert found is not None
    assert found.others is not None
    assert (found.n, found.others.n, found.others.mae) == (1, 2, 40.0)
    assert break_down(scores, items).near_copies is None
    assert break_down(scores, items, near_copies="abc").near_copies == NearCopies(3, None)


def test_a_group_has_the_coverage_of_its_intervals() -> None:
    # The 80 % intervals go from half the median to one and a half times it, the 95 % ones from a tenth to 1.9 times.
    items = priced([100.0, 160.0, 40.0], ["a", "a", "b"])
    predictions = [Prediction(item.id, "", 100.0, a_distribution(100.0)) for item in items]
    table = score_predictions(predictions, items, 100.0, "median")

    raw = break_down(table, items, predictions)

    assert [[one.share for one in group.coverage] for group in raw.categories] == [[0.5, 1.0], [0.0, 1.0]]
    assert [one.share for one in raw.overall.coverage] == [1 / 3, 1.0]
    assert raw.corrected_by == ()

    # Of price + 1: 151 × 2 − 1 = 301 and 51 / 2 − 1 = 24.5 for b alone.
    own = CalibrationGroup("b", None, None, 120, (Correction(0.8, 2.0, 2.0),))
    groups = (own, CalibrationGroup(None, None, None, 300, ()))
    corrected = break_down(table, items, predictions, Calibration(300, 0, 0, groups))

    assert [[one.share for one in group.coverage] for group in corrected.categories] == [[0.5, 1.0], [1.0, 1.0]]
    assert [(by.group, by.n, by.coverage[0].share) for by in corrected.corrected_by] == [
        (groups[0], 1, 1.0),
        (groups[1], 2, 0.5),
    ]
    assert [one.share for one in break_down(table, items).overall.coverage] == []
