"""Print the answers of all commands except eval and pick: tables, lines, or JSON."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.core.predictions import ESTIMATORS
from pricer.views import terminal
from pricer.views.formatting import gigabytes, local_time, share, size, with_half_width
from pricer.views.tables import Table
from pricer.views.terminal_evaluations import excerpt

if TYPE_CHECKING:  # views must not import commands, and some of these import torch
    from pricer.commands.parts.plan import Plan
    from pricer.commands.predict import Predicted
    from pricer.commands.push import Pushed
    from pricer.commands.report import Reported
    from pricer.commands.runs import Overview
    from pricer.commands.train import Trained
    from pricer.commands.watch import Watched
    from pricer.core.calibration import Calibration, CalibrationGroup
    from pricer.core.gpus import GpuPlan
    from pricer.core.items import Item
    from pricer.core.predictions import Prediction
    from pricer.core.units import PriceUnit

RUN_COLUMNS = ("run", "state", "steps", "checkpoints", "scored", "best", "MAE (val)", "n", "by", "picked", "started")
_HELD_OUT = {"val": "validation", "test": "test"}
_RUN_SPARED = ("checkpoints", "by", "n", "started", "best", "scored", "picked", "steps")


def trained(result: "Trained") -> None:
    """Print the answer of `pricer train`."""
    run = result.run
    terminal.line(f"{run.name}: {len(result.checkpoints)} checkpoints in {run.store.location}")
    terminal.note(f"next: pricer eval --all-checkpoints --run {run.name}")


def watched(result: "Watched") -> None:
    """Print the answer of `pricer watch`."""
    run, best = result.run, min(result.evaluations, key=lambda e: e.metric("mae").value or 0.0)
    error = with_half_width(best.metric("mae"), best.spec.price_unit)
    count = f"{len(result.evaluations):,} of {len(result.evaluations) + result.failed:,} checkpoints scored"
    terminal.line(f"{run.name}: {count}; the lowest MAE is {error}, at {best.name}")
    terminal.note(f"next: pricer pick --run {run.name}")


def pushed(result: "Pushed") -> None:
    """Print the answer of `pricer push`."""
    delivered = f"{', '.join(result.delivered)} delivered" if result.delivered else "nothing was left to deliver"
    terminal.line(f"{result.run.name}: {delivered} to {result.run.repo}")
    if result.picked:
        terminal.line(f"{result.picked.name} is tagged best there")


def reported(result: "Reported") -> None:
    """Print the answer of `pricer report`: the files of the page and of the pictures."""
    for path in (result.page, *result.pictures):
        terminal.line(str(path))


def planned(plan: "Plan") -> None:
    """Print the tables of `pricer train --dry-run`, and to stderr what training would warn of."""
    sizes = plan.sizes
    rows = [("training items", _training_items(plan))]
    for split, held_out in (plan.held_out or {}).items():
        interval = f": an error's 95 % interval is {held_out.interval} at most" if held_out.interval else ""
        rows.append((f"{_HELD_OUT[split]} items", f"{held_out.items:,}{interval}"))
    rows += [
        ("optimizer steps", f"{plan.steps:,} ({plan.steps_per_epoch:,} an epoch)"),
        ("batch", _batch(plan)),
        ("checkpoints", f"{plan.checkpoints:,}"),
        ("base", f"{sizes.base_parameters / 1e6:,.1f} M parameters, {size(sizes.base_bytes)} as {plan.precision}"),
        ("adapter", f"{sizes.adapter_parameters / 1e6:,.2f} M parameters, {size(sizes.adapter_bytes)} in float32"),
        ("all checkpoints", f"{size(plan.upload_bytes)} to keep or upload"),
    ]
    _aligned(rows)
    if plan.defaults:
        terminal.line("")
        terminal.line("settings that are auto:")
        # Sentences, such as the question, are longer than the column of the values.
        width = max(len(default.text) for default in plan.defaults.values() if " " not in default.text)
        _aligned(
            [(f"  {name}", f"{default.text:<{width}}  {default.reason}") for name, default in plan.defaults.items()]
        )
    if plan.gpu is None:
        terminal.note("memory: --gpu NAME estimates what training takes of a GPU, for instance --gpu a100-40")
    else:
        terminal.line("")
        _gpu_table(plan.gpu)
    for note in plan.notes:
        terminal.note(note)


def _training_items(plan: "Plan") -> str:
    if plan.held_out is None:
        return f"{plan.items:,} (data.train_limit; the data was not read)"
    return f"{plan.items:,}"


def _batch(plan: "Plan") -> str:
    """The parts of a batch: `16 = 2 processes x 2 parts x 4 items`."""
    share = plan.batch_size // plan.processes
    factors = [f"{plan.processes:,} processes"] if plan.processes > 1 else []
    if plan.micro_batch is None or plan.micro_batch == share:
        factors.append(f"{share:,} items")
    elif share % plan.micro_batch:
        factors.append(f"{share:,} items in parts of {plan.micro_batch:,}")
    else:
        factors += [f"{share // plan.micro_batch:,} parts", f"{plan.micro_batch:,} items"]
    return f"{plan.batch_size:,} = {' x '.join(factors)}" if len(factors) > 1 else factors[0]


def _gpu_table(plan: "GpuPlan") -> None:
    gpu = plan.gpu
    if not plan.fits:
        terminal.line(f"memory on {gpu.name}: not estimated, because the base is not built like Llama")
        return
    terminal.line(f"memory on {gpu.name}, estimated, {plan.batch_size} x {plan.tokens} tokens in one forward pass:")
    memories = [fit.whole for fit in plan.fits]
    micro_batches = [f"{fit.micro_batch} of {plan.batch_size}" if fit.micro_batch else "none" for fit in plan.fits]
    rows = [
        ("", ["activations kept", "checkpointing"]),
        (f"base{', dequantized' if plan.dequantized else ''}", [gigabytes(m.base) for m in memories]),
        ("adapter and gradients", [gigabytes(m.adapter + m.gradients) for m in memories]),
        (f"optimizer{', paged' if plan.paged else ''}", [gigabytes(m.optimizer) for m in memories]),
        ("activations", [gigabytes(m.activations) for m in memories]),
        ("transients", [gigabytes(m.transients) for m in memories]),
        ("CUDA", [gigabytes(m.context) for m in memories]),
        (f"sum, of {gigabytes(gpu.memory)}", [f"{gigabytes(m.total)} ({m.total / gpu.memory:.0%})" for m in memories]),
        ("micro-batch that fits", micro_batches),
    ]
    _aligned([(f"  {name}", "  ".join(f"{cell:>18}" for cell in cells)) for name, cells in rows])


def _aligned(rows: Sequence[tuple[str, str]]) -> None:
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        terminal.line(f"{name:<{width}}  {value}")


def predicted(result: "Predicted", *, as_json: bool) -> None:
    """Print the prices of `pricer predict`, a line for each text. JSON has all estimates and intervals."""
    for item, prediction in zip(result.items, result.predictions, strict=True):
        if as_json:
            terminal.record(_prediction_record(item, result, prediction), indent=None)
        else:
            text = "" if len(result.items) == 1 else f"  {excerpt(item.text)}"
            terminal.line(f"{_price_and_interval(result, item, prediction)}{text}")
    if not as_json:
        how = "greedy" if result.estimator == "greedy" else ESTIMATORS[result.estimator].label
        terminal.note(f"{how}, {result.checkpoint.name} of {result.run.name}{_describe_intervals(result)}")


def _describe_intervals(result: "Predicted") -> str:
    if not any(prediction.distribution for prediction in result.predictions):
        return ""
    if result.calibration:
        return _describe_correction(result, result.calibration)
    command = f"pricer eval --checkpoint {result.checkpoint.step} --run {result.run.name}"
    return f"; the intervals are raw; to correct them: {command}"


def _describe_correction(result: "Predicted", calibration: "Calibration") -> str:
    pairs = zip(result.items, result.predictions, strict=True)
    groups = {group for item, prediction in pairs if (group := result.corrected_by(item, prediction))}
    if not groups:
        return ""
    intervals = "the interval is" if len(result.items) == 1 else "the intervals are"
    if len(groups) > 1:
        return f"; {intervals} corrected on {calibration.n:,} validation items, by group (--json shows the groups)"
    return f"; {intervals} corrected on {_describe_group(groups.pop(), result.unit)}"


def _describe_group(group: "CalibrationGroup", unit: "PriceUnit") -> str:
    of_category = "" if group.category is None else f" of the category {excerpt(group.category)}"
    bounds = [("above", group.above), ("of at most", group.up_to)]
    band = " and ".join(f"{word} {unit.short_price(end)}" for word, end in bounds if end is not None)
    return f"{group.n:,} validation items{of_category}{f' with estimates {band}' if band else ''}"


def _prediction_record(item: "Item", result: "Predicted", prediction: "Prediction") -> dict[str, Any]:
    distribution, price = prediction.distribution, prediction.estimate(result.estimator)
    record: dict[str, Any] = {"id": item.id, "price": price, "unit": result.unit.symbol, "estimator": result.estimator}
    if distribution:
        intervals, group = result.intervals(item, prediction), result.corrected_by(item, prediction)
        record |= {
            "interval_80": intervals[0.8],
            "interval_95": intervals[0.95],
            "raw_interval_80": distribution.interval(0.8),
            "raw_interval_95": distribution.interval(0.95),
            "corrected_by": asdict(group) if group else None,
            "no_price": distribution.no_price,
            "estimates": {name: prediction.estimate(name) for name in ESTIMATORS},
            "mean_error": distribution.mean_error,
            "residual_mass": distribution.residual_mass,
        }
    return {**record, "completion": prediction.completion}


def _price_and_interval(result: "Predicted", item: "Item", prediction: "Prediction") -> str:
    price, distribution, unit = prediction.estimate(result.estimator), prediction.distribution, result.unit
    if price is None:
        said = excerpt(prediction.completion)
        if distribution is None or result.estimator == "greedy":
            return f"no price: it says {said!r}"
        no_price = share(distribution.no_price)
        return f"no price: at least {no_price} of the probability is on answers that are none (greedy answer: {said!r})"
    interval = result.intervals(item, prediction)[0.8]
    if interval is None:
        return unit.short_price(price)
    low, high = interval
    return f"{unit.short_price(price)}  80 %: {unit.short_price(low)} to {unit.short_price(high)}"


def runs(overviews: "Sequence[Overview]", *, as_json: bool) -> None:
    """Print the runs as a table or as JSON, and the problems of damaged runs to stderr."""
    if as_json:
        terminal.record_in_ascii({"runs": [asdict(run) for run in overviews]})
        return
    content = Table(RUN_COLUMNS, [_run_row(run) for run in overviews])
    terminal.table("Runs here, the newest first", content, spared=_RUN_SPARED)
    for run in overviews:
        if run.problem:
            terminal.note(f"{run.name} is damaged: {run.problem}")
        # Not in the table, which has no room for it on a narrow terminal.
        if run.waiting:
            waits = f"{run.waiting:,} of {run.checkpoints:,} checkpoints are not on the Hub yet"
            terminal.note(f"{run.name}: {waits} (pricer push --run {run.name})")


def _run_row(run: "Overview") -> list[str]:
    if run.state == "damaged":
        return [run.name, run.state, *[""] * (len(RUN_COLUMNS) - 2)]
    steps = f"{run.step:,}" if run.steps is None else f"{run.step:,}/{run.steps:,}"
    scored = f"{run.scored:,}" + (f", {run.failed:,} failed" if run.failed else "")
    row = [run.name, run.state, steps, f"{run.checkpoints:,}", scored]
    if run.best is None:
        row += ["", "several specs" if run.scored else "", "", ""]
    else:
        mae = run.best.metric("mae")
        row += [
            f"{run.best.candidate.step:,}",
            with_half_width(mae, run.best.spec.price_unit),
            f"{mae.n:,}",
            run.best.spec.estimator,
        ]
    picked = "" if run.picked is None else f"{run.picked.step:,}"
    return [*row, picked, local_time(run.started)]
