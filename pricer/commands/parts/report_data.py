"""Load the content of a report from the folder of a run. No model and no Hub are needed; the data are read only for
their texts. A page may be sent to others, so tokens in descriptions, settings and notes are removed.
"""

import math
from dataclasses import fields, replace
from typing import Any

from pricer.commands.parts.checkpoints import saved_breakdown
from pricer.commands.parts.verdicts import judge_choice
from pricer.config import RunConfig
from pricer.core.breakdowns import break_down
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import Item, ItemSet, Split
from pricer.core.verdicts import Verdict
from pricer.data.preparation import load_items
from pricer.errors import PricerError
from pricer.redaction import redact
from pricer.stores.runs import Run
from pricer.views.report.curves import Curve
from pricer.views.report.values import (
    HeldOut,
    PredictionDetails,
    RunReport,
    Tested,
    TrainingLog,
    fact_rows,
    flat_rows,
    held_out_of,
    missing_notes,
    status_of,
    tested_of,
)
from pricer.views.tables import describe_failures

_CURVES = [field.name for field in fields(TrainingLog) if field.name != "val_items"]


def load_report(run: Run) -> RunReport:
    """Load everything about a run that exists for its report. A damaged file is a RunError."""
    summary = load_summary(run)
    if summary.held_out is None:
        return summary
    shown = summary.tested.evaluation if summary.tested else summary.held_out.chosen
    found, problem = _prediction_details(run, run.config(), shown)
    notes = (*summary.notes, *([redact(problem)] if problem else []))
    return replace(summary, details=found, notes=notes, verdicts=_judge(run, summary.held_out, summary.tested, found))


def _judge(
    run: Run, held_out: HeldOut, tested: Tested | None, details: PredictionDetails | None
) -> tuple[Verdict, ...]:
    compared = held_out.comparison
    return judge_choice(
        run,
        held_out.chosen,
        held_out.metric,
        compared,
        # Checkpoints that were scored since the choice took no part in it.
        [e for e in held_out.checkpoints if compared is None or compared.difference(e.candidate)],
        tested.evaluation if tested else None,
        # Without the data, what the confirmation recorded.
        (tested and details and details.breakdown.coverage) or None,
    )


def load_summary(run: Run) -> RunReport:
    """Load the same without the details of predictions. This does not read the data."""
    config, facts, log = run.config(), run.facts(), training_log(run)
    evaluations = [e for e in run.evaluations.all() if e.is_complete]
    pick, race = run.selection(), run.race()
    kept = {checkpoint.id for checkpoint in run.store.checkpoints()}
    held_out = held_out_of(evaluations, pick, kept, config.eval.estimator, race)
    if held_out:
        assert held_out.chosen.candidate.id is not None  # a checkpoint
        table = run.evaluations.scores(held_out.chosen.candidate.id, held_out.chosen.spec)
        held_out = replace(held_out, prices=() if table is None else tuple(table.price.tolist()))
    versions = facts.get("versions")
    judged = HeldOutCheck.from_fact(facts.get("held_out"))
    doubts = [f"The scored items are {judged.text}."] if judged and held_out and not judged.known else []
    return RunReport(
        name=run.name,
        status=redact(status_of(facts, log, config.train.epochs)),
        unit=held_out.chosen.spec.price_unit if held_out else config.data.price_unit,
        facts=tuple(fact_rows(facts, config.model.base, config.model.revision, config.data.source)),
        settings=tuple(flat_rows(config.model_dump())),
        versions=tuple(flat_rows(versions)) if isinstance(versions, dict) else (),
        training=log,
        held_out=held_out,
        tested=tested_of(evaluations, run.confirmations(), held_out) if held_out and held_out.picked else None,
        details=None,
        notes=tuple(map(redact, (*missing_notes(run.name, evaluations, pick, race, held_out), *_failures(run, kept)))),
        doubts=tuple(doubts),
    )


def _failures(run: Run, kept: set[str]) -> list[str]:
    """Notes about the checkpoints that could not be scored, and the records that cannot be read."""
    failed = [*(one for one in run.evaluations.failures() if one.id in kept), *run.store.damaged()]
    return [f"Not scored, so not shown: {text}" for text in describe_failures(failed)]


def training_log(run: Run) -> TrainingLog:
    """The curves that training logged, each from the lines of metrics.jsonl that have its key."""
    points: dict[str, list[tuple[int, float | None]]] = {curve: [] for curve in _CURVES}
    val_items = None
    for line in run.metrics():
        step = line.get("step")
        if step is None:
            continue
        for name in points.keys() & line.keys():
            value = line[name]
            # A null loss stands for NaN or infinity. Any other null was not measured.
            if value is not None or name == "loss":
                points[name].append((step, _number(value)))
        if isinstance(line.get("val_items"), int):
            val_items = line["val_items"]
    return TrainingLog(**{curve: Curve.of(found) for curve, found in points.items()}, val_items=val_items)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (float, int) and math.isfinite(value) else None


def _prediction_details(
    run: Run, config: RunConfig, evaluation: Evaluation
) -> tuple[PredictionDetails | None, str | None]:
    """The details of an evaluation (None if its scores were not kept), and a problem if they are incomplete."""
    name, spec, key = evaluation.name, evaluation.spec, evaluation.candidate.id
    assert key is not None  # a checkpoint
    table = run.evaluations.scores(key, spec)
    if table is None:
        return None, f"The scores of {name} were not kept; to make them again: pricer eval --run {run.name}"
    data, problem = _data(config, spec)
    if not data:
        # The error by price needs only the scores, not the data.
        known = zip(table.item_id.tolist(), table.price.tolist(), strict=True)
        unknown = [Item(item_id, "", price) for item_id, price in known]
        return PredictionDetails(evaluation, table, None, break_down(table, unknown)), problem
    assert isinstance(spec.split, Split)  # a report shows the run's own items
    items = [_redacted(item) for item in data.items(spec.split)[: spec.limit]]
    if table.item_id.tolist() != [item.id for item in items] or table.price.tolist() != [item.price for item in items]:
        return None, f"The scores behind {name} are of other items than the data of this run."
    try:
        breakdown = saved_breakdown(run, key, spec, items, data.near_copies)
    except KeyError:
        problem = f"The answers behind {name} are not all there, so its intervals are not shown."
        breakdown = break_down(table, items, near_copies=data.near_copies)
    return PredictionDetails(evaluation, table, tuple(item.text for item in items), breakdown), problem


def _redacted(item: Item) -> Item:
    """The item without tokens in its texts."""
    title, category = (text and redact(text) for text in (item.title, item.category))
    return replace(item, description=redact(item.description), title=title, category=category)


def _data(config: RunConfig, spec: EvalSpec) -> tuple[ItemSet | None, str | None]:
    """The items, or the problem with the data. The report is then made without their texts."""
    without = "so descriptions and intervals are not shown here"
    try:
        items = load_items(config.data)
    except PricerError as error:
        return None, f"The data cannot be read, {without}: {error.message.splitlines()[0]}"
    if items.fingerprint != spec.data_fingerprint:
        return None, f"The data of {config.data.source} have changed since the evaluation, {without}."
    return items, None
