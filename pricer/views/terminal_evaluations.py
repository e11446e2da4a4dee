"""Print the answers of `pricer eval`: evaluations, the breakdown of one, and the curve of their errors."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.core.checkpoints import tag_name
from pricer.core.metrics import METRICS
from pricer.core.units import PriceUnit
from pricer.core.verdicts import BaselineVerdict
from pricer.views import tables, terminal
from pricer.views.formatting import error, error_with_half_width, shorten
from pricer.views.tables import Table
from pricer.views.verdicts import NOTE, describe_verdict, verdict_records

if TYPE_CHECKING:  # views must not import commands, and some of these import torch
    from pricer.commands.evaluate import Evaluated
    from pricer.commands.shard import Answered
    from pricer.core.breakdowns import Breakdown
    from pricer.core.checkpoints import Failure
    from pricer.core.evaluation import Evaluation
    from pricer.core.halving import RaceRecord
    from pricer.core.verdicts import Verdict

# The columns that a narrow terminal leaves out, in this order: a cell that is cut to "$1…" is useless.
_SPARED = (*(metric.label for metric in reversed(METRICS.values()) if not metric.is_essential), "epoch")

_GROUPS_SPARED = ("in 95%", "of the median price", "no price", "hits")

# The baseline to draw as a line, and the maximum share by which it may widen the range of the curve.
_BASELINE, _NEAR = "tf-idf + ridge", 0.5


def evaluated(result: "Evaluated", *, as_json: bool) -> None:
    """Print the verdicts, the curve and the tables of `pricer eval`, or everything as JSON."""
    spec, unit = result.spec, result.spec.price_unit
    if as_json:
        evaluations = [{**asdict(e), "spec_fingerprint": e.spec.fingerprint} for e in result.evaluations]
        values = {"run": result.run.name, "verdicts": verdict_records(result.verdicts, unit), "n": result.n}
        values |= {"evaluations": evaluations, **failed_record(result.failed)}
        values |= {"breakdown": asdict(result.breakdown)} if result.breakdown else {}
        if result.source is not None:
            values |= {"data": result.source, "data_revision": result.revision, "trained": result.trained}
        values |= {"held_out": asdict(result.held_out)} if result.held_out else {}
        terminal.record(values | ({"race": asdict(result.race)} if result.race else {}))
        return
    show_verdicts(result.run.name, result.verdicts, unit)
    draw_errors(result.evaluations)
    how = "greedy" if spec.estimator == "greedy" else f"by the {spec.estimator}"
    where = f"the {spec.split} split" if result.source is None else terminal.harmless(result.source)
    where += f" at {result.revision[:7]}" if result.revision else ""
    show_evaluations(f"{result.run.name}: {result.n:,} items of {where}, {how}", result.evaluations)
    if result.held_out:
        terminal.line(result.held_out.text)
    if known := [e for e in result.evaluations if e.estimators]:
        columns = ["checkpoint", *(metric.name for metric in known[0].estimators)]
        rows = [[e.name, *(error(metric.value, unit) for metric in e.estimators)] for e in known]
        terminal.table("MAE by estimator", Table(columns, rows))
    if result.race:
        _show_race(result.race, unit)
    _show_failed(result.failed)
    if any(e.metric("no_price").value for e in result.evaluations):
        median = unit.price(spec.fallback)
        terminal.line(f"For an answer without a price the train median, {median}, is imputed; it is never a hit.")
    if spec.split == "val":
        terminal.note(f"next: pricer pick --run {result.run.name}")
    if result.breakdown:
        show_breakdown(result.evaluations[-1].name, result.breakdown, unit)


def answered(result: "Answered", *, as_json: bool) -> None:
    """Print what `pricer eval --shard` has answered, and what to do next; or everything as JSON."""
    if as_json:
        values = {"run": result.run.name, "shard": str(result.shard), "cells": result.cells}
        values |= {"answered": result.answered, "missing": result.missing, "is_round": result.is_round}
        terminal.record({**values, **failed_record(result.failed), "merge": result.merge})
        return
    where = " of this round" if result.is_round else ""
    terminal.line(
        f"{result.run.name}, shard {result.shard}: {result.cells:,} cells{where}, {result.answered:,} answered now"
    )
    _show_failed(result.failed)
    if result.is_round:
        text = f"the answers of {result.missing:,} cells of this round are not here"
        terminal.note(f"{text}. When every shard has ended, run all of them again for the next round")
    elif result.missing:
        terminal.note(
            f"the answers of {result.missing:,} cells are not here. When every shard has ended: {result.merge}"
        )
    else:
        terminal.note(f"every cell is answered. next: {result.merge}")


def show_verdicts(run: str, verdicts: "Sequence[Verdict]", unit: PriceUnit) -> None:
    """Print the verdicts on a checkpoint of a run, one sentence each. Prints nothing if there are none."""
    if verdicts:
        judged = "".join(f", step {one.step:,}" for one in verdicts if isinstance(one, BaselineVerdict))
        terminal.line(f"{run}{judged} ({NOTE}):")
        terminal.items(describe_verdict(one, unit) for one in verdicts)
        terminal.line("")


def failed_record(failed: "Sequence[Failure]") -> dict[str, Any]:
    """The checkpoints that could not be scored, for JSON. A reason may quote a file from outside."""
    return {"failed": [{**asdict(failure), "reason": terminal.harmless(failure.reason)} for failure in failed]}


def _show_failed(failed: "Sequence[Failure]") -> None:
    """Print the checkpoints that could not be scored, with the reasons, and a note that cannot be overlooked."""
    for text in tables.describe_failures(failed):
        terminal.line(f"not scored: {text}")
    if failed:
        what = "1 checkpoint" if len(failed) == 1 else f"{len(failed):,} checkpoints"
        terminal.note(f"WARNING: {what} could not be scored, and only the others are compared")


def show_evaluations(title: str, evaluations: "Sequence[Evaluation]") -> None:
    """Print evaluations by row and metrics by column. A narrow terminal shows only the most important metrics."""
    terminal.table(title, tables.evaluation_table(evaluations), spared=_SPARED)


def _show_race(race: "RaceRecord", unit: PriceUnit) -> None:
    """Print which checkpoints dropped out of a race, in that order, and the work that this saved."""
    if race.dropped:
        rows = [[one.name, f"{one.n:,}", unit.error(one.margin), tag_name(one.leader)] for one in race.dropped]
        columns = ("dropped", "after items", "behind by", "leader")
        terminal.table(f"Race within {100 * race.budget:g} % of the work", Table(columns, rows))
    terminal.line(f"{100 * (1 - race.share_of_work):.0f} % of the work saved")


def show_breakdown(name: str, breakdown: "Breakdown", unit: PriceUnit) -> None:
    """Print the breakdown of the evaluation `name`: error by price and category, intervals, worst items."""
    by_price = tables.groups_table("price", breakdown.price_bands, excerpt, unit)
    terminal.table(f"{name}: error by price", by_price, spared=_GROUPS_SPARED)
    if breakdown.categories:
        by_category = tables.groups_table("category", breakdown.categories, excerpt, unit)
        terminal.table(f"{name}: error by category", by_category, spared=_GROUPS_SPARED)
    overall, tail = breakdown.overall, breakdown.tail
    worst = "worst item carries" if tail.n == 1 else f"worst {tail.n:,} items carry"
    carried = "" if tail.share_of_error is None else f"; the {worst} {tail.share_of_error:.0%} of it"
    bias = error_with_half_width(overall.bias, overall.bias_interval, unit, signed=True)
    terminal.line(f"bias {bias} (estimate − price), mean absolute error {unit.error(overall.mae)}{carried}")
    if breakdown.near_copies:
        terminal.line(tables.describe_near_copies(breakdown.near_copies, overall.n, unit))
    if breakdown.coverage:
        corrected_on = breakdown.calibrated_on
        how = f"corrected on {corrected_on:,} validation items" if corrected_on else "raw, as the model gives them"
        terminal.table(f"{name}: intervals, {how}", tables.coverage_table(breakdown, unit))
        by_group = tables.corrected_groups_table(breakdown, excerpt, unit)
        if by_group.rows:
            terminal.table(f"{name}: intervals by the group that corrected them", by_group, spared=("in 95%",))
        surest = [point for point in breakdown.abstention if point.share in (0.1, 0.2, 0.5, 1.0)]
        errors = "  ".join(f"{point.share:.0%}: {unit.error(point.mae)}" for point in surest)
        terminal.line(f"MAE of the surest items: {errors}")
    terminal.table(f"{name}: worst items", tables.worst_table(breakdown, excerpt, unit))


def excerpt(text: str) -> str:
    """The beginning of a text from outside, for a cell or the end of a line."""
    return shorten(terminal.harmless(text), 60)


def draw_errors(evaluations: "Sequence[Evaluation]", chosen: int | None = None) -> None:
    """Draw the mean absolute error of the checkpoints by step. `chosen` is the step to mark (None: the one with the
    lowest error). Draws nothing with fewer than two points, or if the terminal cannot show it.
    """
    curve = [(e.candidate.step, e.metric("mae").value) for e in evaluations]
    points = sorted((step, mae) for step, mae in curve if step is not None and mae is not None)
    if len(points) < 2:
        return
    best = min(points, key=lambda point: (point[0] != chosen, point[1], point[0]))
    errors = [mae for _, mae in points]
    level = next((e.metric("mae").value for e in evaluations if e.name == _BASELINE), None)
    room = _NEAR * (max(errors) - min(errors))
    if level is not None and not min(errors) - room <= level <= max(errors) + room:
        level = None  # the line would flatten the curve
    unit = evaluations[0].spec.price_unit
    caption = ["MAE by step", f"● step {best[0]:,}: {unit.error(best[1])}"]
    caption += [f"┈ {_BASELINE}: {unit.error(level)}"] if level is not None else []
    terminal.curve(caption, points, best, level, unit)
