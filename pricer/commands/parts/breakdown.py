"""What lies behind the numbers of one evaluation: where its error comes from, and how far its intervals hold."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from pricer.core.breakdowns import Breakdown, break_down
from pricer.core.evaluation import EvalSpec, judge
from pricer.core.intervals import (
    LEVELS,
    AbstentionPoint,
    Calibration,
    CoverageReport,
    Interval,
    abstention_curve,
    calibrate,
    report_coverage,
)
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Details:
    """One evaluation taken apart. `coverage` has a report for each level, and `abstention` the error of the surest
    items; both are empty where no intervals were saved. `calibrated_on` is the number of validation items that the
    intervals were corrected with, None: none were, because these are validation items or because those are not scored.
    """

    name: str
    breakdown: Breakdown
    coverage: tuple[CoverageReport, ...]
    abstention: tuple[AbstentionPoint, ...]
    calibrated_on: int | None


def details(
    run: Run, name: str, revision: str, spec: EvalSpec, items: Sequence[Item], val_items: Sequence[Item]
) -> Details:
    """Take apart the evaluation of a checkpoint under a spec, from its saved predictions for these items.

    Intervals are corrected with the same checkpoint's predictions for validation items (`val_items`, all of the split),
    where those were scored under the same spec otherwise; an evaluation of validation items is shown as it is.
    """
    predictions = _predictions(run, revision, spec, items)
    scores = judge(spec, predictions, items)
    intervals = {level: [_interval(p, level) for p in predictions] for level in LEVELS}
    known = any(p.distribution for p in predictions)
    calibrations = _calibrations(run, revision, spec, val_items) if known and spec.split is Split.TEST else {}
    prices = [item.price for item in items]
    surest = [
        calibration.apply(raw) if (calibration := calibrations.get(LEVELS[0])) else raw for raw in intervals[LEVELS[0]]
    ]
    used = next((c for c in calibrations.values() if c), None)
    return Details(
        name=name,
        breakdown=break_down(scores, items),
        coverage=tuple(report_coverage(intervals[level], prices, level, calibrations.get(level)) for level in LEVELS)
        if known
        else (),
        abstention=abstention_curve(scores, surest) if known else (),
        calibrated_on=used.n + used.silent if used else None,
    )


def _calibrations(
    run: Run, revision: str, spec: EvalSpec, val_items: Sequence[Item]
) -> dict[float, Calibration | None]:
    """A correction for each level, from the largest evaluation of validation items that is like this one otherwise."""
    alike = [
        e.spec
        for e in run.evaluations.all()
        if e.revision == revision
        and e.spec.split is Split.VAL
        and replace(e.spec, split=spec.split, limit=spec.limit) == spec
    ]
    if not alike:
        return {}
    held_out = max(alike, key=lambda own: len(val_items) if own.limit is None else own.limit)
    items = val_items[: held_out.limit]
    predictions = _predictions(run, revision, held_out, items)
    prices = [item.price for item in items]
    return {level: calibrate([_interval(p, level) for p in predictions], prices, level) for level in LEVELS}


def _predictions(run: Run, revision: str, spec: EvalSpec, items: Sequence[Item]) -> list[Prediction]:
    """The saved Predictions in the order of the items."""
    by_id = {p.item_id: p for batch in run.evaluations.predictions(revision, spec) for p in batch}
    return [by_id[item.id] for item in items]


def _interval(prediction: Prediction, level: float) -> Interval | None:
    distribution = prediction.distribution
    return None if distribution is None or distribution.is_silent else distribution.interval(level)
