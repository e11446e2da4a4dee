"""Do corrected intervals hold for parts of the items, too? In a simulation, and on a run's saved answers.

    python benchmarks/intervals.py [REPEATS]
    python benchmarks/intervals.py RUN_FOLDER [REPEATS] [CATEGORY_PATTERN]

Each way of correcting divides the calibration items (all in one group, by category, by band of the estimate, or by
both) and moves the ends (both by one factor; each by its own; or each by its own from all items, then both by one of
the group: `tilt`). `pricer` is what `pricer eval` does. Coverage is in percent: of all items, above and below the
interval, and of groups; `off` is the root mean square of a group's coverage minus the level in single repeats. Groups
by the true price cannot be seen by any method.

In the simulation, errors are skewed, differ by category and grow with the estimate, and the model's own intervals know
little of that. A run needs evaluations of the same checkpoint on validation and test items. First they are used as
`pricer eval` uses them. Then they are mixed, and one random half corrects the other, many times. CATEGORY_PATTERN is a
regular expression for data without categories: what it finds in a description is the category. `groups` are the lowest
and the highest mean of the groups that pricer corrects by.
"""

import math
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.core.calibration import GROUP_MIN, calibrate, calibration_spec, find_edges, find_rank
from pricer.core.intervals import LEVELS
from pricer.core.items import Item
from pricer.core.predictions import QUANTILES, Distribution, Prediction
from pricer.data.preparation import load_items
from pricer.stores.runs import Run

# Lower and upper ends, (2, items).
Ends = np.ndarray

DIVISIONS, FACTORS = ("pooled", "category", "band", "both"), ("one", "two", "tilt")
# Share of the items, typical price, standard deviation of ln(price), and the deviation that the model states.
CATEGORIES = (
    (0.30, 600, 0.30, 0.30),
    (0.26, 3_000, 0.35, 0.25),
    (0.20, 250, 0.25, 0.30),
    (0.20, 9_000, 0.45, 0.25),
    (0.04, 1_000, 0.60, 0.40),
)
TEST_ITEMS = 1_000
Z = np.array([-1.959964, -1.281552, 0, 1.281552, 1.959964])


@dataclass(frozen=True)
class Answers:
    """Columns of answered items. `quantiles` is (items, 5), `category` has numbers."""

    quantiles: np.ndarray
    price: np.ndarray
    category: np.ndarray

    @property
    def estimate(self) -> np.ndarray:
        """The median of each distribution."""
        median: np.ndarray = self.quantiles[:, QUANTILES.index(0.5)]
        return median

    def ends(self, level: float) -> np.ndarray:
        """ln(low + 1) and ln(high + 1), (2, items)."""
        first = LEVELS[::-1].index(level)
        ends: np.ndarray = np.log1p(self.quantiles[:, [first, -1 - first]]).T
        return ends

    def rows(self, chosen: np.ndarray) -> "Answers":
        """The items that a mask or indices choose."""
        return Answers(self.quantiles[chosen], self.price[chosen], self.category[chosen])


def draw(n: int, chance: np.random.Generator) -> Answers:
    """Goods from $30 to $50,000. Their errors are right-skewed and grow with the estimate."""
    category = chance.choice(len(CATEGORIES), n, p=[share for share, *_ in CATEGORIES])
    _, typical, deviation, stated = np.array(CATEGORIES)[category].T
    estimate = np.clip(np.round(typical * np.exp(0.7 * chance.standard_normal(n))), 1, 99_999)
    own = chance.uniform(0.7, 1.3, n)  # the model knows which items are more difficult
    skewed = (chance.gamma(3, size=n) - 2.674) / math.sqrt(3)  # median 0, standard deviation 1
    price = np.maximum(1, np.round(estimate * np.exp(deviation * own * (estimate / 1_000) ** 0.1 * skewed)))
    quantiles = np.round(estimate[:, None] * np.exp(Z * (stated * own)[:, None]))
    return Answers(quantiles, price, category)


def divide(division: str, cal: Answers, test: Answers) -> Iterator[tuple[int | None, int, np.ndarray, np.ndarray]]:
    """Category (None: all), band, and masks of the calibration items and test items of each group. A test item is
    corrected by the first group that it is in.
    """
    found, counts = np.unique(cal.category, return_counts=True)
    own = found[counts >= GROUP_MIN].tolist() if division in ("category", "both") else []
    for category in (*own, None):
        masks = [np.full(len(a.price), True) if category is None else a.category == category for a in (cal, test)]
        edges = find_edges(cal.estimate[masks[0]]) if division in ("band", "both") else ()
        cal_band, test_band = np.searchsorted(edges, cal.estimate), np.searchsorted(edges, test.estimate)
        for band in range(len(edges) + 1):
            yield category, band, masks[0] & (cal_band == band), masks[1] & (test_band == band)


def correct(division: str, factors: str, level: float, cal: Answers, test: Answers) -> Ends:
    """The ends of the test items, corrected on the calibration items in one of the ways."""
    price, ends, side = np.log1p(cal.price), cal.ends(level), round((1 + level) / 2, 6)
    scores, moved = np.stack([ends[0] - price, price - ends[1]]), test.ends(level)
    tilt = np.array([find_rank(one, side) for one in scores]) if factors == "tilt" else np.zeros(2)
    is_beyond = np.stack([cal.price <= cal.estimate, cal.price >= cal.estimate])
    amounts, is_done = np.zeros(moved.shape), np.zeros(len(test.price), dtype=np.bool_)
    for _, _, in_cal, in_test in divide(division, cal, test):
        own = np.where(is_beyond, scores - tilt[:, None], -np.inf)[:, in_cal]
        if factors == "two":
            both = np.array([find_rank(one, side) for one in own], dtype=np.float64)
        else:
            both = np.array([find_rank(own.max(axis=0), level)] * 2, dtype=np.float64)
        amounts[:, in_test & ~is_done] = (tilt + both)[:, None]
        is_done |= in_test
    median = np.log1p(test.estimate)
    low, high = np.minimum(median, moved[0] - amounts[0]), np.maximum(median, moved[1] + amounts[1])
    # Rounded outwards to whole cents.
    return np.stack([np.floor(100 * np.expm1(low) + 1e-6).clip(0), np.ceil(100 * np.expm1(high) - 1e-6)]) / 100


def as_pricer(cal: Answers, test: Answers) -> dict[float, Ends]:
    """Low and high ends of the test items by level, as pricer corrects them."""
    calibration = calibrate(*_as_predictions(cal))
    assert calibration is not None
    pairs = zip(*_as_predictions(test), strict=True)
    corrected = [calibration.correct(prediction, item.category) for prediction, item in pairs]
    return {level: np.array([one[level] for one in corrected], dtype=np.float64).T for level in LEVELS}


def _as_predictions(answers: Answers) -> tuple[list[Prediction], list[Item]]:
    rows = list(zip(answers.quantiles.tolist(), answers.price.tolist(), answers.category.tolist(), strict=True))
    told = [Distribution(tuple(q), q[2], True, q[2], 0.0, 0.0, 0.0) for q, _, _ in rows]
    predictions = [Prediction("", "", one.median, one) for one in told]
    return predictions, [Item("", "goods", price, category=str(category)) for _, price, category in rows]


def in_all_ways(cal: Answers, test: Answers) -> Iterator[tuple[float, str, Ends]]:
    """Level, name of the way and ends, raw ones first."""
    own = as_pricer(cal, test)
    for level in LEVELS:
        yield level, "raw", np.round(np.expm1(test.ends(level)))
        for division in DIVISIONS:
            for factors in FACTORS:
                yield level, f"{division}, {factors}", correct(division, factors, level, cal, test)
        yield level, "pricer", own[level]


@dataclass(frozen=True)
class Tally:
    """What single repeats found for one way: shares inside, below and above, mean widths, and the shares inside by
    taxonomy and group.
    """

    shares: list[tuple[float, float, float]] = field(default_factory=list)
    width: list[float] = field(default_factory=list)
    groups: dict[str, dict[int, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))


Tallies = dict[float, dict[str, Tally]]


def compare(tallies: Tallies, cal: Answers, test: Answers, groups: dict[str, np.ndarray]) -> None:
    """Correct in all ways, and add what is covered. `groups` has the number of each item's group, by taxonomy."""
    members = {
        name: {g: group_of == g for g in np.unique(group_of).tolist() if g >= 0} for name, group_of in groups.items()
    }
    for level, name, (low, high) in in_all_ways(cal, test):
        inside, tally = (low <= test.price) & (test.price <= high), tallies[level][name]
        tally.shares.append((inside.mean(), (test.price < low).mean(), (test.price > high).mean()))
        tally.width.append(float((high - low).mean()))
        for taxonomy, of_group in members.items():
            for group, is_in in of_group.items():
                tally.groups[taxonomy][group].append(float(inside[is_in].mean()))


def new_tallies() -> Tallies:
    """An empty Tally for each way, by level."""
    return {level: defaultdict(Tally) for level in LEVELS}


def show(title: str, tallies: Tallies) -> None:
    """Print a line for each way."""
    for level, by_way in tallies.items():
        print(f"\n{title}, {level:.0%} intervals")
        for name, tally in by_way.items():
            inside, below, above = 100 * np.mean(tally.shares, axis=0)
            cells = [f"{inside:5.1f} (<{below:4.1f} >{above:4.1f})  ${np.mean(tally.width):5.0f}"]
            for taxonomy, found in tally.groups.items():
                off = math.sqrt(np.mean((np.concatenate(list(found.values())) - level) ** 2))
                most = max(map(len, found.values()))
                # A group that hardly ever exists has no mean worth showing.
                means = [float(np.mean(shares)) for _, shares in sorted(found.items()) if len(shares) > most / 10]
                means = means if taxonomy != "groups" else [min(means), max(means)]
                cells.append(f"{taxonomy} {' '.join(f'{100 * mean:4.1f}' for mean in means)} off {100 * off:4.1f}")
            print(f"  {name:<14} {'  '.join(cells)}", flush=True)


def fifths_of(values: np.ndarray, of: np.ndarray) -> np.ndarray:
    """The fifth of the sorted `values` that each of `of` is in."""
    found: np.ndarray = np.searchsorted(np.unique(np.quantile(values, [0.2, 0.4, 0.6, 0.8], method="inverted_cdf")), of)
    return found


def simulate(n: int, repeats: int) -> None:
    """Print the coverage of all ways with n calibration items."""
    chance, tallies = np.random.default_rng(n), new_tallies()
    many = draw(200_000, chance)
    for _ in range(repeats):
        cal, test = draw(n, chance), draw(TEST_ITEMS, chance)
        groups = {"price": fifths_of(many.price, test.price), "estimate": fifths_of(many.estimate, test.estimate)}
        compare(tallies, cal, test, {**groups, "category": test.category, "groups": number_groups(cal, test)})
    show(f"simulation, {repeats:,} repeats, {n:,} calibration items", tallies)


def number_groups(cal: Answers, test: Answers) -> np.ndarray:
    """The number of each test item's category and band; −1 where the category has too few items for groups of its own.
    Nothing is promised of these.
    """
    numbers = np.full(len(test.price), -1)
    for category, band, _, is_member in divide("both", cal, test):
        if category is not None:
            numbers[is_member] = 5 * category + band
    return numbers


def read_answers(run: Run, pattern: str | None) -> tuple[Answers, Answers]:
    """The answers to all validation items and all test items of the checkpoint that was scored on both."""
    data, evaluations = load_items(run.config().data), run.evaluations.all()
    test = next(e for e in evaluations if e.spec.split == "test" and not e.candidate.is_baseline)
    val = calibration_spec((e.spec for e in evaluations if e.candidate.id == test.candidate.id), test.spec)
    assert val is not None
    found = []
    for spec, items in ((val, data.val), (test.spec, data.test)):
        by_id = {p.item_id: p for batch in run.evaluations.predictions(test.candidate.id or "", spec) for p in batch}
        kept = [(by_id[item.id].distribution, item) for item in items[: spec.limit]]
        rows = [(one.quantiles, item) for one, item in kept if one and not one.is_silent]
        names = [_category(item, pattern) for _, item in rows]
        quantiles, price = np.array([one for one, _ in rows]), np.array([item.price for _, item in rows])
        found.append((quantiles, price, names))
    known = sorted({name for *_, names in found for name in names})
    cal, covered = (Answers(q, p, np.array([known.index(name) for name in names])) for q, p, names in found)
    print(f"{test.name} of {run.name}; categories: {', '.join(known)}")
    return cal, covered


def _category(item: Item, pattern: str | None) -> str:
    if pattern is None:
        return item.category or ""
    match = re.search(pattern, item.description)
    return next((group for group in match.groups() if group), "") if match else ""


def measure_run(run: Run, repeats: int, pattern: str | None) -> None:
    """Print the coverage of all ways on a run's test items, and on random halves of validation and test items."""
    cal, test = read_answers(run, pattern)
    tallies = new_tallies()
    compare(tallies, cal, test, _number_parts(test))
    show(f"{len(test.price):,} test items, corrected on {len(cal.price):,}", tallies)
    columns = zip(*((a.quantiles, a.price, a.category) for a in (cal, test)), strict=True)
    every, chance, tallies = Answers(*map(np.concatenate, columns)), np.random.default_rng(0), new_tallies()
    parts = _number_parts(every)
    for _ in range(repeats):
        order = chance.permutation(len(every.price))
        one, other = order[: len(order) // 2], order[len(order) // 2 :]
        compare(tallies, every.rows(one), every.rows(other), {name: of[other] for name, of in parts.items()})
    show(f"{repeats:,} random halves", tallies)


def _number_parts(answers: Answers) -> dict[str, np.ndarray]:
    prices, estimates = fifths_of(answers.price, answers.price), fifths_of(answers.estimate, answers.estimate)
    return {"price": prices, "estimate": estimates, "category": answers.category}


def main() -> None:
    """Print the tables."""
    given = sys.argv[1:]
    if given and not given[0].isdigit():
        measure_run(Run(Path(given[0])), int(given[1]) if len(given) > 1 else 200, given[2] if len(given) > 2 else None)
        return
    for n in (600, 2_000):
        simulate(n, int(given[0]) if given else 1_000)


if __name__ == "__main__":
    main()
