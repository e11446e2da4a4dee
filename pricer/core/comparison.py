"""Evidence: how sure the choice among some checkpoints is, and how much too good the chosen one looks."""

import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from pricer.core.metrics import Better
from pricer.core.resampling import RESAMPLES, SEED, Z95, Resampled, losses, resample, studentised
from pricer.core.scores import Scores

Rule = Literal["lowest", "earliest", "one-se"]


@dataclass(frozen=True, slots=True)
class Standing:
    """One checkpoint beside the best on the same items.

    `behind` is by how much it is worse, in the metric's unit, and `interval` the 95 % interval of that difference; None
    for the best itself. It is `indistinguishable` from the best where the interval has 0 in it, as the best is.
    `p_best` is the share of the resamples in which it is the best, an earlier one first. `members` are the steps of a
    soup, `step` the last of them.
    """

    step: int
    behind: float
    interval: tuple[float, float] | None
    indistinguishable: bool
    p_best: float
    members: tuple[int, ...] = ()

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Standing":
        """Read back a standing; KeyError, TypeError or ValueError where it is none."""
        interval = record["interval"]
        if not isinstance(record["indistinguishable"], bool):
            raise TypeError(f"indistinguishable: {record['indistinguishable']!r} is neither true nor false")
        return cls(
            step=_count(record["step"]),
            behind=_number(record["behind"]),
            interval=None if interval is None else _ends(interval),
            indistinguishable=record["indistinguishable"],
            p_best=_number(record["p_best"]),
            members=tuple(_count(step) for step in record.get("members", ())),
        )


@dataclass(frozen=True, slots=True)
class Evidence:
    """What the choice among some checkpoints is worth. `standings` are by step, soups behind all others.

    `standard_error` is that of the best one's metric. `corrected` is the metric that the chosen checkpoint would have
    on other items, with its 95 % interval: the one on the items that chose it is too good. `more_items` is how many
    more items would tell the second from the best, every other time, if they are as far apart as they look; None if
    they are told apart, or level. `resamples` are those that mean something, made from `seed`.
    """

    standings: tuple[Standing, ...]
    standard_error: float
    corrected: float
    corrected_interval: tuple[float, float]
    more_items: int | None
    resamples: int
    seed: int

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Evidence":
        """Read back what was kept with a choice; KeyError, TypeError or ValueError where it is none. What other
        versions add is left out.
        """
        standings = tuple(Standing.from_json(one) for one in record["standings"])
        best = [one for one in standings if one.interval is None]
        if len(best) != 1 or not 1 < len(standings) == len({(one.step, one.members) for one in standings}):
            raise ValueError("these are no standings: one best, and others at other steps or of other members")
        more_items = record["more_items"]
        return cls(
            standings=standings,
            standard_error=_number(record["standard_error"]),
            corrected=_number(record["corrected"]),
            corrected_interval=_ends(record["corrected_interval"]),
            more_items=None if more_items is None else _count(more_items),
            resamples=_count(record["resamples"]),
            seed=_count(record["seed"]),
        )

    @property
    def best(self) -> Standing:
        """The best one, whichever was chosen."""
        return next(one for one in self.standings if one.interval is None)

    def standing(self, step: int | None, members: tuple[int, ...]) -> Standing | None:
        """That of the checkpoint at a step, or of the soup of these members; None where it was not compared."""
        return next((one for one in self.standings if (one.step, one.members) == (step, members)), None)


def weigh(
    steps: Sequence[int],
    scores: Sequence[Scores],
    metric: str,
    better: Better,
    best: int,
    rule: Rule,
    resamples: int = RESAMPLES,
    seed: int = SEED,
    members: Sequence[tuple[int, ...]] | None = None,
) -> Evidence | None:
    """What is to be said of a choice by `rule` among checkpoints with these Scores on the same items, the earliest
    first, of which number `best` is the best. `members` are those of each, None: there is no soup among them. None:
    fewer than two checkpoints or items, or no resample means anything.

    - A difference has the interval ± 1.96 standard errors, which come from the paired bootstrap (Efron & Tibshirani
      1993, "An Introduction to the Bootstrap", the standard interval). Differences are heavy-tailed and hardly skewed:
      percentiles and BCa cover less (EXPERIMENTS.md). It is the interval of a pair. As the best was chosen for looking
      good, others look further behind than they are: who is told apart may not be, at more than one in 20.
    - The corrected figure adds what a choice by the same rule on the items drawn loses on those left out of each
      resample (Tsamardinos, Greasidou & Borboudakis 2018, "Bootstrapping the out-of-sample predictions for efficient
      and accurate cross-validation"), beside the checkpoint chosen on all items, which takes out the noise of which
      items are left out. The usual bootstrap estimate of optimism is 30 % too small for equals: it takes their spread
      for differences, and adds noise of its own.
    - Its interval has the bootstrap's t in place of 1.96, for errors are skewed, and is as wide as the raw figure is
      wrong: the root of standard error² + optimism², which is an estimate, too.
    """
    if len(scores) < 2 or len(scores[0]) < 2:
        return None
    resampled = resample(scores, metric, best, resamples, seed)
    count = resampled.drawn.shape[1]
    if count < 2:
        return None
    observed = losses(scores, metric)
    standings, errors = _standings(steps, members or [()] * len(steps), observed, resampled, best)
    standard_error = float(resampled.drawn[best].std(ddof=1))
    chosen = standings.index(chosen_by(rule, standings, standard_error))
    optimism = _optimism(resampled, rule, chosen)
    corrected = max(0.0, float(observed[chosen]) + optimism)
    error = math.hypot(float(resampled.drawn[chosen].std(ddof=1)), optimism)
    below, above = studentised(scores[chosen], metric, seed=seed)
    most = 1.0 if metric == "hit_rate" else math.inf
    interval = max(0.0, corrected - above * error), min(most, corrected - below * error)
    if better == "higher":
        corrected, interval = 1 - corrected, (1 - interval[1], 1 - interval[0])
    more_items = _more_items(observed, errors, best, len(scores[0]))
    return Evidence(standings, standard_error, corrected, interval, more_items, count, seed)


def chosen_by(rule: Rule, standings: Sequence[Standing], standard_error: float) -> Standing:
    """The one that a rule chooses of standings in order, the earliest first and soups last. `earliest`: of those that
    cannot be told apart from the best. `one-se`: of those within one standard error of it (Breiman, Friedman, Olshen &
    Stone 1984, "Classification and Regression Trees"). That is the error of one figure, not of a difference on shared
    items: it is off by 50 to 100 %, which is why the rule is offered, and not the default.
    """
    match rule:
        case "lowest":
            return next(one for one in standings if one.interval is None)
        case "earliest":
            return next(one for one in standings if one.indistinguishable)
        case "one-se":
            return next(one for one in standings if one.behind <= standard_error)


def _standings(
    steps: Sequence[int], members: Sequence[tuple[int, ...]], observed: np.ndarray, resampled: Resampled, best: int
) -> tuple[tuple[Standing, ...], np.ndarray]:
    """And the standard error of each difference to the best."""
    behind = np.maximum(observed - observed[best], 0.0)
    errors = (resampled.drawn - resampled.drawn[best]).std(axis=1, ddof=1)
    first = np.bincount(resampled.drawn.argmin(axis=0), minlength=len(steps))  # argmin keeps the first of equals
    standings = []
    for k, (step, low, half) in enumerate(zip(steps, behind.tolist(), (Z95 * errors).tolist(), strict=True)):
        interval = None if k == best else (low - half, low + half)
        p_best = int(first[k]) / resampled.drawn.shape[1]
        standings.append(Standing(step, low, interval, low <= half, p_best, members[k]))
    return tuple(standings), errors


def _optimism(resampled: Resampled, rule: Rule, chosen: int) -> float:
    """How much better the chosen checkpoint's loss looks than it is."""
    drawn, left_out = resampled.drawn, resampled.left_out
    covariance = np.cov(drawn)
    variances = np.diag(covariance)
    # How far behind whom of a resample's best (second axis) a checkpoint (first axis) may be, to be chosen if it is the
    # earliest.
    match rule:
        case "lowest":
            reach = np.zeros_like(covariance)
        case "earliest":
            reach = Z95 * np.sqrt(np.maximum(variances[:, None] + variances - 2 * covariance, 0.0))
        case "one-se":
            reach = np.broadcast_to(np.sqrt(variances), covariance.shape)
    leaders, every = drawn.argmin(axis=0), np.arange(drawn.shape[1])
    followed = (drawn - drawn[leaders, every] <= reach[:, leaders]).argmax(axis=0)
    return float((left_out[followed, every] - left_out[chosen]).mean())


def _more_items(observed: np.ndarray, errors: np.ndarray, best: int, n: int) -> int | None:
    """So many that half the interval, which goes with 1/√n, is the difference of the second to the best."""
    second = min((k for k in range(len(observed)) if k != best), key=lambda k: float(observed[k]))
    behind, half = float(observed[second] - observed[best]), Z95 * float(errors[second])
    # A difference of rounding is none.
    if behind > half or math.isclose(observed[second], observed[best], rel_tol=1e-12):
        return None
    return max(1, math.ceil(n * (half / behind) ** 2) - n)


def _count(value: Any) -> int:
    if type(value) is not int:  # a bool is none
        raise TypeError(f"{value!r} is no whole number")
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not abs(value) <= sys.float_info.max:  # nor is NaN, or what is beyond
        raise TypeError(f"{value!r} is no number")
    return float(value)


def _ends(value: Any) -> tuple[float, float]:
    low, high = map(_number, value)
    return low, high
