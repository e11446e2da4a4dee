"""Early stopping, as the training sees it: it looks for a request of `pricer watch`, here and in its repository."""

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal

from pricer.core.early_stopping import EarlyStop
from pricer.errors import HubError, PricerError, first_line
from pricer.stores.early_stops import drop_stop, fetch_stop, read_stop, write_stop
from pricer.stores.hub import Hub
from pricer.stores.hub_lease import STATE_BRANCH
from pricer.stores.runs import Run

# Seconds between two looks at the Hub.
_EVERY = 60.0


@contextmanager
def stop_requests(
    run: Run, patience: int | Literal["off"], note: Callable[[str], None], *, is_new: bool
) -> Iterator[Callable[[], EarlyStop | None]]:
    """Yield a function that finds the request to stop the training of a run; it returns None if there is none. It takes
    microseconds, because requests in the repository are brought to the run's folder in the background. `is_new`:
    training begins at its first step, so a request in the folder is about checkpoints that are trained again.
    """
    if is_new:
        drop_stop(run.folder)
    if patience == "off":
        yield lambda: None
        return
    where = f"--run {run.name}" if run.repo is None else f"--repo {run.repo}"
    note(f"eval.patience is {patience}: training stops early only while `pricer watch {where}` scores its checkpoints")
    requests = _Requests(run, note)
    if run.repo is not None:
        requests.start(Hub(run.repo, attempts=1))
    try:
        yield requests.find
    finally:
        requests.ended.set()


def record_stop(run: Run, stop: EarlyStop | None, note: Callable[[str], None]) -> bool:
    """Record in run.json that training was stopped early, and say why. Returns whether it was."""
    if stop is None:
        return False
    run.record(stopped_early=asdict(stop))
    note(f"stopped early: {stop.reason}")
    return True


def describe_end(facts: Mapping[str, Any]) -> str:
    """How a training ended, by its run.json: the end of a sentence about the run."""
    stop = EarlyStop.from_fact(facts.get("stopped_early"))
    return "is finished" if stop is None else f"was stopped early ({stop.reason})"


class _Requests:
    """Requests to stop the training of a run. `ended` ends the looks at its repository."""

    def __init__(self, run: Run, note: Callable[[str], None]) -> None:
        self.ended = threading.Event()
        self._folder = run.folder
        self._note = note
        self._noted = set[str]()
        self._head: str | None = None

    def find(self) -> EarlyStop | None:
        """The request in the run's folder. One that is damaged is ignored, with a note."""
        try:
            return read_stop(self._folder)
        except PricerError as problem:
            self._note_once(problem.message)
            return None

    def start(self, hub: Hub) -> None:
        """Look for requests in the repository from now on."""
        # A daemon: a connection that hangs does not keep the process alive.
        threading.Thread(target=self._run, args=[hub], name="stop requests", daemon=True).start()

    def _run(self, hub: Hub) -> None:
        while not self.ended.is_set():
            try:
                self._look(hub)
            except HubError as error:
                if not error.transient:  # otherwise the uploads say so
                    self._note_once(error.message)
            except Exception as error:  # a thread that dies silently would never find a request
                self._note_once(f"no request to stop can be read: {type(error).__name__}: {first_line(error)}")
            self.ended.wait(_EVERY)

    def _look(self, hub: Hub) -> None:
        head = hub.refs().branches.get(STATE_BRANCH)
        if head is None or head == self._head:
            return
        if stop := fetch_stop(hub, head):
            write_stop(self._folder, stop)
        self._head = head

    def _note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self._note(text)
