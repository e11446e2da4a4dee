"""Weights & Biases: a run's curves while it trains. It never stops or slows a run, and sends nothing twice."""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from secrets import token_hex
from typing import Any

import psutil

from pricer.config import TrackingConfig
from pricer.errors import first_line
from pricer.redaction import redact, without_password
from pricer.stores.files import append_lines, read_lines

# Seconds that W&B gets to start, and again to upload the rest at the end.
_PATIENCE = 20.0
_SETTINGS: dict[str, Any] = {
    # Send the numbers, and W&B's measurements of the load; no code, command line, host or packages.
    **dict.fromkeys(("disable_git", "disable_code", "label_disable", "x_disable_meta"), True),
    **dict.fromkeys(("save_code", "x_save_requirements"), False),
    "host": "",
    "silent": True,
    "console": "off",
    "resume": "allow",
    "reinit": "create_new",
    "x_transaction_log_flush_interval": 1,  # seconds of records that a kill loses; 15 by default
}


@dataclass(frozen=True, slots=True)
class Table:
    """Rows about the checkpoint at a step, and a scatter plot of two columns, `down` over `across`. None: no value."""

    name: str
    step: int
    columns: tuple[str, ...]
    rows: tuple[tuple[str | float | None, ...], ...]
    across: str
    down: str


@dataclass(frozen=True, slots=True)
class Report:
    """What an evaluation or a pick adds to a run. `points`: metrics by the step of the checkpoint. They and the `table`
    were measured under the spec of that fingerprint. `summary`: single values.
    """

    spec: str
    points: Mapping[int, Mapping[str, float]]
    summary: Mapping[str, float | int]
    table: Table | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to send."""
        return not (self.points or self.summary or self.table)


class TrackingLog:
    """The record, in a run's folder, of the metrics sent to one W&B run. `rows` is the number of rows sent.

    A training curve only gets points after its newest step, because steps are repeated after a kill. Checkpoints are
    evaluated in any order, so their curves get a point for any new step.
    """

    def __init__(self, path: Path, run_id: str) -> None:
        self.rows = 0
        self.last_step = 0
        self._path = path
        self._run_id = run_id
        self._newest: dict[str, int] = {}
        self._curves: dict[str, tuple[str, set[int]]] = {}  # of checkpoints: the spec and the steps
        self._summary: dict[str, Any] = {}
        for line in read_lines(path):
            if line["run"] == run_id:
                self._remember(line)

    def add_summary(self, summary: Any) -> None:
        """Use the last step in W&B's summary, which another machine may have written. Curves get no point before it."""
        if (step := summary.get("step")) is not None:
            self.last_step = max(self.last_step, int(step))
            self._newest |= {name: max(int(step), self._newest.get(name, 0)) for name in summary.keys()}  # noqa: SIM118

    def is_new(self, name: str, step: int) -> bool:
        """Whether the metric has nothing yet at that step or after it."""
        return name != "step" and step > self._newest.get(name, -1)

    def add(self, names: Mapping[str, Any], step: int, spec: str | None = None) -> None:
        """Record that these metrics are logged: at a step under a `spec`, or (None) of training up to a step."""
        self._append({"step": step, "names": list(names), "spec": spec})

    def add_values(self, summary: Mapping[str, float | int]) -> None:
        """Record that these values stand in the summary."""
        self._append({"summary": dict(summary)})

    def unsent(self, report: Report) -> Report:
        """The part of a report that was not sent. Curves that began under another spec get no new points."""

        def lacks(name: str, step: int) -> bool:
            if name in self._curves:
                spec, steps = self._curves[name]
                return spec == report.spec and step not in steps
            return self.is_new(name, step)  # another machine may have sent any step up to its last one

        points = {
            step: {name: value for name, value in metrics.items() if lacks(name, step)}
            for step, metrics in report.points.items()
        }
        summary = {name: value for name, value in report.summary.items() if self._summary.get(name) != value}
        table = report.table if report.table and lacks(report.table.name, report.table.step) else None
        return Report(report.spec, {step: left for step, left in points.items() if left}, summary, table)

    def refused(self, report: Report) -> set[str]:
        """The names of a report's curves that began under another spec."""
        names = {name for metrics in report.points.values() for name in metrics}
        return {name for name in names if name in self._curves and self._curves[name][0] != report.spec}

    def _append(self, line: Mapping[str, Any]) -> None:
        append_lines(self._path, [{"run": self._run_id, **line}], durable=False)  # outlives a kill
        self._remember(line)

    def _remember(self, line: Mapping[str, Any]) -> None:
        if "summary" in line:
            self._summary |= line["summary"]
            return
        self.rows += 1
        step, spec = line["step"], line["spec"]
        self.last_step = max(self.last_step, step)
        for name in line["names"]:
            self._newest[name] = max(step, self._newest.get(name, step))
            if spec:
                self._curves.setdefault(name, (spec, set()))[1].add(step)


class Tracker:
    """A run on W&B, unless tracking is off. No method raises, and only `finish` waits: wandb, whose import takes a
    second, and whose calls wait for the network or its service process, is used in a thread of its own.
    """

    def __init__(
        self,
        config: TrackingConfig,
        *,
        settings: Mapping[str, Any],
        folder: Path,
        run_id: str | None,
        note: Callable[[str], None],
        consequence: str = "training goes on",
    ) -> None:
        """Track the run in `folder`. Its `settings` are shown without tokens. `run_id`: the W&B run to continue; None:
        a new one. If tracking fails, `note` is told once, from another thread, with the `consequence`.
        """
        self._config = config
        self._settings = _redacted(settings)
        self._folder = folder
        self._note = note
        self._consequence = consequence
        self._is_over = config.mode == "off"
        # Chosen here and not by W&B, so that the run can record it before W&B has started. None: not tracked.
        self.run_id = None if self._is_over else run_id or token_hex(6)
        self._records = SimpleQueue[tuple[dict[str, Any], int] | Report | None]()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        if not self._is_over:
            self._thread.start()

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
        """Send what was measured at a step. Metrics already sent for that step or a later one are left out."""
        if not self._is_over:
            self._records.put((dict(record), step))

    def send(self, report: Report) -> None:
        """Send what was measured of checkpoints. What any process sent before is left out."""
        if not self._is_over:
            self._records.put(report)

    def finish(self) -> None:
        """Upload the rest, and give up after a while: then the rest stays on disk."""
        if self._thread.ident is None:  # it was never started
            return
        self._records.put(None)
        why = "interrupted"
        try:
            self._thread.join(2 * _PATIENCE)  # it may still be starting
            why = f"no answer in {2 * _PATIENCE:.0f} seconds" if self._thread.is_alive() else ""
        finally:  # after an interrupted join, is_alive() may be wrong
            if why:
                self._give_up(why)
                # Python would wait for the thread at its end. Without W&B's service process, the thread's call fails.
                for child in psutil.Process().children():
                    if child.name() == "wandb-core":
                        child.kill()
                self._thread.join(_PATIENCE)

    def _work(self) -> None:
        """The thread: everything that calls wandb."""
        try:
            import wandb

            try:
                self._track(wandb)
            finally:
                wandb.teardown()  # ends the service process
        except (Exception, SystemExit) as error:  # teardown exits when the service process did not end well
            self._give_up(first_line(error))

    def _give_up(self, why: str) -> None:
        if not self._is_over:
            self._is_over = True
            self._note(f"tracking stopped, {self._consequence}: {why}")

    def _track(self, wandb: Any) -> None:
        run = self._start(wandb)
        # Every curve is drawn over the training step: W&B's own step counts the calls.
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        logged = TrackingLog(self._folder / "tracking.jsonl", str(self.run_id))
        logged.add_summary(run.summary)
        rows = itertools.count(max(run.step, logged.rows))
        while (item := self._records.get()) is not None:
            if isinstance(item, Report):
                _log_report(wandb, run, logged, item, rows)
                continue
            record, step = item
            new = {name: value for name, value in record.items() if value is not None and logged.is_new(name, step)}
            if new:
                # The log first: a kill in between leaves a gap in a curve. The other order would draw the step twice.
                logged.add(new, step)
                run.log({**new, "step": step}, step=next(rows), commit=True)
        run.finish()

    def _start(self, wandb: Any) -> Any:
        # Before init, so that it is silent from the start and asks nobody to log in.
        setup = wandb.setup(wandb.Settings(silent=True, mode="offline"))
        online = self._config.mode == "online" or (self._config.mode == "auto" and _logged_in(setup.settings.base_url))
        if self._config.mode == "auto" and not online:
            files = f"{self._folder}/wandb/offline-run-*"
            self._note(f"not logged in to W&B: tracking offline; to upload it: wandb sync {files}")
        self._folder.mkdir(parents=True, exist_ok=True)
        settings = wandb.Settings(
            **_SETTINGS,
            project=self._config.project,
            run_name=self._folder.name,
            run_id=self.run_id,
            mode="online" if online else "offline",
            root_dir=str(self._folder),
            init_timeout=_PATIENCE,
            finish_timeout=_PATIENCE,
            summary_timeout=int(_PATIENCE),
        )
        return wandb.init(config=self._settings, settings=settings)


def _log_report(wandb: Any, run: Any, logged: TrackingLog, report: Report, rows: Iterator[int]) -> None:
    report = logged.unsent(report)
    table = report.table
    for step in sorted({*report.points, *([table.step] if table else [])}):
        shown: dict[str, Any] = dict(report.points.get(step, {}))
        if table and step == table.step:
            cells = [[redact(cell) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
            drawn = wandb.Table(columns=list(table.columns), data=cells)
            scatter = wandb.plot.scatter(drawn, table.across, table.down, f"{table.down} over {table.across}")
            shown |= {table.name: drawn, f"{table.name}-scatter": scatter}
        logged.add(shown, step, report.spec)
        run.log({**shown, "step": step}, step=next(rows), commit=True)
    if report.summary:
        logged.add_values(report.summary)
    # The last row need not be the last step's. Another machine reads here how far the run is.
    run.summary.update({**report.summary, "step": logged.last_step})


def _redacted(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _redacted(inside) for name, inside in value.items()}
    if isinstance(value, list | tuple):
        return [_redacted(inside) for inside in value]
    return redact(value) if isinstance(value, str) else value


def _logged_in(base_url: str) -> bool:
    """Whether W&B finds a login in the environment, netrc or its settings; asks neither the network nor the user."""
    # Private, so pyproject.toml has an upper bound. The public `wandb.login` asks the network or the user.
    from wandb.sdk.lib import wbauth

    return wbauth.authenticate_session(host=base_url, source="pricer", prompt=False, update_session=False) is not None


def find_login() -> tuple[str, bool]:
    """The address of the W&B server, without a password, and whether there is a key for it; asks nobody."""
    import wandb

    try:
        server = wandb.setup(wandb.Settings(silent=True, mode="offline")).settings.base_url
        return without_password(server), _logged_in(server)
    finally:
        wandb.teardown()  # ends the service process
