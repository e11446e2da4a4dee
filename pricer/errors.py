"""What can go wrong for a user: one sentence that says what is so, and a hint that can be pasted."""


class PricerError(Exception):
    """An expected failure. `message` says what is so, with the value; `hint` what to do (empty: nothing to add)."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(PricerError):
    """A setting that is unknown, mistyped or impossible. `problems` holds every one found, each with its place."""

    def __init__(self, problems: list[str], hint: str = "") -> None:
        super().__init__("\n".join(problems), hint)
        self.problems = problems


class DataError(PricerError):
    """A row, file or split that cannot be used."""


class ModelError(PricerError):
    """A base model or device that cannot be used."""


class CheckpointError(PricerError):
    """A checkpoint that is missing, is not what its manifest says, or does not fit the question asked."""


class RunError(PricerError):
    """A run folder that is missing, unfinished or already there."""


class HubError(PricerError):
    """The Hub cannot be reached, or refuses. `transient`: the same request may well succeed later, `retry_after`
    seconds from now at the earliest where the Hub says so; `limited`: nothing failed, a limit has to be waited for.
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


class Interrupted(PricerError):  # noqa: N818  # asked for: an end, not an error
    """The user (or the machine) asked for an orderly stop; what was done so far is saved."""


def first_line(error: BaseException) -> str:
    """The first line of what an exception says, or its type where it says nothing."""
    said = str(error).strip()
    return said.splitlines()[0] if said else type(error).__name__
