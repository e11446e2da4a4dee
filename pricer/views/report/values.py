"""What a report shows: everything of a run that can be drawn or told, gathered, frozen and without a file behind it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from pricer.core.breakdowns import Breakdown
from pricer.core.comparison import Comparison, Difference
from pricer.core.evaluation import Evaluation
from pricer.core.scores import ScoreTable


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """What was measured at some steps, in their order: `step` and `value` (n,). A value that is no number (a loss that
    has diverged) is NaN.
    """

    step: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, points: Sequence[tuple[int, float | None]]) -> "Curve":
        """The curve through (step, value); None is no number."""
        steps = np.array([step for step, _ in points], dtype=np.int64)
        return cls(steps, np.array([np.nan if value is None else value for _, value in points], dtype=np.float64))

    def __len__(self) -> int:
        return len(self.step)


def no_curve() -> Curve:
    """A curve without a point: nothing was measured."""
    return Curve.of(())


@dataclass(frozen=True, slots=True, eq=False)
class TrainingLog:
    """What training logged, each curve empty where it did not. Losses are in nats per completion token, memory is in
    bytes, `gpu_utilisation` in percent; `val_loss` and `val_mae` (in dollars, of greedy answers) are of the `val_items`
    items that are asked at each checkpoint.
    """

    epoch: Curve = field(default_factory=no_curve)
    loss: Curve = field(default_factory=no_curve)
    learning_rate: Curve = field(default_factory=no_curve)
    tokens_per_second: Curve = field(default_factory=no_curve)
    memory_used: Curve = field(default_factory=no_curve)
    memory_total: Curve = field(default_factory=no_curve)
    gpu_utilisation: Curve = field(default_factory=no_curve)
    val_loss: Curve = field(default_factory=no_curve)
    val_mae: Curve = field(default_factory=no_curve)
    val_items: int | None = None


@dataclass(frozen=True, slots=True)
class HeldOut:
    """Evaluations that can be compared: checkpoints by step, and baselines, all under one spec on validation items.

    `chosen` is the one that `pricer pick` chose by `metric`, or, where `picked` is false, the one with the lowest mean
    absolute error. `prices` are the true prices of the items, in their order, by which two runs are known to have been
    asked about the same ones; empty where they were not kept. `comparison` says how sure the choice is; None where
    nothing is known of it.
    """

    checkpoints: tuple[Evaluation, ...]
    baselines: tuple[Evaluation, ...]
    chosen: Evaluation
    picked: bool
    metric: str
    prices: tuple[float, ...] = ()
    comparison: Comparison | None = None

    def difference(self, evaluation: Evaluation) -> Difference | None:
        """A checkpoint compared to the best; None where it was not: a baseline, or one scored since the choice."""
        return self.comparison.difference(evaluation.candidate) if self.comparison else None


@dataclass(frozen=True, slots=True)
class Tested:
    """The chosen checkpoint on the test split, and the baselines on the same items."""

    evaluation: Evaluation
    baselines: tuple[Evaluation, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Behind:
    """One evaluation taken apart, on test items if it was made on those, else on validation items.

    `texts` are the descriptions in the order of `scores`, None where the data could not be read; the breakdown then
    has neither the descriptions of its worst items nor intervals.
    """

    evaluation: Evaluation
    scores: ScoreTable
    texts: tuple[str, ...] | None
    breakdown: Breakdown


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    """All that a report shows of one run. `status` says in a few words how far it is; `facts`, `settings` and
    `versions` are names with values as text; `notes` say what is missing, and what to do about it.
    """

    name: str
    status: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    training: TrainingLog
    held_out: HeldOut | None
    tested: Tested | None
    behind: Behind | None
    notes: tuple[str, ...] = ()
