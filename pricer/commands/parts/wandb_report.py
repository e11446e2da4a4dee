"""Add evaluations and picks to a W&B run. A failure of W&B stops nothing."""

from collections.abc import Callable, Mapping, Sequence

from pricer.config import RunConfig
from pricer.core.evaluation import EvalSpec, Evaluation, score_predictions
from pricer.core.intervals import raw_interval
from pricer.core.items import Item, Split
from pricer.core.metrics import METRICS
from pricer.core.selection import Selection
from pricer.errors import PricerError
from pricer.stores.evaluations import EvaluationStore
from pricer.stores.published import published_config
from pricer.stores.runs import Run
from pricer.stores.wandb import Report, Table, Tracker, TrackingLog
from pricer.views.formatting import shorten

# Maximum number of rows of a table. The first items of a split are a random sample of it.
_MAX_ROWS = 500
_CHARACTERS = 200
_COLUMNS = ("item", "description", "price", "predicted", "abs error", "80 % from", "80 % to")


def evaluation_report(
    spec: EvalSpec,
    items: Sequence[Item],
    evaluations: Sequence[Evaluation],
    saved: EvaluationStore,
) -> Report | None:
    """The metrics of checkpoints on validation items, the errors of the baselines, and the predictions of the best
    checkpoint that is `saved` under the spec: scoring a worse one alone does not replace its table. None without
    checkpoints and for the test split, which has no curve by step.
    """
    checkpoints = [e for e in evaluations if not e.candidate.is_baseline]
    if spec.split is not Split.VAL or not checkpoints:
        return None
    # An evaluation of the first N items belongs to another curve than one of all items.
    group = "eval" if spec.limit is None else f"eval-{spec.limit}"
    errors = {e.name: e.metric("mae").value for e in evaluations if e.candidate.is_baseline}
    return Report(
        spec=spec.fingerprint,
        points={e.candidate.step: _values(e, group) for e in checkpoints if e.candidate.step is not None},
        summary={f"{group}/baseline/{name}": error for name, error in errors.items() if error is not None},
        table=_table(f"{group}/predictions", spec, items[:_MAX_ROWS], saved),
    )


def pick_report(selection: Selection) -> Report:
    """The pick for the summary of a W&B run: its step and its mean absolute error, and how each checkpoint compares
    with the best of the others.
    """
    candidate, mae, comparison = selection.candidate, selection.chosen.metric("mae").value, selection.comparison
    summary: dict[str, float | int] = {"best_step": candidate.step or 0}
    if mae is not None:
        summary["best_mae"] = mae
    if comparison:
        summary["pick/max_regret"] = comparison.max_regret
        for one in comparison.differences:
            place, (low, high) = f"pick/{one.candidate.name}", one.interval
            summary |= {f"{place}/worse_by": one.worse_by, f"{place}/may_be_best": int(one.may_be_best)}
            summary |= {f"{place}/worse_by_low": low, f"{place}/worse_by_high": high}
    return Report(selection.spec_fingerprint, {}, summary)


def _values(evaluation: Evaluation, group: str) -> Mapping[str, float]:
    values = {f"{group}/{name}": evaluation.metric(name).value for name, metric in METRICS.items() if metric.on_wandb}
    return {name: value for name, value in values.items() if value is not None}


def _table(name: str, spec: EvalSpec, items: Sequence[Item], saved: EvaluationStore) -> Table | None:
    """The answers of the best checkpoint for these items; None if it or they were deleted."""
    try:
        comparable = [e for e in saved.all() if e.spec.fingerprint == spec.fingerprint and e.is_complete]
        checkpoints = [e for e in comparable if not e.candidate.is_baseline]
        ranked = sorted(checkpoints, key=lambda e: (e.metric("mae").value or 0.0, e.candidate.order))
        best = ranked[0].candidate
        by_id = {p.item_id: p for batch in saved.predictions(best.key, spec) for p in batch}
        predictions = [by_id[item.id] for item in items]
    except (PricerError, LookupError):
        return None
    errors = score_predictions(predictions, items, spec.fallback, spec.estimator).abs_error.tolist()
    rows = tuple(
        (
            *(item.id, shorten(item.text, _CHARACTERS), item.price, prediction.estimate(spec.estimator), error),
            *(raw_interval(prediction, 0.8) or (None, None)),
        )
        for item, prediction, error in zip(items, predictions, errors, strict=True)
    )
    return Table(name, best.step or 0, _COLUMNS, rows, across="price", down="predicted")


def open_tracker(run: Run, config: RunConfig, note: Callable[[str], None], goes_on: str) -> Tracker:
    """The tracker of a run. It continues the same W&B run, also on another machine, or starts a new one and records it.
    `goes_on` is part of the note if tracking fails, for example "training goes on".
    """
    tracker = Tracker(
        config.tracking,
        settings=published_config(config).model_dump(),
        folder=run.folder,
        run_id=run.facts().get("tracking_id"),
        note=note,
        consequence=goes_on,
    )
    if tracker.run_id:
        run.record(tracking_id=tracker.run_id)
    return tracker


def send(run: Run, report: Report | None, note: Callable[[str], None], goes_on: str) -> None:
    """Add a report to the W&B run, if the config asks for tracking. W&B is not started if the report has nothing new.

    Waits for W&B until the tracker's timeout. Raises nothing: `note` receives the problem.
    """
    try:
        config = run.config()
        if config.tracking.mode == "off" or report is None:
            return
        if (run_id := run.facts().get("tracking_id")) is not None:
            log = TrackingLog(run.folder / "tracking.jsonl", run_id)
            if refused := log.refused(report):
                note(
                    f"not on W&B: {', '.join(sorted(refused))} began there under another spec, which is not comparable"
                )
            report = log.unsent(report)
        if report.is_empty:
            return
        if run.is_locked:
            # Two processes cannot write one W&B run: the rows of one would be dropped.
            note(f"not on W&B yet, where {run.name} is being trained: do this again when training is over")
            return
        tracker = open_tracker(run, config, note, goes_on)
    except (PricerError, OSError, ValueError, KeyError, TypeError) as error:
        note(f"tracking stopped, {goes_on}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        return
    tracker.send(report)
    tracker.finish()
