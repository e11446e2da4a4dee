"""What evaluations and picks add to the W&B run of a training. It helps to see them, and stops nothing."""

from collections.abc import Callable, Mapping, Sequence

from pricer.config import RunConfig
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.items import Item, Split
from pricer.core.metrics import score
from pricer.core.predictions import Prediction
from pricer.core.selection import Selection
from pricer.errors import PricerError
from pricer.stores.runs import Run
from pricer.stores.wandb import Tracker, open_tracker
from pricer.stores.wandb_log import Report, Table, TrackingLog

_SHOWN = ("mae", "median_ae", "rmsle", "hit_rate", "no_price")
# Of a table: more rows nobody looks at. The first items of a split are a random sample of it.
_ROWS = 500
_CHARACTERS = 200
_COLUMNS = ("item", "description", "price", "predicted", "abs error", "80 % from", "80 % to")


def tracker_of(run: Run, config: RunConfig, note: Callable[[str], None], but: str) -> Tracker:
    """The run's tracker: the same W&B run as before, here or on another machine, or a new one that is recorded. `but`
    says what goes on where tracking stops.
    """
    tracker = open_tracker(
        config.tracking,
        run_name=run.name,
        settings=config.model_dump(),
        folder=run.folder,
        run_id=run.facts().get("tracking_id"),
        note=note,
        consequence=but,
    )
    if tracker.run_id:
        run.record(tracking_id=tracker.run_id)
    return tracker


def send(run: Run, report: Report | None, note: Callable[[str], None], but: str) -> None:
    """Add a report to the W&B run of a run whose config asks for it; W&B is not even started where nothing is new.

    It takes as long as W&B does, up to the tracker's patience, and raises nothing: `note` is told what went wrong.
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
            note(f"not on W&B yet, where {run.name} is being trained: do this again when that is over")
            return
        tracker = tracker_of(run, config, note, but)
    except (PricerError, OSError, ValueError, KeyError, TypeError) as error:
        note(f"tracking stopped, {but}: {str(error).splitlines()[0] if str(error) else type(error).__name__}")
        return
    tracker.send(report)
    tracker.finish()


def evaluation_report(
    run: Run, spec: EvalSpec, items: Sequence[Item], baselines: Sequence[Evaluation], evaluations: Sequence[Evaluation]
) -> Report | None:
    """The errors of checkpoints on validation items, with those of the baselines, and the predictions of the best one;
    None for the test split, which is no curve to watch.
    """
    if spec.split is not Split.VAL or not evaluations:
        return None
    # The first N items are another curve than all of them.
    group = "eval" if spec.limit is None else f"eval-{spec.limit}"
    best = min(evaluations, key=lambda e: (e.metric("mae").value or 0.0, e.step or 0))
    errors = {e.name: e.metric("mae").value for e in baselines}
    return Report(
        spec=spec.fingerprint,
        # A soup is no point of the curve: it has no step of its own.
        points={e.step: _values(e, group) for e in evaluations if e.step is not None and not e.members},
        summary={f"{group}/baseline/{name}": error for name, error in errors.items() if error is not None},
        table=_table(f"{group}/predictions", run, best, items[:_ROWS]),
    )


def pick_report(selection: Selection) -> Report:
    """The pick in a run's summary: its step, the number of checkpoints that it is the average of (1: it is one), of
    which the step is the last one's, and its mean absolute error.
    """
    summary: dict[str, float | int] = {"best_step": selection.step, "best_members": max(1, len(selection.members))}
    if (mae := selection.chosen.metric("mae").value) is not None:
        summary["best_mae"] = mae
    return Report(selection.spec_fingerprint, {}, summary)


def _values(evaluation: Evaluation, group: str) -> Mapping[str, float]:
    values = {f"{group}/{name}": evaluation.metric(name).value for name in _SHOWN}
    return {name: value for name, value in values.items() if value is not None}


def _table(name: str, run: Run, best: Evaluation, items: Sequence[Item]) -> Table | None:
    """The answers of a checkpoint for these items; None where they are not kept any more."""
    if best.step is None or best.revision is None or best.members:
        return None
    try:
        by_id = {p.item_id: p for batch in run.evaluations.predictions(best.revision, best.spec) for p in batch}
        rows = tuple(_row(item, by_id[item.id], best.spec) for item in items)
    except (PricerError, KeyError):
        return None
    return Table(name, best.step, _COLUMNS, rows, across="price", down="predicted")


def _row(item: Item, prediction: Prediction, spec: EvalSpec) -> tuple[str | float | None, ...]:
    charged = score(prediction, item, spec.fallback, spec.estimator)
    distribution = prediction.distribution
    ends = (None, None) if distribution is None or distribution.is_silent else distribution.interval(0.8)
    text = " ".join(item.text.split())
    text = text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"
    return (item.id, text, item.price, prediction.estimate(spec.estimator), charged.abs_error, *ends)
