"""The content of a report as values in memory: curves and evaluations to draw, facts and notes as text."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pricer.core.breakdowns import Breakdown
from pricer.core.comparison import Comparison, Difference
from pricer.core.early_stopping import EarlyStop
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable
from pricer.core.halving import RaceRecord
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import Split
from pricer.core.selection import Confirmation, PickRecord, by_preference, dropped_ids, other_test_looks
from pricer.core.units import PriceUnit
from pricer.core.verdicts import Verdict
from pricer.redaction import redact
from pricer.views.formatting import duration, moment, size, step_list, utc_time
from pricer.views.report.curves import NO_CURVE, Curve


@dataclass(frozen=True, slots=True, eq=False)
class TrainingLog:
    """The curves that training logged. A curve without values is empty.

    Losses are in nats per completion token, memory in bytes, `gpu_utilisation` in percent. `val_loss` and `val_mae` (in
    units, by greedy answers) are measured at each checkpoint on the same `val_items` items.
    """

    epoch: Curve = NO_CURVE
    loss: Curve = NO_CURVE
    learning_rate: Curve = NO_CURVE
    tokens_per_second: Curve = NO_CURVE
    memory_used: Curve = NO_CURVE
    memory_total: Curve = NO_CURVE
    gpu_utilisation: Curve = NO_CURVE
    val_loss: Curve = NO_CURVE
    val_mae: Curve = NO_CURVE
    val_items: int | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Evaluations on validation items, all under one spec: checkpoints by step, and baselines.

    `chosen` is the one that `pricer pick` chose by `metric`. If `picked` is false, it is the one with the lowest mean
    absolute error. `prices` are the true prices in the order of the items; empty if they were not kept.
    """

    checkpoints: tuple[Evaluation, ...]
    baselines: tuple[Evaluation, ...]
    chosen: Evaluation
    picked: bool
    metric: str
    prices: tuple[float, ...] = ()
    comparison: Comparison | None = None

    def difference(self, evaluation: Evaluation) -> Difference | None:
        """A checkpoint compared to the best. None for a baseline, and for a checkpoint scored after the choice."""
        return self.comparison.difference(evaluation.candidate) if self.comparison else None


@dataclass(frozen=True, slots=True)
class Tested:
    """The chosen checkpoint on the test split, and the baselines on the same items. `other_looks` has the checkpoint
    name of every other measurement on that split.
    """

    evaluation: Evaluation
    baselines: tuple[Evaluation, ...]
    other_looks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PredictionDetails:
    """The details of one evaluation, on test items if there is one, otherwise on validation items. `texts` are the
    descriptions in the order of `scores`; None if the data could not be read.
    """

    evaluation: Evaluation
    scores: ScoreTable
    texts: tuple[str, ...] | None
    breakdown: Breakdown


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    """The content of a report about one run. `status` describes its progress in a few words. Prices are in `unit`.
    `facts`, `settings` and `versions` are names with values as text. `notes` say what is missing, and what to do about
    it. `doubts` say why the errors may be too small. `verdicts` say what the chosen checkpoint is worth.
    """

    name: str
    status: str
    unit: PriceUnit
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    training: TrainingLog
    held_out: HeldOut | None
    tested: Tested | None
    details: PredictionDetails | None
    notes: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()


def held_out_of(
    evaluations: Sequence[Evaluation],
    pick: PickRecord | None,
    kept: Collection[str],
    estimator: str,
    race: RaceRecord | None,
) -> HeldOut | None:
    """The evaluations under the spec of the pick or, without a pick, under the spec that `pricer pick` would prefer.
    `kept` has the ids of the run's checkpoints. None if no checkpoint was evaluated on validation items.
    """
    held_out = [e for e in evaluations if not e.candidate.is_baseline and e.spec.split is Split.VAL]
    own = [e for e in held_out if pick and e.spec.fingerprint == pick.spec_fingerprint]
    chosen = next((e for e in own if pick and e.candidate.id == pick.candidate.id), None)
    picked = pick if chosen else None
    if chosen is None:
        kept = kept or {e.candidate.id or "" for e in held_out}
        groups = by_preference(held_out, kept, estimator, dropped_ids(race))
        if not groups:
            return None
        own = [e for e in held_out if e.spec == groups[0][0].spec]
        chosen = min(groups[0], key=lambda e: (e.metric("mae").value or 0.0, e.candidate.order))
    return HeldOut(
        checkpoints=tuple(own),
        baselines=_baselines_under(chosen.spec, evaluations),
        chosen=chosen,
        picked=picked is not None,
        metric=picked.metric if picked else "mae",
        comparison=_comparison_of(picked, own) if picked else None,
    )


def _comparison_of(pick: PickRecord, own: Sequence[Evaluation]) -> Comparison | None:
    """The comparison that was saved with the pick, if all its evaluations still exist."""
    if pick.comparison is None:
        return None
    compared = {one.candidate.id for one in pick.comparison.differences}
    return pick.comparison if pick.candidate.id in compared <= {e.candidate.id for e in own} else None


def same_items(reports: Sequence[RunReport]) -> tuple[list[RunReport], list[RunReport]]:
    """The runs that were scored on the same items as the first scored run, and the runs scored on other items.

    Items are the same if their prices are. If prices were not kept, data and split must be the same, which is stricter:
    these also depend on the training items.
    """
    scored = [(report, report.held_out) for report in reports if report.held_out]
    same = [report for report, held_out in scored if _of_same_items(held_out, scored[0][1])]
    return same, [report for report, _ in scored if report not in same]


def _of_same_items(one: HeldOut, other: HeldOut) -> bool:
    a, b = one.chosen.spec, other.chosen.spec
    if a.unit != b.unit:
        return False
    if one.prices and other.prices:
        return one.prices == other.prices
    return (a.data_fingerprint, a.split, a.limit) == (b.data_fingerprint, b.split, b.limit)


def tested_of(
    evaluations: Sequence[Evaluation], confirmations: Iterable[Confirmation], held_out: HeldOut
) -> Tested | None:
    """The chosen checkpoint on the test split. An evaluation under the spec of the validation items is preferred, then
    the one with the largest number of items. None if it was not scored there.
    """
    chosen = held_out.chosen
    found = [e for e in evaluations if e.candidate.id == chosen.candidate.id and e.spec.split is Split.TEST]
    if not found:
        return None
    alike = [e for e in found if replace(e.spec, split=Split.VAL, limit=chosen.spec.limit) == chosen.spec]
    best = max(alike or found, key=lambda e: e.metric("mae").n)
    others = other_test_looks(evaluations, best.candidate.id, best.spec.fingerprint, confirmations)
    return Tested(best, _baselines_under(best.spec, evaluations), tuple(others))


def _baselines_under(spec: EvalSpec, evaluations: Iterable[Evaluation]) -> tuple[Evaluation, ...]:
    return tuple(e for e in evaluations if e.candidate.is_baseline and e.spec.fingerprint == spec.fingerprint)


def missing_notes(
    run: str,
    evaluations: Sequence[Evaluation],
    pick: PickRecord | None,
    race: RaceRecord | None,
    held_out: HeldOut | None,
) -> list[str]:
    """Notes about the parts that are missing in the report, each with what to do about it."""
    if held_out is None:
        return [f"No checkpoint has been evaluated yet: pricer eval --all-checkpoints --run {run}"]
    notes = []
    if pick is None:
        notes.append(f"No checkpoint has been picked yet: pricer pick --run {run}")
    elif not held_out.picked:
        notes.append(f"The evaluation of the picked step {pick.candidate.step:,} is gone: pricer pick --run {run}")
    elif held_out.comparison and (
        since := [e.candidate.step for e in held_out.checkpoints if held_out.difference(e) is None]
    ):
        notes.append(f"Scored since the pick, so not compared in it: steps {step_list(since)}. pricer pick --run {run}")
    shown = {id(e) for e in held_out.checkpoints}
    others = [e for e in evaluations if e.candidate.id and e.spec.split is Split.VAL and id(e) not in shown]
    if others:
        notes.append(f"{len(others):,} evaluations under another spec cannot be compared with these: not shown.")
    if race and race.spec_fingerprint == held_out.chosen.spec.fingerprint:
        scored = {e.candidate.id for e in held_out.checkpoints}
        dropped = [one.step for one in race.dropped if one.id not in scored]
        notes += [f"Dropped in a race, so not shown: steps {step_list(dropped)}."] if dropped else []
    return notes


def status_of(facts: Mapping[str, Any], log: TrainingLog, epochs: float) -> str:
    """The progress of the run in a few words."""
    if facts.get("from_hub"):
        return f"evaluated from the repository {facts.get('repo')}; it was trained elsewhere"
    if finished := facts.get("finished"):
        stop = EarlyStop.from_fact(facts.get("stopped_early"))
        return f"finished {utc_time(finished)}" + (f", stopped early: {stop.reason}" if stop else "")
    if not log.epoch.has_number:
        return "training has just begun, or was interrupted"
    return f"epoch {np.nanmax(log.epoch.value):.2f} of {epochs:g}: still training, or interrupted"


def fact_rows(facts: Mapping[str, Any], base: str, base_revision: str | None, data: str) -> list[tuple[str, str]]:
    """The facts of run.json for a reader: first base and data, then machine and duration."""
    items = facts.get("items")
    counted = [f"{count:,} {split}" for split, count in items.items()] if isinstance(items, dict) else []
    judged = HeldOutCheck.from_fact(facts.get("held_out"))
    began, ended, peak = moment(facts.get("started")), moment(facts.get("finished")), facts.get("peak_memory_eval")
    rows = [
        ("base", base),
        ("base revision", base_revision),
        ("data", data),
        ("items", ", ".join(counted) or None),
        ("device", facts.get("device")),
        ("precision", facts.get("precision")),
        ("started", utc_time(facts.get("started"))),
        ("finished", utc_time(facts.get("finished"))),
        ("took", duration((ended - began).total_seconds()) if began and ended else None),
        ("repository", facts.get("repo")),
        ("held-out items", judged.text if judged else None),
        ("git commit", facts.get("git_commit")),
        ("peak memory in scoring", size(peak) if isinstance(peak, int) else None),
        ("data fingerprint", facts.get("data_fingerprint")),
        ("prompt fingerprint", facts.get("prompt_fingerprint")),
    ]
    return [(name, _as_text(value)) for name, value in rows if value is not None]


def flat_rows(values: Mapping[str, Any], prefix: str = "") -> list[tuple[str, str]]:
    """Nested settings as pairs of dotted name and text."""
    rows: list[tuple[str, str]] = []
    for name, value in values.items():
        dotted = f"{prefix}{name}"
        rows += flat_rows(value, f"{dotted}.") if isinstance(value, dict) else [(dotted, _as_text(value))]
    return rows


def _as_text(value: object) -> str:
    """A setting or a fact as text, without tokens."""
    if value is None:
        return "null"
    return redact(", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
