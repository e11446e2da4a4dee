"""Racing by sequential halving: every checkpoint is scored on a few items, the better half of them on more, and so on.

Karnin, Koren & Somekh 2013, "Almost optimal exploration in multi-armed bandits", section 3, on items that all share. A
budget, a share of scoring every checkpoint on every item, is spent in rounds of equal cost. After each round the worse
half is dropped. Nothing bounds the probability that the best checkpoint is among the dropped: EXPERIMENTS.md says how
often that happened. The order of the items must have nothing to do with their prices.
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
    """`candidates` checkpoints are scored on the items `start` up to, not including, `stop`; the best `survivors` of
    them, judged on all items so far, stay in the race.
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
    """A checkpoint that was dropped after `n` items. Its mean absolute error on them was `margin` dollars above the
    error of the leader, the checkpoint of step `leader`.
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

    `winner` is the id of a checkpoint. `dropped` is in the order of dropping. `share_of_work` counts the predictions
    for the race and for the rest of the winner's items, as a share of scoring every checkpoint on every item.
    """

    spec_fingerprint: str
    budget: float
    winner: str
    dropped: tuple[Dropout, ...]
    share_of_work: float


def plan_rounds(candidates: int, items: int, budget: float) -> list[Round]:
    """The rounds of a race that leave one candidate and keep within the budget; none for a single candidate. A RunError
    if the budget does not give each candidate one item.

    A round for which no items are left costs less than the others, which then cost more.
    """
    sizes = [candidates]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))

    def plan(cost: int) -> list[Round]:
        """The rounds if each costs that many predictions, as far as there are items."""
        stops = [min(items, math.floor(total)) for total in itertools.accumulate(cost / size for size in sizes[:-1])]
        # By stop: rounds that reach no new items are merged into one.
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
    """All candidates but the best `survivors`, the worst first. `errors` has each one's absolute errors in dollars by
    its id, on the same items. Of two with the same mean error the one that comes first is better.
    """
    means = {one.id: float(np.mean(errors[one.id])) for one in candidates}
    ranked = sorted(candidates, key=lambda one: means[one.id])
    leader, n = ranked[0], len(errors[ranked[0].id])
    return tuple(
        Dropout(one.step, one.id, n, leader.step, margin=means[one.id] - means[leader.id])
        for one in reversed(ranked[survivors:])
    )
