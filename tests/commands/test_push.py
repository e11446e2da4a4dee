"""`pricer push`: what training could not put on the Hub is delivered later."""

import shutil
from pathlib import Path

import pytest

from pricer.commands.parts.uploads import Uploads, uploads
from pricer.commands.push import Pushed, push
from pricer.config import HubConfig, RunConfig
from pricer.errors import HubError, Interrupted, RunError
from pricer.stores.files import locked, sha256_of
from pricer.stores.outbox import Outbox
from pricer.stores.runs import Run, create_run
from tests.builders import a_saved_checkpoint
from tests.commands.conftest import Listener
from tests.loopback_hub import Fault, LoopbackHub, Repo

REPO = "ann/prices"


class Watcher(Listener):
    """Keeps what it is told of uploads, too."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: list[tuple[int, int]] = []

    def uploading(self, done: int, total: int, current: str, later: str) -> None:
        self.counts.append((done, total))


pytestmark = pytest.mark.usefixtures("no_pauses")


def a_run(steps: tuple[int, ...] = (), *, repo: str | None = REPO) -> Run:
    """A run whose training ended while the Hub was away."""
    run = create_run(RunConfig(hub=HubConfig(repo=repo)), "quickstart", None, {"repo": repo})
    for step in steps:
        put(run, step)
    return run


def put(run: Run, step: int) -> None:
    folder, _ = a_saved_checkpoint(Path(f"out-{step}"), step, f"weights of {step}".encode())
    Uploads(run, REPO, print).put_checkpoint(folder, step)


def put_state(run: Run, step: int) -> None:
    state, _ = a_saved_checkpoint(run.training_states.folder / f"checkpoint-{step}", step)
    (state / "optimizer.pt").write_bytes(b"optimizer")
    run.training_states.mark_complete(state)
    Uploads(run, REPO, print).put_state(state, step)


def test_where_everything_arrived_there_is_nothing_to_do(hub: LoopbackHub, repo: Repo) -> None:
    run = a_run()

    pushed = push(None, Watcher())

    assert (pushed.run.name, pushed.run.repo, pushed.delivered) == (run.name, REPO, ())
    assert hub.requests == []


def test_a_run_without_a_repository_has_nowhere_to_push_to() -> None:
    a_run(repo=None)

    with pytest.raises(RunError) as raised:
        push(None, Watcher())

    assert raised.value.message == "quickstart keeps its checkpoints in runs/quickstart/checkpoints, not on the Hub"
    assert raised.value.hint == "pricer push --run quickstart --repo USER/NAME"


def test_the_outbox_is_delivered_in_order(repo: Repo) -> None:
    run = a_run((5, 10))
    put_state(run, 10)
    watcher = Watcher()

    pushed = push("quickstart", watcher)

    assert isinstance(pushed, Pushed)
    assert pushed.delivered == ("step 5", "step 10", "the training state of step 10")
    assert repo.titles() == ["step-000010", "step-000005", "initial commit"]
    assert repo.titles("state") == ["lease released", "state of step-000010"]
    assert [checkpoint.step for checkpoint in run.store.checkpoints()] == [5, 10]
    assert run.outbox.entries() == []
    assert (watcher.counts[0][1], watcher.notes) == (3, [])
    assert push(None, Watcher()).delivered == ()


def test_commits_are_counted_across_processes(repo: Repo) -> None:
    run = a_run((5, 10))

    push(None, Watcher())

    # The lease, two checkpoints, and the lease again, which is released.
    assert len((run.folder / "outbox/commits.jsonl").read_text().splitlines()) == 4


def test_a_hub_that_is_away_leaves_all_in_the_outbox(hub: LoopbackHub, repo: Repo) -> None:
    run = a_run((5, 10))
    put_state(run, 10)
    hub.faults.random(1.0, seed=0, kinds=[Fault.status(503)], spare="no path has this")
    watcher = Watcher()

    with pytest.raises(HubError) as raised:
        push(None, watcher)

    assert raised.value.message == (
        "not on the Hub yet: step 5, step 10, the training state of step 10 "
        "(the Hub answers 503 for ann/prices: Service Unavailable)"
    )
    assert raised.value.hint == (
        "they are safe in runs/quickstart/outbox; deliver them later: pricer push --run quickstart"
    )
    assert watcher.notes == [
        "step 5 is not on the Hub yet: the Hub answers 503 for ann/prices: Service Unavailable; next try in 1 s"
    ]
    assert len(run.outbox.entries()) == 3

    hub.faults.clear()
    assert push(None, Watcher()).delivered == ("step 5", "step 10", "the training state of step 10")


@pytest.mark.usefixtures("hub")
def test_a_repository_that_is_gone_is_named() -> None:
    a_run((5,))

    watcher = Watcher()

    with pytest.raises(HubError) as raised:
        push(None, watcher)

    gone = "there is no repository ann/prices on the Hub, or this account may not see it"
    login = "a private one needs `hf auth login`, or HF_TOKEN"
    assert watcher.notes == [f"step 5 is refused for good: {gone} ({login}); it stays in runs/quickstart/outbox"]
    assert raised.value.message == f"refused for good, so not on the Hub: step 5 ({gone})"
    assert raised.value.hint == (
        f"they are safe in runs/quickstart/outbox; {login}; then pricer push --run quickstart; "
        "or deliver to another repository: pricer push --run quickstart --repo USER/NEW"
    )


def test_one_that_is_damaged_here_does_not_hold_up_the_others(repo: Repo) -> None:
    run = a_run((5, 10))
    adapter = run.outbox.entries()[0].folder / "adapter_model.safetensors"
    adapter.unlink()  # it has a second name, whose content must stay
    adapter.write_bytes(b"other weights")
    watcher = Watcher()

    with pytest.raises(HubError) as raised:
        push(None, watcher)

    reason = (
        f"step-000005 is not what its manifest says: {adapter} has sha256 {sha256_of(adapter)[:12]}…, "
        f"the manifest {sha256_of(Path('out-5/adapter_model.safetensors'))[:12]}…"
    )
    assert watcher.notes == [f"step 5 cannot be pushed: {reason}; if it is of no use, remove {adapter.parent}"]
    assert raised.value.message.startswith("not on the Hub yet: step 5")
    assert repo.titles() == ["step-000010", "initial commit"]


def test_a_training_that_delivers_by_itself_is_left_alone(hub: LoopbackHub, repo: Repo) -> None:
    run = a_run((5,))

    with locked(run.outbox.folder, BlockingIOError()), pytest.raises(RunError) as raised:
        push(None, Watcher())

    assert raised.value.message == "another process is delivering the checkpoints of quickstart"
    assert raised.value.hint == "the training delivers them by itself"
    assert hub.requests == []


def test_a_training_that_is_about_to_start_keeps_its_lease(hub: LoopbackHub, repo: Repo) -> None:
    run = a_run((5,))

    with run.lock(), pytest.raises(RunError, match="another process is training quickstart"):
        push(None, Watcher())

    assert hub.requests == []


def test_an_interruption_says_what_is_left(repo: Repo) -> None:
    class Impatient(Watcher):
        def uploading(self, done: int, total: int, current: str, later: str) -> None:
            raise KeyboardInterrupt

    a_run((5, 10))
    (Path("runs/quickstart/outbox/000001-checkpoint-000005/manifest.json")).unlink()  # one at least is left

    with pytest.raises(Interrupted) as raised:
        push(None, Impatient())

    assert raised.value.message.startswith("stopped; ")
    assert raised.value.message.endswith(" uploads are left, safe in runs/quickstart/outbox")
    assert raised.value.hint == "pricer push --run quickstart"


class TestLeavingInTheOutbox:
    def test_a_checkpoint_is_left_once_until_it_is_delivered_and_not_again_after(self, repo: Repo) -> None:
        run = a_run((5,))
        put(run, 5)
        assert [entry.name for entry in run.outbox.entries()] == ["step 5"]
        push(None, Watcher())

        put(run, 5)

        assert run.outbox.entries() == []

    def test_other_weights_of_the_same_step_are_left_too(self) -> None:
        run = a_run((5,))
        folder, _ = a_saved_checkpoint(Path("again"), 5, b"trained again")

        Uploads(run, REPO, print).put_checkpoint(folder, 5)

        assert [entry.step for entry in run.outbox.entries()] == [5, 5]

    def test_an_entry_that_goes_while_it_is_looked_at_is_no_trouble(self, monkeypatch: pytest.MonkeyPatch) -> None:
        run = a_run((5,))
        listed = run.outbox.entries()
        shutil.rmtree(listed[0].folder)
        with monkeypatch.context() as patch:
            patch.setattr(Outbox, "entries", lambda outbox: listed)

            put(run, 10)

        assert [path.name for path in run.outbox.folder.glob("*-checkpoint-*")] == ["000002-checkpoint-000010"]

    def test_states_are_left_only_if_they_are_kept(self) -> None:
        run = create_run(RunConfig(hub=HubConfig(repo=REPO, state="none")), "quickstart", None, {"repo": REPO})

        put_state(run, 5)

        assert run.outbox.entries() == []

    def test_a_run_without_a_repository_uploads_nothing(self) -> None:
        with uploads(a_run(repo=None), print) as opened:
            assert opened is None
