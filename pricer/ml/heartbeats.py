"""Notice processes of a training that have fallen silent: their machine was switched off, or its network is gone.

A process that ends closes its connections, which the others notice at once. These do not, and whoever waits for them
would wait for ever, in code that no signal interrupts.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

# Seconds between two beats, and without one until a process is lost.
_EVERY, _SILENCE = 2.0, 20.0
_LEFT = "left"


@contextmanager
def heartbeats(
    store: Any,
    rank: int,
    count: int,
    on_loss: Callable[[], object],
    *,
    every: float = _EVERY,
    silence: float = _SILENCE,
) -> Iterator[None]:
    """While open, this process says in the store of all processes that it lives. `on_loss` is called, in a thread, once
    another one has been silent for so many seconds, or the store has. It should end the process. Processes that leave
    the context are not missed.
    """
    beats = _Beats(store, rank, count)
    ended = threading.Event()

    def beat() -> None:
        with suppress(Exception):  # without the store, all the others fall silent
            while not ended.wait(every):
                beats.exchange()

    def watch() -> None:
        while not ended.wait(every):
            if beats.silence() > silence:
                on_loss()
                return

    beats.say(str(time.monotonic()))
    # Two threads, because a read from a store that is gone may never return.
    for target in (beat, watch):
        threading.Thread(target=target, name="heartbeats", daemon=True).start()
    try:
        yield
    finally:
        ended.set()
        with suppress(Exception):
            beats.say(_LEFT)


class _Beats:
    """What each process said last, and when this one noticed it."""

    def __init__(self, store: Any, rank: int, count: int) -> None:
        self._store = store
        self._own = _key(rank)
        self._others = [_key(other) for other in range(count) if other != rank]
        self._heard = {key: (b"", time.monotonic()) for key in self._others}

    def say(self, text: str) -> None:
        self._store.set(self._own, text)

    def exchange(self) -> None:
        """Say that this process lives, and hear what the others say."""
        self.say(str(time.monotonic()))
        # A process that has not come yet has no key, and reading it would wait.
        present = [key for key in self._others if self._store.check([key])]
        for key, said in zip(present, self._store.multi_get(present) if present else [], strict=True):
            if said == _LEFT.encode() or said != self._heard[key][0]:
                self._heard[key] = said, time.monotonic()

    def silence(self) -> float:
        """The seconds since the process was heard that has been silent for longest."""
        return time.monotonic() - min(when for _, when in self._heard.values())


def _key(rank: int) -> str:
    return f"alive/{rank}"
