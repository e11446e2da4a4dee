"""`--repo` asks the Hub: tags that moved or went, a pick made elsewhere, and what the cache has without the network."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import snapshot_download

from pricer.commands import train
from pricer.stores.runs import Run
from tests.commands.conftest import Listener
from tests.commands.test_repositories import mine as mine  # noqa: PLC0414 (fixtures)
from tests.commands.test_repositories import on as on  # noqa: PLC0414
from tests.commands.test_repositories import steps
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.loopback_hub.fixtures import connect
from tests.repositories import ADAPTER, Cli, adapter_files, put_base

Go = Callable[[str], Path]
ASK = ("predict", "A red lamp", "--repo", "ann/prices")


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, hub: LoopbackHub) -> Callable[[], int]:
    """Switch the Hub off for this process. Returns the number of requests until then."""

    def switch_off() -> int:
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
        return len(hub.requests)

    return switch_off


def asked() -> tuple[str, list[str]]:
    """The name of the checkpoint that `pricer predict` asked, and the notes."""
    result = Cli(*ASK)
    assert result.code == 0, result.err
    *notes, last = result.err.splitlines()
    return last.partition(", ")[2].partition(" of ")[0], notes


@pytest.mark.usefixtures("scorer")
class TestALocalRun:
    """On the machine that trained it, the folder of the run is used, with what the Hub has now."""

    def test_the_best_is_the_one_that_the_hub_has(self, pushed: Repo, on: Go) -> None:
        on("trainer")
        pushed.create_tag("best", pushed.tags["step-000002"])

        name, notes = asked()

        assert name == "step-000002"
        assert not [note for note in notes if "no best checkpoint" in note]
        assert json.loads((Path("runs/quickstart/checkpoints") / "tags.json").read_text()).keys() == {"best"}

    def test_a_pick_that_moved_on_the_hub_moves_here(self, pushed: Repo, on: Go) -> None:
        on("trainer")
        pushed.create_tag("best", pushed.tags["step-000002"])
        asked()
        pushed.tags["best"] = pushed.tags["step-000004"]

        name, notes = asked()

        assert name == "step-000004"
        assert "step-000004 is best now, as in ann/prices; it was step-000002" in notes

    def test_a_pick_that_waits_stays(self, pushed: Repo, on: Go) -> None:
        on("trainer")
        run = Run(Path("runs/quickstart"))
        (run.folder / "checkpoints" / "tags.json").write_text(json.dumps({"best": run.store.checkpoints()[1].id}))

        name, notes = asked()

        assert name == "step-000004"
        assert "ann/prices has no tag best: step-000004 stays picked here" in notes

    def test_checkpoints_that_another_machine_pushed_are_scored(self, pushed: Repo, on: Go) -> None:
        on("trainer")
        log = Path("runs/quickstart/checkpoints.jsonl")
        log.write_text("".join(log.read_text().splitlines(keepends=True)[:2]))
        shutil.rmtree("runs/quickstart/checkpoints/step-000006")

        answer = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()

        assert (answer["run"], steps(answer)) == ("quickstart", [2, 4, 6])

    def test_a_tag_that_is_gone_blocks_nothing(self, pushed: Repo, on: Go) -> None:
        on("trainer")
        del pushed.tags["step-000004"]

        result = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")

        assert steps(result.json()) == [2, 4, 6]
        assert "step-000004: no tag in ann/prices that can be used, only known here" in result.err.splitlines()

    def test_its_config_stays(self, pushed: Repo, on: Go) -> None:
        on("trainer")

        refused = Cli("eval", "--repo", "ann/prices", "--set", "data.val_limit=5")

        assert refused.err.splitlines() == [
            "error: quickstart was trained here and has its own config",
            " hint: --run quickstart",
        ]

    def test_a_repository_that_is_gone_is_an_error_that_names_the_run(
        self, pushed: Repo, hub: LoopbackHub, on: Go
    ) -> None:
        on("trainer")
        hub.faults.script("GET", "/refs", [Fault.status(404)])

        result = Cli(*ASK)

        assert (result.code, result.err.splitlines()[-1].endswith("what is here: --run quickstart")) == (1, True)

    def test_another_run_in_its_repository_is_refused(self, pushed: Repo, on: Go) -> None:
        on("trainer")
        facts = {**json.loads(pushed.files()["run.json"]), "id": "another"}
        manifest = {**json.loads(pushed.files()["manifest.json"]), "epoch": 7.0}
        del manifest["id"]
        files = {"run.json": json.dumps(facts).encode(), "manifest.json": json.dumps(manifest).encode()}
        pushed.tags["step-000006"] = pushed.commit(files, "step-000006").hash

        result = Cli(*ASK)

        assert result.err.splitlines() == [
            "error: ann/prices holds another run than quickstart, which was trained here with that repository",
            " hint: --run quickstart; to score what ann/prices holds, start pricer in another folder",
        ]

    def test_without_the_network_it_is_what_is_here(
        self, pushed: Repo, hub: LoopbackHub, on: Go, offline: Callable[[], int]
    ) -> None:
        on("trainer")
        before = offline()

        name, notes = asked()

        assert (name, len(hub.requests)) == ("step-000006", before)
        assert "the Hub is switched off (HF_HUB_OFFLINE): ann/prices as quickstart knows it" in notes


@pytest.mark.usefixtures("scorer")
class TestTagsThatSomebodyChanged:
    """On a machine that only scores, one tag that cannot be used costs that checkpoint alone."""

    def test_a_moved_tag_is_named_and_the_others_are_scored_and_picked(self, pushed: Repo) -> None:
        pushed.tags["step-000004"] = pushed.tags["step-000002"]

        scored = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")
        picked = Cli("pick", "--repo", "ann/prices", "--json")

        note = "ann/prices at its tag step-000004 holds step-000002: left out (the tag was moved: put it back)"
        assert steps(scored.json()) == [2, 6]
        assert picked.json()["candidate"]["step"] in (2, 6)
        assert (note in scored.err.splitlines(), note in picked.err.splitlines()) == (True, True)

    def test_a_tag_that_went_between_two_looks_is_named(self, pushed: Repo) -> None:
        Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        del pushed.tags["step-000004"]

        scored = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")
        again = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")

        note = "step-000004: in ann/prices at the last look, not any more: left out"
        assert (steps(scored.json()), note in scored.err.splitlines()) == ([2, 6], True)
        assert (steps(again.json()), note in again.err.splitlines()) == ([2, 6], False)

    def test_without_any_tag_the_commits_are_scored(self, pushed: Repo) -> None:
        pushed.tags.clear()

        result = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")

        assert steps(result.json()) == [2, 4, 6]
        assert result.err.startswith("ann/prices has no tag step-… that can be used: its commits with such a title")

    def test_a_run_without_a_checkpoint_is_not_called_empty(self, hub: LoopbackHub) -> None:
        hub.create("ann/new").commit({"run.json": b"{}", "config.yaml": b"{}"}, "start")

        assert Cli("eval", "--repo", "ann/new").err.splitlines() == [
            "error: the run in ann/new has no checkpoint yet",
            " hint: pricer train --resume --repo ann/new",
        ]

    def test_ones_own_pick_in_anothers_repository_is_not_undone(
        self, pushed: Repo, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pushed.private = False
        pushed.create_tag("best", pushed.tags["step-000002"])
        connect(hub, monkeypatch, hub.add_user("bob"))
        scored = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        pick = Cli("pick", "--repo", "ann/prices", "--json").json()["candidate"]["name"]
        assert pick != "step-000002", scored

        name, notes = asked()

        assert name == pick
        assert f"ann/prices still has step-000002 as best: {pick} stays picked here" in notes

    def test_a_tag_best_at_no_checkpoint_is_left_out(self, pushed: Repo) -> None:
        pushed.create_tag("best", pushed.commits()[-1].hash)

        name, notes = asked()

        assert name == "step-000006"
        assert "the tag best of ann/prices is at a commit with no checkpoint: no checkpoint is picked" in notes

    def test_pick_goes_on_without_the_hub(self, pushed: Repo, offline: Callable[[], int]) -> None:
        Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        offline()

        result = Cli("pick", "--repo", "ann/prices")

        assert result.err.splitlines()[-1].startswith(" hint: unset HF_HUB_OFFLINE")
        assert (result.code, Path("runs/ann--prices/selection.json").exists()) == (1, True)


def test_training_goes_on_beside_a_tag_that_was_moved(stopped: Repo) -> None:
    stopped.tags["step-000002"] = stopped.tags["step-000004"]
    listener = Listener()

    result = train.resume_repo("ann/stopped", None, listener)

    assert [c.step for c in result.checkpoints] == [4, 6]
    note = "ann/stopped at its tag step-000002 holds step-000004: left out (the tag was moved: put it back)"
    assert note in listener.notes


@pytest.mark.usefixtures("scorer")
class TestWithoutTheNetwork:
    def test_the_last_look_from_this_machine_is_used(
        self, pushed: Repo, hub: LoopbackHub, on: Go, offline: Callable[[], int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        folder = on("scorer")
        first = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        del pushed.tags["step-000006"]
        before = offline()
        (folder / "elsewhere").mkdir()
        monkeypatch.chdir(folder / "elsewhere")

        result = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")

        assert result.json()["evaluations"] == first["evaluations"]
        assert result.err.startswith("the Hub is switched off (HF_HUB_OFFLINE): ann/prices as of 20")
        assert len(hub.requests) == before

    def test_what_hf_download_fetched_is_used(
        self, pushed: Repo, hub: LoopbackHub, on: Go, offline: Callable[[], int]
    ) -> None:
        on("scorer")
        for revision in ("main", "step-000002"):
            snapshot_download("ann/prices", revision=revision)
        before = offline()

        result = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")

        assert steps(result.json()) == [2, 6]
        assert result.err.startswith("the Hub is switched off (HF_HUB_OFFLINE): ann/prices as downloaded until 20")
        assert len(hub.requests) == before

    def test_an_adapter_that_was_not_downloaded_is_named(
        self, pushed: Repo, on: Go, offline: Callable[[], int]
    ) -> None:
        on("scorer")
        Cli("eval", "--repo", "ann/prices", "--checkpoint", "2", "--json").json()
        offline()

        result = Cli("eval", "--repo", "ann/prices", "--checkpoint", "4")

        commit = pushed.tags["step-000004"]
        assert result.err.splitlines()[-2:] == [
            f"error: {ADAPTER} of ann/prices ({commit[:12]}) is not in the cache, and the Hub is switched off "
            "(HF_HUB_OFFLINE)",
            " hint: unset HF_HUB_OFFLINE",
        ]

    def test_a_repository_that_was_never_downloaded(self, pushed: Repo, offline: Callable[[], int]) -> None:
        offline()

        assert Cli(*ASK).err.splitlines() == [
            "error: ann/prices was not downloaded to this machine, and the Hub is switched off (HF_HUB_OFFLINE)",
            " hint: unset HF_HUB_OFFLINE, or run `hf download ann/prices` first",
        ]
        assert not Path("runs").exists()

    def test_another_trainers_adapter_and_its_base_come_from_the_cache(
        self, hub: LoopbackHub, mine: str, on: Go, offline: Callable[[], int]
    ) -> None:
        on("scorer")
        put_base(hub)
        hub.create("ann/single").commit(adapter_files(b"weights"), "Upload model trained with Unsloth")
        snapshot_download("ann/single")
        snapshot_download("acme/base")
        before = offline()

        result = Cli("eval", "--repo", "ann/single", "--config", mine, "--json")

        assert (steps(result.json()), len(hub.requests)) == ([0], before)
        assert "ann/single names no step: the adapter in main is scored as step 0" in result.err.splitlines()
