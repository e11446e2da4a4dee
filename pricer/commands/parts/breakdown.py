"""The breakdown of one saved evaluation: where its error comes from, and how often its intervals hold the price."""

from collections.abc import Sequence

from pricer.core.breakdowns import Breakdown, break_down
from pricer.core.evaluation import EvalSpec, ScoreTable
from pricer.core.intervals import LEVELS, Calibration, calibrate, calibration_spec, raw_interval
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.stores.runs import Run


def saved_breakdown(
    run: Run,
    checkpoint_id: str,
    spec: EvalSpec,
    table: ScoreTable,
    items: Sequence[Item],
    val_items: Sequence[Item],
) -> Breakdown:
    """Take apart the evaluation of a checkpoint under a spec, from its scores and saved predictions for these items. A
    KeyError if a prediction is missing.

    Intervals for test items are corrected on validation items (`val_items`, the whole split) if the same checkpoint was
    evaluated on those, all else being equal. An evaluation of validation items is shown as it is.
    """
    predictions = _predictions(run, checkpoint_id, spec, items)
    return break_down(table, items, predictions, _calibrations(run, checkpoint_id, spec, val_items))


def _calibrations(
    run: Run, checkpoint_id: str, spec: EvalSpec, val_items: Sequence[Item]
) -> dict[float, Calibration | None]:
    """A correction for each level; none where no evaluation of validation items gives one."""
    own = calibration_spec((e.spec for e in run.evaluations.all() if e.candidate.id == checkpoint_id), spec)
    if own is None:
        return {}
    items = val_items[: own.limit]
    predictions = _predictions(run, checkpoint_id, own, items)
    prices = [item.price for item in items]
    return {level: calibrate([raw_interval(p, level) for p in predictions], prices, level) for level in LEVELS}


def _predictions(run: Run, checkpoint_id: str, spec: EvalSpec, items: Sequence[Item]) -> list[Prediction]:
    """The saved Predictions in the order of the items; a KeyError if one is missing."""
    by_id = {p.item_id: p for batch in run.evaluations.predictions(checkpoint_id, spec) for p in batch}
    return [by_id[item.id] for item in items]
