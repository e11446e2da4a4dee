"""How evaluation scales with Ray workers: measured with 1 and 2 on this machine, and simulated up to 64.

    python benchmarks/scaling.py RUN_FOLDER [CHECKPOINTS [ITEMS]]
    python benchmarks/scaling.py RUN_FOLDER real [LIMIT]

The first form times the parts of an evaluation with the run's base and checkpoints: a token in a batch, a token that is
embedded, the change of an adapter, and what only the driver does for each cell and each score. A simulation then gives
the cells of CHECKPOINTS (40) x ITEMS (10,000) to workers, event by event, through the queue of `pricer eval --ray`. The
driver takes the answers of one cell at a time. Efficiency is the time of one process without Ray, divided by the time
with N workers and by N: of all cells, those of the baselines included, and changes of adapters; then also of the scores
and regressions; then also of loading the base.

The second form runs `pricer eval --all-checkpoints` on copies of the run: in one process, and with 1 and 2 workers.
Each has one thread. The evaluations must be the same byte for byte.
"""

import heapq
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
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
from pricer.core.predictions import Prediction
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
    """Seconds of processor time.

    `answer` and `embed` are of a token in a batch, padding included: one value for each batch. `swap` is of a change of
    adapters, `score` of scoring a candidate on all items, `first_score` the same in a process that has not scored
    before, `baselines` of what the driver does for the four baselines, `load` of loading the base. `receive` and `file`
    are what the driver does with the answers of a cell, and with the score of a candidate from a worker.
    """

    answer: tuple[float, ...]
    embed: tuple[float, ...]
    swap: float
    score: float
    first_score: float
    baselines: float
    load: float
    receive: float
    file: float


def time_of(call: Callable[[], object]) -> float:
    """The processor time of a call: other processes on this machine do not count. There is one thread."""
    started = time.process_time()
    call()
    return time.process_time() - started


def spread(batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Some of the batches, evenly spaced."""
    return [batches[index] for index in np.linspace(0, len(batches) - 1, TIMED).astype(int)]


def measure(folder: Path, count: int) -> tuple[Costs, list[int], int]:
    """The costs with `count` items, the lengths of their prompts, and the tokens of a batch."""
    run = Run(folder)
    setup = prepare(run.config())
    known = itertools.cycle((*setup.items.val, *setup.items.train))
    items = [replace(next(known), id=f"item {number}") for number in range(count)]
    with open_session(run, setup, setup.spec(Split.VAL, count), items, 1, Listener()) as session:
        prompts, spec, kept = session.prompts, session.spec, run.evaluations
        batches = session.batches(session.whole)
        load = time_of(session.load)
        scorer = load_scorer(setup, None, prompts)

        def ask(batch: Sequence[int]) -> list[Prediction]:
            return scorer.predict([prompts[index] for index in batch])

        def embed(batch: Sequence[int]) -> np.ndarray:
            rows: np.ndarray = scorer.embed([prompts[index] for index in batch], session.batch_tokens)
            return rows

        def per_token(call: Callable[[Sequence[int]], object]) -> tuple[float, ...]:
            call(batches[0])
            return tuple(
                time_of(partial(call, batch)) / (len(batch) * len(prompts[batch[0]].ids)) for batch in spread(batches)
            )

        width, embedding = embed(batches[0]).shape[1], per_token(embed)
        folders = [run.store.fetch(checkpoint) for checkpoint in run.store.checkpoints()]
        scorer.use(folders[0])  # the first one takes longer
        swap = statistics.median(time_of(partial(scorer.use, folder)) for folder in (*folders, *folders))
        answering = per_token(ask)
        answers = ask(batches[len(batches) // 2])
        cell = Cell("saved", batches[len(batches) // 2])
        save = statistics.median(time_of(partial(session.save, cell, answers)) for _ in range(50))
        for batch in batches:
            renamed = [replace(answers[k % len(answers)], item_id=items[i].id) for k, i in enumerate(batch)]
            session.save(Cell("timed", batch), renamed)
        files = kept.read_files("timed", spec)
        scores = [time_of(partial(session.finish_saved, Candidate("timed"))) for _ in range(4)]
        plain = [Prediction(item.id, "100", 100.0) for item in items]
        baseline = time_of(lambda: session.finish("plain", Candidate("plain"), plain))
        file = time_of(lambda: kept.read_files("timed", spec)) + time_of(lambda: kept.write_files("timed", spec, files))
        train = setup.items.train[:EMBEDDED]
        rows = np.random.default_rng(0).normal(size=(len(train) + count, width))
        regressions = time_of(lambda: predict_with_ridge(setup.items.train, items)) + time_of(
            lambda: predict_with_embeddings(rows[: len(train)], [item.price for item in train], rows[len(train) :])
        )
    receive = save + time_calls(cell.indices, answers)
    score, file = statistics.median(scores[1:]), file + time_calls(files, files, 20)
    baselines = regressions + 3 * baseline + score
    costs = Costs(answering, embedding, swap, score, scores[0], baselines, load, receive, file)
    return costs, [len(prompt.ids) for prompt in prompts], session.batch_tokens


class Echo:
    """An actor that returns what it was given at first: only the way there and back takes time."""

    def __init__(self, result: object) -> None:
        self._result = result

    def call(self, name: str, argument: object) -> object:
        """The result."""
        return (name, argument) and self._result


def time_calls(argument: object, result: object, calls: int = 500) -> float:
    """The driver's processor time for a call of an actor that answers at once, with two calls under way."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    try:
        actor = ray.remote(Echo).remote(result)
        ray.get(actor.call.remote("cell", argument))
        waiting = [actor.call.remote("cell", argument)]

        started = time.process_time()
        for _ in range(calls):
            waiting.append(actor.call.remote("cell", argument))
            ready, waiting = ray.wait(waiting, num_returns=1)
            ray.get(ready[0])
        return (time.process_time() - started) / calls
    finally:
        ray.shutdown()


Phase = dict[Cell, tuple[float, float]]
"""Cells with the seconds of a worker and of the driver."""


def plan(costs: Costs, lengths: Sequence[int], batch_tokens: int, checkpoints: int) -> list[Phase]:
    """The phases of an evaluation, one after the other. The cost of a batch is its tokens times the cost of a token in
    one of the timed batches, drawn at random.
    """
    random = np.random.default_rng(0)

    def phase(names: Sequence[str], lengths: Sequence[int], seconds: Sequence[float]) -> Phase:
        batches = make_batches(lengths, batch_tokens)
        return {
            Cell(name, tuple(batch)): (len(batch) * lengths[batch[0]] * float(random.choice(seconds)), costs.receive)
            for name in names
            for batch in batches
        }

    train = [lengths[index % len(lengths)] for index in range(EMBEDDED)]
    names = [f"step {step}" for step in range(checkpoints)]
    return [
        phase(["untuned"], lengths, costs.answer),
        phase(["embeddings"], train, costs.embed),
        phase(["embeddings"], lengths, costs.embed),
        phase(names, lengths, costs.answer),
    ]


def time_alone(phases: Sequence[Phase], costs: Costs, checkpoints: int) -> float:
    """The seconds of one process without Ray, without loading and without scoring."""
    return sum(seconds for phase in phases for seconds, _ in phase.values()) + checkpoints * costs.swap


def simulate(cells: Phase, workers: int, costs: Costs, used: list[str]) -> float:
    """The seconds until all cells are received. `used` has the adapter of each worker, and is changed.

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
        busy_until[worker] = max(now, busy_until[worker]) + swap + cells[cell][0]
        heapq.heappush(ends, (busy_until[worker], worker))

    for worker in (*range(workers), *range(workers)):
        hand_out(worker, 0.0)
    while ends:
        end, worker = heapq.heappop(ends)
        driver_until = max(driver_until, end) + cells[queue.finish(worker)][1]
        hand_out(worker, driver_until)
    assert queue.is_finished
    return driver_until


def report(folder: Path, checkpoints: int, count: int) -> None:
    """Print the measured costs and the simulated table, also for a base that takes 20 times as long."""
    costs, lengths, batch_tokens = measure(folder, count)
    print(f"loading {costs.load:.1f} s, a score {costs.score:.2f} s, the first one {costs.first_score:.2f} s")
    print(f"the baselines {costs.baselines:.2f} s in the driver, besides the cells of the base")
    print(f"the driver: {1000 * costs.receive:.1f} ms for a cell, {1000 * costs.file:.0f} ms for a score of a worker")
    for factor in (1, 20):
        answer, embed = (tuple(factor * one for one in seconds) for seconds in (costs.answer, costs.embed))
        show(replace(costs, answer=answer, embed=embed, swap=factor * costs.swap), lengths, batch_tokens, checkpoints)


def show(costs: Costs, lengths: Sequence[int], batch_tokens: int, checkpoints: int) -> None:
    """Print the table for these costs."""
    phases = plan(costs, lengths, batch_tokens, checkpoints)
    cell = statistics.median(seconds for seconds, _ in phases[-1].values())
    print(f"\n{checkpoints} checkpoints x {len(lengths):,} items, {len(phases[-1]):,} cells of {cell:.3f} s", end="")
    alone = time_alone(phases, costs, checkpoints)
    whole = alone + checkpoints * costs.score + costs.baselines
    print(f", a change of adapters {costs.swap:.3f} s; one process: {alone:,.0f} s, and {whole:,.0f} s with scores")
    scoring = {Cell(f"score {number}", ()): (costs.first_score, costs.file) for number in range(checkpoints)}
    print("workers  cells and swaps       and scores   and loading")
    for workers in WORKERS:
        used = [""] * workers
        answered = sum(simulate(phase, workers, costs, used) for phase in phases)
        scored = answered + simulate(scoring, workers, costs, used) + costs.baselines
        shares = (alone / answered, whole / scored, (whole + costs.load) / (scored + costs.load))
        first, second, third = (f"{100 * share / workers:.1f} %" for share in shares)
        print(f"{workers:7d}  {answered:6,.0f} s {first:>8}  {scored:6,.0f} s {second:>8}  {third:>8}", flush=True)


def compare(folder: Path, limit: str) -> None:
    """Print the seconds of real evaluations, and fail unless all are the same."""
    contents: list[dict[str, bytes]] = []
    one_thread = {**os.environ, "OMP_NUM_THREADS": "1"}
    for options in ([], ["--ray", "local", "--workers", "1"], ["--ray", "local", "--workers", "2"]):
        with tempfile.TemporaryDirectory() as name:
            copy = Path(name) / "runs" / folder.name
            shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("evaluations"))
            command = [sys.executable, "-m", "pricer", "eval", "--all-checkpoints", "--limit", limit, *options]
            started = time.perf_counter()
            subprocess.run(command, cwd=name, check=True, capture_output=True, env=one_thread)
            seconds = time.perf_counter() - started
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
