"""Racing: the checkpoints are scored on growing shared blocks of items, and those that cannot win any more drop out."""

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# The boundary below holds in the limit: under about a hundred items heavy tails show, so nothing is tested there.
_FEWEST = 100
# Items grow by this factor from block to block without a budget. Each block puts every adapter on once more, and finer
# ones hardly save scoring: on the steep curve of the tests 41 % of the work is left by 1.05, 44 % by 1.5, 46 % by 2.
_GROWTH = 1.5


@dataclass(frozen=True, slots=True)
class Block:
    """What is to be scored next: each of `candidates` on the items `start` up to, not including, `stop`."""

    candidates: tuple[str, ...]
    start: int
    stop: int


@dataclass(frozen=True, slots=True)
class Dropped:
    """A candidate that left the race after `n` items, on which its mean error was `margin` above that of `leader`.

    `at_least` is how much worse than the leader it is in truth, at the race's error rate; None under 100 items. It
    was beaten where that is above 0; otherwise it was cut to keep within the budget, and might have been the best.
    """

    name: str
    n: int
    leader: str
    margin: float
    at_least: float | None

    @property
    def is_beaten(self) -> bool:
        """Whether it is worse than the leader beyond the race's error rate."""
        return self.at_least is not None and self.at_least > 0


class Race:
    """A race of `names`, the earliest first, for the lowest mean error over `items` items; deterministic.

    After each block every survivor is compared with the leader, the one of the lowest mean so far (a tie: the
    earlier), by the differences of their errors on the same items. It is dropped where the lower end of a one-sided
    confidence sequence for the mean difference is above 0. The sequence holds at all n at once, so looking after every
    block costs nothing, and its error rate is `alpha` over the number of rivals: whichever of them leads and whenever,
    the probability that the truly best candidate is ever beaten is at most `alpha` (Bonferroni), as far as a hundred
    items are many: see `boundary`.

    With a `budget`, a share of all candidates × items, the race is also one of sequential halving (Karnin, Koren &
    Somekh 2013, "Almost optimal exploration in multi-armed bandits", section 3) on shared items, which Lyu et al. 2026
    (arXiv 2606.07726) do with successive rejects, in many more blocks: the budget is spent in rounds of equal cost, and
    the worse half is cut after each. `alpha` is no bound for these cuts.

    "Truly" is about items like these, not these alone; their order must have nothing to do with their prices.
    """

    def __init__(self, names: Sequence[str], items: int, alpha: float = 0.05, budget: float | None = None) -> None:
        if not names or len(set(names)) < len(names):
            raise ValueError(f"a race needs one or more different names, not {list(names)}")
        if items < 1:
            raise ValueError(f"a race over {items} items has no winner")
        if not 0 < alpha < 0.5:
            raise ValueError(f"alpha is {alpha}, not between 0 and 0.5")
        if budget is not None and not 0 < budget <= 1:
            raise ValueError(f"budget is {budget}, not a share of the work between 0 and 1")
        self._names = tuple(names)
        self._items = items
        self._alpha = alpha / max(1, len(names) - 1)
        self._rounds = _growing(len(names), items) if budget is None else _halving(len(names), items, budget)
        self._errors = {name: np.empty(0) for name in names}
        self._n = 0
        self._survivors = self._names
        self._dropped: list[Dropped] = []

    @property
    def survivors(self) -> tuple[str, ...]:
        """Those still in the race, the earliest first."""
        return self._survivors

    @property
    def dropped(self) -> tuple[Dropped, ...]:
        """Those that are out, in the order in which they went."""
        return tuple(self._dropped)

    @property
    def n(self) -> int:
        """Items on which all survivors are scored and compared."""
        return self._n

    @property
    def is_over(self) -> bool:
        """Whether nothing is left to score: one survivor, no more items, or the budget spent."""
        return len(self._survivors) == 1 or not self._rounds

    @property
    def winner(self) -> str:
        """The survivor of the lowest mean error on the items that all have been scored on; a tie goes to the earlier.
        While the race runs, its leader.
        """
        return min(self._survivors, key=self._mean)  # min keeps the first of equals

    @property
    def share_of_work(self) -> float:
        """Scored so far, as a share of scoring every candidate on every item."""
        return sum(len(errors) for errors in self._errors.values()) / (len(self._names) * self._items)

    def next_block(self) -> Block:
        """What to score now, without what has been recorded of it; a ValueError once the race is over."""
        if self.is_over:
            raise ValueError("the race is over")
        stop = self._rounds[0][0]
        left = tuple(name for name in self._survivors if len(self._errors[name]) < stop)
        return Block(left, self._n, stop)

    def record(self, name: str, errors: Sequence[float] | np.ndarray) -> None:
        """Take in the errors of one candidate on the items of the block, in their order, lower being better. With the
        last candidate's the block is whole, and it is decided who goes on.
        """
        block = self.next_block()
        if name not in block.candidates:
            raise ValueError(f"{name} is not to be scored on items {block.start} to {block.stop}")
        new = np.asarray(errors, dtype=np.float64)
        if new.shape != (block.stop - block.start,) or not np.isfinite(new).all():
            raise ValueError(f"{name} needs {block.stop - block.start} errors that are numbers")
        self._errors[name] = np.concatenate([self._errors[name], new])
        if block.candidates == (name,):
            self._decide()

    def _decide(self) -> None:
        self._n, quota = self._rounds.pop(0)
        leader = self.winner
        out = {name: self._against(leader, name) for name in self._survivors if name != leader}
        ranked = sorted(self._survivors, key=self._mean)
        staying = [name for name in ranked if name == leader or not out[name].is_beaten][:quota]
        # Worst first, as if they had gone one by one.
        self._dropped += [out[name] for name in reversed(ranked) if name not in staying]
        self._survivors = tuple(name for name in self._survivors if name in staying)

    def _mean(self, name: str) -> float:
        return float(self._errors[name][: self._n].mean()) if self._n else 0.0

    def _against(self, leader: str, name: str) -> Dropped:
        differences = self._errors[name] - self._errors[leader]
        margin = float(differences.mean())
        at_least = None
        if self._n >= _FEWEST:
            at_least = margin - float(differences.std(ddof=1)) * boundary(self._n, self._alpha, self._items / 4)
        return Dropped(name, self._n, leader, margin, at_least)


def boundary(n: int, alpha: float, tightest: float) -> float:
    """How far, in standard deviations, the mean of `n` values may be above the true mean, so that with probability
    1 − alpha it is so at every n: a one-sided asymptotic confidence sequence.

    √(2(nρ² + 1)/(n²ρ²) · ln(1 + √(nρ² + 1)/(2α))): Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, "Time-uniform central
    limit theory and asymptotic confidence sequences" (Annals of Statistics 2024; arXiv 2103.06476), the one-sided form
    of its theorem 2.2. With ρ² = (−2 ln 2α + ln(1 − 2 ln 2α))/m it is about the tightest around m = `tightest` values.
    It takes a finite variance and no bound on the values: one in dollars is so wide that nothing would be told apart.
    The price is that it holds in the limit only. What the values have not shown it cannot know: a rival that is better
    but for errors of $500 on one item in 100 is not found out by 100 items without one.
    """
    log_rate = -2 * math.log(2 * alpha)
    rho2 = (log_rate + math.log(1 + log_rate)) / tightest
    scale = n * rho2 + 1
    return math.sqrt(2 * scale / (n * n * rho2) * math.log1p(math.sqrt(scale) / (2 * alpha)))


def _growing(candidates: int, items: int) -> list[tuple[int, int]]:
    """Rounds without a budget, as (items, most survivors after them): a hundred items, then half as many again."""
    rounds = []
    stop = min(_FEWEST, items)
    while stop < items:
        rounds.append((stop, candidates))
        stop = min(items, math.ceil(stop * _GROWTH))
    return [*rounds, (items, candidates)]


def _halving(candidates: int, items: int, budget: float) -> list[tuple[int, int]]:
    """Rounds within a budget, as (items, most survivors after them).

    All cost the same, but for those that have no items left to spend it on: what they leave over goes to the others.
    """
    sizes = [candidates]
    while sizes[-1] > 1:
        sizes.append(math.ceil(sizes[-1] / 2))
    racing = sizes[:-1]

    def stops(cost: int) -> list[int]:
        """Items after each round where a round costs that many answers."""
        return [min(items, math.floor(total)) for total in itertools.accumulate(cost / size for size in racing)]

    def answers(cost: int) -> int:
        return sum(
            size * (stop - start)
            for size, (start, stop) in zip(racing, itertools.pairwise([0, *stops(cost)]), strict=True)
        )

    everything = candidates * items
    limit = math.floor(budget * everything)
    cost = bisect.bisect_right(range(everything + 1), limit, key=answers) - 1
    if racing and stops(cost)[0] < 1:
        raise ValueError(f"a budget of {budget} of {everything:,} answers does not give each candidate one item")
    # Rounds that reach no new items are one, with the quota of the last.
    return list(dict(zip(stops(cost), sizes[1:], strict=True)).items())
