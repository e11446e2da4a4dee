"""Verdicts as sentences for a reader without statistics, and as JSON values. Brackets have 95% intervals."""

from collections.abc import Iterable
from dataclasses import asdict
from typing import Any

from pricer.core.evaluation import Scored
from pricer.core.units import PriceUnit
from pricer.core.verdicts import (
    BaselineVerdict,
    CurveVerdict,
    CutVerdict,
    Interval,
    IntervalVerdict,
    LookVerdict,
    Verdict,
)
from pricer.views.formatting import SPLIT_WORDS, difference_with_interval, interval, label

NOTE = "95% intervals in brackets"
"""What a heading above the sentences says of their brackets."""

_TOPICS: dict[type, str] = {
    BaselineVerdict: "baseline",
    CurveVerdict: "curve",
    CutVerdict: "cut",
    IntervalVerdict: "intervals",
    LookVerdict: "test",
}
# Names that are listed; of more, only the number is said.
_MAX_NAMES = 3


def verdict_records(verdicts: Iterable[Verdict], unit: PriceUnit) -> list[dict[str, Any]]:
    """The verdicts as JSON values: the topic, the sentence, and the facts. `unit` is the unit of prices."""
    return [{"topic": _TOPICS[type(one)], "says": describe_verdict(one, unit), **asdict(one)} for one in verdicts]


def describe_verdict(verdict: Verdict, unit: PriceUnit) -> str:
    """One sentence for a verdict. `unit` is the unit of prices."""
    match verdict:
        case BaselineVerdict():
            return _describe_baseline(verdict, unit)
        case CurveVerdict():
            return _describe_curve(verdict, unit)
        case CutVerdict():
            return _describe_cut(verdict)
        case IntervalVerdict():
            return _describe_intervals(verdict, unit)
        case LookVerdict():
            return _describe_looks(verdict)


def _describe_baseline(found: BaselineVerdict, unit: PriceUnit) -> str:
    items = f"{_count_items(found.n, found.split)}{_CHOICES[found.choice]}"
    error = f"{unit.error(found.error)} on average{_brackets(found.error_interval, unit)}"
    error += f", which is {_percent(found.error / found.median_price)} of the median price"
    if not found.is_held_out:
        return (
            "It is not known whether to use the model, because it may have been trained on items that it was scored "
            f"on: on {items}, it is off by {error}."
        )
    if found.baseline is None or found.lower_by is None:
        return (
            "It is not known whether to use the model, because no simpler method was scored on the same items: on "
            f"{items}, it is off by {error}."
        )
    sign, word = (1, "less") if found.lower_by >= 0 else (-1, "more")
    ends = found.interval and (sign * found.interval[0], sign * found.interval[1])
    gap = f"{unit.error(abs(found.lower_by))} {word}{_brackets(ends and (min(ends), max(ends)), unit)}"
    rank = "a simpler method" if found.baselines == 1 else f"the best of {found.baselines:,} simpler methods"
    method = f"{found.baseline}, {rank}"
    if found.outcome == "better":
        return f"Use the model: on {items}, it is off by {error}; that is {gap} than {method}."
    why = f"{method}, is better" if found.outcome == "worse" else f"it is not clearly better than {method}"
    return (
        f"Do not use the model, because {why}: on {items}, the model is off by {error}; that is {gap} than that method."
    )


_CHOICES = {
    "none": "",
    "corrected": ", corrected for the choice of the checkpoint",
    "uncorrected": ", which chose the checkpoint and so flatter it",
}


def _describe_curve(found: CurveVerdict, unit: PriceUnit) -> str:
    best, unknown = f"step {found.best_step:,}", "Nothing is known of longer or shorter training, because"
    other = "" if found.other_step is None else f"step {found.other_step:,}"
    worse = "" if found.worse_by is None else _write_difference(found.worse_by, found.interval, found.metric, unit)
    later, dropped = _count(found.later, "later checkpoint"), _count(found.dropped, "checkpoint")
    return {
        "single": f"{unknown} only one checkpoint was scored.",
        "raced": f"{unknown} {dropped} dropped out of a race.",
        "unfinished": f"Score the other checkpoints: {best} is the best, and the last one that was scored, but {later} "
        "had no score.",
        "improving": f"Train longer: the last checkpoint, {best}, is the best, and the one before it, {other}, is "
        f"worse by {worse}.",
        "unclear": f"It is not clear whether longer training helps: the last checkpoint, {best}, is the best, but the "
        f"one before it, {other}, may be as good: it is worse by {worse}.",
        "over-trained": f"Training went on for too long: after the best checkpoint, {best}, the model got worse, and "
        f"the last one, {other}, is worse by {worse}.",
        "no clear change": f"Training was long enough: after the best checkpoint, {best}, there is no clear change, "
        f"and the last one, {other}, is worse by {worse}.",
    }[found.outcome]


def _describe_cut(found: CutVerdict) -> str:
    kinds = [("training", found.train), (SPLIT_WORDS[found.split], found.scored)]
    cut = " and ".join(f"{_percent(share)} of the {kind} descriptions" for kind, share in kinds if share)
    limit = "prompt.max_length" if found.max_length is None else f"{found.max_length:,} tokens (prompt.max_length)"
    parts = [f"{cut} are cut at {limit}, so the model does not see their end"] if cut else []
    if found.lacks_rows:
        parts.append(f"{_percent(found.left_out / found.rows)} of the rows of the data were left out")
    return f"{', and '.join(parts)}."


def _describe_intervals(found: IntervalVerdict, unit: PriceUnit) -> str:
    which = "Its price intervals" if found.is_corrected else "Its price intervals, which were not corrected,"
    says = _INTERVALS[found.outcome]
    levels = [
        f"{_percent(one.share)} ({100 * one.interval[0]:.1f} to {100 * one.interval[1]:.1f}) "
        f"{'' if place else 'have their price '}in the {one.level:.0%} interval"
        f"{'' if place or one.mean_width is None else f', which is {unit.error(one.mean_width)} wide on average'}"
        for place, one in enumerate(found.levels)
    ]
    only = "only " if found.outcome == "too narrow" else ""
    return f"{which} {says}: of {_count_items(found.n, found.split)}, {only}{', and '.join(levels)}."


_INTERVALS = {
    "hold": "hold",
    "too narrow": "are too narrow",
    "too wide": "are wider than they need to be",
    "unknown": "may or may not hold, because there are too few items to tell",
}


def _describe_looks(found: LookVerdict) -> str:
    names = ", ".join(found.others) if len(found.others) <= _MAX_NAMES else f"{len(found.others):,} checkpoints"
    times = f"{'once' if found.before == 1 else f'{found.before:,} times'} for {names}"
    match found.outcome:
        case "first look":
            return "This error can be published: the test items were scored for this checkpoint alone."
        case "looked at before":
            return f"The test items were also scored {times}, so the error on new items may be higher."
        case "not scored":
            known = f", which were scored {times}" if found.before else ""
            return (
                "None of this was checked on items that took no part in the choice: pricer pick --confirm scores the "
                f"test items{known}, and says whether the price intervals hold."
            )


def _brackets(ends: Interval | None, unit: PriceUnit) -> str:
    return "" if ends is None else f" ({interval(ends, 'mae', unit)})"


def _write_difference(amount: float, ends: Interval | None, metric: str, unit: PriceUnit) -> str:
    """A difference of a metric with its interval. The mean absolute error needs no name: it is the error."""
    text = difference_with_interval(amount, ends, metric, unit)
    return text if metric == "mae" else f"{text} in {label(metric)}"


def _count_items(n: int, split: Scored) -> str:
    return _count(n, f"{SPLIT_WORDS[split]} item")


def _count(n: int, what: str) -> str:
    return f"{n:,} {what}{'' if n == 1 else 's'}"


def _percent(share: float) -> str:
    """A share in percent; a tiny one is not written as zero."""
    return "less than 0.1%" if 0 < share < 0.001 else f"{share:.1%}"
