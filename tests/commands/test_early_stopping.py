"""Early stopping: `pricer watch` asks a training to stop, and the training ends like a finished one."""

import json
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from pricer.commands import train
from pricer.commands.parts.early_stops import stop_requests
from pricer.commands.parts.setup import Setup
from pricer.commands.watch import watch
from pricer.config import EvalConfig, HubConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.early_stopping import EarlyStop
from pricer.core.training import Validation
from pricer.errors import RunError
from pricer.stores.early_stops import STOP, read_stop, send_stop, write_stop
from pricer.stores.hub import Hub
from pricer.stores.runs import Run, find_run
from tests.builders import a_run
from tests.commands.conftest import CONFIG, Listener
from tests.commands.sessions import FakeScorer
from tests.commands.test_watch import Training
from tests.commands.test_watch import training as training  # noqa: PLC0414 (a fixture)
from tests.commands.test_watch_hub import Pushing, interrupt
from tests.commands.test_watch_hub import pushing as pushing  # noqa: PLC0414 (a fixture)
from tests.loopback_hub import LoopbackHub
from tests.loopback_hub.fixtures import connect

REQUEST = EarlyStop(best=1, newest=2, worse=1, spec_fingerprint="5pec")
REASON = "step 1 is the best, and the newest checkpoint is clearly worse"
PATIENT = CONFIG.model_copy(update={"eval": EvalConfig(patience=1)})


class Asking(Listener):
    """Asks the training to stop when its first checkpoint is kept."""

    def __init__(self, ask: Callable[[], None]) -> None:
        super().__init__()
        self._ask = ask

    def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
        super().checkpoint(checkpoint, validation)
        if len(self.checkpoints) == 1:
            self._ask()


class TestTraining:
    def test_a_request_in_the_folder_ends_it_with_one_more_checkpoint(self) -> None:
        listener = Asking(lambda: write_stop(find_run("early").folder, REQUEST))

        result = train.start(PATIENT, "quickstart", "early", listener)

        # Checkpoints are due at steps 2, 4 and 6.
        assert [checkpoint.step for checkpoint in result.checkpoints] == [2, 3]
        facts = result.run.facts()
        assert facts["stopped_early"] == {"best": 1, "newest": 2, "worse": 1, "spec_fingerprint": "5pec"}
        assert result.run.has_finished()
        assert not result.run.training_states.folder.exists()
        assert listener.notes[-1] == f"stopped early: {REASON}"
        assert (
            "eval.patience is 1: training stops early only while `pricer watch --run early` scores its checkpoints"
        ) in listener.notes
        with pytest.raises(RunError) as caught:
            train.resume("early", Listener())
        assert caught.value.message == (f"the run early was stopped early ({REASON}), there is nothing to go on with")

    def test_a_request_that_a_killed_training_has_left_is_followed_without_another_step(self, killed: Path) -> None:
        be_patient(Run(killed), 1)
        write_stop(killed, REQUEST)
        listener = Listener()

        result = train.resume("killed", listener)

        assert (listener.steps, [checkpoint.step for checkpoint in result.checkpoints]) == ([], [2])
        assert result.run.has_finished()

    def test_a_request_on_the_hub_ends_it_and_the_hub_says_why(
        self, hub: LoopbackHub, no_pauses: None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.commands.parts.early_stops._EVERY", 0.01)
        config = PATIENT.model_copy(update={"hub": HubConfig(repo="ann/prices")})

        def ask() -> None:
            send_stop(Hub("ann/prices"), REQUEST)
            end = time.monotonic() + 60
            while read_stop(find_run("early").folder) is None:
                assert time.monotonic() < end, "the request was not found"
                time.sleep(0.01)

        result = train.start(config, "quickstart", "early", Asking(ask))

        repo = hub.repo("ann/prices")
        assert [checkpoint.step for checkpoint in result.checkpoints] == [2, 3]
        assert (sorted(repo.tags), sorted(repo.branches)) == (["step-000002", "step-000003"], ["main"])
        facts = json.loads(repo.files()["run.json"])
        assert facts["finished"]
        assert facts["stopped_early"]["best"] == 1


class TestRequests:
    def test_without_patience_they_are_not_looked_for(self) -> None:
        run, notes = a_run(), list[str]()
        write_stop(run.folder, REQUEST)

        with stop_requests(run, "off", notes.append, is_new=False) as find:
            assert find() is None
        assert notes == []

    def test_one_about_checkpoints_that_are_trained_again_is_dropped(self) -> None:
        run = a_run()
        write_stop(run.folder, REQUEST)

        with stop_requests(run, 1, print, is_new=True) as find:
            assert find() is None

    def test_one_that_is_damaged_is_ignored_with_one_note(self) -> None:
        run, notes = a_run(), list[str]()
        (run.folder / STOP).write_text("{}")

        with stop_requests(run, 1, notes.append, is_new=False) as find:
            assert (find(), find()) == (None, None)

        assert [note for note in notes if "damaged" in note] == [f"{run.folder / STOP} is damaged: best is missing"]


@pytest.fixture
def worse(scorer: FakeScorer, _setup: Setup, monkeypatch: pytest.MonkeyPatch) -> FakeScorer:
    """A scorer with which each adapter is $100 further from every price than the one before."""
    prices = {item.id: item.price for item in _setup.items.val}
    fake = FakeScorer(lambda _, item: prices[item] + 100.0 * len(fake.adapters))
    monkeypatch.setattr("pricer.commands.parts.opening.load_scorer", lambda *_: fake)
    return fake


def be_patient(run: Run, patience: int | str) -> None:
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("patience: 'off'", f"patience: {patience}"))


def watch_patiently(pushing: Pushing) -> None:
    """Open the repository as a run here, with a patience of 1 as if its training had it."""
    with pytest.raises(KeyboardInterrupt):
        watch(None, pushing.repo.id, Listener(), 30, interrupt)
    be_patient(Run(Path("runs/ann--prices")), 1)


class TestWatching:
    @pytest.mark.parametrize(("patience", "asked"), [(1, (2, 4, 1)), (2, None), ("off", None)])
    def test_it_asks_for_the_end_when_patience_ends(
        self, training: Training, worse: FakeScorer, patience: int | str, asked: tuple[int, int, int] | None
    ) -> None:
        be_patient(training.run, patience)
        listener = Listener()

        training.watched(
            lambda: training.keep(2), lambda: training.keep(4), lambda: training.end_with(6), listener=listener
        )

        # The third checkpoint is the end of the training: there is nothing to ask for any more.
        found, spec = read_stop(training.run.folder), training.run.evaluations.all()[0].spec.fingerprint
        assert found == (asked and EarlyStop(*asked, spec))
        said = [note for note in listener.notes if "stop early" in note]
        assert said == ([f"training is asked to stop early: {found.reason}"] if found else [])

    def test_on_the_hub_the_request_is_on_the_branch_of_the_training(
        self, pushing: Pushing, worse: FakeScorer, no_pauses: None
    ) -> None:
        pushing.push("step-000002")
        watch_patiently(pushing)

        pushing.watched(lambda: pushing.push("step-000004"), pushing.end)

        request = json.loads(pushing.repo.files("state")[STOP])
        assert (request["best"], request["newest"], request["worse"]) == (2, 4, 1)
        assert pushing.repo.titles("state")[:2] == ["stop early", "lease"]

    def test_without_the_right_to_write_it_says_so_and_goes_on(
        self, pushing: Pushing, worse: FakeScorer, no_pauses: None, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushing.push("step-000002")
        watch_patiently(pushing)
        pushing.repo.private = False
        connect(hub, monkeypatch, token=hub.add_user("bob"))
        listener = Listener()

        result = pushing.watched(lambda: pushing.push("step-000004"), lambda: None, pushing.end, listener=listener)

        assert len(result.evaluations) == 3
        (said,) = [note for note in listener.notes if "stop early" in note]
        assert said.startswith("training should stop early (step 2 is the best, and the newest checkpoint is ")
        assert "cannot be asked to: the Hub refuses" in said
        assert STOP not in pushing.repo.files("state")
