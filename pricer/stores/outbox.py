"""The outbox: checkpoints and training states on disk that wait for the Hub, and the worker that delivers them."""

import contextlib
import math
import re
import shutil
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, PricerError
from pricer.stores.checkpoints import read_manifest
from pricer.stores.commit_budget import CommitBudget
from pricer.stores.files import link_or_copy, locked, new_folder
from pricer.stores.hub_errors import pause
from pricer.waits import Wait, announced, describe_wait

Kind = Literal["checkpoint", "state", "end"]
_NOTHING: Mapping[str, bytes] = MappingProxyType({})
_ENTRY = re.compile(r"(\d{6,})-(checkpoint|state|end)-(\d{6,})")
# Failures in a row, with growing waits between them (four minutes in all), after which a drain ends.
_PATIENCE = 10
# The same for refusals: a few seconds in all. Somebody has to change something first.
_REFUSALS = 3
# While training goes on, waits after a refusal are this many times as long, at most ten minutes.
_RARELY = 10.0
_LOCK_WAIT = 5.0
# Seconds between two training states while checkpoints are waiting.
_STATE_EVERY = 600.0


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivery: a folder that does not change any more."""

    folder: Path
    number: int
    kind: Kind
    step: int

    @property
    def name(self) -> str:
        """Its name in messages."""
        if self.kind == "end":
            return "the end of the run"
        return f"step {self.step:,}" if self.kind == "checkpoint" else f"the training state of step {self.step:,}"


class Outbox:
    """A folder of entries, oldest first. An entry is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.budget = CommitBudget(folder / "commits.jsonl")
        self._pick = folder / "pick"

    def put(self, kind: Kind, step: int, files: Iterable[Path], copies: Mapping[str, bytes] = _NOTHING) -> None:
        """Add an entry of these files, which nobody may write into afterwards, and of `copies`: contents by name."""
        number = max((entry.number for entry in self.entries()), default=0) + 1
        with new_folder(self.folder / f"{number:06d}-{kind}-{step:06d}") as target:
            for file in files:
                link_or_copy(file, target / file.name)
            for name, content in copies.items():
                (target / name).write_bytes(content)

    def thin_states(self) -> None:
        """Let at most two training states wait: the oldest, which may be on its way, and the newest. States are large,
        and while the Hub cannot be reached they must not fill the disk.
        """
        for between in [entry for entry in self.entries() if entry.kind == "state"][1:-1]:
            self.drop(between)

    def entries(self) -> list[Entry]:
        """What is to be delivered, oldest first."""
        found = [
            Entry(folder, int(match[1]), cast(Kind, match[2]), int(match[3]))
            for folder in self.folder.glob("*-*-*")
            if (match := _ENTRY.fullmatch(folder.name))
        ]
        return sorted(found, key=lambda entry: entry.number)

    def checkpoints(self) -> dict[Checkpoint, Path]:
        """The checkpoints that wait, with their folders, oldest first. Damaged ones are left out."""
        waiting = {}
        for entry in self.entries():
            if entry.kind == "checkpoint":
                with contextlib.suppress(CheckpointError):  # or it was delivered after it was listed
                    waiting[read_manifest(entry.folder)] = entry.folder
        return waiting

    def requeue(self, entry: Entry) -> None:
        """Move an entry behind all others."""
        last = max(other.number for other in self.entries())
        entry.folder.replace(entry.folder.with_name(f"{last + 1:06d}-{entry.kind}-{entry.step:06d}"))

    def drop(self, entry: Entry) -> None:
        """Remove an entry."""
        # Rename it first: a kill half-way would otherwise leave an entry that looks damaged, and is never delivered.
        gone = entry.folder.with_name(f".{entry.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            entry.folder.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def clear(self) -> None:
        """Remove every entry. The record of commits stays: the Hub counts them, whatever becomes of the entries."""
        for entry in self.entries():
            self.drop(entry)
        self.sweep()

    @property
    def pick_waits(self) -> bool:
        """Whether the newest pick is not on the Hub, or not completely."""
        return self._pick.exists()

    def keep_pick(self) -> None:
        """Record that the pick has to go to the Hub."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pick.touch()

    def drop_pick(self) -> None:
        """Record that the Hub has the pick."""
        self._pick.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove incomplete entries that a kill left. No other process may use the outbox meanwhile."""
        for folder in self.folder.glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)


class Uploader:
    """Delivers an outbox in the background, one entry after the other, until it is stopped. It never raises into the
    training that fills the outbox: what it cannot deliver stays there.
    """

    def __init__(self, outbox: Outbox, note: Callable[[str], None]) -> None:
        self._outbox = outbox
        self._note = note
        self._work = threading.Event()
        self._hurry = threading.Event()
        self._stopped = threading.Event()
        self._draining = False
        self._broken: set[str] = set()
        self._state_delivered = -math.inf
        self._noted = set[str]()
        self.problem: PricerError | None = None

    def start(self, deliver: Callable[[Entry], None]) -> None:
        """Begin. `deliver` returns when an entry has certainly arrived, and raises otherwise."""
        self._outbox.folder.mkdir(parents=True, exist_ok=True)
        # Here and not in the thread, because nothing is put in yet.
        with contextlib.suppress(BlockingIOError), locked(self._outbox.folder, BlockingIOError()):
            self._outbox.sweep()
        self._deliver = deliver
        # A daemon: a connection that hangs does not keep the process alive.
        self._thread = threading.Thread(target=self._run, name="uploader", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Tell the worker that the outbox has a new entry."""
        self._work.set()

    def wait(self, seconds: float) -> None:
        """Sleep inside a delivery; raises when the uploader is stopped."""
        if self._stopped.wait(seconds):
            raise HubError("stopped", transient=True)

    def drain(self, on_progress: Callable[[list[Entry]], None], seconds: float = math.inf) -> list[Entry]:
        """Deliver what is left, and return what could not be delivered. It ends after several failures in a row, soon
        after a refusal, or after `seconds`. `on_progress` gets what is left, several times a second.
        """
        end = time.monotonic() + seconds
        self._draining = True
        self._hurry.set()
        self._work.set()
        try:
            while self._thread.is_alive() and time.monotonic() < end:
                on_progress(self._outbox.entries())
                self._thread.join(0.2)
        finally:
            self.stop()
        return self._outbox.entries()

    def stop(self) -> None:
        """End without delivering more. A delivery under way is given up; the next one finds out whether it arrived."""
        self._stopped.set()
        self._hurry.set()
        self._work.set()

    def _run(self) -> None:
        troubles = 0
        while not self._stopped.is_set():
            try:
                with locked(self._outbox.folder, BlockingIOError()):
                    self._deliver_all()
                return
            except BlockingIOError:
                self._note_once("lock", "another process is delivering the outbox")
                self._stopped.wait(_LOCK_WAIT)
            except OSError as error:
                problem = HubError(f"the outbox cannot be read: {error}", transient=True)
                self._note_once("disk", problem.message)
                troubles += 1
                if self._draining and troubles >= _PATIENCE:
                    self.problem = problem
                    return
                self._stopped.wait(_LOCK_WAIT)

    def _next(self) -> Entry | None:
        """The next entry to deliver. While checkpoints wait, a training state is delivered only every _STATE_EVERY
        seconds, because states are large. But another machine needs a state to resume the training.
        """
        entries = self._outbox.entries()
        # A run has not ended on the Hub before everything else has arrived, damaged checkpoints included.
        waiting = [e for e in entries if e.folder.name not in self._broken and (e.kind != "end" or len(entries) == 1)]
        checkpoint = next((entry for entry in waiting if entry.kind == "checkpoint"), None)
        if checkpoint and time.monotonic() - self._state_delivered < _STATE_EVERY:
            return checkpoint
        return waiting[0] if waiting else None

    def _deliver_all(self) -> None:
        failures, refusals, was_draining = 0, 0, False
        while not self._stopped.is_set():
            self._work.clear()
            if self._draining and not was_draining:
                failures, refusals, was_draining = 0, 0, True  # earlier failures may be of an outage that is over
            entry = self._next()
            if entry is None:
                if self._draining:
                    return
                self._work.wait()
                continue
            problem = self._try(entry)
            if problem is None:
                failures, refusals, self._noted, self.problem = 0, 0, set(), None
                if entry.kind == "state":
                    self._state_delivered = time.monotonic()
                continue
            self.problem = problem
            if isinstance(problem, CheckpointError):
                # Its files are damaged: trying again is useless, and the others need not wait for it.
                self._broken.add(entry.folder.name)
                hint = f"if it is of no use, remove {entry.folder}"
                self._note(f"{entry.name} cannot be pushed: {problem.message}; {hint}")
                continue
            hub_problem = problem if isinstance(problem, HubError) else HubError(problem.message, transient=True)
            failures += 0 if hub_problem.limited else 1
            refusals = 0 if hub_problem.transient else refusals + 1
            if self._draining and (failures >= _PATIENCE or refusals >= _REFUSALS):
                return
            self._wait_after(entry, hub_problem, failures)

    def _wait_after(self, entry: Entry, problem: HubError, failures: int) -> None:
        if self._stopped.is_set():
            return
        seconds = pause(failures, problem)
        if problem.transient:
            reason = f"{entry.name} is not on the Hub yet: {problem.message}"
            self._note_once("trouble", describe_wait(reason, seconds))
        else:
            reason = f"{entry.name} is refused for good: {problem.message}"
            hint = f" ({problem.hint})" if problem.hint else ""
            self._note_once("refusal", f"{reason}{hint}; it stays in {self._outbox.folder}")
            seconds *= 1.0 if self._draining else _RARELY
        # The end of training cuts our own waits short, but not a wait that the Hub asks for.
        waiting = self._hurry if problem.retry_after is None else self._stopped
        with announced(Wait(reason, seconds)):
            waiting.wait(seconds)
        if not self._stopped.is_set():
            self._hurry.clear()

    def _try(self, entry: Entry) -> PricerError | None:
        try:
            self._deliver(entry)
        except PricerError as error:
            return error
        except BaseException as error:  # a Rust panic is not an Exception, and must not end the worker
            return HubError(f"{type(error).__name__}: {error}", transient=True)
        self._outbox.drop(entry)
        return None

    def _note_once(self, kind: str, text: str) -> None:
        """Note a problem of a kind once, until something is delivered again."""
        if not (self._stopped.is_set() or kind in self._noted):
            self._noted.add(kind)
            self._note(text)
