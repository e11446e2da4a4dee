"""Weights & Biases: a run's curves while it trains. It never stops or slows a run."""

import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from queue import SimpleQueue
from secrets import token_hex
from typing import Any, Protocol

import psutil

from pricer.config import TrackingConfig
from pricer.errors import first_line
from pricer.redaction import redact, without_password
from pricer.stores.wandb_log import Report, Table, TrackingLog

# Seconds that W&B gets to start, and again to upload the rest at the end.
_PATIENCE = 20.0


class Tracker(Protocol):
    """Where the numbers of a run are shown while it trains. No method raises, and only `finish` waits."""

    @property
    def run_id(self) -> str | None:
        """The W&B run, to be kept for a resumed training; None: not tracked."""

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
        """Send what was measured at a step. Metrics already sent for that step or a later one are left out."""

    def send(self, report: Report) -> None:
        """Send what was measured of checkpoints. What any process sent before is left out."""

    def finish(self) -> None:
        """Upload the rest, and give up after a while: then the rest stays on disk."""


class NoTracker:
    """Tracking is off."""

    run_id = None

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
        """Nothing."""

    def send(self, report: Report) -> None:
        """Nothing."""

    def finish(self) -> None:
        """Nothing."""


def open_tracker(
    config: TrackingConfig,
    *,
    run_name: str,
    settings: Mapping[str, Any],
    folder: Path,
    run_id: str | None,
    note: Callable[[str], None],
    consequence: str = "training goes on",
) -> Tracker:
    """A tracker for the run in `folder`, with W&B's own files in `folder/wandb`; it returns at once.

    `settings` are shown with the run, tokens replaced. `run_id`: the W&B run to continue; None: a new one. If tracking
    fails, `note` is told once, from another thread, with the `consequence`.
    """
    if config.mode == "off":
        return NoTracker()
    return WandbTracker(config, run_name, settings, folder, run_id, note, consequence)


class WandbTracker:
    """A W&B run in a thread of its own: importing wandb takes a second, its start waits for the network, and each call
    waits for its service process.
    """

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        settings: Mapping[str, Any],
        folder: Path,
        run_id: str | None,
        note: Callable[[str], None],
        consequence: str,
    ) -> None:
        # Chosen here and not by W&B, so that the run can record it before W&B has started.
        self.run_id = run_id or token_hex(6)
        self._config = config
        self._run_name = run_name
        self._settings = _redacted(settings)
        self._folder = folder
        self._note = note
        self._consequence = consequence
        self._given_up = False
        self._records = SimpleQueue[tuple[dict[str, Any], int] | Report | None]()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
        """Send what was measured at a step."""
        if not self._given_up:
            self._records.put((dict(record), step))

    def send(self, report: Report) -> None:
        """Send what was measured of checkpoints."""
        if not self._given_up:
            self._records.put(report)

    def finish(self) -> None:
        """Upload the rest, and give up after a while."""
        self._records.put(None)
        try:
            self._thread.join(2 * _PATIENCE)  # it may still be starting
        except KeyboardInterrupt:
            self._abandon("interrupted")
            raise
        if self._thread.is_alive():
            self._abandon(f"no answer in {2 * _PATIENCE:.0f} seconds")

    def _abandon(self, why: str) -> None:
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
        if not self._given_up:
            self._given_up = True
            self._note(f"tracking stopped, {self._consequence}: {why}")

    def _track(self, wandb: Any) -> None:
        run = self._start(wandb)
        # Every curve is drawn over the training step: W&B's own step counts the calls.
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        logged = TrackingLog(self._folder / "tracking.jsonl", self.run_id)
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
            local = self._folder / "wandb"
            self._note(f"not logged in to W&B: tracking offline; to upload it: wandb sync {local}/offline-run-*")
        self._folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            config=self._settings,
            settings=wandb.Settings(
                project=self._config.project,
                run_name=self._run_name,
                run_id=self.run_id,
                resume="allow",
                mode="online" if online else "offline",
                root_dir=str(self._folder),
                reinit="create_new",
                init_timeout=_PATIENCE,
                finish_timeout=_PATIENCE,
                summary_timeout=int(_PATIENCE),
                # A killed run loses what was not written yet: 15 seconds by default.
                x_transaction_log_flush_interval=1,
                silent=True,
                console="off",
                # Send the numbers, and W&B's measurements of the load; no code, command line, host or packages.
                host="",
                disable_git=True,
                disable_code=True,
                save_code=False,
                label_disable=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )


def _log_report(wandb: Any, run: Any, logged: TrackingLog, report: Report, rows: Iterator[int]) -> None:
    report = logged.unsent(report)
    table = report.table
    for step in sorted({*report.points, *([table.step] if table else [])}):
        shown: dict[str, Any] = dict(report.points.get(step, {}))
        if table and step == table.step:
            shown |= _drawn(wandb, table)
        logged.add(shown, step, report.spec)
        run.log({**shown, "step": step}, step=next(rows), commit=True)
    if report.summary:
        logged.add_values(report.summary)
    # The last row need not be the last step's. Another machine reads here how far the run is.
    run.summary.update({**report.summary, "step": logged.last_step})


def _drawn(wandb: Any, table: Table) -> dict[str, Any]:
    rows = [[redact(cell) if isinstance(cell, str) else cell for cell in row] for row in table.rows]
    shown = wandb.Table(columns=list(table.columns), data=rows)
    scatter = wandb.plot.scatter(shown, table.across, table.down, f"{table.down} over {table.across}")
    return {table.name: shown, f"{table.name}-scatter": scatter}


def _redacted(value: Any) -> Any:
    """The same with `***` for every token in it."""
    match value:
        case str():
            return redact(value)
        case Mapping():
            return {name: _redacted(inside) for name, inside in value.items()}
        case list() | tuple():
            return [_redacted(inside) for inside in value]
        case _:
            return value


def _logged_in(base_url: str) -> bool:
    """Whether W&B finds a login in the environment, netrc or its settings; asks neither the network nor the user."""
    # Private, so pyproject.toml has an upper bound. The public `wandb.login` asks the network or the user.
    from wandb.sdk.lib import wbauth

    found = wbauth.authenticate_session(host=base_url, source="pricer", prompt=False, update_session=False)
    return found is not None


def find_login() -> tuple[str, bool]:
    """The W&B server that runs go to, without a password in its address, and whether there is a key for it; asks
    neither the network nor the user.
    """
    import wandb

    try:
        server = wandb.setup(wandb.Settings(silent=True, mode="offline")).settings.base_url
        return without_password(server), _logged_in(server)
    finally:
        wandb.teardown()  # ends the service process
