"""What can go wrong between a client and the Hub, on demand: in a scripted order or at random."""

import json
import random
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass

MESSAGES = {
    401: "Invalid username or password.",
    403: "Forbidden",
    404: "Not found",
    409: "Cannot do this: another conflicting operation is in progress",
    412: "A commit has happened since. Please refresh and try again.",
    429: "Too Many Requests",
    500: "Internal Error - We're working hard to fix this as soon as possible!",
    502: "Bad Gateway",
    503: "Service Unavailable",
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, made by the functions below. `hub.requests` shows its `name`."""

    name: str
    code: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    reset: bool = False

    @staticmethod
    def status(code: int, retry_after: int | None = None) -> "Fault":
        """The answer is `code`; the request is not carried out."""
        headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
        return Fault(f"status {code}", code, headers)

    @staticmethod
    def rate_limit(reset_in: int = 0) -> "Fault":
        """A 429 whose headers name the limit and the seconds until it ends, instead of Retry-After."""
        limit = f'"api";r=0;t={reset_in}'
        return Fault(
            "rate limit", 429, (("RateLimit", limit), ("RateLimit-Policy", '"fixed window";"api";q=500;w=300'))
        )

    @staticmethod
    def cut_request(reset: bool = False) -> "Fault":
        """The connection ends in the middle of the request's body; the request is not carried out.

        `reset`, here and below: by a TCP reset, which the client can tell from an ordinary end.
        """
        return Fault("cut request", reset=reset)

    @staticmethod
    def cut_answer(reset: bool = False) -> "Fault":
        """The request is carried out, then the connection ends before the first byte of the answer."""
        return Fault("cut answer", reset=reset)

    @staticmethod
    def cut_half_answer(reset: bool = False) -> "Fault":
        """The request is carried out, then the connection ends in the middle of the answer's body.

        An answer without a body is lost whole.
        """
        return Fault("cut half answer", reset=reset)

    @staticmethod
    def stall(seconds: float) -> "Fault":
        """Nothing happens for `seconds`, then the connection ends; the request is not carried out."""
        return Fault("stall", seconds=seconds)

    @property
    def carries_out(self) -> bool:
        """Whether the request is carried out, although the client does not learn of it."""
        return self.name in ("cut answer", "cut half answer")

    @property
    def body(self) -> bytes:
        """The body of the answer with `code`."""
        return json.dumps({"error": MESSAGES.get(self.code, f"Error {self.code}")}).encode()


COMMON_FAULTS = (
    Fault.status(429, retry_after=0),
    Fault.status(429, retry_after=1),
    Fault.status(500),
    Fault.status(503),
    Fault.cut_request(),
    Fault.cut_answer(),
    Fault.cut_half_answer(),
)


@dataclass(frozen=True, slots=True)
class Script:
    """The faults of the next matching requests, in order; None lets a request through."""

    method: str
    path: re.Pattern[str]
    faults: list[Fault | None]


class Faults:
    """The faults of one hub. Scripted faults come before random ones."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._scripts: list[Script] = []
        self._rate = 0.0
        self._random = random.Random(0)
        self._kinds: Sequence[Fault] = COMMON_FAULTS
        self._spare: re.Pattern[str] | None = None

    def script(self, method: str, path: str, faults: Sequence[Fault | None]) -> None:
        """Let `faults` happen, in order, to the next requests with this method and a path that matches `path`.

        The method "*" means any; `path` is a regular expression that is searched for. A request uses up one fault of
        one script: the oldest one that matches and has a fault left.
        """
        with self._lock:
            self._scripts.append(Script(method, re.compile(path), list(faults)))

    def random(self, rate: float, seed: int, kinds: Sequence[Fault] = COMMON_FAULTS, spare: str | None = None) -> None:
        """From now on let a share `rate` of all requests fail, except those with a path that matches `spare`.

        A seed gives the same sequence of draws. Which request gets which draw depends on their order.
        """
        with self._lock:
            self._rate, self._random, self._kinds = rate, random.Random(seed), kinds
            self._spare = None if spare is None else re.compile(spare)

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._scripts.clear()
            self._rate = 0.0

    @property
    def left(self) -> int:
        """The number of scripted faults that have not happened yet."""
        with self._lock:
            return sum(fault is not None for script in self._scripts for fault in script.faults)

    def next(self, method: str, path: str) -> Fault | None:
        """The fault of this request, if any."""
        with self._lock:
            for script in self._scripts:
                if script.faults and script.method in ("*", method) and script.path.search(path):
                    return script.faults.pop(0)
            if not self._rate or (self._spare and self._spare.search(path)):
                return None
            return self._random.choice(self._kinds) if self._random.random() < self._rate else None
