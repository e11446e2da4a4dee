"""Comparison to the best: how certain the choice of a checkpoint is, and how much it biases the metric. Comparison to
baselines: how much better the checkpoint is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import ScoreTable
from pricer.core.metrics import METRICS, mean_interval
from pricer.core.multiple_comparisons import ComparisonWithBest, compare_with_best
from pricer.core.resampling import RESAMPLES, SEED, Resampled, bootstrap_t_quantiles, compute_losses, resample


@dataclass(frozen=True, slots=True)
class Difference:
    """One candidate compared to the best of the others on the same items.

    `worse_by` is in the metric's unit. It is negative for the best candidate, which `is_best` marks, and never negative
    for the others. `interval` is its 95 % interval. The intervals of all candidates hold at once, whichever candidate
    was chosen. `may_be_best` says whether the candidate is in the set that contains the truly best one with 95 %
    confidence. `p_best` is the share of resamples in which the candidate is the best. Of equal candidates, the first
    one counts as the best.
    """

    candidate: Candidate
    worse_by: float
    interval: tuple[float, float]
    is_best: bool
    may_be_best: bool
    p_best: float


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates compared to the best, in the order of candidates.

    `max_regret` is the most by which the best may be worse than the truly best candidate, with 95 % confidence.
    `corrected` is an estimate of the best candidate's metric on other items, with its 95 % interval: the metric on the
    items that chose the candidate is too good. `more_items` is the number of additional items with which the second
    candidate would leave the set of those that may be the best with a probability of 50 %, if the true difference is as
    large as the measured one. It is None if the second is not in the set, or equal to the best. `resamples` counts the
    resamples with a defined loss; they were drawn with `seed`.
    """

    differences: tuple[Difference, ...]
    max_regret: float
    corrected: float
    corrected_interval: tuple[float, float]
    more_items: int | None
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        ids = {one.candidate.id for one in self.differences}
        if sum(one.is_best for one in self.differences) != 1 or not 1 < len(self.differences) == len(ids):
            raise ValueError("these differences are not of one best candidate and others")

    @property
    def best(self) -> Candidate:
        """The best candidate."""
        return next(one.candidate for one in self.differences if one.is_best)

    @property
    def others(self) -> list[Difference]:
        """The differences of all candidates except the best."""
        return [one for one in self.differences if not one.is_best]

    def difference(self, candidate: Candidate) -> Difference | None:
        """The difference of a candidate; None if the candidate was not compared."""
        return next((one for one in self.differences if one.candidate.id == candidate.id), None)


@dataclass(frozen=True, slots=True)
class Lead:
    """The comparison of a checkpoint with a baseline on the same items. The mean absolute error of the checkpoint is
    lower by `lower_by` units (negative: higher), with a 95 % interval (None for a single item).
    """

    baseline: str
    lower_by: float
    interval: tuple[float, float] | None


def measure_lead(chosen: ScoreTable, baseline: ScoreTable, name: str) -> Lead | None:
    """The lead of a checkpoint over the baseline with that name, paired by item. None if they were scored on other
    items, or in another order.
    """
    if not chosen.has_items_of(baseline):
        return None
    lower_by = baseline.abs_error - chosen.abs_error
    return Lead(name, float(lower_by.mean()), mean_interval(lower_by))


def compare_to_best(
    candidates: Sequence[Candidate],
    tables: Sequence[ScoreTable],
    metric: str,
    best: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison | None:
    """Compare candidates with candidate number `best`, which is the best by `metric`. `tables` has each candidate's
    scores on the same items. Returns None if there are fewer than two candidates or items, or if the loss is undefined
    on almost all resamples.

    - Intervals and the set of candidates that may be the best are those of `compare_with_best`.
    - The corrected metric adds the optimism of the choice (Tsamardinos, Greasidou & Borboudakis 2018). In each
      resample, a candidate is chosen on the items drawn and measured on the items left out. The optimism is the mean
      difference to the loss of `best` on the same items left out, which removes the noise of the sampling. The usual
      bootstrap estimate of optimism is 30 % too small for equally good candidates.
    - The interval of the corrected metric uses bootstrap-t quantiles in place of 1.96, because errors are skewed. Its
      standard error is √(standard error² + optimism²), because the optimism is an estimate too.
    """
    if len(tables) < 2 or len(tables[0]) < 2:
        return None
    resampled = resample(tables, metric, best, resamples, seed)
    count = resampled.drawn.shape[1]
    if count < 2:
        return None
    observed = compute_losses(tables, metric)
    against = compare_with_best(observed, resampled.drawn, best)
    # The optimism: the mean loss, on the items left out, of the choice on a resample, minus the loss of the best there.
    chosen = resampled.left_out[resampled.drawn.argmin(axis=0), np.arange(count)]
    optimism = float((chosen - resampled.left_out[best]).mean())
    corrected = max(0.0, float(observed[best]) + optimism)
    error = math.hypot(float(resampled.drawn[best].std(ddof=1)), optimism)
    below, above = bootstrap_t_quantiles(tables[best], metric, seed=seed)
    highest = 1.0 if METRICS[metric].interval == "wilson" else math.inf  # the metric is a share of the items
    interval = max(0.0, corrected - above * error), min(highest, corrected - below * error)
    if METRICS[metric].better == "higher":
        corrected, interval = 1 - corrected, (1 - interval[1], 1 - interval[0])
    return Comparison(
        differences=_differences(candidates, against, resampled, best),
        max_regret=against.max_regret,
        corrected=corrected,
        corrected_interval=interval,
        more_items=_more_items(observed, against, best, len(tables[0])),
        resamples=count,
        seed=seed,
    )


def _differences(
    candidates: Sequence[Candidate], against: ComparisonWithBest, resampled: Resampled, best: int
) -> tuple[Difference, ...]:
    # argmin takes the first of equals.
    times_best = np.bincount(resampled.drawn.argmin(axis=0), minlength=len(candidates)).tolist()
    may_be_best = against.may_be_best.tolist()
    return tuple(
        Difference(
            candidate=candidate,
            # Losses may be rounded to another order than the metric, by which the best was chosen.
            worse_by=min(amount, 0.0) if number == best else max(amount, 0.0),
            interval=(low, high),
            is_best=number == best,
            may_be_best=number == best or may_be_best[number],
            p_best=times_best[number] / resampled.drawn.shape[1],
        )
        for number, (candidate, amount, (low, high)) in enumerate(
            zip(candidates, against.worse_by.tolist(), against.interval.tolist(), strict=True)
        )
    )


def _more_items(observed: np.ndarray, against: ComparisonWithBest, best: int, n: int) -> int | None:
    """The number of additional items after which the second is worse than the best by exactly as much as it takes to
    leave the set. Standard errors are proportional to 1/√n.
    """
    second = min((k for k in range(len(observed)) if k != best), key=lambda k: float(observed[k]))
    worse_by = float(observed[second] - observed[best])
    # A difference within rounding counts as zero.
    if not against.may_be_best[second] or math.isclose(observed[second], observed[best], rel_tol=1e-12):
        return None
    return max(1, math.ceil(n * (float(against.needed[second]) / worse_by) ** 2) - n)
