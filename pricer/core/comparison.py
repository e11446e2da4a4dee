"""Comparison to the best: how sure the choice among some checkpoints is, and how much too good the chosen one looks."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from pricer.core.candidates import Candidate
from pricer.core.metrics import METRICS, Z95
from pricer.core.resampling import RESAMPLES, SEED, Resampled, losses, resample, studentised
from pricer.core.scores import ScoreTable


@dataclass(frozen=True, slots=True)
class Difference:
    """One candidate compared to the best on the same items.

    `worse_by` is how much worse its metric is than the best one's, in the metric's unit and never negative. `interval`
    is the 95 % interval of that difference, None for the best itself. The difference `is_significant` where the
    interval excludes 0. `p_best` is the share of the resamples in which the candidate is the best; of equals the
    earlier one is.
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

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Difference":
        """Read back a difference; KeyError, TypeError or ValueError where it is none."""
        if not isinstance(record["is_significant"], bool):
            raise TypeError(f"is_significant: {record['is_significant']!r} is neither true nor false")
        return cls(
            candidate=Candidate.from_json(record["candidate"]),
            worse_by=_number(record["worse_by"]),
            interval=None if record["interval"] is None else _ends(record["interval"]),
            is_significant=record["is_significant"],
            p_best=_number(record["p_best"]),
        )


@dataclass(frozen=True, slots=True)
class Comparison:
    """All candidates compared to the best, in the order of candidates.

    `corrected` is the metric that the best would have on other items, with its 95 % interval: its metric on the items
    that chose it is too good. `more_items` is how many more items would make the difference between the best and the
    second significant every other time, if they are as far apart as they look; None if it is significant, or if they
    are level. `resamples` is the number of defined resamples, which were made from `seed`.
    """

    differences: tuple[Difference, ...]
    corrected: float
    corrected_interval: tuple[float, float]
    more_items: int | None
    resamples: int
    seed: int

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Comparison":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        differences = tuple(Difference.from_json(one) for one in record["differences"])
        ids = {one.candidate.id for one in differences}
        if sum(one.is_of_best for one in differences) != 1 or not 1 < len(differences) == len(ids):
            raise ValueError("these differences are not of one best candidate and others")
        more_items = record["more_items"]
        return cls(
            differences=differences,
            corrected=_number(record["corrected"]),
            corrected_interval=_ends(record["corrected_interval"]),
            more_items=None if more_items is None else _count(more_items),
            resamples=_count(record["resamples"]),
            seed=_count(record["seed"]),
        )

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

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
    """Compare candidates by their scores on the same items to number `best`, the best of them by `metric`. Candidates
    are in their order. None: there are fewer than two candidates or items, or no resample is defined.

    - A difference has the interval ± 1.96 standard errors, which come from the paired bootstrap (Efron & Tibshirani
      1993, "An Introduction to the Bootstrap", the standard interval). Differences are heavy-tailed and hardly skewed:
      percentiles and BCa cover less (EXPERIMENTS.md). The interval is made for a pair. As the best was chosen for
      looking good, others look worse than they are: more than one in 20 significant differences may be none.
    - The corrected figure adds what a choice on the items drawn loses on the items left out of each resample
      (Tsamardinos, Greasidou & Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient and
      accurate cross-validation"). The loss is taken relative to the candidate chosen on all items, which removes the
      noise of which items are left out. The usual bootstrap estimate of optimism is 30 % too small for equals: it takes
      their spread for differences, and adds noise of its own.
    - Its interval has the bootstrap's t in place of 1.96, for errors are skewed. Its standard error is the root of
      standard error² + optimism², for the optimism is an estimate, too.
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
    optimism = _optimism(resampled, best)
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


def _optimism(resampled: Resampled, best: int) -> float:
    """How much better the loss of the best looks than it is."""
    drawn, left_out = resampled.drawn, resampled.left_out
    chosen = left_out[drawn.argmin(axis=0), np.arange(drawn.shape[1])]
    return float((chosen - left_out[best]).mean())


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


def _count(value: Any) -> int:
    if type(value) is not int:  # a bool is no count
        raise TypeError(f"{value!r} is no whole number")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # false for NaN, too
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _ends(value: Any) -> tuple[float, float]:
    low, high = map(_number, value)
    return low, high
