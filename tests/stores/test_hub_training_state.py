"""Training states on the Hub: pushed, squashed, and fetched again without believing what they say of themselves."""

import json
import pickle
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pricer.errors import CheckpointError, HubError
from pricer.stores.checkpoints import write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.hub import Hub
from pricer.stores.hub_lease import HubLease, Owner
from pricer.stores.hub_states import fetch_state, push_state
from pricer.stores.runs import Run
from pricer.stores.training_states import STATE_FILES, TrainingStates
from tests.builders import a_checkpoint
from tests.loopback_hub import Fault, LfsFile, LoopbackHub, Repo

REPO = "ann/prices"
ADAPTER = "adapter_model.safetensors"
LORA = b'{"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": "all-linear"}'
# As training leaves them; scaler.pt is written with float16 only.
PICKLED = ("optimizer.pt", "scheduler.pt", "rng_state.pth")


def once() -> Hub:
    return Hub(REPO, attempts=1)


def a_state(step: int = 5, config: bytes = LORA) -> Path:
    """A training state with what goes beside it into the outbox."""
    folder = Path(f"state-{step}")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    (folder / ADAPTER).write_bytes(f"weights of {step}".encode())
    (folder / "adapter_config.json").write_bytes(config)
    for name in PICKLED:
        (folder / name).write_bytes(f"{name} of {step}".encode() * 50)
    (folder / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    checkpoint = replace(
        a_checkpoint(step, f"weights of {step}".encode()),
        adapter_config_sha256=sha256_of(folder / "adapter_config.json"),
    )
    write_manifest(folder, checkpoint)
    Run(Path("run")).training_states.mark_complete(folder)
    (folder / "config.yaml").write_text("train: {}\n")
    (folder / "metrics.jsonl").write_text('{"step": 1}\n' * step)
    return folder


def push(folder: Path, step: int, *, keep_all: bool, hub: Hub | None = None) -> None:
    """Push a state as a new process of the same run folder does: it first commits its lease."""
    lease = HubLease(once(), Owner("run", "folder", "pricer train --resume"), dict)
    lease.acquire()
    push_state(hub or once(), lease, folder, step, keep_all=keep_all)


def titles(repo: Repo) -> list[str]:
    """The titles of the commits with a state, the newest first."""
    return [commit.title for commit in repo.commits("state") if commit.title.startswith("state of ")]


def fetched(repo: Repo, folder: str = "there") -> tuple[Path, int]:
    return fetch_state(once(), repo.branches["state"], TrainingStates(Path(folder)))


def refused(repo: Repo) -> str:
    """Why it is not fetched; nothing may be left of it."""
    with pytest.raises(CheckpointError) as raised:
        fetched(repo)
    assert list(Path("there").glob("*")) == []
    return raised.value.message


def record(folder: Path, **changes: str) -> bytes:
    """The state's own record of what it consists of, with other entries in it."""
    files = json.loads((folder / "state.json").read_bytes())["files"]
    return json.dumps({"files": {**files, **changes}}).encode()


class TestPushing:
    def test_a_state_is_on_its_branch_and_nowhere_else(self, repo: Repo) -> None:
        main = repo.branches["main"]

        push(a_state(5), 5, keep_all=False)

        assert repo.titles("state") == ["state of step-000005"]
        assert {name for name in repo.files("state") if name != ".gitattributes"} == {
            *(set(STATE_FILES) - {"scaler.pt"}),
            "config.yaml",
            "metrics.jsonl",
            "lease.json",
        }
        assert (repo.branches["main"], repo.tags) == (main, {})

    def test_the_random_states_of_all_processes_come_back(self, repo: Repo) -> None:
        state = a_state(5)
        (state / "rng_state_1.pth").write_bytes(b"of the second process")
        Run(Path("run")).training_states.mark_complete(state)
        push(state, 5, keep_all=False)

        folder, _ = fetched(repo)

        assert (folder / "rng_state_1.pth").read_bytes() == b"of the second process"

    def test_five_states_take_the_room_of_one(self, repo: Repo) -> None:
        stored = []
        for step in (1, 2, 3, 4, 5):
            push(a_state(step), step, keep_all=False)
            stored.append(repo.stored_bytes())

        # Every state has one line of metrics more, of 12 bytes. Else they differ in digits only.
        assert [bytes_ - stored[0] for bytes_ in stored] == [0, 12, 24, 36, 48]
        assert repo.titles("state") == ["state of step-000005"]
        assert repo.files("state")["optimizer.pt"] == b"optimizer.pt of 5" * 50

    def test_all_are_kept_if_that_is_asked_for(self, repo: Repo) -> None:
        for step in (1, 2, 3):
            push(a_state(step), step, keep_all=True)

        history = {commit.title: repo.files(commit.hash) for commit in repo.commits("state")}
        assert titles(repo) == ["state of step-000003", "state of step-000002", "state of step-000001"]
        assert [history[title]["optimizer.pt"][:17] for title in titles(repo)] == [
            f"optimizer.pt of {step}".encode() for step in (3, 2, 1)
        ]

    @pytest.mark.parametrize("keep_all", [True, False])
    def test_the_same_one_twice_is_one(self, hub: LoopbackHub, repo: Repo, keep_all: bool) -> None:
        for _ in range(2):
            push(a_state(5), 5, keep_all=keep_all)

        # Two leases and one state.
        assert sum("/commit/" in request.path for request in hub.requests) == 2 + 1
        assert titles(repo) == ["state of step-000005"]

    def test_one_whose_answer_was_lost_is_recognised(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.faults.script("POST", "/commit/", [None, Fault.cut_answer()])  # the lease, the state
        with pytest.raises(HubError):
            push(a_state(5), 5, keep_all=True)

        push(a_state(5), 5, keep_all=True)

        assert titles(repo) == ["state of step-000005"]

    def test_one_whose_squash_failed_is_squashed_the_next_time(self, hub: LoopbackHub, repo: Repo) -> None:
        push(a_state(1), 1, keep_all=False)
        hub.faults.script("POST", "/super-squash/", [Fault.status(500)])
        with pytest.raises(HubError):
            push(a_state(2), 2, keep_all=False)

        push(a_state(2), 2, keep_all=False)

        assert repo.titles("state") == ["state of step-000002"]

    def test_a_hub_that_does_not_squash_gets_it_all_the_same(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.faults.script("POST", "/super-squash/", [Fault.status(404)])

        push(a_state(), 5, keep_all=False, hub=once())

        assert "optimizer.pt" in repo.files("state")

    def test_checkpoints_of_main_outlive_the_squash(self, repo: Repo) -> None:
        repo.commit({ADAPTER: b"a checkpoint"}, "step-000001")
        repo.create_tag("step-000001")
        for step in (1, 2):
            push(a_state(step), step, keep_all=False)

        assert repo.files("step-000001")[ADAPTER] == b"a checkpoint"
        assert repo.titles() == ["step-000001", "initial commit"]

    def test_what_arrived_otherwise_than_it_was_sent_does_not_count(
        self, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        opened = once()
        right = opened.commit
        monkeypatch.setattr(opened, "commit", lambda files, *a, **k: right({**files, "optimizer.pt": b"x"}, *a, **k))

        with pytest.raises(HubError) as raised:
            push(a_state(5), 5, hub=opened, keep_all=False)

        assert raised.value.message == "ann/prices holds another optimizer.pt on its branch state than was pushed"
        assert raised.value.transient


class TestFetching:
    def test_it_comes_back_byte_for_byte_without_what_is_beside_it(self, repo: Repo) -> None:
        state = a_state(5)
        push(state, 5, keep_all=False)

        folder, step = fetched(repo)

        assert (folder, step) == (Path("there/checkpoint-5"), 5)
        # The record is not among them: it names files that were not fetched. Whoever fetched makes a new one.
        beside = ("config.yaml", "metrics.jsonl", "state.json")
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == {
            path.name: path.read_bytes() for path in state.iterdir() if path.name not in beside
        }


class TestHostileStates:
    """Somebody else can write to the repository: all of it is bytes until it was compared."""

    def pushed(self, repo: Repo, changes: dict[str, Any], delete: tuple[str, ...] = ()) -> Repo:
        push(a_state(5), 5, keep_all=False)
        repo.commit_raw(changes, "changed", "state", delete)
        return repo

    @pytest.mark.parametrize("name", ["optimizer.pt", "rng_state.pth", "trainer_state.json", ADAPTER])
    def test_a_file_that_is_not_what_the_record_says_is_refused(self, repo: Repo, name: str) -> None:
        self.pushed(repo, {name: LfsFile(b"other")})

        assert refused(repo) == f"{name} of the training state in ann/prices is not what its record says"

    def test_a_hub_that_lies_about_a_hash_is_found_out(self, repo: Repo) -> None:
        stated = json.loads(record(a_state(5)))["files"]["optimizer.pt"]
        self.pushed(repo, {"optimizer.pt": LfsFile(b"x" * 850, sha256=stated)})

        assert refused(repo) == "optimizer.pt of the training state in ann/prices is not what its record says"

    def test_a_record_that_names_a_file_that_is_not_there_is_refused(self, repo: Repo) -> None:
        self.pushed(repo, {}, delete=("optimizer.pt",))

        assert refused(repo) == "the training state in ann/prices has no optimizer.pt"

    @pytest.mark.parametrize(
        "content",
        [
            None,
            b"",
            b"{}",
            b"[]",
            b"5",
            b'{"files": []}',
            b'{"files": {"optimizer.pt": 5}}',
            b'{"files": null}',
            b"\xff\xfe",
            b"[" * 100_000,
        ],
    )
    def test_a_record_that_is_none_is_refused(self, repo: Repo, content: bytes | None) -> None:
        if content is None:
            self.pushed(repo, {}, delete=("state.json",))
        else:
            self.pushed(repo, {"state.json": content})

        assert refused(repo) == "ann/prices has no training state that can be read on its branch state"

    def test_more_random_states_than_any_training_has_are_refused(self, hub: LoopbackHub, repo: Repo) -> None:
        names = [f"rng_state_{rank}.pth" for rank in range(1, 1025)]  # and that of process 0
        self.pushed(repo, {"state.json": record(a_state(5), **dict.fromkeys(names, "0" * 64))})

        assert refused(repo) == "the training state in ann/prices has 1,025 random states (at most 1,024)"
        assert not any("optimizer.pt" in request.path for request in hub.requests if request.method == "GET")

    @pytest.mark.parametrize("name", ["../x", "/etc/x", "a/b", "..", ".hidden", "", "a\n", "C:\\x", "é"])
    def test_a_record_that_names_a_path_is_refused(self, hub: LoopbackHub, repo: Repo, name: str) -> None:
        self.pushed(repo, {"state.json": record(a_state(5), **{name: "0" * 64})})

        assert refused(repo) == "ann/prices has no training state that can be read on its branch state"
        assert not any("optimizer.pt" in request.path for request in hub.requests if request.method == "GET")

    @pytest.mark.parametrize("name", ["training_args.bin", "evil.pkl", "pytorch_model.bin"])
    def test_a_file_of_another_name_is_never_fetched(self, hub: LoopbackHub, repo: Repo, name: str) -> None:
        evil = pickle.dumps(a_state)
        Path("evil").write_bytes(evil)
        self.pushed(repo, {name: LfsFile(evil), "state.json": record(a_state(5), **{name: sha256_of(Path("evil"))})})

        folder, _ = fetched(repo)

        assert not (folder / name).exists()
        assert not any(name in request.path for request in hub.requests if request.method == "GET")

    def test_a_state_that_does_not_say_what_it_is_is_refused(self, repo: Repo) -> None:
        self.pushed(repo, {}, delete=("manifest.json",))

        assert refused(repo) == "the training state in ann/prices has no manifest.json"

    def test_a_manifest_that_the_record_does_not_vouch_for_is_refused(self, repo: Repo) -> None:
        files = json.loads(record(a_state(5)))["files"]
        del files["manifest.json"]
        self.pushed(repo, {"state.json": json.dumps({"files": files}).encode()})

        assert refused(repo) == "the training state in ann/prices has no manifest.json"

    def with_manifest(self, repo: Repo, content: bytes) -> None:
        """A state whose record vouches for another manifest."""
        Path("manifest").write_bytes(content)
        vouching = record(a_state(5), **{"manifest.json": sha256_of(Path("manifest"))})
        self.pushed(repo, {"manifest.json": content, "state.json": vouching})

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"[]",
            b"{}",
            b'{"step": "5"}',
            b'{"step": true}',
            b'{"step": 0}',
            b'{"step": -5}',
            b'{"step": 5.0}',
            b'{"step": 1000000000000}',
            b'{"step": 1' + b"0" * 300 + b"}",
            b"[" * 100_000,
        ],
        ids=lambda content: content[:20].decode(),
    )
    def test_a_manifest_without_a_step_is_refused(self, repo: Repo, content: bytes) -> None:
        self.with_manifest(repo, content)

        assert refused(repo) == "the training state in ann/prices does not say its step"

    def test_a_manifest_of_other_weights_is_refused(self, repo: Repo) -> None:
        self.with_manifest(repo, json.dumps(a_checkpoint(5, b"other weights").to_json()).encode())

        assert refused(repo).startswith("step-000005 is not what its manifest says: ")

    @pytest.mark.parametrize(
        ("config", "reason"),
        [
            (b"{", "Expecting property name"),
            (b"{}", "peft_type is missing"),
            (LORA.replace(b"LORA", b"PROMPT_TUNING"), 'peft_type is "PROMPT_TUNING", only LORA is read'),
            (
                LORA.replace(b"}", b', "modules_to_save": ["lm_head"]}'),
                "modules_to_save is a list, which is not supported",
            ),
            (b"[" * 100_000, ""),
        ],
        ids=["torn", "empty", "not LoRA", "more than LoRA", "deep"],
    )
    def test_an_adapter_that_is_not_plain_lora_is_refused(self, repo: Repo, config: bytes, reason: str) -> None:
        push(a_state(5, config), 5, keep_all=False)

        message = refused(repo)

        assert message.startswith(f"adapter_config.json of the training state in ann/prices: {reason}")

    @pytest.mark.parametrize(
        ("name", "size", "limit"),
        [
            ("optimizer.pt", 96_000_000_001, "96,000,000,000"),
            (ADAPTER, 96_000_000_001, "96,000,000,000"),
            ("trainer_state.json", 500_000_001, "500,000,000"),
            ("state.json", 1_000_001, "1,000,000"),
            ("manifest.json", 1_000_001, "1,000,000"),
            ("rng_state.pth", 1_000_001, "1,000,000"),
        ],
    )
    def test_a_file_that_is_too_large_is_refused_before_it_is_fetched(
        self, hub: LoopbackHub, repo: Repo, name: str, size: int, limit: str
    ) -> None:
        self.pushed(repo, {name: LfsFile(b"small", size=size)})

        with pytest.raises(HubError) as raised:
            fetched(repo)

        assert raised.value.message == (
            f"ann/prices has a {name} of {size:,} bytes, which is too large (at most {limit})"
        )
        head = repo.branches["state"]
        assert not any(f"/resolve/{head}/{name}" in request.path for request in hub.requests)
        assert list(Path("there").glob("*")) == []

    def test_a_download_that_is_cut_leaves_nothing(self, hub: LoopbackHub, repo: Repo) -> None:
        push(a_state(5), 5, keep_all=False)
        hub.faults.script("HEAD", "/optimizer.pt", [Fault.status(425)])

        with pytest.raises(HubError):
            fetched(repo)

        assert list(Path("there").glob("*")) == []
        assert fetched(repo)[1] == 5
