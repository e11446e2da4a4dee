"""The order in which workers side by side answer the cells of an evaluation, and what becomes of the cells of a worker
that dies.
"""

from collections import Counter, deque
from collections.abc import Sequence
from itertools import pairwise

from pricer.core.cells import Cell

MAX_DEATHS = 3
"""The number of workers that may die while they answer a cell. After that, nobody is given the cell again."""


class CellQueue:
    """Hands out cells to workers, who are numbered from 0.

    The cells are in the order of candidates, and every worker has a contiguous part of them, so it changes adapters
    rarely. A worker whose part is empty takes the second half of the longest part. A worker may hold several cells. It
    answers them in the order in which it took them.
    """

    def __init__(self, cells: Sequence[Cell], workers: int) -> None:
        bounds = [len(cells) * worker // workers for worker in range(workers + 1)]
        self._parts = [deque(cells[start:stop]) for start, stop in pairwise(bounds)]
        self._held = [deque[Cell]() for _ in range(workers)]
        self._deaths = Counter[Cell]()
        self._dropped = set[str]()

    @property
    def is_finished(self) -> bool:
        """Whether every cell is answered or dropped."""
        return not any(self._parts) and not any(self._held)

    def take(self, worker: int) -> Cell | None:
        """The next cell for a worker, who holds it from now on. None if no cell is left that nobody holds."""
        part = self._parts[worker]
        if not part:
            longest = max(self._parts, key=len)
            part.extendleft(longest.pop() for _ in range((len(longest) + 1) // 2))
        if not part:
            return None
        self._held[worker].append(part.popleft())
        return self._held[worker][-1]

    def finish(self, worker: int) -> Cell:
        """The worker has answered the first of its cells, which is returned."""
        return self._held[worker].popleft()

    def refuse(self, worker: int) -> None:
        """The worker cannot be given the cell that it took last. Its candidate is dropped."""
        self.drop(self._held[worker].pop().name)

    def has_dropped(self, name: str) -> bool:
        """Whether this candidate was dropped."""
        return name in self._dropped

    def drop(self, name: str) -> None:
        """Hand out no more cells of this candidate."""
        self._dropped.add(name)
        for part in self._parts:
            left = [cell for cell in part if cell.name != name]
            part.clear()
            part.extend(left)

    def lose(self, worker: int) -> Cell | None:
        """The worker has died: hand out its cells again, to the next worker first, because this one may be broken.
        Returns the cell that it died of if that cell has now ended MAX_DEATHS workers, otherwise None.
        """
        held = [*self._held[worker]]
        self._held[worker].clear()
        left = [cell for cell in held if cell.name not in self._dropped]
        self._parts[(worker + 1) % len(self._parts)].extendleft(reversed(left))
        if not held or held[0] not in left:
            return None
        self._deaths[held[0]] += 1
        return held[0] if self._deaths[held[0]] >= MAX_DEATHS else None
