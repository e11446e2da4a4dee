"""Early stopping: a training is stopped if its newest checkpoints are all clearly worse than its best one."""

from dataclasses import dataclass
from typing import Any

from pricer.core.comparison import Comparison

# Limits for a request that comes from a repository.
_MOST = 10**12


@dataclass(frozen=True, slots=True)
class EarlyStop:
    """The decision to stop a training. The checkpoint at step `best` has the lowest mean absolute error. The last
    `worse` checkpoints, up to the step `newest`, are clearly worse under the spec with that fingerprint.

    Numbers that no training can have, and a fingerprint that is none, are a ValueError.
    """

    best: int
    newest: int
    worse: int
    spec_fingerprint: str

    def __post_init__(self) -> None:
        if not (0 <= self.best < self.newest < _MOST and 1 <= self.worse <= self.newest - self.best):
            raise ValueError(f"no {str(self.worse)[:20]} checkpoints are between these steps")
        if not (self.spec_fingerprint.isalnum() and len(self.spec_fingerprint) <= 64):
            raise ValueError("spec_fingerprint is no fingerprint")

    @classmethod
    def from_fact(cls, fact: Any) -> "EarlyStop | None":
        """The decision that run.json records as `stopped_early`; None if it records none that can be read."""
        try:
            return cls(**fact)
        except (TypeError, ValueError, AttributeError):
            return None

    @property
    def reason(self) -> str:
        """Why the training was stopped, as a clause."""
        if self.worse == 1:
            return f"step {self.best:,} is the best, and the newest checkpoint is clearly worse"
        return f"step {self.best:,} is the best, and the newest {self.worse:,} checkpoints are all clearly worse"


def decide_stop(comparison: Comparison, patience: int, spec_fingerprint: str) -> EarlyStop | None:
    """The decision to stop after the newest checkpoint that was compared; None to go on.

    Training stops if the last `patience` checkpoints came after the best one, and the 95 % interval of each one's
    difference to the best lies above zero. The intervals hold for all checkpoints at once, so neither the choice of the
    best one nor the number of checkpoints makes a stop more likely. Checkpoints that nobody can tell apart never stop a
    training. The checkpoints between the best and the last ones do not matter: the neighbours of the best are as good.
    """
    last = comparison.differences[-patience:]
    best, newest = comparison.best.step, last[-1].candidate.step
    assert best is not None
    assert newest is not None  # no baseline is compared
    is_worse = [(one.candidate.step or 0) > best and one.interval[0] > 0 for one in last]
    return EarlyStop(best, newest, patience, spec_fingerprint) if len(last) == patience and all(is_worse) else None
