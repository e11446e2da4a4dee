"""The commit budget: the Hub allows so many commits an hour to a repository, whoever makes them."""

import time
from collections.abc import Callable
from pathlib import Path

from pricer.errors import HubError
from pricer.stores.files import append_lines, read_lines

# The Hub refuses the 129th commit of an hour; some are left to people and to `pricer pick`.
COMMITS_PER_HOUR = 120
_HOUR = 3600.0


class CommitBudget:
    """At most `per_hour` commits in any hour, restarts included: their times are kept in a file."""

    def __init__(self, path: Path, *, per_hour: int = COMMITS_PER_HOUR, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._per_hour = per_hour
        self._clock = clock

    def take(self) -> None:
        """Use one commit up; a `limited` HubError that says how long to wait if there is none left."""
        now = self._clock()
        # What lies ahead was written before the clock was set back, and would lock the repository up for too long.
        recent = sorted(t for t in self._times() if now - _HOUR < t <= now)
        if len(recent) >= self._per_hour:
            left = recent[-self._per_hour] + _HOUR - now
            raise HubError(
                f"{self._per_hour} commits in an hour is what the Hub allows: the next one can be made in "
                f"{left / 60:.0f} minutes",
                transient=True,
                retry_after=left,
                limited=True,
            )
        append_lines(self._path, [{"time": now}], durable=False)

    def _times(self) -> list[float]:
        try:
            return [float(line["time"]) for line in read_lines(self._path)]
        except (KeyError, TypeError, ValueError):
            return []
