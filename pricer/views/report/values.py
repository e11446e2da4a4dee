"""What a report shows: everything of a run that can be drawn or told, loaded and frozen, without a file behind it."""

from dataclasses import dataclass, field

from pricer.core.breakdowns import Breakdown
from pricer.core.comparison import Comparison, Difference
from pricer.core.evaluation import Evaluation, ScoreTable
from pricer.views.report.curves import Curve, no_curve


@dataclass(frozen=True, slots=True, eq=False)
class TrainingLog:
    """What training logged; a curve is empty where nothing was logged for it. Losses are in nats per completion token,
    memory in bytes, `gpu_utilisation` in percent. `val_loss` and `val_mae` (in dollars, greedy answers) are measured
    at each checkpoint on the same `val_items` items.
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
    """Comparable evaluations on validation items, all under one spec: checkpoints by step, and baselines.

    `chosen` is the one that `pricer pick` chose by `metric`, or, where `picked` is false, the one with the lowest mean
    absolute error. `prices` are the true prices of the items, in their order; two runs with equal prices were scored
    on the same items. They are empty where they were not kept. `comparison` is how sure the choice is, None if unknown.
    """

    checkpoints: tuple[Evaluation, ...]
    baselines: tuple[Evaluation, ...]
    chosen: Evaluation
    picked: bool
    metric: str
    prices: tuple[float, ...] = ()
    comparison: Comparison | None = None

    def difference(self, evaluation: Evaluation) -> Difference | None:
        """How a checkpoint compares to the best; None for a baseline, and for one that was scored since the choice."""
        return self.comparison.difference(evaluation.candidate) if self.comparison else None


@dataclass(frozen=True, slots=True)
class Tested:
    """The chosen checkpoint on the test split, and the baselines on the same items. `other_looks` names the checkpoint
    of each other measurement on that split.
    """

    evaluation: Evaluation
    baselines: tuple[Evaluation, ...]
    other_looks: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class PredictionDetails:
    """One evaluation taken apart, on test items if there is one, else on validation items.

    `texts` are the descriptions in the order of `scores`; None where the data could not be read, and the worst items
    of the breakdown have no text either.
    """

    evaluation: Evaluation
    scores: ScoreTable
    texts: tuple[str, ...] | None
    breakdown: Breakdown


@dataclass(frozen=True, slots=True, eq=False)
class RunReport:
    """All that a report shows of one run. `status` says in a few words how far it is. `facts`, `settings` and
    `versions` are names with values as text. `notes` say what is missing, and what to do about it.
    """

    name: str
    status: str
    facts: tuple[tuple[str, str], ...]
    settings: tuple[tuple[str, str], ...]
    versions: tuple[tuple[str, str], ...]
    training: TrainingLog
    held_out: HeldOut | None
    tested: Tested | None
    details: PredictionDetails | None
    notes: tuple[str, ...] = ()
