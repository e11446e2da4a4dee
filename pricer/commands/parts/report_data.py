"""What a report shows of a run, read from its folder alone: no model, no Hub, and the data only for their texts. A page
is sent to others, so no token that stands in a description, a setting or a note gets into it.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import numpy as np

from pricer.commands.parts.breakdown import saved_breakdown
from pricer.config import RunConfig
from pricer.core.breakdowns import break_down
from pricer.core.comparison import Comparison
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.items import Item, ItemSet, Split
from pricer.core.selection import PickRecord, by_preference, dropped_ids
from pricer.data.reading import load_items
from pricer.errors import PricerError
from pricer.redaction import redact
from pricer.stores.runs import Run
from pricer.views.report.values import Behind, Curve, HeldOut, RunReport, Tested, TrainingLog


def gather(run: Run) -> RunReport:
    """All that a report shows of a run, as far as it is there. What was written half, or by hand, is a RunError."""
    outline = gather_outline(run)
    if outline.held_out is None:
        return outline
    shown = outline.tested.evaluation if outline.tested else outline.held_out.chosen
    behind, problem = _behind(run, run.config(), shown)
    return replace(outline, behind=behind, notes=(*outline.notes, *([redact(problem)] if problem else [])))


def gather_outline(run: Run) -> RunReport:
    """The same without what lies behind the numbers, for which the data have to be read."""
    config, facts, log = run.config(), run.facts(), training_log(run)
    evaluations = [e for e in run.evaluations.all() if e.is_complete]
    pick = run.selection()
    held_out = _held_out(run, config, evaluations, pick)
    return RunReport(
        name=run.name,
        status=redact(_status(facts, log, config)),
        facts=tuple(_facts(facts, config)),
        settings=tuple((name, _text(value)) for name, value in _flat(config.model_dump())),
        versions=tuple((name, _text(value)) for name, value in _flat(_dict(facts.get("versions")))),
        training=log,
        held_out=held_out,
        tested=_tested(evaluations, held_out) if held_out and held_out.picked else None,
        behind=None,
        notes=tuple(map(redact, _missing(run, evaluations, pick, held_out))),
    )


# The curve of a TrainingLog that each name in metrics.jsonl stands for.
_CURVES = {
    **{
        name: name
        for name in (
            *("epoch", "loss", "learning_rate", "tokens_per_second", "memory_used", "memory_total"),
            *("gpu_utilisation", "val_loss", "val_mae"),
        )
    },
    "gpu_utilization": "gpu_utilisation",
    "gpu_util": "gpu_utilisation",
}


def training_log(run: Run) -> TrainingLog:
    """What training logged: of each curve, the lines of metrics.jsonl that have it."""
    points: dict[str, list[tuple[int, float | None]]] = {curve: [] for curve in _CURVES.values()}
    val_items = None
    for line in run.metrics():
        step = line.get("step")
        if step is None:
            continue
        for name, value in line.items():
            # Of a loss, null means that it was none; of what else was not measured, nothing.
            if name in _CURVES and (value is not None or name == "loss"):
                points[_CURVES[name]].append((step, _number(value)))
        if isinstance(line.get("val_items"), int):
            val_items = line["val_items"]
    return TrainingLog(**{curve: Curve.of(found) for curve, found in points.items()}, val_items=val_items)


def _number(value: Any) -> float | None:
    return float(value) if type(value) in (float, int) and math.isfinite(value) else None


def _held_out(
    run: Run, config: RunConfig, evaluations: Sequence[Evaluation], pick: PickRecord | None
) -> HeldOut | None:
    """The evaluations under the spec of the pick; without a pick, under the spec that `pricer pick` would prefer."""
    held_out = [e for e in evaluations if not e.candidate.is_baseline and e.spec.split is Split.VAL]
    own = [e for e in held_out if pick and e.spec.fingerprint == pick.spec_fingerprint]
    chosen = next((e for e in own if pick and e.candidate.id == pick.candidate.id), None)
    picked = pick if chosen else None
    if chosen is None:
        kept = {checkpoint.id for checkpoint in run.store.checkpoints()} or {e.candidate.id or "" for e in held_out}
        groups = by_preference(held_out, kept, config.eval.estimator, dropped_ids(run.race()))
        if not groups:
            return None
        own = [e for e in held_out if e.spec == groups[0][0].spec]
        chosen = min(groups[0], key=lambda e: (e.metric("mae").value or 0.0, e.candidate.order))
    assert chosen.candidate.id is not None
    table = run.evaluations.scores(chosen.candidate.id, chosen.spec)
    return HeldOut(
        checkpoints=tuple(own),
        baselines=_baselines(evaluations, chosen.spec),
        chosen=chosen,
        picked=picked is not None,
        metric=picked.metric if picked else "mae",
        prices=() if table is None else tuple(table.price.tolist()),
        comparison=_comparison(picked, own) if picked else None,
    )


def _comparison(pick: PickRecord, own: Sequence[Evaluation]) -> Comparison | None:
    """The comparison that was kept with the pick, if all that it compared is still there."""
    if pick.comparison is None:
        return None
    compared = {one.candidate.id for one in pick.comparison.differences}
    return pick.comparison if pick.candidate.id in compared <= {e.candidate.id for e in own} else None


def _tested(evaluations: Sequence[Evaluation], held_out: HeldOut) -> Tested | None:
    """The chosen checkpoint on most test items, asked as on validation items where that was done."""
    chosen = held_out.chosen
    found = [e for e in evaluations if e.candidate.id == chosen.candidate.id and e.spec.split is Split.TEST]
    if not found:
        return None
    alike = [e for e in found if replace(e.spec, split=Split.VAL, limit=chosen.spec.limit) == chosen.spec]
    best = max(alike or found, key=lambda e: e.metric("mae").n)
    return Tested(best, _baselines(evaluations, best.spec))


def _baselines(evaluations: Sequence[Evaluation], spec: EvalSpec) -> tuple[Evaluation, ...]:
    return tuple(e for e in evaluations if e.candidate.is_baseline and e.spec.fingerprint == spec.fingerprint)


def _missing(
    run: Run, evaluations: Sequence[Evaluation], pick: PickRecord | None, held_out: HeldOut | None
) -> list[str]:
    """What the reader would look for in vain, and what to do about it."""
    notes = []
    if held_out is None:
        notes.append(f"No checkpoint has been evaluated yet: pricer eval --all-checkpoints --run {run.name}")
    elif pick is None:
        notes.append(f"No checkpoint has been picked yet: pricer pick --run {run.name}")
    elif not held_out.picked:
        notes.append(f"The evaluation of the picked step {pick.candidate.step:,} is gone: pricer pick --run {run.name}")
    elif held_out.comparison and (since := [e for e in held_out.checkpoints if held_out.difference(e) is None]):
        steps = ", ".join(f"{e.candidate.step:,}" for e in since)
        notes.append(f"Scored since the pick, so not compared in it: steps {steps}. pricer pick --run {run.name}")
    if held_out:
        shown = {id(e) for e in held_out.checkpoints}
        others = [e for e in evaluations if e.candidate.id and e.spec.split is Split.VAL and id(e) not in shown]
        if others:
            notes.append(f"{len(others):,} evaluations under another spec cannot be compared with these: not shown.")
    race = run.race()
    if held_out and race and race.dropped and race.spec_fingerprint == held_out.chosen.spec.fingerprint:
        scored = {e.candidate.id for e in held_out.checkpoints}
        steps = ", ".join(f"{one.step:,}" for one in race.dropped if one.id not in scored)
        notes += [f"Dropped in a race, so not shown: steps {steps}."] if steps else []
    return notes


def _behind(run: Run, config: RunConfig, evaluation: Evaluation) -> tuple[Behind | None, str | None]:
    """An evaluation taken apart, and what is wrong if that is possible in part only; None if its scores are missing."""
    assert evaluation.candidate.id is not None
    table = run.evaluations.scores(evaluation.candidate.id, evaluation.spec)
    if table is None:
        return (
            None,
            f"The scores of {evaluation.name} were not kept; to make them again: pricer eval --run {run.name}",
        )
    data, problem = _data(config, evaluation.spec)
    if not data:
        # The error by price needs nothing that the data say.
        unknown = [
            Item(key, "", price) for key, price in zip(table.item_id.tolist(), table.price.tolist(), strict=True)
        ]
        return Behind(evaluation, table, None, break_down(table, unknown)), problem
    items = [_harmless(item) for item in data.items(evaluation.spec.split)[: evaluation.spec.limit]]
    if table.item_id.tolist() != [item.id for item in items] or table.price.tolist() != [item.price for item in items]:
        return None, f"The scores behind {evaluation.name} are of other items than the data of this run."
    try:
        breakdown = saved_breakdown(run, evaluation.candidate.id, evaluation.spec, table, items, data.val)
    except KeyError:
        problem = f"The answers behind {evaluation.name} are not all there, so nothing is said of its intervals."
        breakdown = break_down(table, items)
    return Behind(evaluation, table, tuple(item.text for item in items), breakdown), problem


def _harmless(item: Item) -> Item:
    """The item as it may be shown to others."""
    title, category = (text and redact(text) for text in (item.title, item.category))
    return replace(item, description=redact(item.description), title=title, category=category)


def _data(config: RunConfig, spec: EvalSpec) -> tuple[ItemSet | None, str | None]:
    """The items, or what is wrong: the report is made all the same, without what they say."""
    without = "so there are no descriptions here, and nothing is said of intervals"
    try:
        items = load_items(config.data)
    except PricerError as error:
        return None, f"The data cannot be read, {without}: {error.message.splitlines()[0]}"
    if items.fingerprint != spec.data_fingerprint:
        return None, f"The data of {config.data.source} have changed since they were asked about, {without}."
    return items, None


def _status(facts: Mapping[str, Any], log: TrainingLog, config: RunConfig) -> str:
    """How far the run is, in a few words."""
    if facts.get("attached"):
        return f"evaluated from the repository {facts.get('repo')}; it was trained elsewhere"
    if finished := facts.get("finished"):
        return f"finished {_when(finished)}"
    known = log.epoch.value[np.isfinite(log.epoch.value)]
    if not len(known):
        return "training has just begun, or was interrupted"
    return f"epoch {known[-1]:.2f} of {config.train.epochs:g}: still training, or interrupted"


def _facts(facts: Mapping[str, Any], config: RunConfig) -> list[tuple[str, str]]:
    """What run.json says, in the order in which one asks: what was trained on what, where and for how long."""
    items = _dict(facts.get("items"))
    counted = ", ".join(f"{count:,} {split}" for split, count in items.items() if isinstance(count, int))
    rows = [
        ("base", config.model.base),
        ("base revision", config.model.revision),
        ("data", config.data.source),
        ("items", counted or None),
        ("device", facts.get("device")),
        ("precision", facts.get("precision")),
        ("started", _when(facts.get("started"))),
        ("finished", _when(facts.get("finished"))),
        ("took", _duration(facts.get("started"), facts.get("finished"))),
        ("repository", facts.get("repo")),
        ("git commit", facts.get("git_commit")),
        ("most memory in scoring", _gigabytes(facts.get("peak_memory_eval"))),
        ("data fingerprint", facts.get("data_fingerprint")),
        ("prompt fingerprint", facts.get("prompt_fingerprint")),
    ]
    return [(name, _text(value)) for name, value in rows if value is not None]


def _moment(text: Any) -> datetime | None:
    try:
        moment = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _when(text: Any) -> str | None:
    moment = _moment(text)
    return f"{moment.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if moment else None


def _duration(began: Any, ended: Any) -> str | None:
    first, last = _moment(began), _moment(ended)
    if first is None or last is None:
        return None
    minutes = round((last - first).total_seconds() / 60)
    return f"{minutes // 60} h {minutes % 60:02} min" if minutes >= 60 else f"{max(minutes, 1)} min"


def _gigabytes(count: Any) -> str | None:
    return f"{count / 1e9:.2f} GB" if isinstance(count, int) else None


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _flat(values: Mapping[str, Any], before: str = "") -> list[tuple[str, Any]]:
    """Settings by their dotted names."""
    found: list[tuple[str, Any]] = []
    for name, value in values.items():
        found += _flat(value, f"{before}{name}.") if isinstance(value, dict) else [(f"{before}{name}", value)]
    return found


def _text(value: Any) -> str:
    if value is None:
        return "null"
    return redact(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
