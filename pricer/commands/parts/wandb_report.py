"""What evaluations and picks add to a W&B run: which values, under which names, and which rows of predictions."""

from collections.abc import Callable, Mapping, Sequence

from pricer.core.evaluation import EvalSpec, Evaluation, score_predictions
from pricer.core.intervals import raw_interval
from pricer.core.items import Item, Split
from pricer.core.metrics import METRICS
from pricer.core.predictions import Prediction
from pricer.core.selection import Selection
from pricer.errors import PricerError
from pricer.stores.wandb import Report, Table

# The most rows of a table: nobody looks at more. The first items of a split are a random sample of it.
_ROWS = 500
_CHARACTERS = 200
_COLUMNS = ("item", "description", "price", "predicted", "abs error", "80 % from", "80 % to")


def evaluation_report(
    spec: EvalSpec,
    items: Sequence[Item],
    evaluations: Sequence[Evaluation],
    predictions_of: Callable[[str, EvalSpec], Sequence[Sequence[Prediction]]],
) -> Report | None:
    """The metrics of checkpoints on validation items, the errors of the baselines, and the predictions of the best
    checkpoint, which `predictions_of` reads in batches by its id. None without checkpoints, and for the test split,
    which is no curve to watch.
    """
    baselines = [e for e in evaluations if e.candidate.is_baseline]
    checkpoints = [e for e in evaluations if not e.candidate.is_baseline]
    if spec.split is not Split.VAL or not checkpoints:
        return None
    # The first N items make another curve than all items.
    group = "eval" if spec.limit is None else f"eval-{spec.limit}"
    best = min(checkpoints, key=lambda e: (e.metric("mae").value or 0.0, e.candidate.order))
    errors = {e.name: e.metric("mae").value for e in baselines}
    return Report(
        spec=spec.fingerprint,
        # A soup is no point of the curve: it has no step of its own.
        points={
            e.candidate.step: _values(e, group)
            for e in checkpoints
            if e.candidate.step is not None and not e.candidate.is_soup
        },
        summary={f"{group}/baseline/{name}": error for name, error in errors.items() if error is not None},
        table=_table(f"{group}/predictions", best, items[:_ROWS], predictions_of),
    )


def pick_report(selection: Selection) -> Report:
    """The pick in a run's summary: its step (the last one of a soup), the number of checkpoints that it averages (1 if
    it is no soup), and its mean absolute error.
    """
    candidate = selection.candidate
    summary: dict[str, float | int] = {
        "best_step": candidate.step or 0,
        "best_members": max(1, len(candidate.members)),
    }
    if (mae := selection.chosen.metric("mae").value) is not None:
        summary["best_mae"] = mae
    return Report(selection.spec_fingerprint, {}, summary)


def _values(evaluation: Evaluation, group: str) -> Mapping[str, float]:
    values = {f"{group}/{name}": evaluation.metric(name).value for name, metric in METRICS.items() if metric.on_wandb}
    return {name: value for name, value in values.items() if value is not None}


def _table(
    name: str,
    best: Evaluation,
    items: Sequence[Item],
    predictions_of: Callable[[str, EvalSpec], Sequence[Sequence[Prediction]]],
) -> Table | None:
    """The answers of a checkpoint for these items; None where they are not kept any more."""
    candidate, spec = best.candidate, best.spec
    if candidate.id is None or candidate.step is None or candidate.is_soup:
        return None
    try:
        by_id = {p.item_id: p for batch in predictions_of(candidate.id, spec) for p in batch}
        predictions = [by_id[item.id] for item in items]
    except (PricerError, KeyError):
        return None
    errors = score_predictions(predictions, items, spec.fallback, spec.estimator).abs_error.tolist()
    rows = tuple(map(_row, items, predictions, errors, [spec.estimator] * len(items)))
    return Table(name, candidate.step, _COLUMNS, rows, across="price", down="predicted")


def _row(item: Item, prediction: Prediction, abs_error: float, estimator: str) -> tuple[str | float | None, ...]:
    ends = raw_interval(prediction, 0.8) or (None, None)
    text = " ".join(item.text.split())
    text = text if len(text) <= _CHARACTERS else f"{text[: _CHARACTERS - 1]}…"
    return (item.id, text, item.price, prediction.estimate(estimator), abs_error, *ends)
