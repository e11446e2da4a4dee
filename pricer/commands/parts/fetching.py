"""Fetch adapters ahead: while one is in use, the next one is on its way."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from pathlib import Path

from pricer.core.checkpoints import Checkpoint


def fetch_ahead(fetch: Callable[[Checkpoint], Path], checkpoints: Sequence[Checkpoint]) -> Iterator[Callable[[], Path]]:
    """Yield a function for each checkpoint. It returns the folder of the checkpoint, or raises the error of its fetch.
    The next one is fetched while the caller works with the current one.
    """

    def start(checkpoint: Checkpoint) -> Future[Path]:
        future = Future[Path]()

        def run() -> None:
            try:
                future.set_result(fetch(checkpoint))
            except Exception as error:
                future.set_exception(error)

        # Unlike the threads of an executor this is a daemon, so a download that hangs does not keep the process alive.
        threading.Thread(target=run, daemon=True).start()
        return future

    fetches = map(start, checkpoints)
    current = next(fetches, None)
    while current:
        current.exception()  # waits for the end of this fetch, so that only one more is under way
        following = next(fetches, None)
        yield current.result
        current = following


def fetch_in_order(fetch: Callable[[Checkpoint], Path], checkpoints: Sequence[Checkpoint]) -> dict[str, Future[Path]]:
    """Fetch all checkpoints in the background, one after the other: the folder or the error of each, by id."""
    futures = {checkpoint.id: Future[Path]() for checkpoint in checkpoints}

    def run() -> None:
        for checkpoint in checkpoints:
            try:
                futures[checkpoint.id].set_result(fetch(checkpoint))
            except Exception as error:
                futures[checkpoint.id].set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return futures
