"""The expected failures. Each has a sentence that says what is wrong, and a hint that can be pasted."""

from collections.abc import Iterator


class PricerError(Exception):
    """An expected failure. `message` says what is wrong, with the value. `hint` says what to do; it may be empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PricerError):
    """Settings that are unknown, mistyped or impossible. `problems` has one text for each, with its place."""

    def __init__(self, problems: list[str], hint: str = "") -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems


class DataError(PricerError):
    """A row, file or split that cannot be used."""


class ModelError(PricerError):
    """A base model or device that cannot be used."""


class CheckpointError(PricerError):
    """A checkpoint that is missing, differs from its manifest, or does not fit the config it is evaluated with."""


class RunError(PricerError):
    """A run folder that is missing, unfinished or already there."""


class HubError(PricerError):
    """The Hub cannot be reached, or refuses a request.

    `transient`: the same request may succeed later, and nobody has to change anything. `retry_after`: the seconds to
    wait before it, None if the Hub does not say. `limited`: a rate limit was reached, and nothing else is wrong.
    `refused`: the Hub does not let this account use this repository (401, 403, 404). `missing`: the repository can be
    used, but has no such commit or file.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        transient: bool = False,
        retry_after: float | None = None,
        limited: bool = False,
        refused: bool = False,
        missing: bool = False,
    ) -> None:
        super().__init__(message, hint)
        self.transient = transient
        self.retry_after = retry_after
        self.limited = limited
        self.refused = refused
        self.missing = missing


class LeaseLost(HubError):  # noqa: N818  # it says what happened
    """Another process holds the lease of a run's repository, or has ended the run. Only a person can decide what to do
    next, so it is never transient.
    """


class Interrupted(PricerError):  # noqa: N818  # an orderly stop is not an error
    """The user or the machine asked for an orderly stop. The work done so far is saved."""


class LostProcess(PricerError):  # noqa: N818  # it says what happened
    """Another process of the same training has ended, so this one cannot go on."""


class SaidElsewhere(PricerError):  # noqa: N818  # it says what happened
    """Another process of the same training says why this one ends. Nothing is printed for it."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has no message."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__


def causes_of(error: BaseException) -> Iterator[BaseException]:
    """Yield an error, its cause, the cause of that, and so on: ten at most, because a chain may be a circle."""
    cause: BaseException | None = error
    for _ in range(10):
        if cause is not None:
            yield cause
            cause = cause.__cause__ or cause.__context__
