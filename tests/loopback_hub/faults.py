"""What can go wrong between a client and the Hub, on demand: in a given order, or at random."""

import json
import random
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field

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
    """One mishap. Made by the functions below; `name` says what it is, as `hub.requests` shows it."""

    name: str
    code: int = 0
    headers: tuple[tuple[str, str], ...] = ()
    seconds: float = 0.0
    reset: bool = False

    @staticmethod
    def status(code: int, retry_after: int | None = None) -> "Fault":
        """Answered with `code`; the request is not carried out."""
        headers = () if retry_after is None else (("Retry-After", str(retry_after)),)
        return Fault(f"status {code}", code, headers)

    @staticmethod
    def rate_limit(reset_in: int = 0) -> "Fault":
        """A 429 with the headers that name the limit that was hit, and when it ends, in place of Retry-After."""
        limit = f'"api";r=0;t={reset_in}'
        return Fault(
            "rate limit", 429, (("RateLimit", limit), ("RateLimit-Policy", '"fixed window";"api";q=500;w=300'))
        )

    @staticmethod
    def cut_request(reset: bool = False) -> "Fault":
        """The connection ends while the body comes in; the request is not carried out."""
        return Fault("cut request", reset=reset)

    @staticmethod
    def cut_answer(reset: bool = False) -> "Fault":
        """The request is carried out, then the connection ends without a byte of the answer.

        `reset`: by a TCP reset, which the client tells apart from a mere end.
        """
        return Fault("cut answer", reset=reset)

    @staticmethod
    def cut_half_answer(reset: bool = False) -> "Fault":
        """The request is carried out, then the connection ends after the headers and half of the body.

        Where there is no body the whole answer is lost.
        """
        return Fault("cut half answer", reset=reset)

    @staticmethod
    def stall(seconds: float) -> "Fault":
        """Nothing for that long, then the connection ends; the request is not carried out."""
        return Fault("stall", seconds=seconds)

    @property
    def carries_out(self) -> bool:
        """Whether the request is done although the client does not learn of it."""
        return self.name in ("cut answer", "cut half answer")

    @property
    def body(self) -> bytes:
        """What the answer with `code` says."""
        return json.dumps({"error": MESSAGES.get(self.code, f"Error {self.code}")}).encode()


ANY_KIND = (
    Fault.status(429, retry_after=0),
    Fault.status(429, retry_after=1),
    Fault.status(500),
    Fault.status(503),
    Fault.cut_request(),
    Fault.cut_answer(),
    Fault.cut_half_answer(),
)


@dataclass(slots=True)
class Script:
    """What happens to the next requests that match, one after the other; None lets one through."""

    method: str
    path: re.Pattern[str]
    faults: list[Fault | None]


@dataclass(slots=True)
class Faults:
    """The faults of one hub. What is scripted goes before what is random."""

    _scripts: list[Script] = field(default_factory=list)
    _rate: float = 0.0
    _chance: random.Random = field(default_factory=random.Random)
    _kinds: Sequence[Fault] = ANY_KIND
    _spare: re.Pattern[str] | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def script(self, method: str, path: str, faults: Sequence[Fault | None]) -> None:
        """Let `faults` happen, in order, to the next requests with that method ("*": any) and a path that `path` finds.

        A request is touched by one script only: the oldest that matches and is not used up.
        """
        with self._lock:
            self._scripts.append(Script(method, re.compile(path), list(faults)))

    def random(
        self, rate: float, seed: int, kinds: Sequence[Fault] = ANY_KIND, spare: str | re.Pattern[str] | None = None
    ) -> None:
        """From now on let `rate` of all requests misbehave, except those with a path that `spare` finds.

        The draws are the same for a seed; which request gets which also depends on the order in which they come.
        """
        with self._lock:
            self._rate, self._chance, self._kinds = rate, random.Random(seed), kinds
            self._spare = None if spare is None else re.compile(spare)

    def clear(self) -> None:
        """No more faults."""
        with self._lock:
            self._scripts.clear()
            self._rate = 0.0

    @property
    def left(self) -> int:
        """How many scripted faults have not happened yet."""
        with self._lock:
            return sum(fault is not None for script in self._scripts for fault in script.faults)

    def next(self, method: str, path: str) -> Fault | None:
        """What happens to this request; None: nothing."""
        with self._lock:
            for script in self._scripts:
                if script.faults and script.method in ("*", method) and script.path.search(path):
                    return script.faults.pop(0)
            if not self._rate or (self._spare and self._spare.search(path)):
                return None
            return self._chance.choice(self._kinds) if self._chance.random() < self._rate else None
