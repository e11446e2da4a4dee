"""How evaluation scales with Ray workers: measured with 1 and 2 on this machine, and simulated up to 64.

    python benchmarks/scaling.py RUN_FOLDER [CHECKPOINTS [ITEMS]]
    python benchmarks/scaling.py RUN_FOLDER real [LIMIT]

The first form times the parts of an evaluation with the run's base and checkpoints: a token in a batch, a token that is
embedded, the change of an adapter in a worker, a score there, and what only the driver does. A simulation then gives
the cells of CHECKPOINTS (40) x ITEMS (10,000) to workers, event by event, through the queue of `pricer eval --ray`. The
driver does one thing at a time. Efficiency is the time of one process without Ray, divided by the time with N workers
and by N: of all cells, those of the baselines included, and changes of adapters; then also of scores, regressions and
all else that `pricer eval` does with an evaluation; then also of loading the base. Not counted: the start of pricer and
of Ray, the preparation of the data, and the time that answers and adapters need on a network.

The second form runs `pricer eval --all-checkpoints` on copies of the run: in one process, and with 1 and 2 workers.
Each has one thread. The evaluations must be the same byte for byte.
"""

import heapq
import itertools
import os
import pickle
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import ray

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.commands.parts.baselines import BASELINES
from pricer.commands.parts.jobs import Job, open_job
from pricer.commands.parts.opening import load_scorer, read_batch_tokens
from pricer.commands.parts.scorers import choose_parts
from pricer.commands.parts.session import UNTUNED, EvaluationSession
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.verdicts import judge_scored
from pricer.commands.parts.workers import ScoringJob, Worker, pack_adapter
from pricer.core.cell_queue import CellQueue
from pricer.core.cells import Cell
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.ml.baselines import fit_on_embeddings, predict_with_ridge
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

    `answer` and `embed` are of a token in a batch, padding included: one value for each batch. `load` is of loading the
    base. `swap` and `score` are of a change of adapters and of a score in one process without Ray; `worker_swap` and
    `worker_score` of the same in a worker, with all that it receives, writes and reads.

    The driver alone does the rest: `receive` is of the answers of a cell, `send` of an adapter, and `file` of the score
    of a candidate from a worker. `baselines` is of the four baselines without the cells of the base, and `rest` of
    opening the evaluation, reading all scores and judging them: one process does the same.
    """

    answer: tuple[float, ...]
    embed: tuple[float, ...]
    load: float
    swap: float
    score: float
    worker_swap: float
    worker_score: float
    receive: float
    send: float
    file: float
    baselines: float
    rest: float


def time_of(call: Callable[[], object]) -> float:
    """The processor time of a call: other processes on this machine do not count. There is one thread."""
    started = time.process_time()
    call()
    return time.process_time() - started


def median_time(call: Callable[[Any], object], arguments: Sequence[Any]) -> float:
    """The median processor time of a call with each of the arguments."""
    return statistics.median(time_of(partial(call, argument)) for argument in arguments)


def spread(batches: Sequence[Sequence[int]]) -> list[Sequence[int]]:
    """Some of the batches, evenly spaced."""
    return [batches[index] for index in np.linspace(0, len(batches) - 1, TIMED).astype(int)]


def measure(folder: Path, count: int, checkpoints: int) -> tuple[Costs, list[int], int]:
    """The costs with `count` items and `checkpoints`, the lengths of the prompts, and the tokens of a batch."""
    run = Run(folder)
    setup, saved = prepare(run.config()), run.store.checkpoints()
    known = itertools.cycle((*setup.items.val, *setup.items.train))
    items = [replace(next(known), id=f"item {number}") for number in range(count)]
    job = Job(run, "all", saved, setup, setup.spec(Split.VAL, count), items, None)
    with run.evaluations.lock():  # as with Ray: nothing is measured
        run.evaluations.fix_batch_tokens(job.spec, read_batch_tokens(run, setup) or setup.batch_tokens)
    started = time.process_time()
    with open_job(job, Listener()) as (session, _):
        opening = time.process_time() - started
        costs = measure_session(session, setup, saved, checkpoints)
    return replace(costs, rest=opening + costs.rest), [len(one.ids) for one in session.prompts], session.batch_tokens


def measure_session(session: EvaluationSession, setup: Setup, saved: Sequence[Checkpoint], checkpoints: int) -> Costs:
    """The costs of a session. The `rest` does not have its opening yet."""
    prompts, spec, kept, store = session.prompts, session.spec, session.run.evaluations, session.run.store
    parts, worker, batches = choose_parts(setup, prompts), Worker(), session.batches(session.whole)
    load = time_of(lambda: worker.load(parts, prompts, {}))

    def embed(batch: Sequence[int]) -> np.ndarray:
        rows: np.ndarray = worker.embed([prompts[index] for index in batch], session.batch_tokens)
        return rows

    def per_token(call: Callable[[Sequence[int]], object]) -> tuple[float, ...]:
        call(batches[0])
        return tuple(
            time_of(partial(call, batch)) / (len(batch) * len(prompts[batch[0]].ids)) for batch in spread(batches)
        )

    width, embedding = embed(batches[0]).shape[1], per_token(embed)
    scorer, packed = load_scorer(setup, None, prompts), [pack_adapter(one, store.fetch(one)) for one in saved]
    sent = [pickle.dumps(one) for one in packed]
    scorer.use(store.fetch(saved[0]))  # the first one takes longer
    worker.use(packed[0])
    swap = median_time(lambda one: scorer.use(store.fetch(one)), saved)
    worker_swap = median_time(lambda one: worker.use(pickle.loads(one)), sent)
    answering = per_token(partial(worker.answer, saved[-1].id))

    cell = Cell("saved", batches[len(batches) // 2])
    answers = worker.answer(saved[-1].id, cell.indices)
    save = statistics.median(time_of(partial(session.save, cell, answers)) for _ in range(50))
    for batch in batches:
        renamed = [replace(answers[k % len(answers)], item_id=session.items[i].id) for k, i in enumerate(batch)]
        session.save(Cell(saved[0].id, batch), renamed)
    answered = kept.read_files(saved[0].id, spec)
    candidates = [Candidate.of(replace(saved[0], step=1 + number)) for number in range(checkpoints)]
    for candidate in (*candidates, Candidate(UNTUNED)):
        kept.write_files(candidate.key, spec, answered)
    scoring = pickle.dumps(ScoringJob(spec, session.items, session.batch_tokens))
    # The first score takes longer, and most workers make few.
    worker_score = time_of(lambda: worker.score(pickle.loads(scoring), candidates[0], answered))
    evaluations: list[Evaluation] = []
    score = median_time(lambda one: evaluations.append(session.finish_saved(one)), candidates)
    scored = kept.read_files(candidates[0].key, spec)
    reading = time_of(lambda: kept.read_files(candidates[0].key, spec)) + time_of(
        lambda: kept.write_files(candidates[0].key, spec, scored)
    )
    with local_ray():
        receive, file = save + time_calls(cell.indices, answers), reading + time_calls(scored, scored, 20)
        send = median_time(lambda one: ray.put(pack_adapter(one, store.fetch(one))), saved)
    baselines = measure_baselines(session, setup, width)
    rest = time_of(lambda: [session.find(one.key) for one in candidates]) + time_of(
        lambda: judge_scored(session.run, "all", evaluations, (), is_held_out=None)
    )
    return Costs(
        answering, embedding, load, swap, score, worker_swap, worker_score, receive, send, file, baselines, rest
    )


def measure_baselines(session: EvaluationSession, setup: Setup, width: int) -> float:
    """The seconds for the baselines, with the embeddings (of this width) and the answers of the base at hand."""
    train, items = setup.items.train[:EMBEDDED], session.items
    rows = np.random.default_rng(0).normal(size=(len(train) + len(items), width))
    plain = [Prediction(item.id, "100", 100.0) for item in items]
    calls: list[Callable[[], object]] = [
        lambda: predict_with_ridge(setup.items.train, items),
        lambda: fit_on_embeddings(rows[: len(train)], [item.price for item in train]).prices(rows[len(train) :]),
        lambda: session.finish(Candidate(UNTUNED).key, Candidate(UNTUNED), session.answer_base()),
    ]
    others = [Candidate(name) for name in BASELINES if name != UNTUNED]
    calls += [partial(session.finish, one.key, one, plain) for one in others]
    return sum(map(time_of, calls))


class Echo:
    """An actor that returns what it was given at first: only the way there and back takes time."""

    def __init__(self, result: object) -> None:
        self._result = result

    def call(self, name: str, argument: object) -> object:
        """The result."""
        return (name, argument) and self._result


@contextmanager
def local_ray() -> Iterator[None]:
    """Ray on this machine."""
    ray.init(address="local", num_cpus=1, include_dashboard=False, log_to_driver=False, logging_level="CRITICAL")
    try:
        yield
    finally:
        ray.shutdown()


def time_calls(argument: object, result: object, calls: int = 500) -> float:
    """The driver's processor time for a call of an actor that answers at once, with two calls under way."""
    actor = ray.remote(Echo).remote(result)
    ray.get(actor.call.remote("cell", argument))
    waiting = [actor.call.remote("cell", argument)]

    started = time.process_time()
    for _ in range(calls):
        waiting.append(actor.call.remote("cell", argument))
        ready, waiting = ray.wait(waiting, num_returns=1)
        ray.get(ready[0])
    seconds = (time.process_time() - started) / calls
    ray.kill(actor)
    return seconds


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

    As in pricer: a worker has two cells at a time, and gets another one when the driver has received an answer. The
    driver does one thing at a time.
    """
    queue, sent = CellQueue(list(cells), workers), set[str]()
    busy_until, driver_until = [0.0] * workers, 0.0
    ends: list[tuple[float, int]] = []

    def hand_out(worker: int) -> None:
        nonlocal driver_until
        if (cell := queue.take(worker)) is None:
            return
        swap = 0.0
        if cell.name.startswith("step") and used[worker] != cell.name:
            used[worker], swap = cell.name, costs.worker_swap
            driver_until += 0.0 if cell.name in sent else costs.send
            sent.add(cell.name)
        busy_until[worker] = max(driver_until, busy_until[worker]) + swap + cells[cell][0]
        heapq.heappush(ends, (busy_until[worker], worker))

    for worker in (*range(workers), *range(workers)):
        hand_out(worker)
    while ends:
        end, worker = heapq.heappop(ends)
        driver_until = max(driver_until, end) + cells[queue.finish(worker)][1]
        hand_out(worker)
    assert queue.is_finished
    return driver_until


def report(folder: Path, checkpoints: int, count: int) -> None:
    """Print the measured costs and the simulated table, also for a base that takes 20 times as long."""
    costs, lengths, batch_tokens = measure(folder, count, checkpoints)
    print(f"loading {costs.load:.1f} s; a score {costs.score:.2f} s, in a worker {costs.worker_score:.2f} s")
    print(
        f"the driver: {1000 * costs.receive:.1f} ms for a cell, {1000 * costs.send:.0f} ms for an adapter, "
        f"{1000 * costs.file:.0f} ms for a score of a worker; {costs.baselines:.1f} s for the baselines, "
        f"{costs.rest:.1f} s for opening, reading and judging {checkpoints} checkpoints"
    )
    for factor in (1, 20):
        answer, embed = (tuple(factor * one for one in seconds) for seconds in (costs.answer, costs.embed))
        swap, worker_swap, send = (factor * one for one in (costs.swap, costs.worker_swap, costs.send))
        slower = replace(costs, answer=answer, embed=embed, swap=swap, worker_swap=worker_swap, send=send)
        show(slower, lengths, batch_tokens, checkpoints)


def show(costs: Costs, lengths: Sequence[int], batch_tokens: int, checkpoints: int) -> None:
    """Print the table for these costs."""
    phases = plan(costs, lengths, batch_tokens, checkpoints)
    cell = statistics.median(seconds for seconds, _ in phases[-1].values())
    print(f"\n{checkpoints} checkpoints x {len(lengths):,} items, {len(phases[-1]):,} cells of {cell:.3f} s", end="")
    alone, driver = time_alone(phases, costs, checkpoints), costs.baselines + costs.rest
    whole = alone + checkpoints * costs.score + driver
    print(f", a change of adapters {costs.worker_swap:.3f} s; one process: {alone:,.0f} s, all in all {whole:,.0f} s")
    scoring = {Cell(f"score {number}", ()): (costs.worker_score, costs.file) for number in range(checkpoints)}
    print("workers  cells and swaps     all but loading    all")
    for workers in WORKERS:
        used = [""] * workers
        answered = sum(simulate(phase, workers, costs, used) for phase in phases)
        scored = answered + simulate(scoring, workers, costs, used) + driver
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
