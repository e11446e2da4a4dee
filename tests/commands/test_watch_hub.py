"""`pricer watch --repo`: another machine scores what a training pushes, until the Hub says that it has ended."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pricer.commands.watch import Watched, watch
from pricer.errors import CheckpointError, HubError
from pricer.stores.runs import find_run
from tests.commands.conftest import Listener
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.repositories import adapter_files

STEPS = ["step-000002", "step-000004", "step-000006"]

pytestmark = pytest.mark.usefixtures("scorer", "no_pauses")


class Pushing:
    """The repository of a training as it grows: at first as it was before the first checkpoint."""

    def __init__(self, repo: Repo) -> None:
        self.repo = repo
        self._tags, self._head = dict(repo.tags), repo.branches["main"]
        self.commits = [self._tags[name] for name in STEPS]
        (*_, first) = repo.commits()
        repo.tags.clear()
        repo.branches["main"] = first.hash
        # Before the first checkpoint, the branch of the lease says what run it is.
        files = repo.files(self._head)
        repo.create_branch("state")
        repo.commit({name: files[name] for name in ("config.yaml", "run.json")}, "lease", branch="state")
        self.meanwhile: Iterator[Callable[[], object]] = iter(())

    def push(self, *steps: str) -> None:
        for name in steps:
            self.repo.tags[name] = self.repo.branches["main"] = self._tags[name]

    def end(self) -> None:
        self.push(*STEPS)
        self.repo.branches["main"] = self._head

    def wait(self, _: float) -> None:
        next(self.meanwhile)()

    def watched(self, *meanwhile: Callable[[], object], listener: Listener | None = None) -> Watched:
        self.meanwhile = iter(meanwhile)
        return watch(None, self.repo.id, listener or Listener(), 30, self.wait)


@pytest.fixture
def pushing(pushed: Repo) -> Pushing:
    """ann/prices while it is trained on another machine."""
    return Pushing(pushed)


def test_each_checkpoint_is_scored_when_it_is_pushed_and_the_end_of_the_run_is_the_end(
    pushing: Pushing, scorer: FakeScorer
) -> None:
    listener, seen = Listener(), list[list[str]]()

    result = pushing.watched(
        lambda: pushing.push(STEPS[0]),
        lambda: seen.append(scorer.adapters[:]),
        lambda: pushing.push(STEPS[1]),
        lambda: seen.append(scorer.adapters[:]),
        pushing.end,
        listener=listener,
    )

    # A downloaded adapter is in a folder with the name of its commit.
    assert seen == [pushing.commits[:1], pushing.commits[:2]]
    assert scorer.adapters == pushing.commits
    assert [e.name for e in result.evaluations] == STEPS
    assert result.run.name == "ann--prices"
    assert listener.notes[0] == "ann/prices has no checkpoint yet: waiting for the first one"


def test_a_hub_that_is_away_is_waited_for(pushing: Pushing, hub: LoopbackHub, waits: list[float]) -> None:
    pushing.push(STEPS[0])

    def fail() -> None:
        hub.faults.random(1.0, seed=0, kinds=[Fault.status(503)], spare="no path has this")

    def recover() -> None:
        hub.faults.clear()
        pushing.end()

    # The second of these waits is after a look that has failed.
    result = pushing.watched(fail, lambda: None, recover)

    assert [e.name for e in result.evaluations] == STEPS


def test_a_repository_that_is_refused_is_an_error(hub: LoopbackHub) -> None:
    with pytest.raises(HubError, match="there is no repository ann/nothing on the Hub"):
        watch(None, "ann/nothing", Listener(), 30, lambda _: pytest.fail("it waited"))


def test_a_repository_of_another_trainer_never_says_that_it_has_ended(hub: LoopbackHub) -> None:
    hub.create("ann/other").commit(adapter_files(b"weights"), "step 5")

    with pytest.raises(CheckpointError, match="ann/other was not pushed by pricer train, so nothing says when"):
        watch(None, "ann/other", Listener(), 30, lambda _: pytest.fail("it waited"))


def test_the_folder_of_a_repository_is_watched_there(pushing: Pushing, scorer: FakeScorer) -> None:
    pushing.push(STEPS[0])
    with pytest.raises(KeyboardInterrupt):
        watch(None, "ann/prices", Listener(), 30, interrupt)

    pushing.end()
    result = watch("ann--prices", None, Listener(), 30, lambda _: pytest.fail("it waited"))

    assert [e.name for e in result.evaluations] == STEPS
    assert scorer.adapters == pushing.commits


def interrupt(_: float) -> None:
    raise KeyboardInterrupt


def test_on_the_machine_of_the_training_the_run_here_is_scored(
    pushing: Pushing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "trainer")
    pushing.end()

    result = watch(None, "ann/prices", Listener(), 30, lambda _: pytest.fail("it waited"))

    assert (result.run.name, [e.name for e in result.evaluations]) == (find_run(None).name, STEPS)
