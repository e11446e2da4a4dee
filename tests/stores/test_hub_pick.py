"""`main` is what loaders read by default: the picked checkpoint, whatever happens before and afterwards."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pricer.core.checkpoints import Checkpoint
from pricer.errors import HubError
from pricer.stores.checkpoints import parse_manifest
from pricer.stores.files import write_lines
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from tests.builders import Killed, a_saved_checkpoint
from tests.loopback_hub import Fault, LoopbackHub, Repo

REPO = "ann/prices"
ADAPTER = "adapter_model.safetensors"
PICK = "The pick, and its model card"
CARD = b"---\nlicense: mit\n---\n# Prices\n"
PAGES = {"README.md": CARD, ".eval_results/pricer.yaml": b"[]\n"}


def a_store(hub: Hub | None = None) -> HubStore:
    """As a process that was just started has it."""
    Path("config.yaml").write_text("train: {}\n")
    Path("run.json").write_text("{}\n")
    return HubStore(hub or Hub(REPO, attempts=2, wait=lambda _: None), Path())


def push(store: HubStore, step: int) -> Checkpoint:
    shutil.rmtree("out", ignore_errors=True)
    return store.push(a_saved_checkpoint(Path("out"), step, weights(step))[0], step)


def weights(step: int) -> bytes:
    return b"weights of step %d" % step


def elsewhere(*found: Checkpoint) -> HubStore:
    """The same repository on another machine, which knows what it found there."""
    store = HubStore(Hub(REPO, attempts=1), Path("there"))
    write_lines(Path("there") / "checkpoints.jsonl", [checkpoint.to_json() for checkpoint in found])
    return store


def pick(store: HubStore, checkpoint: Checkpoint) -> None:
    store.tag(checkpoint, "best")
    assert store.publish_pick(checkpoint, lambda *_: PAGES) == REPO


def picked_step(repo: Repo) -> int:
    """The step whose adapter and manifest are on `main`, with the card beside them."""
    files = repo.files()
    manifest = parse_manifest(files["manifest.json"])
    assert files[ADAPTER] == weights(manifest.step)
    assert (files["README.md"], files["config.yaml"], files["run.json"]) == (CARD, b"train: {}\n", b"{}\n")
    return manifest.step


class TestPicking:
    def test_main_is_the_pick_and_each_step_stays_at_its_tag(self, repo: Repo) -> None:
        five, ten = (push(a_store(), step) for step in (5, 10))

        pick(a_store(), five)

        assert picked_step(repo) == 5
        assert repo.titles() == [PICK, "step-000010", "step-000005", "initial commit"]
        assert repo.tags == {"step-000005": five.commit, "step-000010": ten.commit, "best": five.commit}
        assert repo.files("step-000010")[ADAPTER] == weights(10)

    def test_the_adapter_is_copied_within_the_hub(self, hub: LoopbackHub, repo: Repo) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        before = len(hub.requests)

        pick(elsewhere(five), five)

        moved = [r.path for r in hub.requests[before:] if "/lfs" in r.path or r.path.endswith(f"/{ADAPTER}")]
        assert moved == []
        assert picked_step(repo) == 5

    def test_a_hub_that_does_not_copy_gets_the_files(self, hub: LoopbackHub, repo: Repo) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        hub.faults.script("POST", "/commit/", [Fault.status(400)])

        pick(elsewhere(five), five)

        assert picked_step(repo) == 5

    def test_the_same_pick_again_is_no_commit(self, repo: Repo) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        pick(a_store(), five)
        before = repo.titles()

        pick(a_store(), five)

        assert repo.titles() == before

    def test_another_pick_takes_its_place(self, repo: Repo) -> None:
        five, ten = (push(a_store(), step) for step in (5, 10))
        pick(a_store(), five)

        pick(a_store(), ten)

        assert picked_step(repo) == 10

    def test_pages_that_are_refused_leave_main_as_it_is(self, repo: Repo) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        before = repo.commits()

        assert a_store().publish_pick(five, lambda *_: None) is None

        assert repo.commits() == before

    @pytest.mark.parametrize("fault", [Fault.cut_answer(), Fault.status(503), Fault.cut_request()])
    def test_a_commit_without_an_answer_is_made_once(self, hub: LoopbackHub, repo: Repo, fault: Fault) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        hub.faults.script("POST", "/commit/", [fault])

        pick(a_store(), five)

        assert repo.titles().count(PICK) == 1
        assert picked_step(repo) == 5

    def test_what_arrived_otherwise_than_it_was_sent_is_an_error(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        monkeypatch.setattr(Hub, "commit", lambda *_, **__: repo.branches["main"])

        with pytest.raises(HubError, match=rf"holds another {ADAPTER} at .{{12}} than was sent"):
            pick(a_store(), five)


def test_a_kill_at_any_request_is_made_up_for_by_picking_again(repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
    five, ten = (push(a_store(), step) for step in (5, 10))
    request, kills = Hub._request, 0
    for last in range(1, 30):
        left = [last]

        def dies(self: Hub, send: Any, left: list[int] = left) -> Any:
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            answer = request(self, send)
            if left[0] == 0:
                raise Killed
            return answer

        with monkeypatch.context() as patch:
            patch.setattr(Hub, "_request", dies)
            try:
                pick(a_store(), five)
            except Killed:
                kills += 1
            else:
                break
        pick(a_store(), five)
        assert picked_step(repo) == 5
        pick(a_store(), ten)
    # refs, read twice, tag, files, commit, read back: each was the last one once.
    assert kills >= 6


class TestTrainingThatGoesOn:
    def test_main_stays_the_pick(self, repo: Repo) -> None:
        training = a_store()
        five, _ = (push(training, step) for step in (5, 10))
        pick(a_store(), five)

        with pytest.raises(HubError) as overtaken:
            push(training, 15)
        fifteen = push(training, 15)
        push(training, 20)

        assert overtaken.value.transient  # the uploader tries again
        assert picked_step(repo) == 5
        assert repo.titles()[:4] == [PICK, "step-000020", PICK, "step-000015"]
        assert (repo.tags["step-000015"], repo.tags["best"]) == (fifteen.commit, five.commit)
        assert repo.files("step-000020")[ADAPTER] == weights(20)

    def test_a_pick_on_another_machine_counts_too(self, repo: Repo) -> None:
        five, ten = (push(a_store(), step) for step in (5, 10))
        pick(elsewhere(five, ten), five)

        push(a_store(), 15)

        assert picked_step(repo) == 5

    def test_without_a_pick_main_is_the_last_one(self, repo: Repo) -> None:
        for step in (5, 10):
            push(a_store(), step)

        assert repo.titles() == ["step-000010", "step-000005", "initial commit"]
        assert repo.files()[ADAPTER] == weights(10)

    def test_a_kill_before_the_pick_is_back_is_made_up_for(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        five, _ = (push(a_store(), step) for step in (5, 10))
        pick(a_store(), five)

        def die(*_: Any) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr("pricer.stores.hub_checkpoints.put_pick", die)
            with pytest.raises(Killed):
                push(a_store(), 15)
        push(a_store(), 15)  # it was not logged, so the uploader delivers it again

        assert picked_step(repo) == 5
        assert repo.titles()[:2] == [PICK, "step-000015"]
        assert [checkpoint.step for checkpoint in a_store().checkpoints()] == [5, 10, 15]
