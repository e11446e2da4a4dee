"""Weights & Biases: a run's curves as they grow. It helps to watch a run, and never stops or slows one."""

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from queue import SimpleQueue
from secrets import token_hex
from typing import Any, Protocol

import psutil

from pricer.config import TrackingConfig
from pricer.stores.files import append_lines, read_lines

# Seconds that W&B gets to start, and again to upload the rest at the end.
_PATIENCE = 20.0


class Tracker(Protocol):
    """Where the numbers of a run are shown while it trains. No method raises, and none waits but `finish`."""

    @property
    def run_id(self) -> str | None:
        """The W&B run, to be kept for when training goes on; None: not tracked."""

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
        """Hand over what was measured at a step. What was handed over for that step or a later one is left out."""

    def finish(self) -> None:
        """Upload the rest, and give up after a while: what is left then stays on disk."""


class NoTracker:
    """Tracking is off."""

    run_id = None

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
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
) -> Tracker:
    """A tracker for the run in `folder`, with W&B's own files in `folder/wandb`; it returns at once.

    `settings` are shown with the run and hold no secrets. `run_id` None: a new W&B run; else that one goes on. `note`
    is told at most once that tracking failed, from another thread.
    """
    if config.mode == "off":
        return NoTracker()
    return WandbTracker(config, run_name, settings, folder, run_id, note)


class WandbTracker:
    """A W&B run, in a thread of its own: importing wandb takes a second, starting it as long as the network likes,
    and a call of it waits for its service process, whatever state that is in.
    """

    def __init__(
        self,
        config: TrackingConfig,
        run_name: str,
        settings: Mapping[str, Any],
        folder: Path,
        run_id: str | None,
        note: Callable[[str], None],
    ) -> None:
        # Named here and not by W&B, so that the run can record it before W&B has started.
        self.run_id = run_id or token_hex(6)
        self._config = config
        self._run_name = run_name
        self._settings = dict(settings)
        self._folder = folder
        self._note = note
        self._given_up = False
        self._records = SimpleQueue[tuple[dict[str, Any], int] | None]()
        self._thread = threading.Thread(target=self._work, name="tracking", daemon=True)
        self._thread.start()

    def log(self, record: Mapping[str, float | int | None], step: int) -> None:
        """Hand over what was measured at a step."""
        if not self._given_up:
            self._records.put((dict(record), step))

    def finish(self) -> None:
        """Upload the rest, and give up after a while."""
        self._records.put(None)
        self._thread.join(2 * _PATIENCE)  # it may still be starting
        if self._thread.is_alive():
            self._give_up(f"no answer in {2 * _PATIENCE:.0f} seconds")
            # Python would wait for it at the end of the process. Without it, the thread's call fails and returns.
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
            lines = str(error).strip().splitlines()
            self._give_up(lines[0] if lines else type(error).__name__)

    def _give_up(self, why: str) -> None:
        if not self._given_up:
            self._given_up = True
            self._note(f"tracking stopped, training goes on: {why}")

    def _track(self, wandb: Any) -> None:
        run = self._start(wandb)
        # Every curve has our step below it: W&B's own counts the calls.
        run.define_metric("step", hidden=True)
        run.define_metric("*", step_metric="step")
        logged = _Logged(self._folder / "tracking.jsonl", self.run_id)
        logged.add_summary(run.summary)
        row = max(run.step, logged.rows)
        while (item := self._records.get()) is not None:
            record, step = item
            new = {name: value for name, value in record.items() if value is not None and logged.is_new(name, step)}
            if new:
                # First: a kill in between leaves a gap in a curve, the other order would draw the step twice.
                logged.add(new, step)
                run.log({**new, "step": step}, step=row, commit=True)
                row += 1
        run.finish()

    def _start(self, wandb: Any) -> Any:
        # Before init: it is silent only later, and a login question is asked only where it is not.
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
                # A killed run loses what was not written yet, by default 15 seconds of it.
                x_transaction_log_flush_interval=1,
                silent=True,
                console="off",
                # The numbers and W&B's own of the machine's load; no code, command line, host or packages.
                host="",
                disable_git=True,
                disable_code=True,
                save_code=False,
                label_disable=True,
                x_disable_meta=True,
                x_save_requirements=False,
            ),
        )


class _Logged:
    """The newest step that was logged of each metric: after a kill, training does some steps again."""

    def __init__(self, path: Path, run_id: str) -> None:
        self.rows = 0
        self._path = path
        self._run_id = run_id
        self._newest: dict[str, int] = {}
        for line in read_lines(path):
            if line["run"] == run_id:
                self._remember(line["names"], line["step"])

    def add_summary(self, summary: Any) -> None:
        """Take over what W&B knows of the run, which another machine may have logged: the last value of each metric,
        without its step. With the last step of all, no curve goes back.
        """
        if (step := summary.get("step")) is not None:
            self._newest |= {name: max(int(step), self._newest.get(name, 0)) for name in summary.keys()}  # noqa: SIM118

    def is_new(self, name: str, step: int) -> bool:
        """Whether the metric has nothing yet at that step or after it."""
        return name != "step" and step > self._newest.get(name, -1)

    def add(self, names: Mapping[str, Any], step: int) -> None:
        """Record that these metrics are logged up to a step; it outlives a kill."""
        append_lines(self._path, [{"run": self._run_id, "step": step, "names": list(names)}], durable=False)
        self._remember(names, step)

    def _remember(self, names: Any, step: int) -> None:
        self.rows += 1
        self._newest |= dict.fromkeys(names, step)


def _logged_in(base_url: str) -> bool:
    """Whether W&B finds a login in the environment, netrc or its settings; asks neither the network nor the user."""
    from wandb.sdk.lib import wbauth

    found = wbauth.authenticate_session(host=base_url, source="pricer", prompt=False, update_session=False)
    return found is not None
