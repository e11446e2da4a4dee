"""Comparison to the best: how certain the choice of a checkpoint is, and how much it biases the metric. Comparison to
baselines: how much better the checkpoint is.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import ScoreTable
from pricer.core.metrics import METRICS, Z95, mean_interval
from pricer.core.resampling import RESAMPLES, SEED, Resampled, bootstrap_t_quantiles, compute_losses, resample


@dataclass(frozen=True, slots=True)
class Difference:
    """One candidate compared to the best on the same items.

    `worse_by` is in the metric's unit and never negative. `interval` is its 95 % interval, None for the best itself.
    The difference `is_significant` if the interval excludes 0. `p_best` is the share of resamples in which the
    candidate is the best. Of equal candidates, the first one counts as the best.
    """

    candidate: Candidate
    worse_by: float
    interval: tuple[float, float] | None
    is_significant: bool
    p_best: float

    @property
    def may_be_best(self) -> bool:
        """Whether the candidate may be the truly best one."""
        return not self.is_significant

    @property
    def is_of_best(self) -> bool:
        """Whether the candidate is itself the best."""
        return self.interval is None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates compared to the best, in the order of candidates.

    `corrected` is an estimate of the best candidate's metric on other items, with its 95 % interval: the metric on the
    items that chose the candidate is too good. `more_items` is the number of additional items with which the difference
    between the best and the second would be significant with a probability of 50 %, if the true difference is as large
    as the measured one. It is None if the difference is already significant, or zero. `resamples` counts the resamples
    with a defined loss; they were drawn with `seed`.
    """

    differences: tuple[Difference, ...]
    corrected: float
    corrected_interval: tuple[float, float]
    more_items: int | None
    resamples: int
    seed: int

    def __post_init__(self) -> None:
        ids = {one.candidate.id for one in self.differences}
        if sum(one.is_of_best for one in self.differences) != 1 or not 1 < len(self.differences) == len(ids):
            raise ValueError("these differences are not of one best candidate and others")

    @property
    def best(self) -> Candidate:
        """The best candidate."""
        return next(one.candidate for one in self.differences if one.is_of_best)

    @property
    def others(self) -> list[Difference]:
        """The differences of all candidates except the best."""
        return [one for one in self.differences if not one.is_of_best]

    def difference(self, candidate: Candidate) -> Difference | None:
        """The difference between a candidate and the best; None if the candidate was not compared."""
        return next((one for one in self.differences if one.candidate.id == candidate.id), None)


@dataclass(frozen=True, slots=True)
class Lead:
    """The comparison of a checkpoint with a baseline on the same items. The mean absolute error of the checkpoint is
    lower by `lower_by` units (negative: higher), with a 95 % interval (None for a single item).
    """

    baseline: str
    lower_by: float
    interval: tuple[float, float] | None

    @property
    def verdict(self) -> Literal["better", "worse", "alike"]:
        """What the interval says of the checkpoint. `alike`: it includes 0."""
        low, high = self.interval or (0.0, 0.0)
        return "better" if low > 0 else "worse" if high < 0 else "alike"


def measure_lead(chosen: ScoreTable, baseline: ScoreTable, name: str) -> Lead | None:
    """The lead of a checkpoint over the baseline with that name, paired by item. None if they were scored on other
    items, or in another order.
    """
    if not (np.array_equal(chosen.item_id, baseline.item_id) and np.array_equal(chosen.price, baseline.price)):
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

    - The interval of a difference is ± 1.96 standard errors from the paired bootstrap (the standard interval of Efron &
      Tibshirani 1993). Percentile and BCa intervals cover less (EXPERIMENTS.md). The interval is valid for a fixed
      pair. The best was chosen because it looked good, so more than 5 % of significant differences may be due to
      chance.
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
    # (candidates,): the standard error of each difference to the best.
    errors = (resampled.drawn - resampled.drawn[best]).std(axis=1, ddof=1)
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
        differences=_differences(candidates, observed, errors, resampled, best),
        corrected=corrected,
        corrected_interval=interval,
        more_items=_more_items(observed, errors, best, len(tables[0])),
        resamples=count,
        seed=seed,
    )


def _differences(
    candidates: Sequence[Candidate], observed: np.ndarray, errors: np.ndarray, resampled: Resampled, best: int
) -> tuple[Difference, ...]:
    worse_by = np.maximum(observed - observed[best], 0.0).tolist()
    half_widths = (Z95 * errors).tolist()
    # argmin takes the first of equals.
    times_best = np.bincount(resampled.drawn.argmin(axis=0), minlength=len(candidates)).tolist()
    return tuple(
        Difference(
            candidate=candidate,
            worse_by=amount,
            interval=None if number == best else (amount - half, amount + half),
            is_significant=amount > half,
            p_best=times / resampled.drawn.shape[1],
        )
        for number, (candidate, amount, half, times) in enumerate(
            zip(candidates, worse_by, half_widths, times_best, strict=True)
        )
    )


def _more_items(observed: np.ndarray, errors: np.ndarray, best: int, n: int) -> int | None:
    """The number of additional items after which half the width of the interval equals the difference between the
    second and the best. The width is proportional to 1/√n.
    """
    second = min((k for k in range(len(observed)) if k != best), key=lambda k: float(observed[k]))
    worse_by, half = float(observed[second] - observed[best]), Z95 * float(errors[second])
    # A difference within rounding counts as zero.
    if worse_by > half or math.isclose(observed[second], observed[best], rel_tol=1e-12):
        return None
    return max(1, math.ceil(n * (half / worse_by) ** 2) - n)
