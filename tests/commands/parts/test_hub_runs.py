"""Repositories as runs here: what is taken over from them, and that a half-way kill leaves nothing behind."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pricer.commands import train
from pricer.commands.parts import hub_resume as command
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.errors import CheckpointError, HubError, RunError
from pricer.stores.checkpoints import parse_manifest
from pricer.stores.files import read_lines, sha256_of
from pricer.stores.hub import Hub
from pricer.stores.runs import Run, find_run, runs_of
from pricer.stores.training_states import STATE_FILES
from tests.commands.conftest import Listener
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.repositories import ADAPTER, Cli, adapter_files, adopt, sha256

NOTHING_NEW = GivenConfig(None, ())
DEEP = b"[" * 100_000


def revisions(run: Run) -> list[str]:
    return [record["id"] for record in read_lines(run.folder / "checkpoints.jsonl")]


def put_state(repo: Repo, files: dict[str, bytes], record: dict[str, Any] | None = None) -> None:
    """Another state on the branch, with a record that fits it."""
    held = {name: content for name, content in repo.files("state").items() if name in STATE_FILES} | files
    hashes = {name: sha256(content) for name, content in held.items() if name != "state.json"}
    content = json.dumps(record if record is not None else {"files": hashes}).encode()
    repo.commit({**files, "state.json": content}, "state", branch="state")


class TestTakeOver:
    def test_training_goes_on_to_the_same_end_bit_for_bit(
        self, stopped: Repo, uninterrupted: Run, hub: LoopbackHub, tmp_path: Path
    ) -> None:
        listener = Listener()

        result = train.resume_repo("ann/stopped", None, listener)

        assert (result.run.name, listener.steps) == ("stopped", [5, 6])
        assert listener.notes[:2] == [
            "ann/stopped: 2 checkpoints, training state of step 4, now runs/stopped",
            "going on with stopped after step 4",
        ]
        assert revisions(result.run) == revisions(uninterrupted)
        ends = [sha256_of(r.folder / "checkpoints" / "step-000006" / ADAPTER) for r in (result.run, uninterrupted)]
        assert ends[0] == ends[1]
        assert [c.step for c in result.checkpoints] == [2, 4, 6]
        # And all of it is on the Hub again, for the next machine.
        assert sorted(stopped.tags) == ["step-000002", "step-000004", "step-000006"]
        assert {c.commit for c in result.checkpoints} == set(stopped.tags.values())

        # The log of training has no gap, and nothing twice.
        lines, whole = list(result.run.metrics()), list(uninterrupted.metrics())
        assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
        assert [line["step"] for line in lines if "val_mae" in line] == [2, 4, 6]
        for now, then in zip(lines, whole, strict=True):
            measured = ("tokens_per_second", "memory_used", "memory_total")
            assert {k: v for k, v in now.items() if k not in measured} == {
                k: v for k, v in then.items() if k not in measured
            }

    def test_the_run_is_whole_before_it_goes_on(self, stopped: Repo) -> None:
        run = adopt("ann/stopped")

        assert run.training_states.newest() == (Path("runs/stopped/state/checkpoint-4"), 4)
        assert (run.repo, run.facts()["finished"], "from_hub" in run.facts()) == ("ann/stopped", None, False)
        assert run.config().hub.repo == "ann/stopped"
        assert {path.name for path in (run.training_states.folder / "checkpoint-4").iterdir()} <= set(STATE_FILES)
        assert [c.step for c in run.store.checkpoints()] == [2, 4]

    def test_no_adapter_but_that_of_the_state_is_fetched(self, stopped: Repo, hub: LoopbackHub) -> None:
        adopt("ann/stopped")

        large = [r.path for r in hub.requests if r.method == "GET" and r.path.endswith((ADAPTER, ".pt", ".pth"))]
        assert not set(stopped.tags.values()) & {path.split("/")[4] for path in large}
        names = [path.rpartition("/")[2] for path in large]
        assert sorted(names) == [ADAPTER, "optimizer.pt", "rng_state.pth", "scheduler.pt"]

    def test_a_name_of_ones_own(self, stopped: Repo) -> None:
        assert adopt("ann/stopped", "mine").name == "mine"
        assert Path("runs/mine/run.json").exists()

    def test_a_name_that_cannot_name_a_run(self, stopped: Repo) -> None:
        with pytest.raises(RunError, match="cannot name a run"):
            adopt("ann/stopped", "../outside")

        assert not Path("runs").exists()

    def test_the_machine_that_trained_it_goes_on_with_its_own_run(
        self, stopped: Repo, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path / "trainer")

        run = adopt("ann/stopped")

        assert run.folder == Path("runs/quickstart")
        # It looks whether another machine was there meanwhile, and fetches nothing of what it has.
        read = {r.path.rpartition("/")[2] for r in hub.requests if r.method == "GET"}
        assert read == {"refs", "run.json", "lease.json", "manifest.json"}

    def test_a_machine_that_another_one_has_overtaken_takes_over_from_it(
        self, stopped: Repo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path / "trainer")
        own = Run(Path("runs/quickstart"))
        shutil.rmtree(own.training_states.folder)
        (own.folder / "metrics.jsonl").write_text("")
        own.outbox.put("checkpoint", 2, [])
        commits = (own.folder / "outbox" / "commits.jsonl").read_text()

        run = adopt("ann/stopped")

        # Its uploads are out of date, but the Hub still counts its commits.
        assert run.outbox.entries() == []
        assert (own.folder / "outbox" / "commits.jsonl").read_text().startswith(commits)
        assert len(commits.splitlines()) > 1
        assert run.folder == own.folder
        assert run.training_states.newest() == (Path("runs/quickstart/state/checkpoint-4"), 4)
        assert [line["step"] for line in run.metrics() if "loss" in line] == [1, 2, 3, 4]

    def test_without_the_hub_the_machine_that_trained_it_goes_on(
        self, stopped: Repo, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path / "trainer")
        monkeypatch.setattr("pricer.stores.hub.pause", lambda *_: 0.0)
        hub.faults.random(1.0, seed=0, kinds=[Fault.status(503)], spare="no path has this")

        assert adopt("ann/stopped").folder == Path("runs/quickstart")

    def test_a_repository_that_was_only_evaluated_here_is_taken_over_beside(self, stopped: Repo) -> None:
        opened = open_hub_run("ann/stopped", NOTHING_NEW, print)

        run = adopt("ann/stopped")

        assert (opened.name, run.name) == ("ann--stopped", "stopped")
        assert adopt("ann/stopped").name == "stopped"
        # From now on the training is what the repository means here.
        assert open_hub_run("ann/stopped", NOTHING_NEW, print).name == "stopped"

    def test_a_run_that_was_only_evaluated_is_not_trained(self, stopped: Repo) -> None:
        open_hub_run("ann/stopped", NOTHING_NEW, print)

        with pytest.raises(RunError) as caught:
            train.resume(None, Listener())

        assert caught.value.message == "ann--stopped is a repository that was evaluated here, not a training"
        assert caught.value.hint == "pricer train --resume --repo ann/stopped"

    def test_a_finished_training_is_refused(self, pushed: Repo) -> None:
        result = Cli("train", "--resume", "--repo", "ann/prices")

        assert result.err.splitlines() == [
            "error: the training in ann/prices is finished, there is nothing to go on with",
            " hint: pricer eval --repo ann/prices --all-checkpoints",
        ]
        assert (result.code, runs_of("ann/prices")) == (1, [])

    def test_a_run_that_kept_no_state_is_refused(self, stopped: Repo) -> None:
        del stopped.branches["state"]
        config = stopped.files("step-000004")["config.yaml"].replace(b"state: latest", b"state: none")
        stopped.tags["step-000004"] = stopped.commit({"config.yaml": config}, "step-000004").hash

        result = Cli("train", "--resume", "--repo", "ann/stopped")

        assert result.err.splitlines() == [
            "error: ann/stopped has no training state (hub.state: none), so its training cannot go on",
            " hint: pricer eval --repo ann/stopped --all-checkpoints",
        ]
        assert not Path("runs").exists()

    @pytest.mark.slow
    def test_a_run_whose_state_never_arrived_begins_again_and_pushes_nothing_twice(self, stopped: Repo) -> None:
        del stopped.branches["state"]
        tags, commits = dict(stopped.tags), stopped.commits()
        listener = Listener()

        result = train.resume_repo("ann/stopped", None, listener)

        assert listener.notes[0] == "ann/stopped has no training state yet: training begins again, now runs/stopped"
        assert listener.steps == [1, 2, 3, 4, 5, 6]
        assert [c.step for c in result.checkpoints] == [2, 4, 6]
        assert stopped.tags.items() >= tags.items()
        assert stopped.titles() == [
            "training finished",
            "step-000006",
            *(c.title for c in commits),
        ]

    def test_another_trainers_repository_is_refused(self, hub: LoopbackHub) -> None:
        hub.create("ann/folders").commit(adapter_files(b"weights"), "Training in progress, step 2")

        result = Cli("train", "--resume", "--repo", "ann/folders")

        assert result.err.splitlines() == ["error: ann/folders was not pushed by pricer train, so it cannot be resumed"]
        assert not Path("runs").exists()

    def test_a_stop_at_any_download_leaves_no_run_and_the_next_attempt_is_whole(
        self, stopped: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        download = Hub.download

        def stopping_at(limit: int) -> Callable[..., Path]:
            left = iter(range(limit, 0, -1))

            def downloads(*arguments: Any, **named: Any) -> Path:
                if next(left) == 1:
                    raise SystemError("killed")
                return download(*arguments, **named)

            return downloads

        # Looking: run.json of main, config and facts, run.json of main and the lease. Then the same with the lease
        # held, two manifests, the state's record, manifest and seven files, and the log.
        for limit in range(1, 1 + (3 + 2) * 2 + 2 + 2 + 7 + 1):
            monkeypatch.setattr(Hub, "download", stopping_at(limit))
            with pytest.raises(SystemError):
                adopt("ann/stopped")
            assert runs_of("ann/stopped") == []
            with pytest.raises(RunError, match="there is no run here yet"):
                find_run(None)

        monkeypatch.setattr(Hub, "download", download)
        assert adopt("ann/stopped").training_states.newest() == (
            Path("runs/stopped/state/checkpoint-4"),
            4,
        )
        assert list(Path("runs").rglob(".*")) == []

    def test_a_kill_before_the_facts_are_written_leaves_no_run(
        self, stopped: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(path: Path, _: object) -> None:
            if path.name == "run.json":
                raise SystemError("killed")

        with monkeypatch.context() as patch:
            patch.setattr(command, "write_json", killed)
            with pytest.raises(SystemError):
                adopt("ann/stopped")

        assert runs_of("ann/stopped") == []
        assert adopt("ann/stopped").name == "stopped"


class TestBadStates:
    """What is on the branch `state` is checked before anything here looks like a run."""

    def fails(self, problem: str) -> None:
        with pytest.raises((CheckpointError, HubError, RunError)) as caught:
            adopt("ann/stopped")
        assert caught.value.message.startswith(problem), caught.value.message
        assert "\n" not in caught.value.message
        with pytest.raises(RunError, match="there is no run here yet"):
            find_run(None)

    def test_a_record_that_cannot_be_read(self, stopped: Repo) -> None:
        stopped.commit({"state.json": DEEP}, "x", branch="state")

        self.fails("ann/stopped has no training state that can be read on its branch state")

    @pytest.mark.parametrize("state", [b"{}", b'{"global_step": "4"}', DEEP])
    def test_a_trainer_state_that_cannot_be_read(self, stopped: Repo, state: bytes) -> None:
        put_state(stopped, {"trainer_state.json": state})

        self.fails("the training state in ann/stopped has no trainer_state.json that can be read")

    def test_a_trainer_state_of_another_step(self, stopped: Repo) -> None:
        state = {**json.loads(stopped.files("state")["trainer_state.json"]), "global_step": 5}
        put_state(stopped, {"trainer_state.json": json.dumps(state).encode()})

        self.fails("the training state in ann/stopped has the adapter of step 4, but its trainer is at another step")


class TestFacts:
    """What run.json of a repository may tell this machine."""

    def test_only_what_is_known_and_of_its_kind_is_taken(self, stopped: Repo) -> None:
        record = json.loads(stopped.files("state")["run.json"])
        extra = {"finished": "2000", "from_hub": True, "repo": "eve/other", "seed": "42", "items": {"train": "many"}}
        extra["defaults"] = {**record["defaults"], "train.epochs": {"value": [], "reason": "x"}, "x": 3}
        stopped.commit({"run.json": json.dumps({**record, **extra}).encode()}, "x", branch="state")

        facts = adopt("ann/stopped").facts()

        assert (facts["repo"], facts["finished"]) == ("ann/stopped", None)
        assert not {"from_hub", "seed", "items", "device", "git_commit"} & facts.keys()
        assert facts["data_fingerprint"] == record["data_fingerprint"]
        assert facts["defaults"] == record["defaults"] != {}

    @pytest.mark.parametrize("content", [b"[]", DEEP])
    def test_facts_that_cannot_be_read(self, stopped: Repo, content: bytes) -> None:
        stopped.commit({"run.json": content}, "x", branch="state")

        with pytest.raises(RunError, match=r"run.json of ann/stopped cannot be read"):
            adopt("ann/stopped")

    def test_a_config_that_pushes_elsewhere_does_not(self, stopped: Repo) -> None:
        config = stopped.files("state")["config.yaml"].replace(b"repo: ann/stopped", b"repo: eve/other")
        assert b"eve/other" in config
        stopped.commit({"config.yaml": config}, "x", branch="state")

        assert adopt("ann/stopped").config().hub.repo == "ann/stopped"


class TestAttach:
    def test_a_second_look_keeps_the_config_and_sees_new_checkpoints(self, pushed: Repo) -> None:
        newest = pushed.tags.pop("step-000006")
        first = open_hub_run("ann/prices", NOTHING_NEW, print)
        config = (first.folder / "config.yaml").read_text()
        assert [c.step for c in first.store.checkpoints()] == [2, 4]
        pushed.tags["step-000006"] = newest

        second = open_hub_run("ann/prices", NOTHING_NEW, print)

        assert [c.step for c in second.store.checkpoints()] == [2, 4, 6]
        assert (second.folder / "config.yaml").read_text() == config

    def test_a_checkpoint_that_is_gone_is_gone_here_too(self, pushed: Repo) -> None:
        open_hub_run("ann/prices", NOTHING_NEW, print)
        del pushed.tags["step-000006"]

        assert [c.step for c in open_hub_run("ann/prices", NOTHING_NEW, print).store.checkpoints()] == [2, 4]

    def test_overrides_change_the_repositorys_own_config(self, pushed: Repo) -> None:
        run = open_hub_run("ann/prices", GivenConfig(None, ["eval.batch_tokens=64"]), print)

        assert (run.config().eval.batch_tokens, run.config().data.train_limit) == (64, 48)

    def test_the_facts_are_the_newest_checkpoints(self, pushed: Repo, uninterrupted: Run) -> None:
        facts = open_hub_run("ann/prices", NOTHING_NEW, print).facts()

        own = uninterrupted.facts()
        taken = {name: facts[name] for name in facts if name not in ("repo", "from_hub", "started", "finished")}
        assert taken == {name: own[name] for name in taken}
        assert {"seed", "precision", "data_fingerprint", "train_median", "versions", "items"} <= taken.keys()
        assert (facts["from_hub"], facts["finished"]) == (True, None)

    def test_a_config_that_cannot_be_read_is_named_by_its_repository(self, pushed: Repo) -> None:
        config = pushed.files()["config.yaml"] + b"extra: {}\n"
        manifest = parse_manifest(pushed.files()["manifest.json"])
        commit = pushed.commit({"config.yaml": config}, manifest.name)
        pushed.tags[manifest.name] = commit.hash

        result = Cli("eval", "--repo", "ann/prices")

        line = config.count(b"\n")
        assert result.err.splitlines()[0] == (f"error: extra is not a section (config.yaml of ann/prices, line {line})")
        assert not Path("runs/ann--prices/run.json").exists()
