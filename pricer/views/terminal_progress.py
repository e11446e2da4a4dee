"""The progress of training, scoring and uploading: a live line on a terminal, and lines that stay."""

import math
import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from pricer.views.formatting import duration, evaluation_line
from pricer.views.terminal import harmless
from pricer.waits import Wait, describe_wait, listening

if TYPE_CHECKING:
    from pricer.core.checkpoints import Checkpoint
    from pricer.core.evaluation import Evaluation
    from pricer.core.training import Progress, Validation

# Weight of the past in the smoothed loss of the live line, per logged step.
_SMOOTHING = 0.8
# Without a terminal: seconds of preparation that need no line, and seconds between two lines about the same thing.
_SHORT, _BETWEEN_LINES = 10.0, 15.0
# The same between two lines about waits. It doubles up to this, so that a Hub that is away all night fills no log.
_MOST_BETWEEN_WAITS = 900.0


class Watcher:
    """Shows the progress of a command: one live line on a terminal, and a line for each checkpoint."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._shown: RenderableType = ""
        self._wait: _Countdown | None = None
        self._wait_lines = _WaitLines()
        self._stack = ExitStack()
        self._first: tuple[float, int] | None = None
        self._loss: float | None = None
        self._logged: Progress | None = None
        self._uploading = False
        self._last_note = ""
        self._preparation = _Preparation()
        self._live = Live(get_renderable=self._render, console=self._console, transient=True, refresh_per_second=4)

    def __enter__(self) -> "Watcher":
        self._stack.enter_context(listening(self._show_wait))
        # Without a terminal, a live line would fill a file with control characters.
        if self._console.is_terminal:
            self._live.start()
            self._update("starting")  # importing torch and other libraries takes a while
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()
        self._live.stop()

    def note(self, text: str) -> None:
        """Print a line that stays."""
        self._last_note = text
        self._console.print(harmless(text), markup=False, soft_wrap=True)

    def preparing(self, what: str, reached: str) -> None:
        """Update the live line of the preparation of data. Without a terminal, print a line from time to time."""
        text = f"{what} · {reached}"
        self._update(text)
        if not self._console.is_terminal and self._preparation.is_due(what, time.monotonic()):
            self.note(text)

    def progress(self, progress: "Progress", next_checkpoint: int) -> None:
        """Update the live line of training."""
        if progress.loss is not None:
            past = progress.loss if self._loss is None else self._loss
            self._loss = _SMOOTHING * past + (1 - _SMOOTHING) * progress.loss
            self._logged = progress
        left = self._seconds_left(progress.step, progress.steps)
        self._update(training_line(progress, self._logged, self._loss, next_checkpoint, left))

    def checkpoint(self, checkpoint: "Checkpoint", validation: "Validation | None") -> None:
        """Print the line of a checkpoint."""
        parts = [f"{checkpoint.name}  epoch {checkpoint.epoch:.2f}"]
        if validation:
            loss = "–" if validation.loss is None else f"{validation.loss:.4f}"
            parts.append(
                f"val loss {loss}  val MAE {validation.unit.error(validation.mae)} (greedy, n {validation.n:,})"
            )
            if validation.no_price:
                parts.append(f"{validation.no_price:,} without a price")
        self.note("  ".join([*parts, checkpoint.id[:7]]))

    def uploading(self, done: int, total: int, current: str, later: str) -> None:
        """Update the bar of remaining uploads. Without a terminal, print once that uploads continue."""
        if not self._console.is_terminal:
            if not self._uploading:
                self.note(f"uploading what is left: {total - done:,}. Ctrl-C leaves it for later: {later}")
                self._wait_lines = _WaitLines()  # from now on nothing else happens
            self._uploading = True
        else:
            bar = Table.grid(padding=(0, 1))
            bar.add_row("uploading", ProgressBar(total=total, completed=done, width=30), f"{done:,}/{total:,}", current)
            self._shown = Group(bar, Text(f"Ctrl-C leaves the rest for later: {later}"))

    def scoring(self, name: str, done: int, total: int) -> None:
        """Update the live line of scoring."""
        left = self._seconds_left(done, total)
        self._update(f"{name} · {done:,}/{total:,} answers" + ("" if left is None else f" · {duration(left)} left"))

    def scored(self, evaluation: "Evaluation") -> None:
        """Print the line of an evaluation."""
        self.note(evaluation_line(evaluation))

    def _update(self, text: str) -> None:
        self._shown = Text(text)  # wraps on a narrow terminal, because the time left is at the end

    def _render(self) -> RenderableType:
        """What the live lines show now. A wait counts down below the progress."""
        wait = self._wait
        left = wait.end - time.monotonic() if wait else 0.0
        if wait is None or left <= 0:  # libraries do not say when their waits are over
            return self._shown
        return Group(self._shown, Text(harmless(describe_wait(wait.reason, left))))

    def _show_wait(self, wait: Wait | None) -> None:
        """Show a wait for the Hub, from any thread; None: it is over."""
        if self._console.is_terminal:
            self._wait = _Countdown(wait.reason, time.monotonic() + wait.seconds) if wait else None
        elif wait and self._wait_lines.is_due(time.monotonic()):
            if wait.text != self._last_note:
                self.note(wait.text)
            self._last_note = ""

    def _seconds_left(self, done: int, total: int) -> float | None:
        """Estimated from the pace of this process, which may have resumed the run. None at first."""
        if self._first is None:
            self._first = (time.monotonic(), done)
        seconds, since = time.monotonic() - self._first[0], done - self._first[1]
        return seconds / since * (total - done) if since else None


@dataclass(frozen=True, slots=True)
class _Countdown:
    """A wait that ends at `end`, on the monotonic clock."""

    reason: str
    end: float


@dataclass(slots=True)
class _WaitLines:
    """Decides which waits become lines: the first one, and then one at growing intervals. After half an hour without a
    line, it begins again.
    """

    interval: float = _BETWEEN_LINES
    shown: float = -math.inf

    def is_due(self, now: float) -> bool:
        """Whether a wait that begins at `now`, in seconds, becomes a line."""
        if now - self.shown < self.interval:
            return False
        is_new = now - self.shown > 2 * _MOST_BETWEEN_WAITS
        self.interval = _BETWEEN_LINES if is_new else min(2 * self.interval, _MOST_BETWEEN_WAITS)
        self.shown = now
        return True


@dataclass(slots=True)
class _Preparation:
    """Decides which reports of a preparation become lines: none of the first seconds, and after that one for each new
    thing that is done and one every few seconds.
    """

    began: float | None = None
    what: str = ""
    shown: float = -math.inf

    def is_due(self, what: str, now: float) -> bool:
        """Whether a report about `what` at `now`, in seconds, becomes a line."""
        if self.began is None:
            self.began = now
        if now - self.began < _SHORT or (what == self.what and now - self.shown < _BETWEEN_LINES):
            return False
        self.what, self.shown = what, now
        return True


def training_line(
    progress: "Progress",
    logged: "Progress | None",
    loss: float | None,
    next_checkpoint: int,
    seconds_left: float | None,
) -> str:
    """The live line of training. Values that have not been measured yet are left out."""
    parts = [f"epoch {progress.epoch:.2f}", f"step {progress.step:,}/{progress.steps:,}"]
    if loss is not None:
        parts.append(f"loss {loss:.3f}")
    if logged and logged.learning_rate is not None:
        parts.append(f"lr {logged.learning_rate:.1e}")
    if logged and logged.tokens_per_second is not None:
        parts.append(f"{logged.tokens_per_second:,.0f} tokens/s")
    if logged and logged.memory_used is not None and logged.memory_total is not None:
        parts.append(f"{logged.memory_used / 1e9:.1f}/{logged.memory_total / 1e9:.1f} GB")
    parts.append(f"checkpoint at {next_checkpoint:,}")
    if seconds_left is not None:
        parts.append(f"{duration(seconds_left)} left")
    return " · ".join(parts)
