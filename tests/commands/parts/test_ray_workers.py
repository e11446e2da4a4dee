"""How RayWorkers gives out cells and replaces actors that die, with actors that answer in this process."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from pricer.commands.parts.ray_tasks import Slot
from pricer.commands.parts.ray_workers import RayWorkers
from pricer.commands.parts.workers import Loaded
from pricer.core.cells import Cell
from pricer.errors import ModelError
from tests.builders import a_run


class ActorDiedError(Exception):
    """An actor's call that does not end."""


class TaskError(Exception):
    """An actor's call that fails."""


@dataclass(eq=False)
class Call:
    """A call of an actor that has not begun."""

    actor: "Actor"
    name: str
    argument: object = None


@dataclass(eq=False)
class Actor:
    """Dies at the calls that `dies_at` has, so many times at each."""

    dies_at: Counter[str] = field(default_factory=Counter)
    answered: list[object] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.load = SimpleNamespace(remote=lambda *_: Call(self, "load"))
        self.answer = SimpleNamespace(remote=partial(Call, self, "answer"))


class FakeRay:
    """Ends one call at a time: of those that can end next, one that is not `is_later`."""

    exceptions = SimpleNamespace(RayTaskError=TaskError, RayError=ActorDiedError)

    def __init__(self, is_later: Callable[[Call], bool]) -> None:
        self._is_later = is_later

    def put(self, value: object) -> object:
        return value

    def wait(self, calls: Sequence[Call], **_: object) -> tuple[list[Call], list[Call]]:
        first = min(calls, key=self._is_later)
        return [first], [call for call in calls if call is not first]

    def get(self, call: Call) -> object:
        if call.actor.dies_at[call.name]:
            call.actor.dies_at[call.name] -= 1
            raise ActorDiedError("killed")
        if call.name == "load":
            return Loaded("cpu", is_dense=False)
        call.actor.answered.append(call.argument)
        return call.argument

    def kill(self, actor: Actor) -> None:
        pass


class Answering:
    """The task of answering cells. Keeps how often each cell was given to an actor, and its answers."""

    def __init__(self) -> None:
        self.submitted = Counter[Cell]()
        self.received: list[Cell] = []

    def submit(self, slot: Slot, cell: Cell) -> Any:
        self.submitted[cell] += 1
        return slot.actor.answer.remote(cell)

    def receive(self, cell: Cell, answer: Any) -> None:
        assert answer is cell
        self.received.append(cell)

    def refuse(self, cell: Cell, error: Exception, *, is_whole: bool = False) -> None:
        raise error


def answer(cells: Sequence[Cell], actors: Sequence[Actor], is_later: Callable[[Call], bool]) -> Answering:
    """Let the actors answer the cells. The last one is the one that is started again."""
    host: Any = None
    parts: Any = None
    task = Answering()
    workers = RayWorkers(FakeRay(is_later), actors, lambda: actors[-1], host, lambda _: None)
    workers.load(parts, a_run(), ())
    workers._work(cells, task)
    return task


def some_cells(count: int) -> list[Cell]:
    return [Cell("one", (index,)) for index in range(count)]


def test_a_worker_that_dies_costs_only_the_cells_that_it_held() -> None:
    cells, steady, frail = some_cells(40), Actor(), Actor(Counter(answer=1))

    def is_later(call: Call) -> bool:
        """The frail one dies when the other one has answered 15 cells."""
        return call.name != "load" and (call.actor is frail) == (len(steady.answered) < 15)

    task = answer(cells, [steady, frail], is_later)

    assert Counter(task.received) == Counter(cells)
    # The one that it worked on, and the one that it would have continued with.
    assert task.submitted.total() == 40 + 2


def test_a_worker_with_nothing_to_do_continues_when_the_other_one_is_given_up() -> None:
    cells, steady, frail = some_cells(2), Actor(), Actor(Counter(load=4, answer=1))

    def is_later(call: Call) -> bool:
        """The frail one dies four times, loads the base and takes both cells. Then the steady one has loaded it."""
        return call.actor is steady if call.name == "load" else True

    task = answer(cells, [steady, frail], is_later)

    assert Counter(steady.answered) == Counter(task.received) == Counter(cells)


def test_an_evaluation_ends_when_its_only_worker_dies_again_and_again() -> None:
    with pytest.raises(ModelError, match="every worker died 5 times in a row, the last one: killed"):
        answer(some_cells(1), [Actor(Counter(load=9))], lambda _: False)
