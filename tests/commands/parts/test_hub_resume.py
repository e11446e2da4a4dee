"""Several machines and one run: who may train it, what is gone on from, and that nothing on the Hub is replaced."""

import json
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Literal

import pytest

from pricer.commands import train
from pricer.commands.push import push
from pricer.config import HubConfig, RunConfig
from pricer.core.training import Progress
from pricer.errors import HubError, LeaseLost, RunError
from pricer.stores import hub_lease
from pricer.stores.checkpoints import parse_manifest
from pricer.stores.hub import Hub
from pricer.stores.hub_lease import HubLease, Owner
from pricer.stores.processes import Process
from pricer.stores.runs import Run, create_run, runs_of
from tests.builders import a_saved_checkpoint
from tests.commands.conftest import Listener, to_hub
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.loopback_hub.fixtures import connect
from tests.repositories import ADAPTER, Cli, adopt, sha256

ELSEWHERE = Process("another machine", "gpu-7", 4711, "1")


pytestmark = pytest.mark.usefixtures("no_pauses")


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch) -> Callable[[Repo], HubLease]:
    """Let another machine take the lease of a repository."""

    def take(repo: Repo) -> HubLease:
        with monkeypatch.context() as patch:
            patch.setattr(hub_lease, "this_process", lambda: ELSEWHERE)
            run_id = json.loads(repo.files("state" if "state" in repo.branches else "main")["run.json"])["id"]
            lease = HubLease(Hub(repo.id), Owner(run_id, "there", "pricer train --resume"), dict)
            lease.acquire(take_over=True)
        return lease

    return take


@pytest.fixture
def trainer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """The run of `stopped` on the machine that has trained it, which this is now."""
    monkeypatch.chdir(tmp_path / "trainer")
    return Run(Path("runs/quickstart"))


def everything_fails(hub: LoopbackHub) -> None:
    hub.faults.random(1.0, seed=0, kinds=[Fault.status(503)], spare="no path has this")


def put_other_step(repo: Repo, step: int) -> str:
    """A checkpoint on the Hub with other weights than training here gives: as a GPU would. Returns its commit."""
    files = repo.files("step-000004")
    other = replace(parse_manifest(files["manifest.json"]), step=step, adapter_sha256=sha256(b"other weights"))
    manifest = json.dumps(other.to_json()).encode()
    commit = repo.commit({ADAPTER: b"other weights", "manifest.json": manifest}, other.name).hash
    repo.create_tag(other.name, commit)
    return commit


class TestRefused:
    @pytest.mark.parametrize("how", [["--repo", "ann/stopped"], ["--repo", "ann/stopped", "--run", "new"], []])
    def test_while_another_machine_trains_it(
        self, stopped: Repo, trainer: Run, elsewhere: Callable[[Repo], HubLease], how: list[str]
    ) -> None:
        elsewhere(stopped)
        head = stopped.branches["state"]

        result = Cli("train", "--resume", *how)

        error, hint = result.err.splitlines()
        assert error.startswith("error: ann/stopped is being trained by gpu-7 (process 4711) since 20")
        own = "--repo ann/stopped" if "new" in how else "--run quickstart"
        assert hint == (f" hint: wait until it ends; if that machine is dead: pricer train --resume {own} --take-over")
        assert (result.code, stopped.branches["state"]) == (1, head)
        assert [run.name for run in runs_of("ann/stopped")] == ["quickstart"]

    def test_when_it_was_finished_elsewhere(self, stopped: Repo, trainer: Run) -> None:
        record = json.loads(stopped.files("state")["run.json"])
        stopped.commit({"run.json": json.dumps({**record, "finished": "2026-11-26T21:05:00"}).encode()})

        result = Cli("train", "--resume")

        assert result.err.splitlines() == [
            "error: the training in ann/stopped was finished on another machine, there is nothing to go on with",
            " hint: pricer eval --repo ann/stopped --all-checkpoints",
        ]
        assert result.code == 1

    def test_with_a_token_that_may_only_read(
        self, hub: LoopbackHub, stopped: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(hub, monkeypatch, hub.add_user("ann", "read"))

        result = Cli("train", "--resume", "--repo", "ann/stopped")

        assert result.err.splitlines()[0] == "error: the token of this machine may not write to ann/stopped"
        assert (result.code, Path("runs").exists()) == (1, False)

    def test_a_push_while_another_machine_trains_it_says_so_and_does_not_wait(
        self, stopped: Repo, trainer: Run, elsewhere: Callable[[Repo], HubLease]
    ) -> None:
        folder, _ = a_saved_checkpoint(Path("out"), 9)
        trainer.outbox.put("checkpoint", 9, list(folder.iterdir()))
        elsewhere(stopped)

        result = Cli("push")

        _, error, hint = result.err.splitlines()  # the first line says what is left
        assert error.startswith("error: ann/stopped is being trained by gpu-7 (process 4711) since 20")
        assert error.endswith("; not on the Hub, but safe in runs/quickstart/outbox: step 9")
        assert hint.endswith("pricer train --resume --run quickstart --take-over")
        assert result.code == 1

    def test_taking_over_is_for_runs_that_are_resumed(self) -> None:
        result = Cli("train", "--take-over")

        assert result.code == 2
        assert "only a run that is resumed can be taken over: add --resume" in result.err


class TestGoingOn:
    def test_a_machine_that_is_dead_is_taken_over(self, stopped: Repo, elsewhere: Callable[[Repo], HubLease]) -> None:
        elsewhere(stopped)
        listener = Listener()

        train.resume_repo("ann/stopped", None, listener, take_over=True)

        assert listener.notes[0].startswith("ann/stopped is taken over from gpu-7 (process 4711) since 20")
        assert sorted(stopped.tags) == ["step-000002", "step-000004", "step-000006"]

    def test_a_local_run_goes_on_from_a_later_state_on_the_hub(
        self, stopped: Repo, trainer: Run, elsewhere: Callable[[Repo], HubLease]
    ) -> None:
        elsewhere(stopped).release()
        shutil.rmtree(trainer.training_states.folder)  # as before step 2 was reached
        (trainer.folder / "checkpoints.jsonl").unlink()
        listener = Listener()

        result = train.resume(None, listener)

        assert listener.notes[:2] == [
            "ann/stopped: 2 checkpoints, training state of step 4, now runs/quickstart",
            "going on with quickstart after step 4",
        ]
        assert listener.steps == [5, 6]
        assert [checkpoint.step for checkpoint in result.checkpoints] == [2, 4, 6]

    def test_checkpoints_here_that_the_hub_has_with_other_weights_are_kept_aside(
        self, stopped: Repo, trainer: Run
    ) -> None:
        put_other_step(stopped, 6)
        folder, _ = a_saved_checkpoint(Path("mine"), 6, b"my weights")
        trainer.outbox.put("checkpoint", 6, list(folder.iterdir()))
        notes: list[str] = []

        adopt("ann/stopped", None, notes.append)

        assert notes == [
            "another machine has gone on with quickstart; not pushed, but kept in runs/quickstart/replaced: step 6"
        ]
        assert [path.read_bytes() for path in trainer.folder.glob(f"replaced/*/{ADAPTER}")] == [b"my weights"]
        assert trainer.outbox.entries() == []
        assert [checkpoint.step for checkpoint in trainer.store.checkpoints()] == [2, 4, 6]

    def test_steps_beyond_the_state_stay_as_they_are_on_the_hub(self, stopped: Repo) -> None:
        commit = put_other_step(stopped, 6)
        tags, listener = dict(stopped.tags), Listener()

        result = train.resume_repo("ann/stopped", None, listener)

        assert listener.steps == [5, 6]
        assert listener.notes[-1] == (
            "not pushed, because the Hub has these steps with other weights from an earlier training: 6"
        )
        assert stopped.tags == tags
        assert {c.step: c.commit for c in result.checkpoints}[6] == commit
        assert list(stopped.branches) == ["main"]  # the run is finished all the same

    def test_a_repository_with_a_commit_but_no_tag_is_gone_on_with(self, stopped: Repo) -> None:
        stopped.tags.clear()
        del stopped.branches["state"]
        notes: list[str] = []

        run = adopt("ann/stopped", None, notes.append)

        assert notes == ["ann/stopped has no training state yet: training begins again, now runs/stopped"]
        assert (run.store.checkpoints(), run.repo, run.training_states.newest()) == ([], "ann/stopped", None)
        assert run.facts()["id"] == json.loads(stopped.files()["run.json"])["id"]

    def test_an_empty_repository_has_nothing_to_go_on_with(self, hub: LoopbackHub) -> None:
        hub.create("ann/prices", private=True)

        with pytest.raises(RunError) as raised:
            adopt("ann/prices")

        assert raised.value.message == "ann/prices is empty, there is nothing to go on with"
        assert raised.value.hint == "pricer train CONFIG --repo ann/prices"


class Troubled(Listener):
    """The Hub answers nothing until a step is reached."""

    def __init__(self, hub: LoopbackHub, step: int) -> None:
        super().__init__()
        self._hub, self._step = hub, step
        everything_fails(hub)

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        super().progress(progress, next_checkpoint)
        if progress.step == self._step:
            self._hub.faults.clear()


class TestTheHubIsAway:
    def test_a_local_run_is_trained_and_delivered_when_the_hub_is_back(
        self, hub: LoopbackHub, stopped: Repo, trainer: Run
    ) -> None:
        listener = Troubled(hub, 5)

        train.resume(None, listener)

        assert listener.notes[0] == (
            "the Hub answers 503 for ann/stopped: Service Unavailable; training goes on, and its checkpoints wait in "
            "the outbox"
        )
        assert sorted(stopped.tags) == ["step-000002", "step-000004", "step-000006"]
        assert json.loads(stopped.files()["run.json"])["finished"]
        assert list(stopped.branches) == ["main"]

    def test_where_another_machine_holds_it_by_then_training_stops(
        self, hub: LoopbackHub, stopped: Repo, trainer: Run, elsewhere: Callable[[Repo], HubLease]
    ) -> None:
        elsewhere(stopped)

        with pytest.raises(LeaseLost) as raised:
            train.resume(None, Troubled(hub, 5))

        assert raised.value.message.startswith("ann/stopped is being trained by gpu-7 (process 4711) since 20")
        assert "; not on the Hub, but safe in runs/quickstart/outbox: " in raised.value.message
        assert "step 6" in raised.value.message
        assert sorted(stopped.tags) == ["step-000002", "step-000004"]


class TakenOver(Listener):
    """At step 3 another machine takes over; the training here waits until the uploads have seen it."""

    def __init__(self, hub: LoopbackHub, take: Callable[[Repo], HubLease]) -> None:
        super().__init__()
        self._hub, self._take = hub, take

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        super().progress(progress, next_checkpoint)
        if progress.loss is None and progress.step == 3:
            self._wait(lambda: "step-000002" in self._hub.repo("ann/prices").tags)
            self._take(self._hub.repo("ann/prices"))
            self._seen = self._reads()
        if progress.loss is None and progress.step == 5:
            self._wait(lambda: self._reads() > self._seen)
            time.sleep(0.5)

    def _reads(self) -> int:
        return sum(request.path.endswith("/lease.json") for request in self._hub.requests)

    def _wait(self, happened: Callable[[], bool]) -> None:
        end = time.monotonic() + 60
        while not happened():
            assert time.monotonic() < end
            time.sleep(0.02)


def test_a_training_that_is_taken_over_stops_and_keeps_what_it_has(
    hub: LoopbackHub, elsewhere: Callable[[Repo], HubLease]
) -> None:
    with pytest.raises(LeaseLost) as raised:
        train.start(to_hub("ann/prices"), "quickstart", None, TakenOver(hub, elsewhere))

    assert raised.value.message.startswith("gpu-7 (process 4711) has taken over the training in ann/prices at 20")
    assert "; not on the Hub, but safe in runs/quickstart/outbox: " in raised.value.message
    assert raised.value.hint == "pricer train --resume --run quickstart"
    run, repo = Run(Path("runs/quickstart")), hub.repo("ann/prices")
    assert not run.has_finished()
    assert 4 in [entry.step for entry in run.outbox.entries() if entry.kind == "checkpoint"]
    assert list(repo.tags) == ["step-000002"]
    assert json.loads(repo.files("state")["lease.json"])["host"] == "gpu-7"


class TestTheEnd:
    def test_a_finished_run_says_so_and_leaves_no_state(self, pushed: Repo, uninterrupted: Run) -> None:
        assert json.loads(pushed.files()["run.json"])["finished"] == uninterrupted.facts()["finished"]
        assert (list(pushed.branches), pushed.commits()[0].title) == (["main"], "training finished")
        assert uninterrupted.outbox.entries() == []

    def finished_run(self, hub: LoopbackHub, state: Literal["latest", "all"] = "latest") -> Run:
        """A run that was finished while the Hub was away."""
        hub.create("ann/prices")
        config = RunConfig(hub=HubConfig(repo="ann/prices", state=state))
        run = create_run(config, "quickstart", None, {"repo": "ann/prices"})
        run.finish()
        return run

    @pytest.mark.parametrize("command", [["push"], ["train", "--resume"]])
    def test_it_is_made_up_for_by_push_and_resume(self, hub: LoopbackHub, command: list[str]) -> None:
        run = self.finished_run(hub)

        assert Cli(*command).code == 0

        assert json.loads(hub.repo("ann/prices").files()["run.json"])["finished"] == run.facts()["finished"]
        before = len(hub.requests)
        Cli(*command)
        assert len(hub.requests) == before

    def test_all_states_stay_where_they_are_wanted_and_the_lease_is_released(self, hub: LoopbackHub) -> None:
        self.finished_run(hub, state="all")

        push(None, Listener())

        assert json.loads(hub.repo("ann/prices").files("state")["lease.json"])["released"]

    @pytest.mark.parametrize("status", [405, 501])
    def test_a_hub_that_cannot_delete_a_branch_keeps_an_empty_one(self, hub: LoopbackHub, status: int) -> None:
        self.finished_run(hub)
        hub.faults.script("DELETE", "/branch/", [Fault.status(status)] * 3)

        push(None, Listener())

        repo = hub.repo("ann/prices")
        assert (list(repo.files("state")), len(repo.commits("state"))) == ([".gitattributes"], 1)

    def test_whatever_answer_is_lost_it_is_delivered_once(self, hub: LoopbackHub) -> None:
        number = 0
        while True:
            shutil.rmtree("runs", ignore_errors=True)
            hub._state.repos.clear()
            run = self.finished_run(hub)
            hub.faults.script("*", "ann/prices", [*[None] * number, Fault.cut_answer()])
            try:
                push(None, Listener())
            except HubError:
                push(None, Listener())
            repo = hub.repo("ann/prices")
            assert repo.titles() == ["training finished", "initial commit"], number
            assert (list(repo.branches), run.outbox.entries()) == (["main"], []), number
            if hub.faults.left:
                break  # there are no more requests than that
            number += 1
        assert number > 10

    def test_it_waits_for_a_checkpoint_that_cannot_be_pushed(self, hub: LoopbackHub) -> None:
        run = self.finished_run(hub)
        folder, _ = a_saved_checkpoint(Path("out"), 5)
        run.outbox.put("checkpoint", 5, list(folder.iterdir()))
        (run.outbox.entries()[0].folder / "manifest.json").unlink()

        with pytest.raises(HubError) as raised:
            push(None, Listener())

        assert raised.value.message.startswith("not on the Hub yet: step 5, the end of the run")
        assert "run.json" not in hub.repo("ann/prices").files()
