"""What is particular to the Hub store: one confirmed commit and one tag each, whatever happens in between."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.stores import hub_checkpoints
from pricer.stores.checkpoints import PARTS, FolderStore, read_manifest, verify
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.hub_downloads import LARGEST_ADAPTER
from pricer.stores.known_repo import replace_known
from pricer.stores.outbox import Outbox
from pricer.stores.repo_scan import RepoScan
from tests.builders import Killed, a_checkpoint, a_saved_checkpoint
from tests.loopback_hub import Fault, LfsFile, LoopbackHub, Repo

REPO = "ann/prices"
ADAPTER = "adapter_model.safetensors"
CONFIG = "adapter_config.json"
LOG = Path("checkpoints.jsonl")


def a_store(hub: Hub | None = None) -> HubStore:
    """As a process that was just started has it."""
    Path("config.yaml").write_text("train: {}\n")
    Path("run.json").write_text("{}\n")
    return HubStore(hub or Hub(REPO, attempts=1), Path())


def elsewhere(*found: Checkpoint, tags: Mapping[str, str] | None = None) -> HubStore:
    """The same repository on another machine, which knows what it found there."""
    store = HubStore(Hub(REPO, attempts=1), Path("there"))
    replace_known(Path("there"), REPO, RepoScan(found, tags or {}, has_manifests=True))
    return store


def saved(step: int = 5, adapter: bytes = b"weights", folder: str = "out") -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return a_saved_checkpoint(Path(folder), step, adapter)[0]


def downloads(hub: LoopbackHub, name: str) -> int:
    return sum(request.method == "GET" and request.path.endswith(name) for request in hub.requests)


class TestPushing:
    def test_a_checkpoint_is_one_commit_with_its_tag_and_the_config_beside_it(self, repo: Repo) -> None:
        pushed = a_store().push(saved(), 5)

        assert repo.titles() == ["step-000005", "initial commit"]
        assert repo.tags == {"step-000005": repo.branches["main"]}
        assert (pushed.commit, pushed.folder) == (repo.branches["main"], "")
        assert repo.files() == {
            ".gitattributes": repo.files()[".gitattributes"],
            ADAPTER: b"weights",
            CONFIG: b"{}",
            "manifest.json": Path("out/manifest.json").read_bytes(),
            "config.yaml": b"train: {}\n",
            "run.json": b"{}\n",
        }

    def test_what_the_trainer_leaves_beside_an_adapter_is_not_pushed(self, repo: Repo) -> None:
        source = saved()
        (source / "training_args.bin").write_bytes(b"a pickle")
        (source / "optimizer.pt").write_bytes(b"a pickle")

        a_store().push(source, 5)

        assert sorted(repo.files()) == [
            ".gitattributes",
            CONFIG,
            ADAPTER,
            "config.yaml",
            "manifest.json",
            "run.json",
        ]
        assert sorted(path.name for path in Path("checkpoints/step-000005").iterdir()) == [
            CONFIG,
            ADAPTER,
            "manifest.json",
        ]

    def test_in_a_row_the_history_is_read_once(self, hub: LoopbackHub, repo: Repo) -> None:
        store = a_store()
        for step in (5, 10, 15):
            store.push(saved(step, f"weights of {step}".encode()), step)

        assert sum("/commits/" in request.path for request in hub.requests) == 1
        assert sum("/refs" in request.path for request in hub.requests) == 1

    def test_what_is_known_is_pushed_without_a_request(self, hub: LoopbackHub, repo: Repo) -> None:
        first = a_store().push(saved(), 5)
        before = len(hub.requests)

        again = a_store().push(saved(), 5)

        assert (again, again.commit) == (first, first.commit)
        assert len(hub.requests) == before

    def test_a_step_that_is_there_with_other_weights_stays_as_it_is(self, repo: Repo) -> None:
        first = a_store().push(saved(5, b"first"), 5)
        assert first.commit is not None

        with pytest.raises(CheckpointError) as raised:
            a_store().push(saved(5, b"second"), 5)

        assert raised.value.message == (
            f"{REPO} has another {ADAPTER} at its tag step-000005 ({first.commit[:12]}), which stays"
        )
        assert (repo.titles(), repo.tags) == (["step-000005", "initial commit"], {"step-000005": first.commit})
        assert FolderStore(Path()).checkpoints() == [first]

    def test_a_step_that_is_there_with_the_same_weights_is_not_pushed_again(self, repo: Repo) -> None:
        first = a_store().push(saved(), 5)
        LOG.unlink()  # another machine

        assert a_store().push(saved(), 5).commit == first.commit
        assert (repo.titles(), repo.tags) == (["step-000005", "initial commit"], {"step-000005": first.commit})

    def test_a_commit_of_another_run_with_the_same_title_is_not_taken_for_it(self, repo: Repo) -> None:
        other = repo.commit({"manifest.json": b"not a manifest"}, "step-000005").hash

        pushed = a_store().push(saved(), 5)

        assert pushed.commit == repo.branches["main"] != other
        assert repo.tags == {"step-000005": pushed.commit}


class TestWaiting:
    """What is in the outbox is a checkpoint, too."""

    def left(self, step: int, adapter: bytes = b"weights") -> Checkpoint:
        folder = saved(step, adapter)
        Outbox(Path("outbox")).put("checkpoint", step, [folder / name for name in PARTS])
        return read_manifest(folder)

    def test_it_is_listed_and_fetched_without_the_hub(self, hub: LoopbackHub, repo: Repo) -> None:
        delivered = a_store().push(saved(10), 10)
        requests = len(hub.requests)
        waiting = self.left(5)

        store = a_store()

        assert [(c, c.commit) for c in store.checkpoints()] == [(waiting, None), (delivered, delivered.commit)]
        assert (store.fetch(waiting) / ADAPTER).read_bytes() == b"weights"
        assert len(hub.requests) == requests

    def test_what_was_fetched_stays_when_it_is_delivered_meanwhile(self, repo: Repo) -> None:
        waiting = self.left(5)
        folder = a_store().fetch(waiting)
        (entry,) = Outbox(Path("outbox")).entries()

        a_store().push(entry.folder, 5)
        Outbox(Path("outbox")).drop(entry)

        assert (folder / ADAPTER).read_bytes() == b"weights"
        assert a_store().checkpoints() == [waiting]

    def test_one_that_is_delivered_while_it_is_fetched_is_found(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        waiting = self.left(5)
        (entry,) = Outbox(Path("outbox")).entries()

        def deliver_first(checkpoint: Checkpoint, folder: Path) -> None:
            a_store().push(folder, 5)
            Outbox(Path("outbox")).drop(entry)
            verify(checkpoint, folder)

        monkeypatch.setattr(hub_checkpoints, "verify", deliver_first)

        assert (a_store().fetch(waiting) / ADAPTER).read_bytes() == b"weights"

    def test_a_step_that_is_on_the_hub_is_the_one_on_the_hub(self, repo: Repo) -> None:
        delivered = a_store().push(saved(5, b"first"), 5)
        self.left(5, b"second")

        assert a_store().checkpoints() == [delivered]

    def test_a_damaged_one_is_named(self) -> None:
        waiting = self.left(5)
        (entry,) = Outbox(Path("outbox")).entries()
        (entry.folder / ADAPTER).unlink()
        (entry.folder / ADAPTER).write_bytes(b"other weights")

        with pytest.raises(CheckpointError, match=r"^step-000005 is not what its manifest says: outbox/000001"):
            a_store().fetch(waiting)
        (entry.folder / "manifest.json").unlink()
        assert a_store().checkpoints() == []

    def test_it_gets_a_tag_here_alone(self, hub: LoopbackHub, repo: Repo) -> None:
        waiting = self.left(5)

        a_store().tag(waiting, "best")

        assert a_store().tagged("best") == waiting
        assert (repo.tags, hub.requests) == ({}, [])

    def test_what_was_kept_before_there_was_a_repository_is_not_on_the_hub(self, repo: Repo) -> None:
        FolderStore(Path()).push(saved(5), 5)

        assert a_store().checkpoints() == []


class TestTwoRuns:
    """Two that begin at once both find the repository empty."""

    def store_of(self, run: str, facts: str | None = None) -> HubStore:
        Path(run).mkdir(exist_ok=True)
        Path(run, "run.json").write_text(json.dumps({"id": run}) if facts is None else facts)
        return HubStore(Hub(REPO, attempts=1), Path(run))

    def test_the_second_does_not_push_over_the_first(self, repo: Repo) -> None:
        self.store_of("first").push(saved(5, b"first"), 5)
        second = self.store_of("second")

        for _ in range(2):
            with pytest.raises(HubError) as raised:
                second.push(saved(5, b"second"), 5)

            assert raised.value.message == "ann/prices holds the checkpoints of another run (id first)"
            assert raised.value.hint == (
                "pricer train --resume --repo ann/prices, or another repository: --repo USER/NEW"
            )
            assert not raised.value.transient
        assert repo.titles() == ["step-000005", "initial commit"]
        assert second.checkpoints() == []

    def test_the_same_run_goes_on_after_a_restart(self, repo: Repo) -> None:
        for step in (5, 10):
            self.store_of("first").push(saved(step), step)

        assert repo.titles() == ["step-000010", "step-000005", "initial commit"]

    @pytest.mark.parametrize("facts", ["", "{}", "[]", '{"id": null}', "\ufeff", "[" * 100_000])
    def test_a_repository_that_does_not_say_whose_it_is_is_pushed_to(self, repo: Repo, facts: str) -> None:
        repo.commit({"run.json": facts.encode()})

        self.store_of("first").push(saved(5), 5)

        assert repo.titles()[0] == "step-000005"


class Liar(Hub):
    """A hub whose commits hold another file than was sent."""

    lie = ADAPTER

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        message: str,
        **how: Any,
    ) -> str:
        return super().commit({**files, self.lie: b"other"}, message, **how)


class TestConfirming:
    @pytest.mark.parametrize("name", [ADAPTER, CONFIG, "manifest.json"])
    def test_what_arrived_otherwise_than_it_was_sent_does_not_count(
        self, repo: Repo, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(Liar, "lie", name)
        store = a_store(Liar(REPO, attempts=1))

        with pytest.raises(HubError) as raised:
            store.push(saved(), 5)

        assert raised.value.message == (
            f"ann/prices holds another {name} at {repo.branches['main'][:12]} than was pushed as step-000005"
        )
        assert raised.value.transient
        assert (store.checkpoints(), repo.tags, LOG.exists()) == ([], {}, False)

    def test_what_cannot_be_read_back_does_not_count_yet(self, hub: LoopbackHub, repo: Repo) -> None:
        store = a_store()
        # A new store asks for no manifest, as there is neither tag nor title: the first is the confirmation.
        hub.faults.script("POST", "/paths-info/", [Fault.status(500)])

        with pytest.raises(HubError, match=r"^the Hub answers 500"):
            store.push(saved(), 5)
        assert (repo.tags, LOG.exists()) == ({}, False)

        pushed = a_store().push(saved(), 5)

        assert repo.titles() == ["step-000005", "initial commit"]
        assert repo.tags == {"step-000005": pushed.commit}


class TestInterruptions:
    @pytest.mark.parametrize("same_process", [True, False])
    def test_a_commit_whose_answer_was_lost_is_recognised(
        self, hub: LoopbackHub, repo: Repo, same_process: bool
    ) -> None:
        store = a_store()
        hub.faults.script("POST", "/commit/", [Fault.cut_answer()])
        with pytest.raises(HubError):
            store.push(saved(), 5)
        assert (repo.titles(), repo.tags, LOG.exists()) == (["step-000005", "initial commit"], {}, False)

        pushed = (store if same_process else a_store()).push(saved(), 5)

        assert repo.titles() == ["step-000005", "initial commit"]
        assert repo.tags == {"step-000005": repo.branches["main"]}
        assert FolderStore(Path()).checkpoints() == [pushed]

    @pytest.mark.parametrize("fault", [Fault.cut_request(), Fault.status(503), Fault.status(429, 0)])
    def test_a_commit_that_did_not_arrive_is_made(self, hub: LoopbackHub, repo: Repo, fault: Fault) -> None:
        store = a_store()
        hub.faults.script("POST", "/commit/", [fault])
        with pytest.raises(HubError):
            store.push(saved(), 5)
        assert repo.titles() == ["initial commit"]

        store.push(saved(), 5)

        assert repo.titles() == ["step-000005", "initial commit"]

    def test_a_kill_between_commit_and_tag_is_made_up_for(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        def kill(*arguments: object, **_: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(Hub, "tag", kill)
            with pytest.raises(Killed):
                a_store().push(saved(), 5)
        assert (repo.titles(), repo.tags, LOG.exists()) == (["step-000005", "initial commit"], {}, False)

        pushed = a_store().push(saved(), 5)

        assert repo.titles() == ["step-000005", "initial commit"]
        assert repo.tags == {"step-000005": pushed.commit}
        assert FolderStore(Path()).checkpoints() == [pushed]

    @pytest.mark.parametrize(("where", "dies_in"), [(FolderStore, "keep"), (hub_checkpoints, "append_lines")])
    def test_a_kill_between_tag_and_log_is_made_up_for(
        self, hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch, where: object, dies_in: str
    ) -> None:
        def kill(*arguments: object) -> None:
            raise Killed

        with monkeypatch.context() as patch:
            patch.setattr(where, dies_in, kill)
            with pytest.raises(Killed):
                a_store().push(saved(), 5)
        assert (repo.tags, LOG.exists()) == ({"step-000005": repo.branches["main"]}, False)
        commits = sum("/commit/" in request.path for request in hub.requests)

        pushed = a_store().push(saved(), 5)

        assert repo.titles() == ["step-000005", "initial commit"]
        assert sum("/commit/" in request.path for request in hub.requests) == commits == 1
        assert FolderStore(Path()).checkpoints() == [pushed]
        assert Path("checkpoints/step-000005", ADAPTER).read_bytes() == b"weights"

    def test_what_was_pushed_before_someone_else_went_on_is_recognised(self, repo: Repo) -> None:
        a_store().push(saved(), 5)
        LOG.unlink()
        repo.tags.clear()
        repo.commit({"README.md": b"edited by hand"}, "Update README.md")

        pushed = a_store().push(saved(), 5)

        assert repo.titles() == ["Update README.md", "step-000005", "initial commit"]
        assert repo.tags == {"step-000005": pushed.commit} == {"step-000005": repo.commits()[1].hash}

    def test_a_commit_of_someone_else_in_between_is_built_upon(self, repo: Repo) -> None:
        store = a_store()
        store.push(saved(5), 5)
        repo.commit({"README.md": b"edited by hand"}, "Update README.md")
        with pytest.raises(HubError, match="412") as raised:
            store.push(saved(10), 10)
        assert raised.value.transient

        store.push(saved(10), 10)

        assert repo.titles() == ["step-000010", "Update README.md", "step-000005", "initial commit"]
        assert repo.files()["README.md"] == b"edited by hand"
        assert [checkpoint.step for checkpoint in store.checkpoints()] == [5, 10]

    def test_a_repository_that_is_made_anew_is_pushed_to_as_it_is(self, hub: LoopbackHub, repo: Repo) -> None:
        store = a_store()
        store.push(saved(5), 5)
        repo.squash("main", "squashed by hand", "ann")

        with pytest.raises(HubError, match="412"):
            store.push(saved(10), 10)
        store.push(saved(10), 10)

        assert repo.titles() == ["step-000010", "squashed by hand"]


class TestFetching:
    def test_what_was_pushed_from_here_is_not_downloaded(self, hub: LoopbackHub, repo: Repo) -> None:
        store = a_store()
        pushed = store.push(saved(), 5)

        assert store.fetch(pushed) == Path("checkpoints/step-000005")
        assert downloads(hub, ADAPTER) == 0

    def test_another_machine_downloads_exactly_its_commit(self, hub: LoopbackHub, repo: Repo) -> None:
        first = a_store().push(saved(5, b"first"), 5)
        a_store().push(saved(10, b"second"), 10)
        repo.create_tag("moved-about", repo.branches["main"])

        folder = elsewhere(first).fetch(first)

        assert (folder / ADAPTER).read_bytes() == b"first"
        assert (folder / CONFIG).read_bytes() == b"{}"
        assert downloads(hub, f"/resolve/{first.commit}/{ADAPTER}") == 1

    def test_a_checkpoint_may_lie_in_a_folder_of_its_commit(self, repo: Repo) -> None:
        head = repo.commit({f"checkpoint-5/{ADAPTER}": b"weights", f"checkpoint-5/{CONFIG}": b"{}"}).hash
        checkpoint = a_checkpoint(5).at(head, "checkpoint-5")

        folder = elsewhere(checkpoint).fetch(checkpoint)

        assert (folder / ADAPTER).read_bytes() == b"weights"
        assert folder.name == "checkpoint-5"

    @pytest.mark.parametrize("missing", [ADAPTER, CONFIG])
    def test_a_commit_without_one_of_its_files_is_refused(self, repo: Repo, missing: str) -> None:
        head = repo.commit({name: b"{}" for name in (ADAPTER, CONFIG) if name != missing}).hash
        checkpoint = a_checkpoint(5).at(head)

        with pytest.raises(CheckpointError) as raised:
            elsewhere(checkpoint).fetch(checkpoint)

        assert raised.value.message == f"step-000005 of ann/prices ({head[:12]}) has no {missing}"

    def test_an_adapter_with_another_hash_is_refused_before_it_is_fetched(self, hub: LoopbackHub, repo: Repo) -> None:
        head = repo.commit({ADAPTER: b"other weights", CONFIG: b"{}"}).hash
        checkpoint = a_checkpoint(5).at(head)

        with pytest.raises(CheckpointError) as raised:
            elsewhere(checkpoint).fetch(checkpoint)

        assert raised.value.message == (
            f"step-000005 of ann/prices ({head[:12]}) is not what its manifest says: the Hub has sha256 "
            f"53959fa102f3…, the manifest {checkpoint.adapter_sha256[:12]}…"
        )
        assert downloads(hub, ADAPTER) == 0

    def test_a_hub_that_lies_about_the_hash_is_found_out(self, repo: Repo) -> None:
        stated = hashlib.sha256(b"weights").hexdigest()
        head = repo.commit_raw({ADAPTER: LfsFile(b"WEIGHTS", sha256=stated), CONFIG: b"{}"}).hash
        checkpoint = a_checkpoint(5).at(head)

        with pytest.raises(CheckpointError, match=r"^step-000005 is not what its manifest says: "):
            elsewhere(checkpoint).fetch(checkpoint)

    @pytest.mark.parametrize("inside_lfs", [True, False])
    def test_another_adapter_config_is_found_out(self, repo: Repo, inside_lfs: bool) -> None:
        config = b'{"lora_alpha": 1e6}'
        head = repo.commit_raw({ADAPTER: LfsFile(b"weights"), CONFIG: LfsFile(config) if inside_lfs else config}).hash
        checkpoint = a_checkpoint(5).at(head)

        with pytest.raises(CheckpointError, match=r"^step-000005 is not what its manifest says: .*adapter_config.json"):
            elsewhere(checkpoint).fetch(checkpoint)

    def test_an_adapter_outside_lfs_is_verified_once_it_is_here(self, repo: Repo) -> None:
        for content, is_right in ((b"weights", True), (b"WEIGHTS", False)):
            head = repo.commit_raw({ADAPTER: content, CONFIG: b"{}"}).hash
            checkpoint = a_checkpoint(5).at(head)
            store = elsewhere(checkpoint)

            if is_right:
                assert (store.fetch(checkpoint) / ADAPTER).read_bytes() == b"weights"
            else:
                with pytest.raises(CheckpointError, match="is not what its manifest says"):
                    store.fetch(checkpoint)

    def test_an_adapter_that_is_too_large_is_refused_before_it_is_fetched(self, hub: LoopbackHub, repo: Repo) -> None:
        head = repo.commit_raw({ADAPTER: LfsFile(b"weights", size=LARGEST_ADAPTER + 1), CONFIG: b"{}"}).hash
        checkpoint = a_checkpoint(5).at(head)

        with pytest.raises(HubError) as raised:
            elsewhere(checkpoint).fetch(checkpoint)

        assert raised.value.message == (
            f"ann/prices has a {ADAPTER} of 32,000,000,001 bytes, which is too large (at most 32,000,000,000)"
        )
        assert downloads(hub, ADAPTER) == 0

    def test_an_adapter_for_which_the_disk_has_no_room_is_refused_before_it_is_fetched(
        self, hub: LoopbackHub, repo: Repo, home: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed = a_store().push(saved(), 5)
        store = elsewhere(pushed)
        # Downloads go to the shared cache, which may be on another disk than the run is.
        free = {True: SimpleNamespace(free=6), False: SimpleNamespace(free=10**12)}
        monkeypatch.setattr("shutil.disk_usage", lambda folder: free[folder.is_relative_to(home)])

        with pytest.raises(HubError) as raised:
            store.fetch(pushed)

        place = home / "huggingface/hub"
        assert raised.value.message == f"{ADAPTER} of ann/prices takes 7 bytes, 6 are free on the disk with {place}"
        assert raised.value.hint == "make room, or set HF_HOME to a folder on another disk"
        assert downloads(hub, ADAPTER) == 0


class TestTags:
    def test_a_tag_is_here_and_on_the_hub(self, repo: Repo) -> None:
        store = a_store()
        five, ten = (store.push(saved(step), step) for step in (5, 10))

        store.tag(five, "best")
        store.tag(ten, "best")

        assert repo.tags == {"step-000005": five.commit, "step-000010": ten.commit, "best": ten.commit}
        assert a_store().tagged("best") == ten

    def test_a_tag_in_another_ones_repository_is_ours_alone(
        self, hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed = a_store().push(saved(), 5)
        monkeypatch.setenv("HF_TOKEN", hub.add_user("bob"))
        store = elsewhere(pushed)

        with pytest.raises(HubError, match="403"):
            store.tag(pushed, "best")

        assert store.tagged("best") == pushed
        assert "best" not in repo.tags

    def test_another_machine_takes_over_checkpoints_and_tags(self, repo: Repo) -> None:
        store = a_store()
        five, ten = (store.push(saved(step), step) for step in (5, 10))
        store.tag(ten, "best")

        found = elsewhere(five, ten, tags={**repo.tags, "of-another-commit": "0" * 40})

        assert [(c, c.commit) for c in found.checkpoints()] == [(five, five.commit), (ten, ten.commit)]
        assert found.tagged("best") == ten
        assert found.tagged("of-another-commit") is None
