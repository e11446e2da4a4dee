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
from typing import Literal

from pricer.errors import CheckpointError, HubError, PricerError
from pricer.stores.files import append_lines, link_or_copy, locked, new_folder, read_lines
from pricer.stores.hub_errors import pause

Kind = Literal["checkpoint", "state"]
_NOTHING: Mapping[str, bytes] = MappingProxyType({})
_ENTRY = re.compile(r"(\d{6,})-(checkpoint|state)-(\d{6,})")
# Failures in a row, with growing waits between them (four minutes in all), after which a drain ends.
_PATIENCE = 10
_LOCK_WAIT = 5.0
# Seconds between two training states while checkpoints are waiting.
_STATE_EVERY = 600.0
# The Hub refuses the 129th commit of an hour to a repository; some are left to people and to `pricer pick`.
COMMITS_PER_HOUR = 120
_HOUR = 3600.0


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
        return f"step {self.step:,}" if self.kind == "checkpoint" else f"the training state of step {self.step:,}"


class Outbox:
    """A folder of entries, oldest first. An entry is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.budget = CommitBudget(folder / "commits.jsonl")

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
            Entry(folder, int(match[1]), "state" if match[2] == "state" else "checkpoint", int(match[3]))
            for folder in self.folder.glob("*-*-*")
            if (match := _ENTRY.fullmatch(folder.name))
        ]
        return sorted(found, key=lambda entry: entry.number)

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

    def sweep(self) -> None:
        """Remove incomplete entries that a kill left. No other process may use the outbox meanwhile."""
        for folder in self.folder.glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)


class CommitBudget:
    """At most `per_hour` commits in any hour, restarts included: their times are kept in a file."""

    def __init__(self, path: Path, *, per_hour: int = COMMITS_PER_HOUR, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._per_hour = per_hour
        self._clock = clock

    def take(self) -> None:
        """Count one commit; if none is left in this hour, a `limited` HubError that says how long to wait."""
        now = self._clock()
        try:
            made = [float(line["time"]) for line in read_lines(self._path)]
        except (KeyError, TypeError, ValueError):
            made = []
        # Times in the future were written before the clock was set back. They would block the repository for too long.
        recent = sorted(at for at in made if now - _HOUR < at <= now)
        if len(recent) >= self._per_hour:
            left = recent[-self._per_hour] + _HOUR - now
            wait = f"the next one can be made in {left / 60:.0f} minutes"
            text = f"the Hub allows {self._per_hour} commits in an hour: {wait}"
            raise HubError(text, transient=True, retry_after=left, limited=True)
        append_lines(self._path, [{"time": now}], durable=False)


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
        self._has_noted = False
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

    def drain(self, on_progress: Callable[[int], None], seconds: float = math.inf) -> list[Entry]:
        """Deliver what is left, and return what could not be delivered. It ends after several failures in a row, or
        after `seconds`. `on_progress(left)` is called several times a second.
        """
        end = time.monotonic() + seconds
        self._draining = True
        self._hurry.set()
        self._work.set()
        try:
            while self._thread.is_alive() and time.monotonic() < end:
                on_progress(len(self._outbox.entries()))
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
                self._note_once("another process is delivering the outbox")
                self._stopped.wait(_LOCK_WAIT)
            except OSError as error:
                problem = HubError(f"the outbox cannot be read: {error}")
                self._note_once(problem.message)
                troubles += 1
                if self._draining and troubles >= _PATIENCE:
                    self.problem = problem
                    return
                self._stopped.wait(_LOCK_WAIT)

    def _next(self) -> Entry | None:
        """The next entry to deliver. While checkpoints wait, a training state is delivered only every _STATE_EVERY
        seconds, because states are large. But another machine needs a state to resume the training.
        """
        waiting = [entry for entry in self._outbox.entries() if entry.folder.name not in self._broken]
        checkpoint = next((entry for entry in waiting if entry.kind == "checkpoint"), None)
        if checkpoint and time.monotonic() - self._state_delivered < _STATE_EVERY:
            return checkpoint
        return waiting[0] if waiting else None

    def _deliver_all(self) -> None:
        failures, was_draining = 0, False
        while not self._stopped.is_set():
            self._work.clear()
            if self._draining and not was_draining:
                failures, was_draining = 0, True  # earlier failures may be of an outage that is over
            entry = self._next()
            if entry is None:
                if self._draining:
                    return
                self._work.wait()
                continue
            problem = self._try(entry)
            if problem is None:
                failures, self._has_noted, self.problem = 0, False, None
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
            if self._draining and failures >= (_PATIENCE if hub_problem.transient else _PATIENCE // 2):
                return
            self._note_once(f"{entry.name} is not on the Hub yet: {problem.message}; trying again")
            # The end of training cuts our own waits short, but not a wait that the Hub asks for.
            waiting = self._hurry if hub_problem.retry_after is None else self._stopped
            waiting.wait(pause(failures, hub_problem))
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

    def _note_once(self, text: str) -> None:
        """Note a problem once, until something is delivered again."""
        if not (self._stopped.is_set() or self._has_noted):
            self._has_noted = True
            self._note(text)
