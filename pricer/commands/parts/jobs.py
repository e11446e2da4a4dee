"""The job of an evaluation: the checkpoints that are scored, and the items they are scored on."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from pricer.commands.parts.checkpoints import choose_checkpoints, find_foreign, find_typical
from pricer.commands.parts.held_out import judge_other_data, record_held_out
from pricer.commands.parts.opening import open_session
from pricer.commands.parts.other_data import count_trained, explain_beyond, explain_trained, load_other_data
from pricer.commands.parts.ray_workers import RayWorkers
from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.settling import Machine
from pricer.commands.parts.setup import Setup, prepare, prepare_to_ask
from pricer.commands.parts.watcher import Watcher
from pricer.core.cells import Shard
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import EvalSpec
from pricer.core.held_out import HeldOutCheck
from pricer.core.items import Item, Split
from pricer.data.preparation import require
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Job:
    """What is scored on which items: the checkpoints that `which` names, and the items of the spec's split or data.

    `held_out` says whether these were held out for the adapters of another trainer; None: the run is pricer's. For
    other data, `source` and `revision` name them, and `trained` is the number of their items that the run was trained
    on (None: unknown). `workers` answer instead of this process; None: there are none.
    """

    run: Run
    which: str
    checkpoints: Sequence[Checkpoint]
    setup: Setup
    spec: EvalSpec
    items: Sequence[Item]
    held_out: HeldOutCheck | None
    source: str | None = None
    revision: str | None = None
    trained: int | None = None
    workers: RayWorkers | None = None


def plan_split(
    run: Run, which: str, split: Split, limit: int | None, watcher: Watcher, workers: RayWorkers | None = None
) -> Job:
    """The job of scoring the checkpoints that `which` names on the first `limit` items (None: all) of a split."""
    checkpoints = _choose(run, which, watcher)
    setup = prepare(run.config(), _machine_of(workers), watcher.preparing)
    items = require(setup.items, split, setup.config.data)
    held_out = record_held_out(run, setup)
    return Job(run, which, checkpoints, setup, setup.spec(split, limit), items, held_out, workers=workers)


def plan_other_data(
    run: Run, which: str, source: str, limit: int | None, watcher: Watcher, workers: RayWorkers | None = None
) -> Job:
    """The job of scoring the checkpoints that `which` names on the first `limit` items (None: all) of other data."""
    checkpoints = _choose(run, which, watcher)
    config = run.config()
    typical = find_typical(checkpoints, config.model.revision)
    setup = prepare_to_ask(config, typical, watcher.preparing, _machine_of(workers))
    data = load_other_data(setup.config.data, source, watcher.preparing)
    scored = data.items[:limit]
    trained, held_out = count_trained(run, scored), judge_other_data(run, source)
    beyond = explain_beyond(scored, setup.template.price_format)
    known = [] if held_out else [explain_trained(trained, len(scored))]
    for note in (*data.notes, *known, *beyond):
        watcher.note(note)
    spec = setup.spec_of_other_data(data.fingerprint, len(data.items), limit)
    return Job(run, which, checkpoints, setup, spec, data.items, held_out, source, data.revision, trained, workers)


@contextmanager
def open_job(
    job: Job, watcher: Watcher, shard: Shard | None = None
) -> Iterator[tuple[EvaluationSession, list[Checkpoint]]]:
    """Open the session of a job. Also returns the checkpoints that fit the run. The others are left out with an error;
    if none fits, a CheckpointError is raised.
    """
    run, setup = job.run, job.setup
    refused = find_foreign(job.checkpoints, setup, any_data=job.spec.split == "data")
    if len(refused) == len(job.checkpoints):
        raise refused[job.checkpoints[0].id]
    fitting = [checkpoint for checkpoint in job.checkpoints if checkpoint.id not in refused]
    run.pin_config(setup.config)
    for note in setup.notes:
        watcher.note(note)
    if job.held_out and not job.held_out.known:
        watcher.note(f"warning: {job.held_out.text}")
    with open_session(run, setup, job.spec, job.items, len(fitting), watcher, shard, job.workers) as session:
        for checkpoint in job.checkpoints:
            if checkpoint.id in refused:
                session.leave_out(checkpoint, refused[checkpoint.id])
        if job.which != "all":  # a checkpoint that is named is tried, even if it failed before
            run.evaluations.drop_failure(fitting[0].id)
        yield session, fitting


def _machine_of(workers: RayWorkers | None) -> Machine | None:
    """The machine that answers; None: this one."""
    return workers.host.machine if workers else None


def _choose(run: Run, which: str, watcher: Watcher) -> list[Checkpoint]:
    chosen, waiting = choose_checkpoints(run, which), run.outbox.checkpoints()
    if names := [checkpoint.name for checkpoint in chosen if checkpoint in waiting and checkpoint.commit is None]:
        watcher.note(f"not on the Hub yet: {', '.join(names)} (pricer push --run {run.name})")
    return chosen
