"""A Hub that refuses, is away or loses a repository: what waits in the outbox is a checkpoint like the others."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import typer.testing
from huggingface_hub import HfApi

from pricer.cli import app
from pricer.commands import train
from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.uploads import Uploads
from pricer.commands.pick import pick
from pricer.commands.predict import predict
from pricer.commands.push import push
from pricer.commands.runs import overviews
from pricer.config import HubConfig, PromptConfig, RunConfig
from pricer.core.items import Split
from pricer.core.training import Progress
from pricer.errors import HubError
from pricer.stores.runs import Run, create_run
from tests.builders import a_saved_checkpoint, add_evaluation, an_evaluation, an_item
from tests.commands.conftest import Listener, to_hub
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import Fault, LoopbackHub, Repo

REPO = "ann/prices"
STEPS = ["step-000005", "step-000010"]


pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def waiting(repo: Repo) -> Run:
    """A finished run whose two checkpoints wait for the Hub, with evaluations: step 10 is the best."""
    config = RunConfig(prompt=PromptConfig(max_length=128), hub=HubConfig(repo=REPO))
    run = create_run(config, "quickstart", None, {"repo": REPO})
    for step, mae in ((5, 50.0), (10, 40.0)):
        folder, _ = a_saved_checkpoint(Path(f"out-{step}"), step)
        Uploads(run, REPO, print).put_checkpoint(folder, step)
        add_evaluation(run, an_evaluation(step, mae))
    run.finish()
    return run


@contextmanager
def failing(hub: LoopbackHub, code: int) -> Iterator[None]:
    hub.faults.random(1.0, seed=0, kinds=[Fault.status(code)], spare="no path has this")
    yield
    hub.faults.clear()


class TestPick:
    def test_a_checkpoint_that_waits_is_picked_here_and_reaches_the_hub_with_the_next_push(
        self, hub: LoopbackHub, repo: Repo, waiting: Run
    ) -> None:
        notes: list[str] = []

        picked = pick(None, "mae", note=notes.append)

        best = waiting.store.tagged("best")
        assert best is not None
        assert (best.name, picked.selection.candidate.name, picked.problem, picked.published) == (
            STEPS[1],
            STEPS[1],
            None,
            None,
        )
        assert notes == [
            "step-000010 is not on the Hub yet: pricer push --run quickstart brings it there, with the tag best and "
            "the model card"
        ]
        assert hub.requests == []

        pushed = push(None, Listener())

        assert (pushed.delivered, pushed.picked) == (("step 5", "step 10"), best)
        assert repo.tags == {name: repo.tags[name] for name in [*STEPS, "best"]}
        assert repo.tags["best"] == repo.tags[STEPS[1]]
        assert "README.md" in repo.files()
        requests = len(hub.requests)
        assert push(None, Listener()).picked is None
        assert len(hub.requests) == requests

    def test_a_hub_that_is_away_when_it_is_picked_gets_the_pick_with_the_next_push(
        self, hub: LoopbackHub, repo: Repo, waiting: Run
    ) -> None:
        push(None, Listener())
        with failing(hub, 503):
            problem = pick(None, "mae").problem

        assert problem is not None
        assert problem.message == "the Hub answers 503 for ann/prices: Service Unavailable"
        assert problem.hint.endswith("; the choice stands, `pricer push --run quickstart` brings it to the Hub later")
        assert waiting.store.tagged("best") is not None
        pushed = push(None, Listener())

        assert pushed.picked is not None
        assert (pushed.delivered, pushed.picked.name) == ((), STEPS[1])
        assert repo.tags["best"] == repo.tags[STEPS[1]]
        assert "README.md" in repo.files()

    def test_a_pick_whose_repository_is_gone_can_be_moved(self, waiting: Run) -> None:
        push(None, Listener())
        HfApi().delete_repo(REPO)
        pick(None, "mae")

        with pytest.raises(HubError) as raised:
            push(None, Listener())

        assert raised.value.message == "there is no repository ann/prices on the Hub, or this account may not see it"
        assert raised.value.hint.endswith("; or move the run: pricer push --run quickstart --repo USER/NEW")

    def test_a_pick_that_is_on_the_hub_is_not_brought_there_again(self, hub: LoopbackHub, waiting: Run) -> None:
        push(None, Listener())
        pick(None, "mae")
        hub.repo(REPO).tags["best"] = hub.repo(REPO).tags[STEPS[0]]  # by another machine

        push(None, Listener())

        assert hub.repo(REPO).tags["best"] == hub.repo(REPO).tags[STEPS[0]]


class TestRuns:
    def test_what_waits_is_counted_and_said(self, waiting: Run) -> None:
        (one,) = overviews()

        assert (one.checkpoints, one.waiting, one.step) == (2, 2, 10)
        shown = typer.testing.CliRunner().invoke(app, ["runs"]).output
        assert "quickstart: 2 of 2 checkpoints are not on the Hub yet (pricer push --run quickstart)" in shown

    def test_what_was_delivered_does_not_wait(self, waiting: Run) -> None:
        push(None, Listener())

        assert [(one.checkpoints, one.waiting) for one in overviews()] == [(2, 0)]


class Vandal(Listener):
    """Deletes the repository during training, after the first checkpoint has arrived."""

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        super().progress(progress, next_checkpoint)
        if progress.step == 3 and progress.loss is None:
            while not any(checkpoint.commit for checkpoint in Run(Path("runs/quickstart")).store.checkpoints()):
                time.sleep(0.01)
            HfApi().delete_repo(REPO)


def test_a_repository_that_is_deleted_during_training_costs_no_checkpoint(hub: LoopbackHub, scorer: FakeScorer) -> None:
    vandal = Vandal()

    with pytest.raises(HubError) as raised:
        train.start(to_hub(REPO), "quickstart", None, vandal)

    gone = "there is no repository ann/prices on the Hub, or this account may not see it"
    assert re.search(rf"^refused for good, so not on the Hub: .*step 6.* \({gone}\)$", raised.value.message)
    assert raised.value.hint.endswith("deliver to another repository: pricer push --run quickstart --repo USER/NEW")
    assert sum("is refused for good: there is no repository" in note for note in vandal.notes) == 1
    # Resuming does not send the user back to pushing the same way.
    with pytest.raises(HubError, match=r"^refused for good") as again:
        train.resume(None, Listener())
    assert again.value.hint == raised.value.hint
    run = Run(Path("runs/quickstart"))
    assert [checkpoint.step for checkpoint in run.store.checkpoints()] == [2, 4, 6]

    listener = Listener()
    evaluated = evaluate_run(run, "all", Split.VAL, None, listener)
    assert [e.candidate.step for e in evaluated.evaluations[1:]] == [2, 4, 6]
    not_yet = r"not on the Hub yet: .*step-000006 \(pricer push --run quickstart\)"
    assert any(re.fullmatch(not_yet, note) for note in listener.notes)
    assert predict(run, "last", lambda data: [an_item()], Listener()).checkpoint.step == 6

    push(None, Listener(), "ann/new")

    assert sorted(hub.repo("ann/new").tags) == ["step-000002", "step-000004", "step-000006"]


def test_an_interrupted_run_whose_repository_is_gone_goes_on_in_another_one(
    hub: LoopbackHub, stopped: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path / "trainer")
    HfApi().delete_repo("ann/stopped")

    with pytest.raises(HubError, match=r"^there is no repository ann/stopped on the Hub") as raised:
        train.resume(None, Listener())
    assert raised.value.hint.endswith("; or move the run: pricer push --run quickstart --repo USER/NEW")
    push(None, Listener(), "ann/new")
    train.resume(None, Listener())

    assert sorted(hub.repo("ann/new").tags) == ["step-000002", "step-000004", "step-000006"]
    assert hub.repo("ann/new").titles() == [
        "training finished",
        *["step-000006", "step-000004", "step-000002"],
        "initial commit",
    ]
    assert list(hub.repo("ann/new").branches) == ["main"]
