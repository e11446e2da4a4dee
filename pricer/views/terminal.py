"""The only place that prints. stdout is the answer, stderr everything else; no colour or bars off a terminal."""

import json
import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.errors import PricerError
from pricer.redaction import redact

if TYPE_CHECKING:  # this file is on the way of every error message, and of `pricer doctor` where numpy is missing
    from rich.console import Console

    from pricer.commands.evaluate import Evaluated
    from pricer.commands.parts.plan import Plan
    from pricer.commands.predict import Predicted
    from pricer.commands.push import Pushed
    from pricer.commands.report import Reported
    from pricer.commands.train import Trained
    from pricer.core.checkpoints import Checkpoint
    from pricer.core.evaluation import Evaluation
    from pricer.core.gpus import GpuPlan
    from pricer.core.metrics import Metric
    from pricer.core.predictions import Prediction
    from pricer.core.race_record import RaceRecord
    from pricer.core.training import Progress, Validation

# Weight of the past in the smoothed loss of the live line, per logged step.
_SMOOTHING = 0.8


def error(problem: PricerError) -> None:
    """An error as the user sees it: a line for each thing that is so, and one with what to do."""
    lines = [f"error: {line}" for line in _harmless(problem.message).splitlines()]
    lines += [f" hint: {line}" for line in _harmless(problem.hint).splitlines()]
    print("\n".join(lines), file=sys.stderr)


def note(text: str) -> None:
    """Something the user should know, on stderr."""
    print(_harmless(text), file=sys.stderr)


def _harmless(text: str) -> str:
    """Without tokens, and with nothing that a terminal would obey: what is said may quote a stranger."""
    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in redact(text))
    return "".join(shown)


class Watcher:
    """Shows how training or scoring goes: one live line on a terminal, and a line for each checkpoint."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.live import Live

        self._console = Console(stderr=True, highlight=False)
        self._live = Live(console=self._console, transient=True, refresh_per_second=4)
        self._first: tuple[float, int] | None = None
        self._loss: float | None = None
        self._logged: Progress | None = None
        self._uploading = False

    def __enter__(self) -> "Watcher":
        # Off a terminal a live line would be a file full of control characters.
        if self._console.is_terminal:
            self._live.start()
            self._update("starting")  # importing torch and its company takes a while
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def note(self, text: str) -> None:
        """A line that stays."""
        self._console.print(_harmless(text), markup=False, soft_wrap=True)

    def progress(self, progress: "Progress", next_checkpoint: int) -> None:
        """Renew the live line of training."""
        if progress.loss is not None:
            past = progress.loss if self._loss is None else self._loss
            self._loss = _SMOOTHING * past + (1 - _SMOOTHING) * progress.loss
            self._logged = progress
        left = self._seconds_left(progress.step, progress.steps)
        self._update(training_line(progress, self._logged, self._loss, next_checkpoint, left))

    def checkpoint(self, checkpoint: "Checkpoint", validation: "Validation | None") -> None:
        """The line of a checkpoint."""
        parts = [f"{checkpoint.name}  epoch {checkpoint.epoch:.2f}"]
        if validation:
            loss = "–" if validation.loss is None else f"{validation.loss:.4f}"
            parts.append(f"val loss {loss}  val MAE ${validation.mae:,.2f} (greedy, n {validation.n:,})")
            if validation.no_price:
                parts.append(f"{validation.no_price:,} without a price")
        self.note("  ".join([*parts, checkpoint.id[:7]]))

    def uploading(self, done: int, total: int) -> None:
        """Renew the bar of what is still going to the Hub; off a terminal, say once that it is."""
        if not self._console.is_terminal:
            if not self._uploading:
                self.note(f"uploading what is left: {total - done:,}")
            self._uploading = True
        else:
            from rich.progress_bar import ProgressBar
            from rich.table import Table

            bar = Table.grid(padding=(0, 1))
            bar.add_row("uploading", ProgressBar(total=total, completed=done, width=30), f"{done:,}/{total:,}")
            self._live.update(bar)

    def scoring(self, name: str, done: int, total: int) -> None:
        """Renew the live line of scoring."""
        left = self._seconds_left(done, total)
        self._update(f"{name} · {done:,}/{total:,} answers" + ("" if left is None else f" · {_duration(left)} left"))

    def scored(self, evaluation: "Evaluation") -> None:
        """The line of an evaluation."""
        mae, silent = evaluation.metric("mae"), evaluation.metric("no_price")
        self.note(f"{evaluation.name}  MAE {dollars(mae)}  without a price {_cell(silent)}  n {mae.n:,}")

    def _update(self, text: str) -> None:
        if self._console.is_terminal:
            from rich.text import Text

            self._live.update(Text(text))  # a narrow terminal gets two lines: the time left stands at the end

    def _seconds_left(self, done: int, total: int) -> float | None:
        """At the pace since the first call, which is where this process began and not the run; None at first."""
        if self._first is None:
            self._first = (time.monotonic(), done)
        seconds, since = time.monotonic() - self._first[0], done - self._first[1]
        return seconds / since * (total - done) if since else None


def training_line(
    progress: "Progress",
    logged: "Progress | None",
    loss: float | None,
    next_checkpoint: int,
    seconds_left: float | None,
) -> str:
    """The live line of training; what was not measured yet is left out."""
    parts = [f"epoch {progress.epoch:.2f}", f"step {progress.step:,}/{progress.steps:,}"]
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if logged and logged.learning_rate is not None:
        parts.append(f"lr {logged.learning_rate:.1e}")
    if logged and logged.tokens_per_second is not None:
        parts.append(f"{logged.tokens_per_second:,.0f} tokens/s")
    if logged and logged.memory_used is not None and logged.memory_total is not None:
        parts.append(f"{logged.memory_used / 1e9:.1f}/{logged.memory_total / 1e9:.1f} GB")
    parts.append(f"checkpoint at {next_checkpoint:,}")
    if seconds_left is not None:
        parts.append(f"{_duration(seconds_left)} left")
    return " · ".join(parts)


def trained(result: "Trained") -> None:
    """The end of `pricer train`."""
    run = result.run
    print(f"{run.name}: {len(result.checkpoints)} checkpoints in {run.store.location}")
    note(f"next: pricer eval --all-checkpoints --run {run.name}")


def pushed(result: "Pushed") -> None:
    """The end of `pricer push`."""
    if result.delivered:
        print(f"{result.run.name}: {', '.join(result.delivered)} delivered to {result.run.repo}")
    else:
        print(f"{result.run.name}: nothing was left to deliver to {result.run.repo}")


def reported(result: "Reported") -> None:
    """The end of `pricer report`: where the page is, and the pictures."""
    for path in (result.page, *result.pictures):
        print(path)


def planned(plan: "Plan") -> None:
    """The table of `pricer train --dry-run`."""
    sizes = plan.sizes
    rows = [
        (
            "training items",
            f"{plan.items:,}"
            + (" (data.train_limit; the data was not read)" if plan.items_are_a_limit else "")
            + (f" (data.max_price leaves out {plan.too_dear:,} of all items)" if plan.too_dear else ""),
        ),
        ("optimizer steps", f"{plan.steps:,} ({plan.steps_per_epoch:,} an epoch)"),
        ("checkpoints", f"{plan.checkpoints:,}"),
        ("base", f"{sizes.base_parameters / 1e6:,.1f} M parameters, {_size(sizes.base_bytes)} as {plan.precision}"),
        ("adapter", f"{sizes.adapter_parameters / 1e6:,.2f} M parameters, {_size(sizes.adapter_bytes)} in float32"),
        ("all checkpoints", f"{_size(plan.upload_bytes)} to keep or upload"),
    ]
    width = max(len(name) for name, _ in rows)
    for name, value in rows:
        print(f"{name:<{width}}  {value}")
    if plan.gpu is None:
        note("memory: --gpu NAME estimates what training takes of a GPU (--gpu a100-40, for one)")
    else:
        print()
        _gpu_table(plan.gpu)


def _gpu_table(plan: "GpuPlan") -> None:
    def gigabytes(count: int) -> str:
        return f"{count / 1e9:,.2f} GB"

    gpu = plan.gpu
    if not plan.fits:
        print(f"memory on {gpu.name}: not estimated, for the base is not built like Llama")
        return
    print(f"memory on {gpu.name}, estimated, {plan.batch_size} x {plan.tokens} tokens in one forward pass:")
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
    width = max(len(name) for name, _ in rows)
    for name, cells in rows:
        print(f"  {name:<{width}}" + "".join(f"  {cell:>18}" for cell in cells))


def evaluated(result: "Evaluated", *, as_json: bool) -> None:
    """The table of `pricer eval`, or everything as JSON."""
    if as_json:
        values = {"run": result.run.name, "n": result.n, "evaluations": [e.to_json() for e in result.evaluations]}
        values |= {"breakdown": asdict(result.breakdown)} if result.breakdown else {}
        record(values | ({"race": result.race.to_json()} if result.race else {}))
        return
    spec = result.spec
    how = "greedy" if spec.estimator == "greedy" else f"by the {spec.estimator}"
    evaluation_table(f"{result.run.name}: {result.n:,} items of the {spec.split} split, {how}", result.evaluations)
    _estimator_table(result.evaluations)
    if result.race:
        _race_table(result.race)
    if any(e.metric("no_price").value for e in result.evaluations):
        print(f"For an answer without a price the train median, ${spec.fallback:,.2f}, is imputed; it is never a hit.")
    if spec.split == "val":
        note(f"next: pricer pick --run {result.run.name}")


def predicted(result: "Predicted", *, as_json: bool) -> None:
    """The prices of `pricer predict`, a line for each text; as JSON with all that is known of them."""
    if as_json:
        for item, prediction in zip(result.items, result.predictions, strict=True):
            print(_as_json(_answer(item.id, result.estimator, prediction)))
        return
    for item, prediction in zip(result.items, result.predictions, strict=True):
        text = "" if len(result.items) == 1 else f"  {shortened(item.text)}"
        print(f"{_price_and_interval(prediction, result.estimator)}{text}")
    how = "greedy" if result.estimator == "greedy" else f"{result.estimator} of the model's distribution"
    note(f"{how}, {result.checkpoint.name} of {result.run.name}; the intervals are raw, as the model has them")


def _answer(key: str, estimator: str, prediction: "Prediction") -> dict[str, Any]:
    from pricer.core.predictions import ESTIMATORS

    distribution = prediction.distribution
    record: dict[str, Any] = {"id": key, "price": prediction.estimate(estimator), "estimator": estimator}
    if distribution:
        record |= {
            "interval_80": distribution.interval(0.8),
            "interval_95": distribution.interval(0.95),
            "no_price": distribution.no_price,
            "estimates": {name: prediction.estimate(name) for name in ESTIMATORS},
            "mean_error": distribution.mean_error,
            "residual_mass": distribution.residual_mass,
        }
    return {**record, "completion": prediction.completion}


def _price_and_interval(prediction: "Prediction", estimator: str) -> str:
    price, distribution = prediction.estimate(estimator), prediction.distribution
    if price is None:
        return f"no price: {shortened(prediction.completion)!r}"
    if distribution is None:
        return f"${price:,.0f}"
    low, high = distribution.interval(0.8)
    return f"${price:,.0f}  80 %: ${low:,.0f} to ${high:,.0f}"


def shortened(text: str) -> str:
    """The beginning of a text on one line."""
    line = _harmless(" ".join(text.split()))
    return line if len(line) <= 60 else f"{line[:59]}…"


def line(text: str) -> None:
    """A line of the answer, on stdout."""
    print(_harmless(text))


def _as_json(values: dict[str, Any], indent: int | None = None) -> str:
    # Where stdout has not every letter, JSON can say it all the same: a `?` in data would be another text.
    has_all = (sys.stdout.encoding or "").lower().startswith("utf")
    return json.dumps(values, indent=indent, ensure_ascii=not has_all)


def record(values: dict[str, Any]) -> None:
    """The answer as JSON, on stdout."""
    print(_as_json(values, indent=2))


def drawing(text: str) -> None:
    """Lines that were drawn here, with their colours, on stdout."""
    print(text)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_last: bool = False) -> None:
    """A table of the answer, on stdout; with `text_last` the last column is text, and starts at the left."""
    _table(_stdout(), title, columns, rows, text_last=text_last)


def fitting_table(
    title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], spared: Iterable[str] = ()
) -> None:
    """A table of the answer that does without the `spared` columns, the first one first, where they find no room; what
    is left out is said on stderr.
    """
    console, kept = _stdout(), list(range(len(columns)))
    for name in spared:
        if _width([columns, *rows], kept) <= console.width:
            break
        kept.remove(columns.index(name))
    _table(console, title, [columns[index] for index in kept], [[row[index] for index in kept] for row in rows])
    if len(kept) < len(columns):
        left_out = ", ".join(name for index, name in enumerate(columns) if index not in kept)
        note(f"no room for {left_out} in {console.width} columns")


def evaluation_table(title: str, evaluations: "Sequence[Evaluation]") -> None:
    """Evaluations by row and metrics by column, on stdout; a narrow terminal gets the most important ones."""
    from pricer.core.metrics import METRICS

    columns = ["checkpoint", "epoch", *(metric.label for metric in METRICS.values()), "n"]
    # A narrow terminal does without these, in this order: a cell that is cut to "$1…" says nothing.
    spared = [*(metric.label for metric in reversed(METRICS.values()) if not metric.is_essential), "epoch"]
    rows = [
        [
            e.name,
            "" if e.candidate.epoch is None else f"{e.candidate.epoch:.2f}",
            *(_cell(e.metric(name)) for name in METRICS),
            f"{e.metric('mae').n:,}",
        ]
        for e in evaluations
    ]
    fitting_table(title, columns, rows, spared)


def _estimator_table(evaluations: "Sequence[Evaluation]") -> None:
    """The mean absolute error by each estimator, of the evaluations that know more than one."""
    known = [evaluation for evaluation in evaluations if evaluation.estimators]
    if known:
        columns = ["checkpoint", *(metric.name for metric in known[0].estimators)]
        rows = [[e.name, *(f"${metric.value:,.2f}" for metric in e.estimators)] for e in known]
        table("MAE by estimator", columns, rows)


def _race_table(race: "RaceRecord") -> None:
    """Who dropped out of a race, the first to go first, and what that saved."""
    from pricer.core.checkpoints import tag_name

    if race.dropped:
        rows = [
            [one.name, f"{one.n:,}", f"${one.margin:,.2f}", tag_name(one.leader), _WHY[one.why]] for one in race.dropped
        ]
        budget = "" if race.budget is None else f", budget {100 * race.budget:g} %"
        columns = ("dropped", "after items", "behind by", "leader", "because")
        table(f"Race at alpha {race.alpha:g}{budget}", columns, rows)
    print(f"{100 * (1 - race.share_of_work):.0f} % of the work saved")


_WHY = {"beaten": "surely beaten", "cut": "cut for the budget"}


def _width(rows: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    """Characters that a table of the `kept` columns takes, with three between two of them and one at either end."""
    return sum(max(len(row[index]) for row in rows) for index in kept) + 3 * len(kept) - 1


def _table(
    console: "Console", title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, text_last: bool = False
) -> None:
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        is_text = index == 0 or (text_last and index == len(columns) - 1)
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)


def _stdout() -> "Console":
    from rich.console import Console

    # Off a terminal rich takes 80 columns and cuts cells; a table in a file may be as wide as it is.
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140, highlight=False)


def dollars(metric: "Metric") -> str:
    """An amount with half its interval; a dash where it is undefined."""
    if metric.value is None:
        return "–"
    half = "" if metric.interval is None else f" ± {(metric.interval[1] - metric.interval[0]) / 2:,.2f}"
    return f"${metric.value:,.2f}{half}"


def _cell(metric: "Metric") -> str:
    from pricer.core.metrics import METRICS
    from pricer.views.formatting import measured

    if METRICS[metric.name].unit == "dollars":
        return dollars(metric)
    return "–" if metric.value is None else measured(metric.value, metric.name)


def _size(count: int) -> str:
    """Bytes in decimal units, as disks and the Hub count them."""
    return f"{count / 1e9:,.2f} GB" if count >= 2e9 else f"{count / 1e6:,.1f} MB"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"
