"""Answers through the Hub: a shard pushes its own to the repository of its run, and a merge fetches those of all."""

import hashlib
import random
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from pricer.commands.parts.jobs import Job
from pricer.commands.parts.opening import read_batch_tokens
from pricer.commands.parts.scoring import Fill
from pricer.commands.parts.session import EvaluationSession, candidate_key
from pricer.commands.parts.watcher import Watcher
from pricer.core.cells import Segment, Shard
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, Interrupted, RunError, first_line
from pricer.stores.answers import format_failures
from pricer.stores.hub import Hub
from pricer.stores.hub_answers import HubAnswers, failures_path
from pricer.stores.runs import Run

# Minimum seconds between two commits of a shard, and the commits that all shards of a repository make in an hour: the
# Hub takes 128, and a training may also push.
_PAUSE, _COMMITS_PER_HOUR = 60.0, 90
# Attempts of the last push, and the seconds between two. A scheduler kills a process 30 s or more after SIGTERM.
_LAST_ATTEMPTS, _LAST_PAUSE = 8, (0.2, 2.0)


@dataclass(slots=True)
class Delivery:
    """Delivers the answers of one shard to the Hub: from time to time, and at the end."""

    answers: HubAnswers
    shard: Shard
    watcher: Watcher
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], object] = time.sleep
    _pushed: dict[str, bytes] = field(default_factory=dict)
    _due: float = 0.0
    _is_late: bool = False

    @property
    def pause(self) -> float:
        """Seconds between two commits."""
        return max(_PAUSE, 3600 * self.shard.of / _COMMITS_PER_HOUR)

    def begin(self, job: Job) -> None:
        """Agree with the other shards on the size of batches, before the session is opened."""
        run, setup, spec = job.run, job.setup, job.spec
        own = run.evaluations.batch_tokens(spec) or read_batch_tokens(run, setup) or setup.batch_tokens
        _take_over(job, self.answers.fix_batch_tokens(spec, own))
        self._due = self.clock() + self.pause

    def fetch(self, session: EvaluationSession, checkpoints: Sequence[Checkpoint], *, race: bool) -> set[str]:
        """Continue what this shard has done before, maybe on another machine. In a race, also read what the other
        shards have, without a copy in the run's folder. Returns the ids of the checkpoints that another shard could
        not score.

        A checkpoint that fails on the base for one shard is left out here too: all shards must race the same ones.
        """
        kept, spec = session.run.evaluations, session.spec
        keys, items = [candidate_key(one) for one in (None, *checkpoints)], {item.id for item in session.items}
        for file in self.answers.read(keys, spec, items, lambda shard: race or shard == self.shard):
            if file.shard == self.shard:
                content = file.path.read_bytes()
                kept.keep_shard(file.name, spec, file.shard, content[: content.rfind(b"\n") + 1])
            else:
                kept.add_fetched(file.name, spec, file.path)
        known, failed = {one.id: one for one in checkpoints}, set()
        for shard, failure in self.answers.read_failures(spec, known.keys()) if race else ():
            if shard == self.shard:
                if failure.base_revision:
                    kept.add_failure(replace(failure, name=known[failure.id or ""].name))
            elif failure.id is not None:
                failed.add(failure.id)
                if failure.base_revision:
                    session.errors[failure.id] = CheckpointError(failure.reason)
                    name = known[failure.id].name
                    self.watcher.note(f"{name} cannot be scored, says shard {shard}: {failure.reason}")
        return failed

    def push_sometimes(self, session: EvaluationSession) -> None:
        """Push what is new, unless the last commit was a moment ago. If the Hub fails, a later call tries again."""
        if self.clock() < self._due:
            return
        try:
            self.push(session, attempts=1)
            self._is_late = False
        except HubError as error:
            if not error.transient:
                raise
            if not self._is_late:
                self.watcher.note(f"the answers wait here for the Hub: {error.message}")
            self._is_late = True
        self._due = self.clock() + self.pause

    def push_at_last(self, session: EvaluationSession) -> None:
        """Push what is new before the process ends with another error. An error of the Hub would hide that one, so it
        is only a note. The attempts follow each other quickly: at a common time limit, all shards commit at once, and
        little time is left.
        """
        for attempt in range(_LAST_ATTEMPTS):
            if attempt:
                self.wait(random.uniform(*_LAST_PAUSE))  # noqa: S311
            try:
                self.push(session, attempts=1)
                return
            except (HubError, OSError) as error:
                problem = first_line(error)
                if not (isinstance(error, HubError) and error.transient):
                    break
        self.watcher.note(f"the newest answers are in {session.run.folder} but not on the Hub: {problem}")

    def push(self, session: EvaluationSession, attempts: int = 12) -> None:
        """Push what is new: answers, and the checkpoints that cannot be scored."""
        kept, spec, failures = session.run.evaluations, session.spec, failures_path(session.spec, self.shard)
        files = kept.read_shard(spec, self.shard)
        failed = [one for one in kept.failures() if one.base_revision in (None, spec.base_revision)]
        if failed or failures in self._pushed:
            files[failures] = format_failures(failed)
        hashes = {path: hashlib.sha256(content).digest() for path, content in files.items()}
        new = {path: content for path, content in files.items() if hashes[path] != self._pushed.get(path)}
        if new:
            self.answers.push(new, f"answers of shard {self.shard}", attempts=attempts)
            self._pushed |= hashes


@contextmanager
def catch_time_limit(resume: str) -> Iterator[None]:
    """While open, SIGTERM raises Interrupted with `resume` as its hint. Schedulers send it when the time is over."""

    def stop(_number: int, _frame: Any) -> None:
        raise Interrupted("stopped by SIGTERM; what was answered before is saved", resume)

    previous = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def find_answers(run: Run) -> HubAnswers:
    """The place for answers in the repository of a run; a RunError if it has no repository."""
    if run.repo is None:
        text = f"the run {run.name} has no repository on the Hub: its answers are in {run.folder}"
        raise RunError(text, f"pricer eval --run {run.name} --all-checkpoints merges them")
    return HubAnswers(Hub(run.repo, before_commit=run.outbox.budget.take))


def plan_merge(job: Job, answers: HubAnswers, watcher: Watcher) -> Fill:
    """A Fill that reads what the shards of a job have answered. The size of batches that they share is taken over. The
    answers are not copied into the run's folder: a later evaluation that does not merge must not use them.
    """
    if (batch_tokens := answers.batch_tokens(job.spec)) is not None:
        _take_over(job, batch_tokens)
    is_done = False

    def fetch(session: EvaluationSession, _: Sequence[Checkpoint | None], __: Segment) -> None:
        nonlocal is_done
        # The first call fetches everything: the candidates of that call may be the ones without answers.
        unscored = [name for name in map(candidate_key, (None, *job.checkpoints)) if session.find(name) is None]
        if is_done or not unscored:
            return
        files = answers.read(unscored, session.spec, {item.id for item in session.items}, lambda _: True)
        if not files:
            text = f"{answers.repo} has no answers of shards to this evaluation"
            raise RunError(text, "evaluate without --merge, or with the --split, --data and --limit of the shards")
        for file in files:
            session.run.evaluations.add_fetched(file.name, session.spec, file.path)
        shards = {file.shard for file in files}
        all_of = " or ".join(f"{of:,}" for of in sorted({shard.of for shard in shards}))
        found = f"answers of {len(shards):,} of {all_of} shards from {answers.repo}"
        watcher.note(f"{found}; missing ones are made here")
        is_done = True

    return fetch


def _take_over(job: Job, batch_tokens: int) -> None:
    """Use the size of batches that the shards have in common. A RunError if this evaluation has begun with another."""
    own = job.run.evaluations.fix_batch_tokens(job.spec, batch_tokens)
    if own != batch_tokens:
        text = f"the shards have batches of up to {batch_tokens:,} tokens, but {job.run.name} has begun with {own:,}"
        raise RunError(text, "start in an empty folder: mkdir merge && cd merge")
