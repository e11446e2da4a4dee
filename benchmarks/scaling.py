"""How evaluation scales with Ray workers: measured with 1 and 2 on this machine, and simulated up to 64.

    python benchmarks/scaling.py RUN_FOLDER [CHECKPOINTS [ITEMS]]
    python benchmarks/scaling.py RUN_FOLDER real [LIMIT]

The first form times the parts of an evaluation with the run's base and checkpoints: a token in a batch, a token that is
embedded, the change of an adapter, and what only the driver does for each cell and each score. A simulation then gives
the cells of CHECKPOINTS (40) x ITEMS (10,000) to workers, event by event, through the queue of `pricer eval --ray`. The
driver takes the answers of one cell at a time. Efficiency is the time of one process without Ray, divided by the time
with N workers and by N. It includes all baselines and scores. Loading the base is included in the last column only.

The second form runs `pricer eval --all-checkpoints` on copies of the run: in one process, and with 1 and 2 workers. The
evaluations must be the same byte for byte.
"""

import heapq
import itertools
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import ray

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.commands.parts.opening import load_scorer, open_session
from pricer.commands.parts.setup import prepare
from pricer.core.cell_queue import CellQueue
from pricer.core.cells import Cell
from pricer.core.checkpoints import Candidate
from pricer.core.items import Split
from pricer.ml.baselines import predict_with_embeddings, predict_with_ridge
from pricer.ml.batches import make_batches
from pricer.stores.runs import Run
from tests.commands.conftest import Listener

WORKERS = (1, 2, 4, 8, 16, 32, 64)
# The training items that the baseline of embeddings embeds.
EMBEDDED = 5_000
# Batches of each kind that are timed, evenly spaced from the longest prompts to the shortest.
TIMED = 25


@dataclass(frozen=True)
class Costs:
    """Measured seconds. `answer` and `embed` are of a token in a batch, padding included: one value for each batch.
    `swap` is of a change of adapters, `receive` of what the driver does with the answers of a cell, `score` of scoring
    a candidate on all items, `regressions` of both regressions, and `load` of loading the base.
    """

    answer: tuple[float, ...]
    embed: tuple[float, ...]
    swap: float
    receive: float
    score: float
    regressions: float
    load: float


@dataclass(frozen=True)
class Work:
    """The phases of an evaluation, one after the other, each with the seconds of its cells."""

    phases: tuple[dict[Cell, float], ...]

    @property
    def cells(self) -> int:
        """The number of all cells."""
        return sum(map(len, self.phases))


def time_of(call: Callable[[], object]) -> float:
    """The seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def spread(batches: Sequence[list[int]]) -> list[list[int]]:
    """Some of the batches, evenly spaced."""
    return [batches[index] for index in np.linspace(0, len(batches) - 1, TIMED).astype(int)]


def measure(folder: Path, count: int) -> tuple[Costs, list[int], int]:
    """The costs with `count` items, the lengths of their prompts, and the tokens of a batch."""
    run = Run(folder)
    setup = prepare(run.config())
    known = itertools.cycle((*setup.items.val, *setup.items.train))
    items = [replace(next(known), id=f"item {number}") for number in range(count)]
    with open_session(run, setup, setup.spec(Split.VAL, count), items, 1, Listener()) as session:
        prompts, lengths = session.prompts, [len(prompt.ids) for prompt in session.prompts]
        batches = make_batches(lengths, session.batch_tokens)

        def per_token(call: Callable[[list[int]], object], batch: list[int]) -> float:
            return time_of(lambda: call(batch)) / (len(batch) * lengths[batch[0]])

        started = time.perf_counter()
        scorer = load_scorer(setup, None, prompts)
        load = time.perf_counter() - started
        some = spread(batches)

        def embed(batch: list[int]) -> object:
            return scorer.embed([prompts[index] for index in batch], session.batch_tokens)

        def answer(batch: list[int]) -> object:
            return scorer.predict([prompts[index] for index in batch])

        width = scorer.embed(prompts[:1], session.batch_tokens).shape[1]
        embedding = [per_token(embed, batch) for batch in some]
        folders = [run.store.fetch(checkpoint) for checkpoint in run.store.checkpoints()]
        scorer.use(folders[0])  # the first one costs more
        swaps = [time_of(lambda folder=folder: scorer.use(folder)) for folder in (*folders, *folders)]  # type: ignore[misc]
        answer(some[0])
        answering = [per_token(answer, batch) for batch in some]
        batch = batches[len(batches) // 2]
        answers = scorer.predict([prompts[index] for index in batch])
        saves = [time_of(lambda: session.save(Cell("timed", tuple(batch)), answers)) for _ in range(50)]
        everything = [replace(answers[number % len(answers)], item_id=item.id) for number, item in enumerate(items)]
        score = time_of(lambda: session.finish("timed", Candidate("timed"), everything))
        train = setup.items.train[:EMBEDDED]
        rows = np.random.default_rng(0).normal(size=(len(train) + count, width))
        regressions = time_of(lambda: predict_with_ridge(setup.items.train, items)) + time_of(
            lambda: predict_with_embeddings(rows[: len(train)], [item.price for item in train], rows[len(train) :])
        )
    costs = Costs(
        tuple(answering),
        tuple(embedding),
        statistics.median(swaps),
        statistics.median(saves) + time_call(answers),
        score,
        regressions,
        load,
    )
    return costs, lengths, session.batch_tokens


class Echo:
    """An actor that returns what it was given at first: only the way there and back takes time."""

    def __init__(self, answers: object) -> None:
        self._answers = answers

    def answer(self, name: str, indices: tuple[int, ...]) -> object:
        """The answers of any cell."""
        return (name, indices) and self._answers


def time_call(answers: Sequence[object], calls: int = 1000) -> float:
    """The seconds of one call of an actor that answers at once, with two calls under way, as the driver sees it."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    try:
        actor = ray.remote(Echo).remote(answers)
        indices = tuple(range(len(answers)))
        ray.get(actor.answer.remote("cell", indices))
        waiting = [actor.answer.remote("cell", indices)]
        started = time.perf_counter()
        for _ in range(calls):
            waiting.append(actor.answer.remote("cell", indices))
            ready, waiting = ray.wait(waiting, num_returns=1)
            ray.get(ready[0])
        return (time.perf_counter() - started) / calls
    finally:
        ray.shutdown()


def plan(costs: Costs, lengths: Sequence[int], batch_tokens: int, checkpoints: int) -> Work:
    """The cells of all checkpoints and of the baselines that need the base. The cost of a batch is its tokens times the
    cost of a token in one of the timed batches, drawn at random.
    """
    random = np.random.default_rng(0)

    def phase(names: Sequence[str], lengths: Sequence[int], seconds: Sequence[float]) -> dict[Cell, float]:
        batches = make_batches(lengths, batch_tokens)
        return {
            Cell(name, tuple(batch)): len(batch) * lengths[batch[0]] * float(random.choice(seconds))
            for name in names
            for batch in batches
        }

    train = [lengths[index % len(lengths)] for index in range(EMBEDDED)]
    return Work(
        (
            phase(["untuned"], lengths, costs.answer),
            phase(["embeddings"], train, costs.embed),
            phase(["embeddings"], lengths, costs.embed),
            phase([f"step {step}" for step in range(checkpoints)], lengths, costs.answer),
        )
    )


def time_alone(work: Work, costs: Costs, checkpoints: int) -> float:
    """The seconds of one process without Ray, without loading."""
    answering = sum(sum(phase.values()) for phase in work.phases)
    return answering + checkpoints * costs.swap + time_driver(costs, checkpoints)


def time_driver(costs: Costs, checkpoints: int) -> float:
    """The seconds of what only the driver does, while the workers wait: four baselines are scored, too."""
    return costs.regressions + (checkpoints + 4) * costs.score


def simulate(cells: dict[Cell, float], workers: int, costs: Costs, used: list[str]) -> float:
    """The seconds until all cells are answered. `used` has the adapter of each worker, and is changed.

    As in pricer: a worker has two cells at a time, and gets another one when the driver has received an answer.
    """
    queue = CellQueue(list(cells), workers)
    busy_until, driver_until = [0.0] * workers, 0.0
    ends: list[tuple[float, int]] = []

    def hand_out(worker: int, now: float) -> None:
        if (cell := queue.take(worker)) is None:
            return
        swap = costs.swap if cell.name.startswith("step") and used[worker] != cell.name else 0.0
        used[worker] = cell.name
        busy_until[worker] = max(now, busy_until[worker]) + swap + cells[cell]
        heapq.heappush(ends, (busy_until[worker], worker))

    for worker in (*range(workers), *range(workers)):
        hand_out(worker, 0.0)
    while ends:
        end, worker = heapq.heappop(ends)
        queue.finish(worker)
        driver_until = max(driver_until, end) + costs.receive
        hand_out(worker, driver_until)
    assert queue.is_finished
    return driver_until


def report(folder: Path, checkpoints: int, count: int) -> None:
    """Print the measured costs and the simulated table."""
    costs, lengths, batch_tokens = measure(folder, count)
    work = plan(costs, lengths, batch_tokens, checkpoints)
    per_cell = statistics.median(work.phases[-1].values())
    print(f"{checkpoints} checkpoints x {count:,} items: {work.cells:,} cells, batches of {batch_tokens:,} tokens")
    print(f"a cell {per_cell:.3f} s, a change of adapters {costs.swap:.3f} s, in the driver {costs.receive:.4f} s")
    print(f"loading {costs.load:.1f} s, a score {costs.score:.2f} s, the regressions {costs.regressions:.1f} s")
    alone = time_alone(work, costs, checkpoints)
    print(f"one process without Ray: {alone:,.0f} s\nworkers  seconds  efficiency  with loading")
    for workers in WORKERS:
        used = [""] * workers
        seconds = sum(simulate(phase, workers, costs, used) for phase in work.phases) + time_driver(costs, checkpoints)
        efficiency = alone / seconds / workers
        with_loading = (alone + costs.load) / (seconds + costs.load) / workers
        print(f"{workers:7d}  {seconds:7,.0f}  {100 * efficiency:8.1f} %  {100 * with_loading:10.1f} %", flush=True)


def compare(folder: Path, limit: str) -> None:
    """Print the seconds of real evaluations, and fail unless all are the same."""
    contents: list[dict[str, bytes]] = []
    for options in ([], ["--ray", "local", "--workers", "1"], ["--ray", "local", "--workers", "2"]):
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / "runs" / folder.name
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("evaluations"))
            command = [sys.executable, "-m", "pricer", "eval", "--all-checkpoints", "--limit", limit, *options]
            seconds = time_of(lambda: subprocess.run(command, cwd=name, check=True, capture_output=True))  # noqa: B023
            files = sorted(path for path in (copy / "evaluations").rglob("*") if path.is_file())
            contents.append({path.relative_to(copy).as_posix(): path.read_bytes() for path in files})
        print(f"{' '.join(options) or 'one process':<26}{seconds:7.1f} s", flush=True)
    assert contents[0] == contents[1] == contents[2]
    print(f"the same {len(contents[0])} files")


def main() -> None:
    """Measure and simulate, or compare real evaluations."""
    folder, *given = sys.argv[1:]
    if given[:1] == ["real"]:
        compare(Path(folder), given[1] if len(given) > 1 else "600")
        return
    checkpoints, items = int(given[0]) if given else 40, int(given[1]) if len(given) > 1 else 10_000
    with tempfile.TemporaryDirectory() as name:
        copy = Path(name) / "runs" / Path(folder).name
        shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("evaluations"))
        report(copy, checkpoints, items)


if __name__ == "__main__":
    main()
