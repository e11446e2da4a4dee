"""What the commands report while they work."""

from dataclasses import dataclass
from typing import Protocol

from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.core.training import Progress, Validation


class Watcher(Protocol):
    """Whoever wants to know how training, uploading and scoring go."""

    def note(self, text: str) -> None:
        """Something the user should know once."""

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        """A training step was done."""

    def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
        """A checkpoint was kept."""

    def uploading(self, done: int, total: int) -> None:
        """Of the `total` things that were left to upload, `done` are on the Hub."""

    def scoring(self, name: str, done: int, total: int) -> None:
        """`name` is being scored. Over all checkpoints that are scored now, `done` of `total` answers are there."""

    def scored(self, evaluation: Evaluation) -> None:
        """An evaluation is there, whether it was made now or read."""


@dataclass(slots=True)
class ScoringProgress:
    """Counts the answers of several checkpoints, of which there will be `total`, for a watcher."""

    watcher: Watcher
    total: int
    done: int = 0

    def add(self, name: str, answers: int) -> None:
        """So many more answers of `name` are there."""
        if answers:
            self.done += answers
            self.watcher.scoring(name, self.done, self.total)
