"""The interface through which commands report their progress."""

from dataclasses import dataclass, field
from typing import Protocol

from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.core.training import Progress, Validation


class Watcher(Protocol):
    """Receives the progress of training, uploading and scoring."""

    def note(self, text: str) -> None:
        """Something the user should know once."""

    def preparing(self, what: str, reached: str) -> None:
        """Data is being prepared, or embedded: `what` is done now, and `reached` says how far it is or how much there
        is to do.
        """

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        """A training step was done."""

    def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
        """A checkpoint was kept."""

    def uploading(self, done: int, total: int, current: str, later: str) -> None:
        """`done` of the `total` remaining uploads are on the Hub, and `current` is on its way. The command `later`
        delivers the rest for a user who does not want to wait.
        """

    def scoring(self, name: str, done: int, total: int) -> None:
        """`name` is being scored. `done` of the `total` predictions of all checkpoints are made."""

    def scored(self, evaluation: Evaluation) -> None:
        """An evaluation was made or read."""


@dataclass(frozen=True, slots=True)
class ScoringProgress:
    """Counts the predictions of several checkpoints up to `total`, and reports them to a watcher."""

    watcher: Watcher
    total: int
    done: dict[str, int] = field(default_factory=dict)

    def reach(self, name: str, predictions: int) -> None:
        """Report that `name` has this number of predictions."""
        if predictions:
            self.done[name] = predictions
            self.watcher.scoring(name, sum(self.done.values()), self.total)
