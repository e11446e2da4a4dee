"""`pricer eval --shard`: answer a fixed share of an evaluation's cells. Nothing is scored."""

import shlex
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pricer.commands.parts.delivery import Delivery, catch_time_limit
from pricer.commands.parts.fetching import fetch_ahead
from pricer.commands.parts.hub_runs import NOT_GIVEN, GivenConfig
from pricer.commands.parts.jobs import Job, open_job
from pricer.commands.parts.scoring import Fill, Unfinished, find_winner
from pricer.commands.parts.session import UNTUNED, EvaluationSession, candidate_key
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.cells import Cell, Segment, Shard, share
from pricer.core.checkpoints import Checkpoint, Failure
from pricer.core.items import Split
from pricer.errors import CheckpointError, HubError
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class Answered:
    """The result of `pricer eval --shard`.

    The shard has `cells` cells, and `answered` cells were answered now. `missing` is the number of cells, of all
    shards, whose answers are not here. In a race, `is_round` says that more rounds follow: then `cells` and `missing`
    are about the round that could not be decided. `failed` has the checkpoints that could not be scored. `merge` is the
    command that merges all shards and scores the checkpoints.
    """

    run: Run
    shard: Shard
    cells: int
    answered: int
    missing: int
    failed: tuple[Failure, ...]
    is_round: bool
    merge: str


@dataclass(slots=True)
class _Share:
    """A Fill that answers the cells of one shard, and counts them. `saved` is called after each cell. `failed` has the
    ids of checkpoints that another shard could not score, so their cells are not waited for.
    """

    shard: Shard
    saved: Callable[[EvaluationSession], object]
    failed: Collection[str] = ()
    cells: int = 0
    answered: int = 0
    missing: int = 0

    def __call__(self, session: EvaluationSession, candidates: Sequence[Checkpoint | None], segment: Segment) -> None:
        """Answer the share of these cells. In a race, the cells of the untuned base belong to the first round. Raises
        Unfinished if cells of other shards are not answered.
        """
        cells = session.cells([], segment)
        if None not in candidates and segment.start == 0:
            cells += session.cells([None], session.whole)
        cells += session.cells(candidates, segment)
        mine = share(cells, self.shard)
        todo = session.missing(mine)
        self.cells = len(mine)
        _answer(session, candidates, todo, self.saved)
        self.answered += len(todo) - sum(cell.name in session.errors for cell in todo)
        failed = {failure.id for failure in session.run.evaluations.failures()} | {*self.failed}
        self.missing = sum(cell.name not in failed for cell in session.missing(cells))
        if self.missing:
            raise Unfinished


def answer_shard(
    job: Job,
    shard: Shard,
    watcher: Watcher,
    *,
    race: bool = False,
    delivery: Delivery | None = None,
    given: GivenConfig = NOT_GIVEN,
) -> Answered:
    """Answer the cells of a shard, and save the answers in the run's folder. With a `delivery`, they are also pushed to
    the Hub, also if the command is interrupted.

    The shares depend only on the checkpoints, the items and the batch size, so the shards need no coordination. In a
    `race`, the rounds whose answers are all here are decided; then the share of the next round is answered. `given` is
    the config that opened the repository; the commands for the user repeat it.
    """
    command = _command(job, given, race=race, through_hub=delivery is not None)
    if delivery:
        delivery.begin(job)
    fill = _Share(shard, delivery.push_sometimes if delivery else lambda _: None)
    with catch_time_limit(f"{command} --shard {shard}"), open_job(job, watcher, shard) as (session, fitting):
        if delivery:
            fill.failed = delivery.fetch(session, fitting, race=race)
        known = session.failed_for_good()
        for checkpoint in fitting:
            if checkpoint.id in known and checkpoint.id not in session.errors:
                session.leave_out(checkpoint, known[checkpoint.id], is_whole=True)
        try:
            is_round = not _fill_what_is_known(session, fitting, fill, race=race)
            if delivery:
                delivery.push(session)
        except BaseException:
            if delivery:
                delivery.push_at_last(session)
            raise
    failed = [Failure(c.name, session.errors[c.id].message, c.id) for c in job.checkpoints if c.id in session.errors]
    merge = f"{command} --merge" if delivery else command
    return Answered(job.run, shard, fill.cells, fill.answered, fill.missing, tuple(failed), is_round, merge)


def _fill_what_is_known(
    session: EvaluationSession, checkpoints: Sequence[Checkpoint], fill: Fill, *, race: bool
) -> bool:
    """Fill the cells that are known now: in a race, up to the first round that cannot be decided. Whether these were
    the last ones.
    """
    is_last = not race
    with suppress(Unfinished):
        if not race:
            fill(session, [None, *checkpoints], session.whole)
        else:
            found = find_winner(session, checkpoints, fill)
            is_last = True
            if found:
                fill(session, [found.winner], found.rest)
    return is_last


def _answer(
    session: EvaluationSession,
    candidates: Sequence[Checkpoint | None],
    cells: Sequence[Cell],
    saved: Callable[[EvaluationSession], object],
) -> None:
    """Answer cells of several candidates. A checkpoint that cannot be scored is left out, as in `session.predict`."""
    progress = ScoringProgress(session.watcher, sum(len(cell.indices) for cell in cells))
    own: dict[str, list[Cell]] = {}
    for cell in cells:
        own.setdefault(cell.name, []).append(cell)

    def answer(name: str, key: str, adapter: Path | None) -> None:
        def reach(done: int) -> None:
            progress.reach(name, done)
            saved(session)

        session.answer(own[key], adapter, reach)

    base = candidate_key(None)
    if base in own:  # before any adapter is loaded
        answer(UNTUNED, base, None)
    wanted = [one for one in candidates if one and one.id in own]
    for checkpoint, fetch in zip(wanted, fetch_ahead(session.fetch, wanted), strict=True):
        adapter = None
        try:
            adapter = fetch()
            answer(checkpoint.name, checkpoint.id, adapter)
        except (CheckpointError, HubError) as error:
            if isinstance(error, HubError) and error.transient:
                raise
            session.leave_out(checkpoint, error, is_whole=adapter is not None)
            continue
        session.run.evaluations.drop_failure(checkpoint.id)


def _command(job: Job, given: GivenConfig, *, race: bool, through_hub: bool) -> str:
    """The command that evaluates a job in one process."""
    words = ["pricer", "eval", *(["--repo", str(job.run.repo)] if through_hub else ["--run", job.run.name])]
    words += ["--config", str(given.path)] if given.path else []
    words += [word for override in given.overrides for word in ("--set", override)]
    words += ["--all-checkpoints"] if job.which == "all" else ["--checkpoint", job.which]
    words += ["--race"] if race else []
    words += ["--split", "test"] if job.spec.split == Split.TEST else []
    words += ["--data", job.source] if job.source is not None else []
    words += ["--limit", str(job.spec.limit)] if job.spec.limit else []
    return shlex.join(words)
