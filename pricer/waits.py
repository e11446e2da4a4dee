"""Waits for the Hub. The code that waits announces the reason and the seconds, so that the command can show them."""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

# Their own retries happen inside a call, and their loggers are the only place that mentions them.
_LIBRARIES = ("huggingface_hub.utils._http", "datasets.utils.file_utils")
_SECONDS = re.compile(r"(?:Retrying in|Waiting) ([\d.]+) ?s")
_STATUS = re.compile(r"HTTP Error (\d{3})")


@dataclass(frozen=True, slots=True)
class Wait:
    """A wait before the next attempt. `reason` says what went wrong. `seconds` are counted from the announcement."""

    reason: str
    seconds: float

    @property
    def text(self) -> str:
        """The reason and the time until the next attempt: `the Hub answers 503 for ann/prices; next try in 4 s`."""
        return describe_wait(self.reason, self.seconds)


Listener = Callable[[Wait | None], None]
_listeners: list[Listener] = []


def describe_wait(reason: str, seconds: float) -> str:
    """What went wrong, and the time until the next attempt."""
    whole = max(1, math.ceil(seconds))
    return f"{reason}; next try in {f'{whole} s' if whole < 120 else f'{math.ceil(whole / 60)} min'}"


@contextmanager
def announced(wait: Wait) -> Iterator[None]:
    """A context for the wait: the listeners hear of its beginning, and None when it is over."""
    _tell(wait)
    try:
        yield
    finally:
        _tell(None)


@contextmanager
def listening(listener: Listener) -> Iterator[None]:
    """While open, `listener` hears of every wait in this process, also of those inside libraries."""
    handler = _LibraryWaits()
    loggers = [logging.getLogger(name) for name in _LIBRARIES]
    before = [(logger.level, logger.propagate) for logger in loggers]
    _listeners.append(listener)
    for logger in loggers:
        logger.addHandler(handler)
        logger.setLevel(logging.WARNING)
        logger.propagate = False  # the libraries' own texts have addresses in them
    try:
        yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        _listeners.remove(listener)


def _tell(wait: Wait | None) -> None:
    for listener in _listeners[:]:
        listener(wait)


class _LibraryWaits(logging.Handler):
    """Announces the waits that a library only logs. Their end is not logged."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._reason = ""

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if wait := _SECONDS.search(text):
            _tell(Wait(self._reason or "the connection to the Hub failed", float(wait[1])))
            self._reason = ""
        elif status := _STATUS.search(text):
            self._reason = f"the Hub answers {status[1]}"
