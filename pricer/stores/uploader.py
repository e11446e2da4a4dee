"""The worker that delivers an outbox in the background."""

import contextlib
import math
import threading
import time
from collections.abc import Callable

from pricer.errors import CheckpointError, HubError, PricerError
from pricer.stores.files import locked
from pricer.stores.hub_errors import pause
from pricer.stores.outbox import Entry, Outbox
from pricer.waits import Wait, announced, describe_wait

# Failures in a row, with growing waits between them (four minutes in all), after which a drain ends.
_PATIENCE = 10
# The same for refusals: a few seconds in all. Somebody has to change something first.
_REFUSALS = 3
# While training goes on, waits after a refusal are this many times as long, at most ten minutes.
_RARELY = 10.0
_LOCK_WAIT = 5.0
# Seconds between two training states while checkpoints are waiting.
_STATE_EVERY = 600.0


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
                failures, refusals, was_draining = 0, 0, True  # the outage behind earlier failures may be over
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
