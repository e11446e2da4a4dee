"""What can go wrong for a user: one sentence that says what is wrong, and a hint that can be pasted."""


class PricerError(Exception):
    """An expected failure. `message` says what is wrong, with the value; `hint` what to do (empty: nothing to add)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PricerError):
    """Settings that are unknown, mistyped or impossible. `problems` holds all that were found, each with its place."""

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
    """The Hub cannot be reached, or refuses. `transient`: the same request may succeed later. `retry_after`: seconds to
    wait before that, None if the Hub names none. `limited`: nothing failed, but a rate limit was reached.
    """

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        transient: bool = False,
        retry_after: float | None = None,
        limited: bool = False,
    ) -> None:
        super().__init__(message, hint)
        self.transient = transient
        self.retry_after = retry_after
        self.limited = limited


class Interrupted(PricerError):  # noqa: N818  # it was asked for, so it is no error
    """The user, or the machine, asked for an orderly stop. What was done so far is saved."""


def first_line(error: BaseException) -> str:
    """The first line of an exception's message, or its type if it has no message."""
    message = str(error).strip()
    return message.splitlines()[0] if message else type(error).__name__
