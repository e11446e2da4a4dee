"""How many commits the Hub takes from a repository in an hour, counted across restarts."""

import time
from collections.abc import Callable
from pathlib import Path

from pricer.errors import HubError
from pricer.stores.files import append_lines, read_lines

# The Hub refuses the 129th commit of an hour to a repository; some are left to people and to `pricer pick`.
COMMITS_PER_HOUR = 120
_HOUR = 3600.0


class CommitBudget:
    """At most `per_hour` commits in any hour, restarts included: their times are kept in a file."""

    def __init__(self, path: Path, *, per_hour: int = COMMITS_PER_HOUR, clock: Callable[[], float] = time.time) -> None:
        self._path = path
        self._per_hour = per_hour
        self._clock = clock

    def take(self) -> None:
        """Count one commit; if none is left in this hour, a `limited` HubError that says how long to wait."""
        now = self._clock()
        try:
            made = [float(line["time"]) for line in read_lines(self._path)]
        except (KeyError, TypeError, ValueError):
            made = []
        # Times in the future were written before the clock was set back. They would block the repository for too long.
        recent = sorted(at for at in made if now - _HOUR < at <= now)
        if len(recent) >= self._per_hour:
            left = recent[-self._per_hour] + _HOUR - now
            wait = f"the next one can be made in {left / 60:.0f} minutes"
            text = f"the Hub allows {self._per_hour} commits in an hour: {wait}"
            raise HubError(text, transient=True, retry_after=left, limited=True)
        append_lines(self._path, [{"time": now}], durable=False)

    def reset(self) -> None:
        """Forget the commits so far: they went to another repository."""
        self._path.unlink(missing_ok=True)
