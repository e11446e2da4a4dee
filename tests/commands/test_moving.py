"""`pricer push --repo`: a run goes to another repository, whatever became of the old one and whenever it is killed."""

import json
import shutil
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from pricer.commands.parts import moving
from pricer.commands.parts.uploads import Uploads
from pricer.commands.pick import pick
from pricer.commands.push import push
from pricer.config import HubConfig, PromptConfig, RunConfig
from pricer.errors import ConfigError, HubError, RunError
from pricer.stores.checkpoints import FolderStore
from pricer.stores.commit_budget import CommitBudget
from pricer.stores.outbox import Outbox
from pricer.stores.runs import Run, create_run
from tests.builders import Killed, a_saved_checkpoint, add_evaluation, an_evaluation
from tests.commands.conftest import Listener
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.repositories import adopt

OLD, NEW = "ann/prices", "ann/new"
ADAPTER = "adapter_model.safetensors"


pytestmark = pytest.mark.usefixtures("no_pauses")


def put(run: Run, step: int) -> None:
    """Leave a checkpoint in the outbox."""
    folder, _ = a_saved_checkpoint(Path(f"out-{step}"), step)
    Uploads(run, OLD, print).put_checkpoint(folder, step)


def a_pushed_run(hub: LoopbackHub, steps: tuple[int, ...] = (5, 10)) -> Run:
    """A run that ended, whose checkpoints are in the repository OLD, and one of step 15 that waits for it."""
    hub.create(OLD)
    config = RunConfig(prompt=PromptConfig(max_length=128), hub=HubConfig(repo=OLD))
    run = create_run(config, "quickstart", None, {"repo": OLD})
    for step in steps:
        put(run, step)
    push(None, Listener())
    put(run, 15)
    run.finish()
    return run


def assert_all_is_in(repo: Repo, steps: tuple[int, ...] = (5, 10, 15)) -> None:
    """Each checkpoint has one commit, its tag and its own manifest; the run's folder names no other repository."""
    names = [f"step-{step:06d}" for step in steps]
    assert [title for title in repo.titles() if title.startswith("step-")] == names[::-1]
    assert sorted(repo.tags) == names
    for step, name in zip(steps, names, strict=True):
        assert json.loads(repo.files(repo.tags[name])["manifest.json"])["step"] == step
    run = Run(Path("runs/quickstart"))
    assert (run.repo, run.config().hub.repo, run.outbox.entries()) == (NEW, NEW, [])
    assert [(c.name, c.commit) for c in run.store.checkpoints()] == sorted(repo.tags.items())
    assert f"repo: {NEW}" in repo.files()["config.yaml"].decode()


def forget_copies() -> None:
    """The folder as on a machine that has the log of the checkpoints, but not their files."""
    shutil.rmtree("runs/quickstart/checkpoints")


def delete(repo: str) -> None:
    HfApi().delete_repo(repo)


def test_delivered_and_waiting_checkpoints_arrive_in_order(hub: LoopbackHub) -> None:
    a_pushed_run(hub)
    before = hub.repo(OLD).branches
    watcher = Listener()

    pushed = push(None, watcher, NEW)

    assert pushed.delivered == ("step 5", "step 10", "step 15")
    assert_all_is_in(hub.repo(NEW))
    assert hub.repo(NEW).private
    assert hub.repo(OLD).branches == before
    assert watcher.notes == ["the repository of quickstart is now ann/new; ann/prices keeps what it has"]


def test_a_run_that_was_kept_in_a_folder(hub: LoopbackHub) -> None:
    run = create_run(RunConfig(), "quickstart", None, {})
    for step in (5, 10, 15):
        run.store.push(a_saved_checkpoint(Path(f"out-{step}"), step)[0], step)
    watcher = Listener()

    push(None, watcher, NEW)

    assert_all_is_in(hub.repo(NEW))
    assert watcher.notes == ["the repository of quickstart is now ann/new"]


def test_the_same_repository_is_an_ordinary_push(hub: LoopbackHub) -> None:
    a_pushed_run(hub)

    assert push(None, Listener(), OLD).delivered == ("step 15",)


class TestTheOldRepository:
    def test_may_be_deleted(self, hub: LoopbackHub) -> None:
        a_pushed_run(hub)
        delete(OLD)
        with pytest.raises(HubError, match=r"^refused for good"):
            push(None, Listener())

        push(None, Listener(), NEW)

        assert_all_is_in(hub.repo(NEW))

    def test_may_refuse_everything(self, hub: LoopbackHub) -> None:
        a_pushed_run(hub)
        hub.faults.random(1.0, seed=0, kinds=[Fault.status(403)], spare=f"{NEW}|whoami|repos/create")

        push(None, Listener(), NEW)

        assert_all_is_in(hub.repo(NEW))

    def test_may_be_of_another_run(self, hub: LoopbackHub) -> None:
        run = a_pushed_run(hub)
        hub.repo(OLD).commit({"run.json": b'{"id": "another"}'}, "step-000005")
        with pytest.raises(HubError) as raised:
            push(None, Listener())
        assert raised.value.message == (
            "refused for good, so not on the Hub: step 15, the end of the run "
            "(ann/prices holds the checkpoints of another run (id another))"
        )
        assert raised.value.hint == (
            "they are safe in runs/quickstart/outbox; "
            "deliver to another repository: pricer push --run quickstart --repo USER/NEW"
        )

        push(run.name, Listener(), NEW)

        assert_all_is_in(hub.repo(NEW))

    def test_gives_what_is_not_here(self, hub: LoopbackHub) -> None:
        a_pushed_run(hub)
        forget_copies()

        push(None, Listener(), NEW)

        assert_all_is_in(hub.repo(NEW))

    def test_that_is_gone_cannot_give_what_is_not_here_which_is_named(self, hub: LoopbackHub) -> None:
        a_pushed_run(hub)
        shutil.rmtree("runs/quickstart/checkpoints/step-000005")
        delete(OLD)
        watcher = Listener()

        push(None, watcher, NEW)

        assert_all_is_in(hub.repo(NEW), (10, 15))
        assert watcher.notes[0] == (
            "left out, because they are not here and cannot be fetched: step-000005 "
            "(there is no repository ann/prices on the Hub, or this account may not see it)"
        )

    def test_that_has_a_passing_trouble_leaves_the_run_as_it_is(self, hub: LoopbackHub) -> None:
        a_pushed_run(hub)
        forget_copies()
        hub.faults.random(1.0, seed=0, kinds=[Fault.status(503)], spare=f"{NEW}|whoami|repos/create")

        with pytest.raises(HubError, match=r"^the Hub answers 503 for ann/prices"):
            push(None, Listener(), NEW)

        assert Run(Path("runs/quickstart")).repo == OLD
        hub.faults.clear()
        push(None, Listener(), NEW)
        assert_all_is_in(hub.repo(NEW))

    def test_that_is_gone_with_all_checkpoints_leaves_the_run_as_it_is(self, hub: LoopbackHub) -> None:
        run = a_pushed_run(hub)
        run.outbox.clear()
        forget_copies()
        delete(OLD)
        log = (run.folder / "checkpoints.jsonl").read_bytes()

        with pytest.raises(RunError, match=r"^no checkpoint of quickstart is here or can be fetched: step-000005 \("):
            push(None, Listener(), NEW)

        assert (Run(run.folder).repo, (run.folder / "checkpoints.jsonl").read_bytes()) == (OLD, log)


class TestTheNewRepository:
    def test_of_another_run_is_refused_and_nothing_changes(self, hub: LoopbackHub) -> None:
        run = a_pushed_run(hub)
        other = hub.create(NEW)
        other.commit({"run.json": b'{"id": "another"}'}, "step-000005")
        other.create_tag("step-000005", other.branches["main"])

        with pytest.raises(HubError, match=r"^ann/new holds the checkpoints of another run"):
            push(None, Listener(), NEW)

        assert (Run(run.folder).repo, other.titles()) == (OLD, ["step-000005", "initial commit"])

    @pytest.mark.parametrize("name", ["prices", "a/b/c", "ann/pri ces"])
    def test_needs_a_name_that_can_be_one(self, hub: LoopbackHub, name: str) -> None:
        a_pushed_run(hub)
        before = len(hub.requests)

        with pytest.raises(ConfigError, match=r"hub\.repo"):
            push(None, Listener(), name)

        assert len(hub.requests) == before

    def test_that_refuses_midway_is_moved_from_as_well(self, hub: LoopbackHub) -> None:
        a_pushed_run(hub)
        hub.faults.script("POST", "/commit/main", [None, *[Fault.status(403)] * 10])
        with pytest.raises(HubError) as raised:
            push(None, Listener(), NEW)
        assert raised.value.message.startswith("refused for good, so not on the Hub: step 10, step 15, the end of")
        hub.faults.clear()

        push(None, Listener(), "ann/newer")

        assert sorted(hub.repo("ann/newer").tags) == ["step-000005", "step-000010", "step-000015"]


def test_a_live_training_keeps_its_repository(hub: LoopbackHub) -> None:
    run = a_pushed_run(hub)

    with run.lock(), pytest.raises(RunError, match=r"^another process is training quickstart$"):
        push(None, Listener(), NEW)

    assert run.repo == OLD


def test_a_repository_that_was_evaluated_here_stays_where_it_is(hub: LoopbackHub) -> None:
    run = a_pushed_run(hub)
    run.record(from_hub=True)

    with pytest.raises(RunError, match=r"^quickstart is a repository that was evaluated here, not a training$"):
        push(None, Listener(), NEW)


def test_a_checkpoint_that_is_damaged_here_is_named_and_stays(hub: LoopbackHub) -> None:
    run = a_pushed_run(hub)
    (entry,) = run.outbox.entries()
    (entry.folder / ADAPTER).unlink()
    (entry.folder / ADAPTER).write_bytes(b"other weights")
    watcher = Listener()

    with pytest.raises(HubError, match=r"^not on the Hub yet: step 15"):
        push(None, watcher, NEW)

    assert sorted(hub.repo(NEW).tags) == ["step-000005", "step-000010"]
    assert watcher.notes[0].startswith("left out, because they are not here and cannot be fetched: step-000015 (")
    assert [entry.name for entry in run.outbox.entries()] == ["step 15", "the end of the run"]


def test_the_pick_goes_along(hub: LoopbackHub) -> None:
    run = a_pushed_run(hub)
    for step, mae in ((5, 50.0), (10, 40.0), (15, 45.0)):
        add_evaluation(run, an_evaluation(step, mae))
    assert pick(None, "mae").problem is None

    pushed = push(None, Listener(), NEW)

    repo = hub.repo(NEW)
    assert pushed.picked is not None
    assert (pushed.picked.step, repo.tags["best"]) == (10, repo.tags["step-000010"])
    assert "pricer" in repo.files()["README.md"].decode()


def test_commits_to_the_old_one_do_not_count_for_the_new_one(hub: LoopbackHub) -> None:
    run = a_pushed_run(hub)

    push(None, Listener(), NEW)

    # To NEW went the lease, three checkpoints and the end; to OLD the lease and two checkpoints.
    assert len((run.folder / "outbox/commits.jsonl").read_text().splitlines()) == 5


def kill_at(patch: pytest.MonkeyPatch, place: object, name: str, call: int) -> None:
    """Let the process end at the so-manieth call of a function, before that call does anything."""
    before, calls = getattr(place, name), iter(range(call))

    def killed(*arguments: object, **how: object) -> object:
        if next(calls, None) is None:
            raise Killed
        return before(*arguments, **how)

    patch.setattr(place, name, killed)


STEPS: list[tuple[object, str, int]] = [
    (moving, "claim", 0),
    *[(FolderStore, "keep", call) for call in range(3)],
    *[(Outbox, "put", call) for call in range(3)],
    (Outbox, "drop", 0),
    (FolderStore, "clear_log", 0),
    (moving, "write_atomically", 0),
    (Run, "record", 0),
    (CommitBudget, "reset", 0),
]


@pytest.mark.parametrize("is_gone", [False, True], ids=["there", "gone"])
@pytest.mark.parametrize(("place", "name", "call"), STEPS, ids=lambda value: value if isinstance(value, str) else None)
def test_a_kill_at_any_step_loses_nothing_and_the_command_goes_on(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int, is_gone: bool
) -> None:
    a_pushed_run(hub)
    if is_gone:
        delete(OLD)
    with monkeypatch.context() as patch:
        kill_at(patch, place, name, call)
        with pytest.raises(Killed):
            push(None, Listener(), NEW)
    run = Run(Path("runs/quickstart"))
    assert [checkpoint.step for checkpoint in run.store.checkpoints()] == [5, 10, 15]
    for checkpoint in run.store.checkpoints():
        assert (run.store.fetch(checkpoint) / ADAPTER).read_bytes() == b"weights"

    push(None, Listener(), NEW)

    assert_all_is_in(hub.repo(NEW))


@pytest.mark.parametrize(
    ("place", "name", "call"), [(Outbox, "put", 1), (moving, "write_atomically", 0), (Run, "record", 0)]
)
def test_a_run_of_a_folder_keeps_its_checkpoints_when_it_is_killed(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, place: object, name: str, call: int
) -> None:
    run = create_run(RunConfig(), "quickstart", None, {})
    for step in (5, 10, 15):
        run.store.push(a_saved_checkpoint(Path(f"out-{step}"), step)[0], step)
    with monkeypatch.context() as patch:
        kill_at(patch, place, name, call)
        with pytest.raises(Killed):
            push(None, Listener(), NEW)
    assert [checkpoint.step for checkpoint in Run(run.folder).store.checkpoints()] == [5, 10, 15]

    push(None, Listener(), NEW)

    assert_all_is_in(hub.repo(NEW))


def test_after_a_kill_before_the_end_the_old_repository_can_still_be_pushed_to(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_pushed_run(hub)
    with monkeypatch.context() as patch:
        kill_at(patch, Run, "record", 0)
        with pytest.raises(Killed):
            push(None, Listener(), NEW)

    push(None, Listener())

    # The steps that were there are recognised: no second commit.
    assert hub.repo(OLD).titles() == [
        "training finished",
        *["step-000015", "step-000010", "step-000005"],
        "initial commit",
    ]


def test_another_machine_goes_on_from_the_new_repository(
    hub: LoopbackHub, stopped: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.chdir(tmp_path / "trainer")
        push(None, Listener(), NEW)

    run = adopt(NEW)

    newest = run.training_states.newest()
    assert newest is not None
    assert (newest[1], run.repo, run.config().hub.repo) == (4, NEW, NEW)
