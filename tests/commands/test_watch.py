"""`pricer watch` beside a training: each checkpoint is scored once, when it appears, and the last one ends it."""

from collections.abc import Callable, Iterator

import pytest

from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.setup import Setup
from pricer.commands.watch import Watched, watch
from pricer.core.checkpoints import Checkpoint
from pricer.core.items import Split
from pricer.errors import CheckpointError
from pricer.stores.runs import Run, create_run
from tests.commands.conftest import Listener, keep_checkpoint
from tests.commands.sessions import FakeScorer
from tests.memory_store import MemoryStore
from tests.repositories import Cli

NAMES = ["step-000002", "step-000004", "step-000006"]


class Training:
    """A training beside the watch: `meanwhile` is what happens in each wait of the watch, one after the other."""

    def __init__(self, run: Run, setup: Setup) -> None:
        self.run = run
        self._setup = setup
        self.waits: list[float] = []
        self.meanwhile: Iterator[Callable[[], object]] = iter(())

    def keep(self, step: int, adapter: bytes | None = None) -> None:
        keep_checkpoint(self.run, self._setup, step, adapter)

    def wait(self, seconds: float) -> None:
        self.waits.append(seconds)
        next(self.meanwhile)()

    def watched(self, *meanwhile: Callable[[], object], listener: Listener | None = None) -> Watched:
        self.meanwhile = iter(meanwhile)
        return watch(None, None, listener or Listener(), 30, self.wait)

    def end_with(self, step: int) -> None:
        self.keep(step)
        self.run.finish()


@pytest.fixture
def training(in_memory: None, scorer: FakeScorer, _setup: Setup) -> Training:
    """A training that has just begun, to be watched without a model."""
    return Training(create_run(_setup.config, "quickstart", None, {}), _setup)


def lines(listener: Listener) -> list[str]:
    """The first word of each line about a checkpoint."""
    return [note.split()[0] for note in listener.notes if " MAE " in note]


def test_each_checkpoint_is_scored_once_when_it_appears_and_the_last_one_ends_it(
    training: Training, scorer: FakeScorer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loads = list[int]()

    def load(*_: object) -> FakeScorer:
        loads.append(1)
        return scorer

    monkeypatch.setattr("pricer.commands.parts.opening.load_scorer", load)
    listener, seen = Listener(), list[list[str]]()

    with training.run.lock():  # as a training holds it
        result = training.watched(
            lambda: training.keep(2),
            lambda: seen.append(lines(listener)),
            lambda: training.end_with(4),
            listener=listener,
        )

    assert seen == [["step-000002"]]
    assert lines(listener) == ["step-000002", "step-000004"]
    assert training.waits == [30, 30, 30]
    assert (scorer.adapters, len(loads)) == (["step-000002", "step-000004"], 1)
    assert len(set(scorer.predicted)) == len(scorer.predicted) == 2 * 12
    assert ([e.name for e in result.evaluations], result.failed) == (["step-000002", "step-000004"], 0)
    assert "quickstart has no checkpoint yet: waiting for the first one" in listener.notes


def test_a_line_says_how_far_a_checkpoint_is_from_the_best_so_far(training: Training) -> None:
    listener = Listener()
    # Each adapter has one price for all items: 1,500 dollars and the sum of its bytes modulo 1,000. The median of the
    # 12 prices is above all of them.
    for step, adapter in ((2, b"\x01"), (4, b"\xff"), (6, b"\x02")):
        training.keep(step, adapter)
    training.run.finish()

    result = training.watched(listener=listener)

    first, second, third = [e.metric("mae").value or 0.0 for e in result.evaluations]
    assert second < third < first
    said = [note for note in listener.notes if " MAE " in note]
    assert said[0].endswith("n 12")
    assert f"  the best so far, by ${first - second:,.2f} (" in said[1]
    assert f"  ${third - second:,.2f} (" in said[2]
    assert said[2].endswith(") worse than step-000004")


def test_a_checkpoint_that_is_kept_just_before_the_end_is_not_missed(
    training: Training, monkeypatch: pytest.MonkeyPatch
) -> None:
    training.keep(2)
    listed = MemoryStore.checkpoints

    def checkpoints(store: MemoryStore) -> list[Checkpoint]:
        found = listed(store)
        if len(found) == 1 and not training.run.has_finished():  # the worst moment: the list was read a moment ago
            monkeypatch.setattr(MemoryStore, "checkpoints", listed)
            training.end_with(4)
        return found

    monkeypatch.setattr(MemoryStore, "checkpoints", checkpoints)

    result = training.watched(lambda: None)

    assert [e.name for e in result.evaluations] == ["step-000002", "step-000004"]


@pytest.mark.usefixtures("run")
def test_started_again_it_scores_nothing_twice_and_says_the_same(run: Run, scorer: FakeScorer) -> None:
    run.finish()
    first, second = Listener(), Listener()
    watch(None, None, first)
    asked = len(scorer.asked)

    again = watch(None, None, second)

    assert [e.name for e in again.evaluations] == NAMES
    assert len(scorer.asked) == asked
    assert lines(second) == NAMES
    assert [note for note in second.notes if " MAE " in note] == [note for note in first.notes if " MAE " in note]


def test_a_kill_costs_nothing_that_was_answered(run: Run, scorer: FakeScorer) -> None:
    run.finish()
    run.record(batch_tokens={"cpu": 300})
    scorer.fail_at = 4
    with pytest.raises(SystemError):
        watch(None, None, Listener())
    scorer.fail_at = None

    watch(None, None, Listener())

    assert len(set(scorer.predicted)) == len(scorer.predicted) == 3 * 12


def test_an_evaluation_afterwards_finds_everything_scored(run: Run, scorer: FakeScorer) -> None:
    run.finish()
    watched = watch(None, None, Listener())
    asked = len(scorer.asked)

    evaluated = evaluate_run(run, "all", Split.VAL, None, Listener())

    assert len(scorer.asked) == asked
    assert evaluated.evaluations[-3:] == watched.evaluations


def test_a_checkpoint_that_cannot_be_scored_costs_only_itself(run: Run, scorer: FakeScorer) -> None:
    run.finish()
    scorer.bad.add("step-000004")
    listener = Listener()

    result = watch(None, None, listener)

    assert ([e.name for e in result.evaluations], result.failed) == (["step-000002", "step-000006"], 1)
    (said,) = [note for note in listener.notes if note.startswith("step-000004")]
    assert said == "step-000004 cannot be scored: the adapter in step-000004 has weights that are not numbers"


def test_a_step_that_was_trained_again_replaces_the_earlier_one(training: Training, scorer: FakeScorer) -> None:
    result = training.watched(lambda: training.keep(2, b"\x01"), lambda: training.keep(2, b"\x02"), training.run.finish)

    assert scorer.adapters == ["step-000002", "step-000002"]
    assert [e.candidate.id for e in result.evaluations] == [training.run.store.checkpoints()[0].id]


def test_a_training_that_was_interrupted_is_waited_for_with_one_note(training: Training) -> None:
    listener = Listener()

    training.watched(lambda: None, lambda: training.end_with(2), listener=listener)

    said = [note for note in listener.notes if note.startswith("no process here trains")]
    assert said == [
        "no process here trains quickstart now: waiting until one does (pricer train --resume --run quickstart)"
    ]


def test_a_training_that_ends_without_a_checkpoint_to_score_is_an_error(training: Training, scorer: FakeScorer) -> None:
    scorer.bad.add("step-000002")

    with pytest.raises(CheckpointError, match="has ended, and no checkpoint of it could be scored"):
        training.watched(lambda: training.end_with(2))


@pytest.mark.usefixtures("scorer")
def test_the_answer_of_the_command(run: Run) -> None:
    run.finish()

    result = Cli("watch", "--run", "quickstart", "--every", "5")

    best = min(run.evaluations.all(), key=lambda e: (e.candidate.is_baseline, e.metric("mae").value))
    assert result.code == 0, result.err
    assert result.out.startswith("quickstart: 3 of 3 checkpoints scored; the lowest MAE is $")
    assert result.out.endswith(f", at {best.name}\n")
    assert result.err.splitlines()[-1] == "next: pricer pick --run quickstart"
