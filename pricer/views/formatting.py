"""Values as text for a person: the formats of amounts, intervals, times and names.

Nothing is escaped for HTML or Markdown: the templates do that.
"""

import unicodedata
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from pricer.core.metrics import METRICS, Metric, ScoreRule, Unit
from pricer.core.predictions import ESTIMATORS
from pricer.core.units import PriceUnit

if TYPE_CHECKING:  # these modules import numpy, and formatting works without it
    from pricer.core.checkpoints import Candidate
    from pricer.core.comparison import Comparison, Difference
    from pricer.core.evaluation import EvalSpec, Evaluation

# Characters of a description that are enough to recognise a product.
_SHORT = 110
# What a reader calls the items of a split, and those of other data.
SPLIT_WORDS = {"val": "validation", "test": "test", "train": "training", "data": "other"}


def label(metric: str) -> str:
    """The short name of a metric, for the head of a column."""
    return METRICS[metric].label


def description(metric: str, rule: ScoreRule) -> str:
    """The short name of a metric and what it measures by this rule."""
    found, unit = METRICS[metric], rule.unit
    step = "1" if unit.step == 1 else unit.exact(unit.step)
    return f"{found.label}: {found.meaning.format(unit=unit.plural, step=step, limits=hit_limits(rule, percent='%'))}"


def hit_limits(rule: ScoreRule, times: float = 1, percent: str = " %") -> str:
    """The limits of a hit, or limits that are `times` as wide: `$40 or 20 %`."""
    by_share = f"{100 * times * rule.hit_share:g}{percent}"
    return by_share if rule.hit_error is None else f"{rule.unit.exact(times * rule.hit_error)} or {by_share}"


def kind(metric: str) -> Unit:
    """What the values of a metric are: prices, shares or numbers without a unit."""
    return METRICS[metric].unit


def price(amount: float | None, unit: PriceUnit) -> str:
    """A price; – for None."""
    return "–" if amount is None else unit.price(amount)


def error(amount: float | None, unit: PriceUnit) -> str:
    """An error or a width; – for None."""
    return "–" if amount is None else unit.error(amount)


def share(value: float | None) -> str:
    """A share in percent; – for None."""
    return "–" if value is None else f"{value:.1%}"


def value(amount: float | None, metric: str, unit: PriceUnit) -> str:
    """The value of a metric; – for None. `unit` is the unit of prices."""
    match kind(metric):
        case "price":
            return error(amount, unit)
        case "share":
            return share(amount)
        case "number":
            return "–" if amount is None else f"{amount:.3f}"


def difference(amount: float, metric: str, unit: PriceUnit) -> str:
    """The difference of two values of a metric. The difference of two shares is in percentage points."""
    sign, size = ("−" if amount < 0 else ""), abs(amount)
    match kind(metric):
        case "price":
            return unit.error(amount)
        case "share":
            return f"{sign}{100 * size:.2f} points"
        case "number":
            return f"{sign}{size:.4f}"


def difference_to_best(one: "Difference", metric: str, unit: PriceUnit) -> str:
    """The difference of a candidate to the best of the others, with its 95 % interval."""
    return difference_with_interval(one.worse_by, one.interval, metric, unit)


def difference_with_interval(amount: float, ends: tuple[float, float] | None, metric: str, unit: PriceUnit) -> str:
    """The difference of two values of a metric, with its interval, if it has one, in brackets."""
    text = difference(amount, metric, unit)
    if ends is None:
        return text
    low, high = (unit.number(difference(end, metric, unit)).removesuffix(" points") for end in ends)
    return f"{text} ({low} to {high})"


def evaluation_line(evaluation: "Evaluation") -> str:
    """An evaluation in one line, for the progress of scoring."""
    mae, unparsed = evaluation.metric("mae"), evaluation.metric("no_price").value
    error_text = with_half_width(mae, evaluation.spec.price_unit)
    return f"{evaluation.name}  MAE {error_text}  without a price {share(unparsed)}  n {mae.n:,}"


def newest_line(evaluation: "Evaluation", comparison: "Comparison | None") -> str:
    """The evaluation of the newest checkpoint in one line, with its difference to the best one so far, or its lead if
    it is the best itself. `comparison` compares all checkpoints so far by MAE; None: there is nothing to compare with.
    """
    line = evaluation_line(evaluation)
    own = comparison.difference(evaluation.candidate) if comparison else None
    if comparison is None or own is None:
        return line
    unit, (low, high) = evaluation.spec.price_unit, own.interval
    if own.is_best:
        lead = difference_with_interval(-own.worse_by, (-high, -low), "mae", unit)
        return f"{line}  the best so far, by {lead}"
    behind = difference_with_interval(own.worse_by, own.interval, "mae", unit)
    return f"{line}  {behind} worse than {comparison.best.name}"


def half_width(interval: tuple[float, float] | None, unit: PriceUnit) -> str:
    """Half the width of an interval of errors, for example ` ± 9.68` after a mean; empty for None."""
    return "" if interval is None else f" ± {unit.number(unit.error(half_of(interval)))}"


def half_of(interval: tuple[float, float]) -> float:
    """Half the width of an interval."""
    return (interval[1] - interval[0]) / 2


def error_with_half_width(
    amount: float, interval: tuple[float, float] | None, unit: PriceUnit, *, signed: bool = False
) -> str:
    """An error with half the width of its interval, if it has one: `$41.20 ± 9.68`, `12.50 ± 0.31 kWh`."""
    return unit.error(amount, None if interval is None else half_of(interval), signed=signed)


def interval(ends: tuple[float, float], metric: str, unit: PriceUnit) -> str:
    """The two ends of an interval, without their unit."""
    low, high = (unit.number(value(end, metric, unit)).removesuffix("%") for end in ends)
    return f"{low} to {high}"


def with_half_width(metric: Metric, unit: PriceUnit) -> str:
    """A metric, with half its interval if it is a price. The intervals of shares are asymmetric and left out."""
    if metric.value is not None and kind(metric.name) == "price":
        return error_with_half_width(metric.value, metric.interval, unit)
    return value(metric.value, metric.name, unit)


def with_interval(metric: Metric, unit: PriceUnit) -> str:
    """A metric with its interval, if it has one, in brackets."""
    text = value(metric.value, metric.name, unit)
    if metric.value is None or metric.interval is None:
        return text
    return f"{text} ({interval(metric.interval, metric.name, unit)})"


def share_with_interval(of_all: float, ends: tuple[float, float]) -> str:
    """A share with its interval in brackets."""
    return f"{share(of_all)} ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})"


def gigabytes(count: float) -> str:
    """Bytes in decimal units, as disks and the Hub count them."""
    return f"{count / 1e9:,.2f} GB"


def size(count: int) -> str:
    """Bytes in gigabytes, or in megabytes below two gigabytes."""
    return gigabytes(count) if count >= 2e9 else f"{count / 1e6:,.1f} MB"


def duration(seconds: float) -> str:
    """Hours, minutes and seconds, as on a clock."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def moment(text: object) -> datetime | None:
    """The time of an ISO text, in UTC if it has no time zone; None for anything else."""
    try:
        found = datetime.fromisoformat(text)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def utc_time(text: object) -> str | None:
    """An ISO time in UTC, to the minute; None for anything else."""
    found = moment(text)
    return f"{found.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if found else None


def local_time(text: str | None) -> str:
    """An ISO time in the time zone of this machine, to the minute. Any other text is returned as it is."""
    found = moment(text)
    return f"{found.astimezone():%Y-%m-%d %H:%M}" if found else text or ""


def step_list(steps: Iterable[int | None]) -> str:
    """Steps by their numbers."""
    return ", ".join(f"{step or 0:,}" for step in steps)


def candidate_name(candidate: "Candidate") -> str:
    """A checkpoint by its step."""
    return f"step {candidate.step or 0:,}"


def scored_items(spec: "EvalSpec", n: int) -> str:
    """The items of an evaluation in words: their number, their split, and the estimator."""
    return f"{n:,} {SPLIT_WORDS[spec.split]} items, {ESTIMATORS[spec.estimator].label}"


def confidence_set(comparison: "Comparison", metric: str, unit: PriceUnit) -> str:
    """How many candidates may be the truly best one, what the choice costs at most, and how many more items would tell
    the best from the second.
    """
    count, of_all = sum(one.may_be_best for one in comparison.differences), len(comparison.differences)
    if count == 1:
        return f"of {of_all:,} checkpoints, only the chosen one may be the truly best (95 % confidence)"
    line = (
        f"{count:,} of {of_all:,} checkpoints may be the truly best (95 % confidence); the chosen one is worse than it "
        f"by at most {difference(comparison.max_regret, metric, unit)}"
    )
    if comparison.more_items is None:
        return line
    return f"{line}; about {comparison.more_items:,} more items would rule out the runner-up"


def looks(others: Sequence[str]) -> str:
    """A sentence about the number of measurements on the test split. `others` is the result of `other_test_looks`."""
    if not others:
        return "looked at once"
    named = ", ".join(dict.fromkeys(others))
    return f"looked at {len(others) + 1:,} times, also for {named}"


def ordinal(number: int) -> str:
    """1st, 2nd, 3rd, 4th, …"""
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number:,}{ending}"


def shorten(text: str, most: int = _SHORT) -> str:
    """The beginning of a text, on one line of visible characters."""
    # Of a very long text, only the beginning is processed.
    line = " ".join(visible(text[: 10 * most]).split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def visible(text: str) -> str:
    """The text with � for each invisible character that changes others: control characters and direction marks."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs" else "�" for c in text)
