"""Racing by sequential halving: every checkpoint is scored on a few items, then the better half on more items, and so
on until one is left.

The method is from Karnin, Koren & Somekh 2013, "Almost optimal exploration in multi-armed bandits", section 3. Here,
all checkpoints are scored on the same items. The budget is a share of the predictions for every checkpoint on every
item. It is spent in rounds of equal cost, and each round drops the worse half. The best checkpoint can be dropped;
EXPERIMENTS.md reports how often that happened. The order of the items must be independent of their prices.
"""

import bisect
import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pricer.core.checkpoints import Checkpoint, tag_name
from pricer.errors import RunError


@dataclass(frozen=True, slots=True)
class Round:
    """A round of a race. `candidates` checkpoints are scored on the items from `start` up to (not including) `stop`.
    The best `survivors`, by the error on all items so far, stay in the race.
    """

    candidates: int
    start: int
    stop: int
    survivors: int

    @property
    def predictions(self) -> int:
        """The number of predictions that the round takes."""
        return self.candidates * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Dropout:
    """A checkpoint that was dropped after `n` items. On these items, its mean absolute error was `margin`
    higher than the error of the best checkpoint, which has the step `leader`.
    """

    step: int
    id: str
    n: int
    leader: int
    margin: float

    @property
    def name(self) -> str:
        """The name of the checkpoint."""
        return tag_name(self.step)


@dataclass(frozen=True, slots=True)
class RaceRecord:
    """A finished race under one EvalSpec.

    `winner` is a checkpoint's id. `dropped` is in the order in which checkpoints dropped out. `share_of_work` is the
    number of predictions for the race and for the winner's remaining items, as a share of the predictions for every
    checkpoint on every item.
    """

    spec_fingerprint: str
    budget: float
    winner: str
    dropped: tuple[Dropout, ...]
    share_of_work: float


def plan_rounds(candidates: int, items: int, budget: float) -> list[Round]:
    """Plan the rounds of a race that ends with one candidate and stays within the budget. Empty for a single candidate.
    A RunError if the budget does not give each candidate one item.

    If the items run out, late rounds cost less, and the other rounds may cost more.
    """
    sizes = [candidates]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))

    def plan(cost: int) -> list[Round]:
        """The rounds if each costs `cost` predictions, or less once the items run out."""
        stops = [min(items, math.floor(total)) for total in itertools.accumulate(cost / size for size in sizes[:-1])]
        # The keys are unique, so rounds with the same stop are merged into one.
        survivors = dict(zip(stops, sizes[1:], strict=True))
        starts, entering = [0, *survivors], [candidates, *survivors.values()]
        return [Round(*one) for one in zip(entering, starts, survivors, survivors.values(), strict=False)]

    def total(cost: int) -> int:
        return sum(one.predictions for one in plan(cost))

    everything = candidates * items
    highest_cost = bisect.bisect_right(range(everything + 1), math.floor(budget * everything), key=total) - 1
    rounds = plan(highest_cost)
    if rounds and rounds[0].stop < 1:
        problem = f"a budget of {budget} of {everything:,} predictions does not give each checkpoint one item"
        raise RunError(f"these checkpoints cannot race: {problem}", "pricer eval --all-checkpoints")
    return rounds


def drop_worst(
    candidates: Sequence[Checkpoint], errors: Mapping[str, Sequence[float] | np.ndarray], survivors: int
) -> tuple[Dropout, ...]:
    """All candidates except the best `survivors`, the worst first. `errors` has the absolute errors by
    candidate id, all on the same items. Of two candidates with the same mean error, the first is better.
    """
    means = {one.id: float(np.mean(errors[one.id])) for one in candidates}
    ranked = sorted(candidates, key=lambda one: means[one.id])
    leader, n = ranked[0], len(errors[ranked[0].id])
    return tuple(
        Dropout(one.step, one.id, n, leader.step, margin=means[one.id] - means[leader.id])
        for one in reversed(ranked[survivors:])
    )
