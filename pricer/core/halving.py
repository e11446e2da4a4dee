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
    def answers(self) -> int:
        """Answers that the round takes."""
        return self.candidates * (self.stop - self.start)


@dataclass(frozen=True, slots=True)
class Dropout:
    """A checkpoint that was dropped after `n` items. Its mean absolute error on them was `margin` dollars above that of
    the leader, the checkpoint of step `leader`.
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
    """A finished race under one EvalSpec over so many `items`.

    `winner` is the id of a checkpoint. `dropped` is in the order of dropping. `share_of_work` counts the answers that
    the race and the rest of the winner's items took, as a share of scoring every checkpoint on every item.
    """

    spec_fingerprint: str
    budget: float
    items: int
    winner: str
    dropped: tuple[Dropout, ...]
    share_of_work: float


def plan_rounds(candidates: int, items: int, budget: float) -> list[Round]:
    """The rounds of a race that leave one candidate and keep within the budget; none for a single candidate.

    Raises a ValueError if the budget does not give each candidate one item. A round for which no items are left costs
    less than the others, which then cost more.
    """
    sizes = [candidates]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))
    racing = sizes[:-1]

    def stops(cost: int) -> list[int]:
        """Items after each round if a round costs that many answers."""
        return [min(items, math.floor(total)) for total in itertools.accumulate(cost / size for size in racing)]

    def rounds(cost: int) -> list[Round]:
        # Rounds that reach no new items are merged into one.
        survivors_after = dict(zip(stops(cost), sizes[1:], strict=True))
        starts, entering = [0, *survivors_after], [candidates, *survivors_after.values()]
        return [
            Round(size, start, stop, survivors)
            for size, start, (stop, survivors) in zip(entering, starts, survivors_after.items(), strict=False)
        ]

    def answers(cost: int) -> int:
        return sum(one.answers for one in rounds(cost))

    everything = candidates * items
    limit = math.floor(budget * everything)
    plan = rounds(bisect.bisect_right(range(everything + 1), limit, key=answers) - 1)
    if plan and plan[0].stop < 1:
        raise ValueError(f"a budget of {budget} of {everything:,} answers does not give each candidate one item")
    return plan


def drop_worst(
    candidates: Sequence[Checkpoint], errors: Mapping[str, Sequence[float] | np.ndarray], survivors: int
) -> tuple[Dropout, ...]:
    """All candidates but the best `survivors`, the worst first. `errors` has each one's absolute errors in dollars by
    its id, on the same items. Of two with the same mean error the one that comes first is better.
    """
    means = {one.id: float(np.mean(errors[one.id])) for one in candidates}
    ranked = sorted(candidates, key=lambda one: means[one.id])
    leader = ranked[0]
    return tuple(
        Dropout(
            step=one.step,
            id=one.id,
            n=len(errors[one.id]),
            leader=leader.step,
            margin=means[one.id] - means[leader.id],
        )
        for one in reversed(ranked[survivors:])
    )
