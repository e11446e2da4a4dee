"""Comparison to the best: how sure the choice among some checkpoints is, and how much too good the chosen one looks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import ScoreTable
from pricer.core.metrics import METRICS, Z95
from pricer.core.resampling import RESAMPLES, SEED, Resampled, losses, resample, studentised


@dataclass(frozen=True, slots=True)
class Difference:
    """One candidate compared to the best on the same items.

    `worse_by` is in the metric's unit and never negative. `interval` is its 95 % interval, None for the best itself;
    the difference `is_significant` where the interval excludes 0. `p_best` is the share of the resamples in which the
    candidate is the best, the earlier one of equals.
    """

    candidate: Candidate
    worse_by: float
    interval: tuple[float, float] | None
    is_significant: bool
    p_best: float

    @property
    def is_of_best(self) -> bool:
        """Whether the candidate is the best itself."""
        return self.interval is None


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates compared to the best, in the order of candidates.

    `corrected` is the metric that the best would have on other items, with its 95 % interval: its metric on the items
    that chose it is too good. `more_items` is how many more items would make the difference between the best and the
    second significant every other time, if it is as large as it looks; None if it is significant, or if they are level.
    `resamples` counts the defined ones, which were drawn with `seed`.
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
        """The differences of all candidates but the best."""
        return [one for one in self.differences if not one.is_of_best]

    def difference(self, candidate: Candidate) -> Difference | None:
        """The difference between a candidate and the best; None where it was not compared."""
        return next((one for one in self.differences if one.candidate.id == candidate.id), None)


def compare_to_best(
    candidates: Sequence[Candidate],
    tables: Sequence[ScoreTable],
    metric: str,
    best: int,
    resamples: int = RESAMPLES,
    seed: int = SEED,
) -> Comparison | None:
    """Compare candidates, in their order, by their scores on the same items to number `best`, the best of them by
    `metric`. None: there are fewer than two candidates or items, or no resample is defined.

    - A difference has the interval ± 1.96 standard errors from the paired bootstrap (Efron & Tibshirani 1993, the
      standard interval). Percentiles and BCa cover less (EXPERIMENTS.md). The interval is made for a pair. As the best
      was chosen for looking good, more than one in 20 significant differences may be none.
    - The corrected figure adds what a choice on the items drawn loses on the items left out of each resample
      (Tsamardinos, Greasidou & Borboudakis 2018), relative to the candidate chosen on all items, which removes the
      noise of which items are left out. The usual bootstrap estimate of optimism is 30 % too small for equals.
    - Its interval has the bootstrap's t in place of 1.96, because errors are skewed, and √(standard error² + optimism²)
      as its standard error, because the optimism is an estimate, too.
    """
    if len(tables) < 2 or len(tables[0]) < 2:
        return None
    resampled = resample(tables, metric, best, resamples, seed)
    count = resampled.drawn.shape[1]
    if count < 2:
        return None
    observed = losses(tables, metric)
    # (candidates,): the standard error of each difference to the best.
    errors = (resampled.drawn - resampled.drawn[best]).std(axis=1, ddof=1)
    # How much better the loss of the best looks than it is: what a choice on a resample loses on the items left out.
    chosen = resampled.left_out[resampled.drawn.argmin(axis=0), np.arange(count)]
    optimism = float((chosen - resampled.left_out[best]).mean())
    corrected = max(0.0, float(observed[best]) + optimism)
    error = math.hypot(float(resampled.drawn[best].std(ddof=1)), optimism)
    below, above = studentised(tables[best], metric, seed=seed)
    highest = 1.0 if METRICS[metric].interval == "wilson" else math.inf  # a share of the items
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
    """How many more items make half the interval, which shrinks with 1/√n, as small as the difference between the
    second and the best.
    """
    second = min((k for k in range(len(observed)) if k != best), key=lambda k: float(observed[k]))
    worse_by, half = float(observed[second] - observed[best]), Z95 * float(errors[second])
    # A difference that is within rounding is none.
    if worse_by > half or math.isclose(observed[second], observed[best], rel_tol=1e-12):
        return None
    return max(1, math.ceil(n * (half / worse_by) ** 2) - n)
