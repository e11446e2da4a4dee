"""Answers through the Hub: a shard pushes its own to the repository of its run, and a merge fetches those of all."""

import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from pricer.commands.parts.jobs import Job
from pricer.commands.parts.opening import read_batch_tokens
from pricer.commands.parts.scoring import Fill
from pricer.commands.parts.session import EvaluationSession, candidate_key
from pricer.commands.parts.watcher import Watcher
from pricer.core.cells import Segment, Shard
from pricer.core.checkpoints import Checkpoint
from pricer.errors import HubError, Interrupted, RunError
from pricer.stores.hub import Hub
from pricer.stores.hub_answers import HubAnswers
from pricer.stores.runs import Run

# Minimum seconds between two commits of a shard, and the commits that all shards of a repository make in an hour: the
# Hub takes 128, and a training may also push.
_PAUSE, _COMMITS_PER_HOUR = 60.0, 90


@dataclass(slots=True)
class Delivery:
    """Delivers the answers of one shard to the Hub: from time to time, and at the end."""

    answers: HubAnswers
    shard: Shard
    watcher: Watcher
    clock: Callable[[], float] = time.monotonic
    _pushed: dict[str, int] = field(default_factory=dict)
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
        run.evaluations.fix_batch_tokens(spec, self.answers.fix_batch_tokens(spec, own))
        self._due = self.clock() + self.pause

    def fetch(self, session: EvaluationSession, candidates: Sequence[Checkpoint | None], *, race: bool) -> None:
        """Fetch what this shard has answered before, maybe on another machine; in a race, what all shards have."""
        _fetch(self.answers, session, candidates, lambda shard: race or shard == self.shard)

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
        """Push what is new before the process ends with another error. An error of the Hub would hide that one."""
        with suppress(HubError, OSError):
            self.push(session, attempts=1)

    def push(self, session: EvaluationSession, attempts: int = 12) -> None:
        """Push what is new."""
        files = session.run.evaluations.read_shard(session.spec, self.shard)
        new = {path: content for path, content in files.items() if len(content) > self._pushed.get(path, 0)}
        if new:
            self.answers.push(new, f"answers of shard {self.shard}", attempts=attempts)
            self._pushed |= {path: len(content) for path, content in new.items()}


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
    """A Fill that fetches what the shards of a job have answered. The size of batches that they share is taken over."""
    if (batch_tokens := answers.batch_tokens(job.spec)) is not None:
        job.run.evaluations.fix_batch_tokens(job.spec, batch_tokens)
    fetched: set[str] = set()

    def fetch(session: EvaluationSession, candidates: Sequence[Checkpoint | None], _: Segment) -> None:
        new = [candidate for candidate in candidates if candidate_key(candidate) not in fetched]
        shards = _fetch(answers, session, new, lambda _: True)
        if new and not fetched:
            if not shards:
                text = f"{answers.repo} has no answers of shards to this evaluation"
                raise RunError(text, "evaluate without --merge, or with the --split, --data and --limit of the shards")
            all_of = " or ".join(f"{of:,}" for of in sorted({shard.of for shard in shards}))
            found = f"answers of {len(shards):,} of {all_of} shards from {answers.repo}"
            watcher.note(f"{found}; missing ones are made here")
        fetched.update(map(candidate_key, new))

    return fetch


def _fetch(
    answers: HubAnswers,
    session: EvaluationSession,
    candidates: Sequence[Checkpoint | None],
    takes: Callable[[Shard], bool],
) -> set[Shard]:
    """Keep the answers on the Hub beside those that are here. Returns the shards that have any."""
    names, items = [candidate_key(candidate) for candidate in candidates], {item.id for item in session.items}
    found = set()
    for file in answers.read(names, session.spec, items, takes) if names else ():
        session.run.evaluations.keep_shard(file.name, session.spec, file.shard, file.content)
        found.add(file.shard)
    return found
