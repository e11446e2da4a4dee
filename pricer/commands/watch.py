"""`pricer watch`: score each checkpoint of a training as it appears, until the training has ended."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from pricer.commands.parts.baselines import evaluate_baselines
from pricer.commands.parts.checkpoints import load_scores, refuse_foreign
from pricer.commands.parts.hub_runs import GivenConfig, look_again, open_hub_run
from pricer.commands.parts.opening import open_session
from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.comparison import Comparison
from pricer.core.early_stopping import EarlyStop, decide_stop
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.selection import select
from pricer.data.preparation import require
from pricer.errors import CheckpointError, HubError
from pricer.stores.early_stops import send_stop, write_stop
from pricer.stores.hub import Hub
from pricer.stores.hub_errors import Polling
from pricer.stores.hub_states import has_ended
from pricer.stores.repo_scan import scan_repo
from pricer.stores.runs import Run, find_run, runs_of
from pricer.views.formatting import newest_line


@dataclass(frozen=True, slots=True)
class Watched:
    """The result of `pricer watch`: the Evaluation of each checkpoint by step, and the number of checkpoints that could
    not be scored.
    """

    run: Run
    evaluations: tuple[Evaluation, ...]
    failed: int


@dataclass(frozen=True, slots=True)
class _Training:
    """A training that is watched: its run here, and its repository. Without a repository, `run` is the folder that it
    trains in.
    """

    run: Run
    hub: Hub | None
    note: Callable[[str], None]

    def look(self) -> bool:
        """Add the checkpoints that are new in the repository. Returns whether the training had ended before that, so
        that no checkpoint is missing.
        """
        if self.hub:
            is_over = has_ended(self.hub)
            look_again(self.run, self.hub.repo, self.note)
            return is_over
        is_over = self.run.has_finished()
        if not (is_over or self.run.is_locked):
            self.note(
                f"no process here trains {self.run.name} now: waiting until one does "
                f"(pricer train --resume --run {self.run.name})"
            )
        return is_over

    def ask_to_stop(self, stop: EarlyStop) -> None:
        """Ask the training to stop, and say so. Asking again has no effect."""
        try:
            if self.hub is None or not self.run.facts().get("from_hub"):
                write_stop(self.run.folder, stop)
            if self.hub:
                send_stop(self.hub, stop)
        except HubError as error:
            if error.transient:
                raise
            self.note(f"training should stop early ({stop.reason}), but cannot be asked to: {error.message}")
        else:
            self.note(f"training is asked to stop early: {stop.reason}")


def watch(
    name: str | None,
    repo: str | None,
    watcher: Watcher,
    every: float = 60.0,
    wait: Callable[[float], object] = time.sleep,
) -> Watched:
    """Score the baselines, and each checkpoint of a training when it appears, on all validation items. `name` is the
    run in whose folder it trains (None: the newest), `repo` the repository that it pushes to. Looks for new
    checkpoints `every` seconds, and returns after the last one. Nothing is scored twice, and the base stays loaded.
    """
    polling, note = Polling(every, wait), _once(watcher.note)
    training = _find_training(name, repo, note, polling)
    run = training.run
    setup = prepare(run.config(), progress=watcher.preparing)
    for text in setup.notes:
        note(text)
    items = require(setup.items, Split.VAL, setup.config.data)
    run.pin_config(setup.config)
    spec, count = setup.spec(Split.VAL, None), _count_checkpoints(setup)
    with open_session(run, setup, spec, items, count, watcher) as session:
        evaluate_baselines(session, setup)
        scoring = _Scoring(session, setup, ScoringProgress(watcher, count * len(session.items)))
        while not polling.ask(partial(_look_and_score, training, scoring)):
            polling.pause()
    if not scoring.evaluations:
        text = f"the training of {run.name} has ended, and no checkpoint of it could be scored"
        raise CheckpointError(text, f"pricer eval --all-checkpoints --run {run.name}")
    return Watched(run, tuple(scoring.by_step()), len(session.errors))


def _look_and_score(training: _Training, scoring: "_Scoring") -> bool:
    """Score what is new. Returns whether it was the last."""
    is_over = training.look()
    scoring.score_new()
    if not (is_over or scoring.tried):
        training.note(f"{training.run.name} has no checkpoint yet: waiting for the first one")
    if scoring.stop and not is_over:
        training.ask_to_stop(scoring.stop)
    return is_over


def _find_training(name: str | None, repo: str | None, note: Callable[[str], None], polling: Polling) -> _Training:
    if repo is None:
        run = find_run(name, note=note)
        if not run.facts().get("from_hub"):
            return _Training(run, None, note)
        repo = run.repo
        assert repo is not None  # it was opened from there
    hub, here = Hub(repo), runs_of(repo)
    if not here or here[-1].facts().get("from_hub"):
        _wait_for_first(hub, note, polling)
    run = polling.ask(partial(open_hub_run, hub.repo, GivenConfig(None, ()), note))
    return _Training(run, hub, note)


def _wait_for_first(hub: Hub, note: Callable[[str], None], polling: Polling) -> None:
    """Wait until the repository has a checkpoint. A CheckpointError if it is no run of pricer, or has ended."""
    while True:
        is_over = polling.ask(partial(has_ended, hub))
        scan = polling.ask(partial(scan_repo, hub))
        if not scan.has_manifests:
            text = f"{hub.repo} was not pushed by pricer train, so nothing says when its training has ended"
            raise CheckpointError(text, f"pricer eval --repo {hub.repo} --all-checkpoints --config CONFIG.yaml")
        if scan.found or is_over:
            return
        note(f"{hub.repo} has no checkpoint yet: waiting for the first one")
        polling.pause()


@dataclass(slots=True)
class _Scoring:
    """Scores checkpoints one by one. `evaluations` are those so far, by step. `tried` has the ids of all checkpoints
    that were scored or could not be scored. `stop` is the decision to stop the training early, once it is made.
    """

    session: EvaluationSession
    setup: Setup
    progress: ScoringProgress
    evaluations: dict[int, Evaluation] = field(default_factory=dict)
    tried: set[str] = field(default_factory=set)
    stop: EarlyStop | None = None

    def score_new(self) -> None:
        """Score each checkpoint that was not there before, with a line about it."""
        for checkpoint in self.session.run.store.checkpoints():
            if checkpoint.id not in self.tried:
                if evaluation := self._score(checkpoint):
                    # A step that was trained again replaces the earlier one.
                    self.evaluations[checkpoint.step] = evaluation
                    comparison = self._compare()
                    self.session.watcher.note(newest_line(evaluation, comparison))
                    self.stop = self.stop or self._decide(comparison)
                self.tried.add(checkpoint.id)

    def by_step(self) -> list[Evaluation]:
        """The evaluations by step."""
        return [self.evaluations[step] for step in sorted(self.evaluations)]

    def _score(self, checkpoint: Checkpoint) -> Evaluation | None:
        """The Evaluation of a checkpoint: read if it exists, otherwise made; None if it cannot be scored."""
        session = self.session
        try:
            refuse_foreign(checkpoint, self.setup)
        except CheckpointError as error:
            session.leave_out(checkpoint, error)
            return None
        known = session.find(checkpoint.id)
        evaluated = [checkpoint.id] if known else []
        for _, predictions in session.predict([checkpoint], self.progress, session.whole, evaluated):
            return known or session.finish(checkpoint.id, Candidate.of(checkpoint), predictions or ())
        return None

    def _decide(self, comparison: Comparison | None) -> EarlyStop | None:
        patience = self.setup.config.eval.patience
        if patience == "off" or comparison is None:
            return None
        return decide_stop(comparison, patience, self.session.spec.fingerprint)

    def _compare(self) -> Comparison | None:
        evaluations = self.by_step()
        return select(evaluations, "mae", load_scores(self.session.run, evaluations)).comparison


def _count_checkpoints(setup: Setup) -> int:
    """The number of checkpoints that the whole training makes; 1 if the config does not say."""
    train = setup.config.train
    if "auto" in (train.epochs, train.batch_size, train.checkpoint_every):
        return 1
    every: int = train.checkpoint_every
    return math.ceil(train.steps(len(setup.items.train)) / every)


def _once(note: Callable[[str], None]) -> Callable[[str], None]:
    """A `note` that says each text once: every look finds the same again."""
    said = set[str]()

    def say(text: str) -> None:
        if text not in said:
            said.add(text)
            note(text)

    return say
