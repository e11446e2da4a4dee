"""Actors that die, and what becomes of their cells: with a Ray that runs in this process, one call after another."""

from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from pricer.commands.parts.ray_workers import RayWorkers
from pricer.commands.parts.scorers import ScorerParts
from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.settling import Machine
from pricer.commands.parts.workers import Loaded, ScoringJob, WorkerMachine
from pricer.config import ModelConfig
from pricer.core.checkpoints import Candidate
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.core.prices import PriceFormat
from pricer.errors import CheckpointError, ModelError
from pricer.ml.devices import Precision
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run
from tests.commands.conftest import Listener
from tests.commands.sessions import SPEC, a_session

MACHINE = WorkerMachine(Machine(Precision("cpu", "nf4", "float32"), None), "cpu", "1")
ITEMS = [Item(f"item{n}", f"Lamp {n}", 10.0 * (n + 1)) for n in range(6)]
# Two prompts of two tokens fit a batch of four: three cells for each of three checkpoints.
PROMPTS = [TokenizedPrompt(item.id, np.array([1, 2], dtype=np.int32), cut=False) for item in ITEMS]


class RayError(Exception):
    """Ray's error for a call of an actor that has died."""


class RayTaskError(RayError):
    """Ray's error for a call that has raised `cause`."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class FakeRay:
    """The functions of Ray that are used. Actors end calls in turns."""

    exceptions = SimpleNamespace(RayError=RayError, RayTaskError=RayTaskError)

    def __init__(self) -> None:
        self._turn, self._killed = 0, list[FakeActor]()

    def put(self, value: Any) -> Any:
        return value

    def wait(self, calls: Sequence["Call"], *, num_returns: int, timeout: float) -> tuple[list["Call"], list["Call"]]:
        self._turn += 1
        return [calls[self._turn % len(calls)]], []

    def get(self, call: "Call") -> Any:
        while not call.is_over:
            call.actor.end_next()
        if isinstance(call.result, Exception):
            raise call.result
        return call.result

    def kill(self, actor: "FakeActor") -> None:
        self._killed.append(actor)

    def restart(self) -> "FakeActor":
        """An actor that replaces the one that was killed last: the same, so that it counts for both."""
        return self._killed[-1]


class Call:
    """A call of an actor, and later its result."""

    def __init__(self, actor: "FakeActor", method: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
        self.actor, self.method, self.arguments = actor, method, arguments
        self.is_over, self.result = False, None

    def over(self, result: Any) -> None:
        self.is_over, self.result = True, result


class FakeActor:
    """A worker whose every answer is $20. It dies when `is_lethal` says so of an adapter and the first item of a cell,
    and cannot use the adapters in `bad`.
    """

    def __init__(self, is_lethal: Callable[[str | None, int], bool], bad: Sequence[str] = ()) -> None:
        self.loads, self.swaps = 0, 0
        self.scored: list[str] = []
        self.answered: list[tuple[str | None, tuple[int, ...]]] = []
        self._is_lethal, self._bad = is_lethal, bad
        self._inbox: list[Call] = []
        self._adapter: str | None = None
        self.load, self.use = self._remote(self._load), self._remote(self._use)
        self.score = self._remote(self._score)
        self.answer, self.embed = self._remote(self._answer), self._remote(self._embed)

    def _remote(self, method: Callable[..., Any]) -> SimpleNamespace:
        def send(*arguments: Any) -> Call:
            self._inbox.append(Call(self, method, arguments))
            return self._inbox[-1]

        return SimpleNamespace(remote=send)

    def end_next(self) -> None:
        """End the oldest call. If the actor dies of it, that ends all calls."""
        call = self._inbox.pop(0)
        try:
            call.over(call.method(*call.arguments))
        except CheckpointError as error:
            call.over(RayTaskError(error))
        except RayError as error:
            for lost in (call, *self._inbox):
                lost.over(error)
            self._inbox.clear()

    def _load(self, *_: Any) -> Loaded:
        self.loads += 1
        self._adapter = None
        return Loaded("cpu", is_dense=False)

    def _use(self, sent: Any) -> None:
        self.swaps += 1
        self._adapter = sent.checkpoint.id

    def _answer(self, adapter: str | None, indices: tuple[int, ...]) -> list[Prediction]:
        assert adapter == self._adapter
        if self._is_lethal(adapter, indices[0]):
            raise RayError("The actor died.\nthe worker was killed")
        if adapter in self._bad:
            raise CheckpointError("the adapter has weights that are not numbers")
        self.answered.append((adapter, indices))
        return [Prediction(ITEMS[index].id, "", 20.0) for index in indices]

    def _score(self, job: ScoringJob, candidate: Candidate, files: dict[str, bytes]) -> dict[str, bytes]:
        self.scored.append(candidate.name)
        return files

    def _embed(self, prompts: Sequence[TokenizedPrompt], _: int) -> np.ndarray:
        return np.array([[float(prompt.item_id[4:])] for prompt in prompts])


def dies_at(deaths: int, adapter: str | None = None) -> Callable[[str | None, int], bool]:
    """The first so many times that somebody answers item2 with this adapter (None: with any), they die."""
    left = [deaths]

    def is_lethal(used: str | None, item: int) -> bool:
        if item != 2 or adapter not in (None, used) or not left[0]:
            return False
        left[0] -= 1
        return True

    return is_lethal


def never(_: str | None, __: int) -> bool:
    return False


def load_fakes(run: Run, actors: Sequence[FakeActor], listener: Listener) -> RayWorkers:
    parts = ScorerParts(ModelConfig(), MACHINE.machine.precision, PriceFormat("plain"), 8, None, 0.02, None)
    ray = FakeRay()
    return RayWorkers(ray, actors, ray.restart, MACHINE, listener.note).load(parts, run, PROMPTS)


def fill(run: Run, actors: Sequence[FakeActor], listener: Listener | None = None) -> EvaluationSession:
    """A session after these actors have answered everything."""
    listener = listener or Listener()
    workers = load_fakes(run, actors, listener)
    session = a_session(run, ITEMS, PROMPTS, 4, workers, listener)
    workers.fill(session, run.store.checkpoints(), session.whole)
    return session


def answers(run: Run) -> list[list[tuple[str, ...]]]:
    """The saved cells of each checkpoint, sorted."""
    return [
        sorted(tuple(p.item_id for p in batch) for batch in run.evaluations.predictions(c.id, SPEC))
        for c in run.store.checkpoints()
    ]


WHOLE = [[("item0", "item1"), ("item2", "item3"), ("item4", "item5")]] * 3


def test_two_workers_answer_every_cell_once_and_change_adapters_rarely(run: Run) -> None:
    actors = [FakeActor(never), FakeActor(never)]

    fill(run, actors)

    assert answers(run) == WHOLE
    assert sum(len(actor.answered) for actor in actors) == 9
    assert sorted(actors[0].scored + actors[1].scored) == ["step-000002", "step-000004", "step-000006"]
    # One has the first checkpoint and the beginning of the second, the other one the rest.
    assert [actor.swaps for actor in actors] == [2, 2]


def test_a_worker_that_dies_costs_only_the_cells_it_held(run: Run) -> None:
    listener, actors = Listener(), [FakeActor(dies_at(1)), FakeActor(never)]

    fill(run, actors, listener)

    assert answers(run) == WHOLE
    assert sum(len(actor.answered) for actor in actors) == 9
    assert [actor.loads for actor in actors] == [2, 1]
    assert listener.notes == ["worker 1 died, and its cells are answered again: the worker was killed"]


def test_a_cell_that_ends_three_workers_costs_its_checkpoint_and_no_other(run: Run) -> None:
    second = run.store.checkpoints()[1]
    is_lethal = dies_at(9, second.id)

    session = fill(run, [FakeActor(is_lethal), FakeActor(is_lethal)])

    assert list(session.errors) == [second.id]
    assert session.errors[second.id].message == "3 workers died while they answered the same 2 items"
    assert [answers(run)[0], answers(run)[2]] == WHOLE[:2]


def test_a_single_worker_also_gets_beyond_a_lethal_checkpoint(run: Run) -> None:
    second = run.store.checkpoints()[1]

    session = fill(run, [FakeActor(dies_at(9, second.id))])

    assert list(session.errors) == [second.id]
    assert [answers(run)[0], answers(run)[2]] == WHOLE[:2]


def test_a_worker_that_always_dies_costs_no_checkpoint_because_others_do_its_cells(run: Run) -> None:
    broken, whole = FakeActor(lambda *_: True), FakeActor(never)

    session = fill(run, [broken, whole])

    assert (session.errors, answers(run)) == ({}, WHOLE)
    assert broken.loads > 2


def test_if_every_worker_always_dies_the_command_ends(run: Run) -> None:
    with pytest.raises(ModelError, match="every worker died 5 times in a row"):
        fill(run, [FakeActor(lambda *_: True), FakeActor(lambda *_: True)])


def test_an_adapter_that_does_not_fit_is_left_out_once_by_whoever_finds_it(run: Run) -> None:
    listener, second = Listener(), run.store.checkpoints()[1]

    session = fill(run, [FakeActor(never, [second.id]), FakeActor(never, [second.id])], listener)

    assert list(session.errors) == [second.id]
    assert listener.notes == ["step-000004 cannot be scored: the adapter has weights that are not numbers"]
    assert [answers(run)[0], answers(run)[2]] == WHOLE[:2]


def test_a_checkpoint_that_cannot_be_fetched_is_left_out(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    first, fetch = run.store.checkpoints()[0], run.store.fetch

    def fetch_others(checkpoint: Any) -> Any:
        if checkpoint == first:
            raise CheckpointError("its files are damaged")
        return fetch(checkpoint)

    monkeypatch.setattr(run.store, "fetch", fetch_others)

    session = fill(run, [FakeActor(never), FakeActor(never)])

    assert list(session.errors) == [first.id]
    assert answers(run)[1:] == WHOLE[:2]


def test_progress_counts_each_checkpoint_by_itself(run: Run) -> None:
    listener = Listener()

    fill(run, [FakeActor(never), FakeActor(never)], listener)

    # Nine cells of two items.
    assert [reached[1:] for reached in listener.done] == [(done, 18) for done in range(2, 20, 2)]


def test_embeddings_are_in_the_order_of_the_prompts_whoever_made_them(run: Run) -> None:
    workers = load_fakes(run, [FakeActor(never), FakeActor(never)], Listener())
    lengths = (3, 9, 1, 5, 7, 2)
    prompts = [
        TokenizedPrompt(f"item{n}", np.zeros(length, dtype=np.int32), cut=False) for n, length in enumerate(lengths)
    ]

    assert workers.embed(prompts, 9).tolist() == [[0], [1], [2], [3], [4], [5]]
