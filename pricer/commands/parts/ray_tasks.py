"""What Ray actors are asked for: answers, scores and embeddings; and what becomes of the results."""

from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from pricer.commands.parts.fetching import fetch_in_order
from pricer.commands.parts.session import UNTUNED, EvaluationSession
from pricer.commands.parts.watcher import ScoringProgress
from pricer.commands.parts.workers import ScoringJob, pack_adapter
from pricer.core.cells import Cell
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.ml.tokens import TokenizedPrompt


@dataclass(slots=True)
class Slot:
    """An actor, its calls that have not ended (the oldest first), and the adapter that it uses after them."""

    actor: Any
    calls: deque[Any] = field(default_factory=deque)
    is_loaded: bool = False
    adapter: str | None = None
    deaths: int = 0


class Task(Protocol):
    """What the actors are asked for: cells, and what becomes of the answers."""

    def submit(self, slot: Slot, cell: Cell) -> Any:
        """Call the actor, and return the reference to its answer."""

    def receive(self, cell: Cell, answer: Any) -> None:
        """Use an answer."""

    def refuse(self, cell: Cell, error: CheckpointError | HubError, *, is_whole: bool = False) -> None:
        """The candidate of the cell cannot be scored. `is_whole`: its files are as they were saved. Raises the error if
        nothing can be left out.
        """


class Filling:
    """The task of answering the cells of a session. An adapter is sent once, and kept as long as cells need it."""

    def __init__(
        self, ray: Any, session: EvaluationSession, checkpoints: Sequence[Checkpoint], cells: Sequence[Cell]
    ) -> None:
        self._ray, self._session = ray, session
        self._left = Counter(cell.name for cell in cells)
        self._checkpoints = {one.id: one for one in checkpoints if one.id in self._left}
        self._folders = fetch_in_order(session.fetch, list(self._checkpoints.values()))
        self._sent: dict[str, Any] = {}
        self._progress = ScoringProgress(session.watcher, sum(len(cell.indices) for cell in cells))
        self._answers = Counter[str]()

    def submit(self, slot: Slot, cell: Cell) -> Any:
        """See Task."""
        checkpoint = self._checkpoints.get(cell.name)
        if checkpoint is None:  # the untuned base
            return slot.actor.answer.remote(None, cell.indices)
        if slot.adapter != checkpoint.id:
            if checkpoint.id not in self._sent:
                folder = self._folders[checkpoint.id].result()
                self._sent[checkpoint.id] = self._ray.put(pack_adapter(checkpoint, folder))
            slot.actor.use.remote(self._sent[checkpoint.id])
            slot.adapter = checkpoint.id
        return slot.actor.answer.remote(checkpoint.id, cell.indices)

    def receive(self, cell: Cell, answer: Any) -> None:
        """See Task."""
        self._session.save(cell, answer)
        self._left[cell.name] -= 1
        self._reach(cell.name, len(cell.indices))
        if not self._left[cell.name] and cell.name in self._checkpoints:
            self._sent.pop(cell.name, None)  # frees the object store
            self._session.run.evaluations.drop_failure(cell.name)

    def refuse(self, cell: Cell, error: CheckpointError | HubError, *, is_whole: bool = False) -> None:
        """See Task."""
        checkpoint = self._checkpoints.get(cell.name)
        if checkpoint is None:  # there is no untuned base to leave out
            raise error
        self._sent.pop(cell.name, None)
        self._session.leave_out(checkpoint, error, is_whole=is_whole)

    def _reach(self, name: str, answers: int) -> None:
        self._answers[name] += answers
        shown = self._checkpoints[name].name if name in self._checkpoints else UNTUNED
        self._progress.reach(shown, self._answers[name])


class Scoring:
    """The task of scoring candidates (by id), which would take one process longer than many workers take to answer."""

    def __init__(self, ray: Any, session: EvaluationSession, candidates: Mapping[str, Candidate]) -> None:
        self._session, self._candidates = session, candidates
        self._job = ray.put(ScoringJob(session.spec, session.items, session.batch_tokens))

    def submit(self, slot: Slot, cell: Cell) -> Any:
        """See Task."""
        files = self._session.run.evaluations.read_files(cell.name, self._session.spec)
        return slot.actor.score.remote(self._job, self._candidates[cell.name], files)

    def receive(self, cell: Cell, answer: Any) -> None:
        """See Task."""
        self._session.run.evaluations.write_files(cell.name, self._session.spec, answer)

    def refuse(self, cell: Cell, error: CheckpointError | HubError, *, is_whole: bool = False) -> None:  # noqa: ARG002
        """See Task."""
        raise error


class Embedding:
    """The task of embedding prompts. `rows` has the embedding of each prompt by its index. `reach` receives their
    number.
    """

    def __init__(
        self, prompts: Sequence[TokenizedPrompt], batch_tokens: int, reach: Callable[[int], object] | None
    ) -> None:
        self.rows: dict[int, np.ndarray] = {}
        self._prompts, self._batch_tokens, self._reach = prompts, batch_tokens, reach

    def submit(self, slot: Slot, cell: Cell) -> Any:
        """See Task."""
        return slot.actor.embed.remote([self._prompts[index] for index in cell.indices], self._batch_tokens)

    def receive(self, cell: Cell, answer: Any) -> None:
        """See Task."""
        self.rows.update(zip(cell.indices, answer, strict=True))
        if self._reach:
            self._reach(len(self.rows))

    def refuse(self, cell: Cell, error: CheckpointError | HubError, *, is_whole: bool = False) -> None:  # noqa: ARG002
        """See Task."""
        raise error
