"""Which worker answers which cell, and that no cell is lost however workers die."""

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from pricer.core.cell_queue import MAX_DEATHS, CellQueue
from pricer.core.cells import Cell


def cells_of(**counts: int) -> list[Cell]:
    """So many cells of each candidate, one item in each."""
    return [Cell(name, (index,)) for name, count in counts.items() for index in range(count)]


def labels(cells: list[Cell | None]) -> list[str | None]:
    return [f"{cell.name}{cell.indices[0]}" if cell else None for cell in cells]


def answer_all(queue: CellQueue, worker: int) -> list[Cell | None]:
    """What one worker answers if it is alone from now on."""
    answered: list[Cell | None] = []
    while queue.take(worker):
        answered.append(queue.finish(worker))
    return answered


def test_every_worker_begins_with_its_part_of_the_cells() -> None:
    queue = CellQueue(cells_of(a=3, b=3), 2)

    assert labels([queue.take(0), queue.take(1), queue.take(0), queue.take(1)]) == ["a0", "b0", "a1", "b1"]


def test_a_worker_without_cells_takes_the_second_half_of_the_longest_part() -> None:
    queue = CellQueue(cells_of(a=8), 2)
    fast = [queue.take(1) for _ in range(4)]

    # The other worker has a0 to a3. Of these four, a2 and a3 change hands; then of the two, a1; then a0.
    assert labels(fast) == ["a4", "a5", "a6", "a7"]
    assert labels([queue.take(1) for _ in range(5)]) == ["a2", "a3", "a1", "a0", None]


def test_the_queue_is_finished_when_the_last_cell_is_answered_not_when_it_is_handed_out() -> None:
    queue = CellQueue(cells_of(a=1), 3)

    queue.take(2)
    assert not queue.is_finished

    assert labels([queue.finish(2)]) == ["a0"]
    assert queue.is_finished


def test_the_cells_of_a_worker_that_dies_go_to_the_next_worker_in_their_order() -> None:
    queue = CellQueue(cells_of(a=2, b=2), 2)
    queue.take(0), queue.take(0)

    assert queue.lose(0) is None
    assert labels(answer_all(queue, 1)) == ["a0", "a1", "b0", "b1"]


def test_the_cell_that_was_being_answered_is_the_one_that_ends_workers() -> None:
    queue = CellQueue(cells_of(a=2), 1)
    died_of = []
    for _ in range(MAX_DEATHS):
        queue.take(0), queue.take(0)
        died_of.append(queue.lose(0))

    assert labels(died_of) == [None, None, "a0"]


def test_an_answered_cell_is_not_blamed_for_the_death_after_it() -> None:
    queue = CellQueue(cells_of(a=3), 1)
    for _ in range(2):  # a0 twice
        queue.take(0)
        queue.lose(0)
    queue.take(0), queue.take(0)
    queue.finish(0)

    assert queue.lose(0) is None  # of a1


def test_nothing_of_a_dropped_candidate_is_handed_out_again() -> None:
    queue = CellQueue(cells_of(a=3, b=1), 1)
    queue.take(0), queue.take(0)

    queue.drop("a")
    queue.lose(0)

    assert labels(answer_all(queue, 0)) == ["b0"]
    assert queue.is_finished


@given(st.data())
def test_every_cell_is_answered_once_in_whatever_order_workers_take_finish_and_die(data: st.DataObject) -> None:
    workers = data.draw(st.integers(1, 5))
    cells = cells_of(**{name: data.draw(st.integers(0, 9)) for name in "abc"})
    queue = CellQueue(cells, workers)
    holds, answered = Counter[int](), Counter[Cell]()
    for worker, event in data.draw(
        st.lists(st.tuples(st.integers(0, workers - 1), st.sampled_from(["take", "finish", "die"])))
    ):
        if event == "take" and holds[worker] < 2:
            holds[worker] += queue.take(worker) is not None
        elif event == "finish" and holds[worker]:
            answered[queue.finish(worker)] += 1
            holds[worker] -= 1
        elif event == "die":
            queue.lose(worker)
            holds[worker] = 0
    while not queue.is_finished:
        for worker in range(workers):
            queue.take(worker)
            if queue._held[worker]:
                answered[queue.finish(worker)] += 1

    assert answered == Counter(cells)
