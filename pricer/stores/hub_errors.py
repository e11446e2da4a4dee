"""Errors of the Hub: converts them to HubErrors, and says how long to wait before the next attempt."""

import errno
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn, TypeVar

from pricer.errors import HubError, PricerError, causes_of, first_line
from pricer.redaction import hub_address
from pricer.stores.hub_client import offline_variable
from pricer.waits import Wait, announced

T = TypeVar("T")

_LONGEST_WAIT, _SHORTEST_WAIT, _HOUR = 60.0, 1.0, 3600.0
CONFLICT = (409, 412)
"""HTTP statuses for a conflict with another request."""
_MISSING = (404, 410)
_TRY_LATER = (408, 425, 429, *CONFLICT)
# Failures of this machine's disk, not of the network.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


def pause(attempt: int, error: HubError) -> float:
    """Seconds to wait after `attempt` failures in a row: the time that the Hub asks for, else a doubling time with
    jitter.
    """
    # Jitter, so that machines that failed together do not retry together.
    own = min(_LONGEST_WAIT, 0.5 * 2.0 ** min(attempt, 10)) * random.uniform(0.75, 1.25)  # noqa: S311
    if error.retry_after is None:
        return own
    # The Hub may ask for no wait at all, or for a very long one. Both are limited.
    return min(max(error.retry_after, min(own, _SHORTEST_WAIT)), _HOUR)


@dataclass(frozen=True, slots=True)
class Polling:
    """For a command that goes on for as long as the Hub is away: it looks `every` seconds, and waits by `wait`."""

    every: float
    wait: Callable[[float], object] = time.sleep

    def pause(self) -> None:
        """Wait for the next look."""
        self.wait(self.every)

    def ask(self, question: Callable[[], T]) -> T:
        """The answer to a question that needs the Hub. While the Hub fails, it is asked again. Each wait is announced.
        A HubError that is not transient is raised.
        """
        while True:
            try:
                return question()
            except HubError as error:
                if not error.transient:
                    raise
                seconds = max(self.every, error.retry_after or 0.0)
                with announced(Wait(error.message, seconds)):
                    self.wait(seconds)


def raise_hub_error(error: Exception, repo: str) -> NoReturn:
    """Raise a library's error as a HubError, or as an OSError if this machine's disk failed."""
    if isinstance(error, PricerError):  # also an Interrupted of a signal that came during the request
        raise error
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    variable = offline_variable()
    hidden = f"there is no repository {repo} on the Hub, or this account may not see it"
    login = "a private one needs `hf auth login`, or HF_TOKEN"
    problems: dict[type[Exception], HubError] = {
        OfflineModeIsEnabled: HubError(f"the Hub is switched off ({variable})", f"unset {variable}"),
        HFValidationError: HubError(f"{repo!r} cannot name a repository on the Hub", "USER/NAME"),
        GatedRepoError: HubError(*gated(repo)),  # before its base class
        RepositoryNotFoundError: HubError(hidden, login, refused=True),
    }
    # Libraries wrap errors: an upload's in a RuntimeError, a download's in an error about a missing local file.
    for cause in causes_of(error):
        if problem := next((known for kind, known in problems.items() if isinstance(cause, kind)), None):
            raise problem from None
        if isinstance(cause, RevisionNotFoundError | RemoteEntryNotFoundError):
            text = f"{repo} on the Hub has no such revision or file: {_hub_message(cause)}"
            raise HubError(text, missing=True) from None
        if isinstance(cause, OSError) and cause.errno in _DISK:
            raise cause
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            raise _refusal(cause, status, repo) from None
    # The remaining errors are broken connections and answers. Each library has its own classes for them.
    raise HubError(
        f"the Hub cannot be reached for {repo}: {_without_signature(error)}", "is the network up?", transient=True
    ) from None


def hub_fails(error: PricerError) -> bool:
    """Whether the Hub itself fails or refuses. Such an error says nothing about the file that was asked for."""
    return isinstance(error, HubError) and (error.transient or error.refused)


def gated(repo: str) -> tuple[str, str]:
    """Message and hint for a repository whose terms were not accepted."""
    return (
        f"{repo} is gated: its terms have to be accepted first",
        f"accept them on {hub_address(repo)}, then `hf auth login`",
    )


def _refusal(error: BaseException, status: int, repo: str) -> HubError:
    """The error for an HTTP status of 400 or more."""
    message = _hub_message(error)
    refusals = {
        401: "hf auth whoami; hf auth login",
        403: f"what the token may do, and how much space is left: {hub_address('settings')}",
    }
    if hint := refusals.get(status):
        return HubError(f"the Hub refuses access to {repo} ({status}): {message}", hint, refused=True)
    is_public = hub_address() == "https://huggingface.co"
    return HubError(
        f"the Hub answers {status} for {repo}: {message}",
        "see https://status.huggingface.co" if is_public else f"is {hub_address()} up?",
        transient=status >= 500 or status in _TRY_LATER,
        retry_after=_retry_after(getattr(error, "response", None)),
        missing=status in _MISSING,
    )


def _retry_after(response: Any) -> float | None:
    from huggingface_hub.utils import parse_ratelimit_headers  # type: ignore[attr-defined]

    headers = getattr(response, "headers", {})
    limits = parse_ratelimit_headers(headers)
    if limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    stated = headers.get("retry-after", "")
    if stated.isdecimal():
        return float(stated)
    try:
        return max(0.0, parsedate_to_datetime(stated).timestamp() - time.time())
    except ValueError:
        return None


def _hub_message(error: BaseException) -> str:
    """The first line of the Hub's own message, else of the library's."""
    # The message may have several lines: from headers and body, or from a hook that refuses a push.
    stated = str(getattr(error, "server_message", None) or "").strip()
    return stated.splitlines()[0] if stated else _without_signature(error)


def _without_signature(error: BaseException) -> str:
    """The error's first line, without the query of an address: storage addresses have a signature in it."""
    return re.sub(r"\?\S{20,}", "?…", first_line(error)).rstrip()
