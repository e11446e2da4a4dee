"""Ray actors answer the cells of an evaluation, each with a base of its own. Only this process saves answers."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from pricer.commands.parts.ray_tasks import Embedding, Filling, Scoring, Slot, Task
from pricer.commands.parts.scorers import ScorerParts
from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.workers import Loaded, WorkerMachine
from pricer.core.cell_queue import MAX_DEATHS, CellQueue
from pricer.core.cells import Cell, Segment
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.errors import CheckpointError, HubError, ModelError
from pricer.ml.batches import make_batches
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

# Number of calls that an actor has at a time: one that it works on, and one that it continues with at once.
_CALLS = 2
# A worker that dies so often without an answer in between is given up. This is more than MAX_DEATHS, so that a single
# worker gets beyond a checkpoint that it dies of.
_MAX_DEATHS_IN_A_ROW = 5
# Seconds without an answer and without a loaded worker, after which the user is told.
_PATIENCE = 60.0


class RayWorkers:
    """Actors that answer cells. `host` is the machine of the first one; the others must compute in the same way.
    `start` starts another actor.

    An actor that dies is replaced, maybe on another node. Only the cells that it held are answered again.
    """

    def __init__(
        self,
        ray: Any,
        actors: Sequence[Any],
        start: Callable[[], Any],
        host: WorkerMachine,
        note: Callable[[str], None],
    ) -> None:
        self.host = host
        self._ray, self._start = ray, start
        self._slots = [Slot(actor) for actor in actors]
        self._note = note
        self._is_begun = False

    def load(self, parts: ScorerParts, run: Run, prompts: Sequence[TokenizedPrompt]) -> Self:
        """Let every worker load the base, and return at once. `prompts` are those of all items. On each kind of device,
        weights are dequantized or not as the run did before.
        """
        self._parts = self._ray.put(parts)
        self._prompts, self._run = self._ray.put(list(prompts)), run
        if not self._is_begun:
            for slot in self._slots:
                self._begin(slot)
        self._is_begun = True
        return self

    def fill(self, session: EvaluationSession, candidates: Sequence[Checkpoint | None], segment: Segment) -> None:
        """Answer the missing cells of these candidates on a segment, and save the answers. Then score the checkpoints
        whose answers are complete. A checkpoint that cannot be scored is left out of the session.
        """
        checkpoints = [candidate for candidate in candidates if candidate]
        if not (cells := session.missing(session.cells(candidates, segment))):
            return
        session.load()
        self._work(cells, Filling(self._ray, session, checkpoints, cells))
        if segment == session.whole:
            left_out = session.failed_for_good().keys() | session.errors.keys()
            scored = {one.id: Candidate.of(one) for one in checkpoints if one.id not in left_out}
            self._work([Cell(key, ()) for key in scored], Scoring(self._ray, session, scored))

    def embed(
        self, prompts: Sequence[TokenizedPrompt], batch_tokens: int, reach: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """As in a Scorer: the embeddings by the base, (prompts, hidden size)."""
        batches = make_batches([len(prompt.ids) for prompt in prompts], batch_tokens)
        task = Embedding(prompts, batch_tokens, reach)
        self._work([Cell("embeddings", tuple(batch)) for batch in batches], task)
        return np.stack([task.rows[index] for index in range(len(prompts))])

    def use(self, adapter: Path) -> None:
        """As in a Scorer, but never called: `fill` answers everything that needs an adapter."""
        raise AssertionError(adapter)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Any]:
        """As in a Scorer, but never called, for the same reason."""
        raise AssertionError(prompts)

    def _work(self, cells: Sequence[Cell], task: Task) -> None:
        """Let the workers answer all cells."""
        queue, is_patient = CellQueue(cells, len(self._slots)), True
        while True:
            for number in range(len(self._slots)):
                self._feed(number, queue, task)
            if queue.is_finished:
                return
            # An actor ends its calls in their order, so only the oldest can end next.
            waiting = {slot.calls[0]: number for number, slot in enumerate(self._slots) if slot.calls}
            ready, _ = self._ray.wait([*waiting], num_returns=1, timeout=_PATIENCE)
            for call in ready:
                self._collect(waiting[call], queue, task)
            if not ready and is_patient and not any(slot.is_loaded for slot in self._slots):
                self._note("still waiting for a worker to load the base")
                is_patient = False

    def _feed(self, number: int, queue: CellQueue, task: Task) -> None:
        """Give a worker the cells that it may have."""
        slot = self._slots[number]
        while slot.is_loaded and len(slot.calls) < _CALLS and (cell := queue.take(number)):
            try:
                slot.calls.append(task.submit(slot, cell))
            except (CheckpointError, HubError) as error:  # its adapter cannot be fetched
                if isinstance(error, HubError) and error.transient:
                    raise
                queue.refuse(number)
                task.refuse(cell, error)

    def _collect(self, number: int, queue: CellQueue, task: Task) -> None:
        """Take the result of the oldest call of a worker."""
        slot, errors = self._slots[number], self._ray.exceptions
        try:
            result = self._ray.get(slot.calls[0])
        except errors.RayTaskError as error:
            if not (slot.is_loaded and isinstance(error.cause, CheckpointError)):
                raise error.cause from None
            slot.calls.popleft()
            cell = queue.finish(number)
            if not queue.has_dropped(cell.name):  # by another worker
                queue.drop(cell.name)
                task.refuse(cell, error.cause, is_whole=True)
        except errors.RayError as error:
            self._lose(number, queue, task, explain_ray_error(error))
        else:
            slot.calls.popleft()
            if not slot.is_loaded:
                self._accept(slot, result)
            else:
                slot.deaths = 0
                task.receive(queue.finish(number), result)

    def _begin(self, slot: Slot) -> None:
        slot.is_loaded, slot.adapter = False, None
        slot.calls.clear()
        slot.calls.append(slot.actor.load.remote(self._parts, self._prompts, self._known_dense()))

    def _accept(self, slot: Slot, loaded: Loaded) -> None:
        """A worker has loaded the base. If another one with such a device has decided otherwise about the weights, it
        loads the base again in that way.
        """
        known = self._known_dense()
        if loaded.device not in known:
            self._run.record(dense={**known, loaded.device: loaded.is_dense})
        slot.is_loaded = known.get(loaded.device, loaded.is_dense) == loaded.is_dense
        if not slot.is_loaded:
            self._begin(slot)

    def _known_dense(self) -> dict[str, bool]:
        found: dict[str, bool] = self._run.facts().get("dense", {})
        return found

    def _lose(self, number: int, queue: CellQueue, task: Task, reason: str) -> None:
        """A worker has died. Its cells are handed out again, and it begins again."""
        slot, lethal = self._slots[number], queue.lose(number)
        slot.deaths += 1
        self._note(f"worker {number + 1} died, and its cells are answered again: {reason}")
        self._ray.kill(slot.actor)  # it may only be out of reach
        if slot.deaths < _MAX_DEATHS_IN_A_ROW:
            slot.actor = self._start()
            self._begin(slot)
        else:
            slot.is_loaded = False
            slot.calls.clear()
            if not any(other.calls or other.is_loaded for other in self._slots):
                problem = f"every worker died {slot.deaths} times in a row, the last one: {reason}"
                raise ModelError(problem, "is there enough memory for the base? --workers N starts fewer")
        if lethal and not queue.has_dropped(lethal.name):
            queue.drop(lethal.name)
            problem = f"{MAX_DEATHS} workers died while they answered the same {len(lethal.indices)} items"
            task.refuse(lethal, CheckpointError(problem, "pricer eval without --ray shows why"))


def explain_ray_error(error: Exception) -> str:
    """The cause in Ray's message of many lines: the last one."""
    lines = [line.strip() for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1][:200] if lines else type(error).__name__
