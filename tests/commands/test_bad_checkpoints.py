"""One bad checkpoint costs the others nothing: it is named with the reason, they are scored, ranked and picked from."""

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pricer.commands.parts.baselines import BASELINES
from pricer.core.checkpoints import Checkpoint
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, MANIFEST, read_manifest, write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.runs import Run
from tests.commands.sessions import FakeScorer
from tests.data.item_files import jsonl
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.repositories import Cli

Damage = Callable[[Path], object]


def change_tensors(folder: Path, change: Callable[[torch.Tensor], torch.Tensor]) -> None:
    save_file({name: change(tensor) for name, tensor in load_file(folder / ADAPTER).items()}, folder / ADAPTER)


def change_config(folder: Path, **settings: Any) -> None:
    record = json.loads((folder / ADAPTER_CONFIG).read_text())
    (folder / ADAPTER_CONFIG).write_text(json.dumps({**record, **settings}))


def truncate(folder: Path) -> None:
    (folder / ADAPTER).write_bytes((folder / ADAPTER).read_bytes()[:-100])


# Files that were saved so: manifest and log agree with them.
SAVED: dict[str, tuple[Damage, str]] = {
    "NaN weights": (lambda f: change_tensors(f, lambda t: t * torch.nan), "has weights that are not numbers"),
    "infinite weights": (lambda f: change_tensors(f, lambda t: t / 0), "has weights that are not numbers"),
    "a truncated adapter": (truncate, "cannot be read: "),
    "no tensors": (lambda f: save_file({}, f / ADAPTER), "does not fit the base: "),
    "another shape": (lambda f: change_tensors(f, lambda t: t[:1, :1].contiguous()), "has shape [1, 1], not "),
    "other layers": (lambda f: change_config(f, target_modules=["nowhere"]), "none of its target_modules is there"),
    "another kind": (lambda f: change_config(f, peft_type="IA3"), 'peft_type is "IA3", only LORA is read'),
    "a config that is no JSON": (lambda f: (f / ADAPTER_CONFIG).write_text("{"), "no adapter_config.json that can be"),
}
# Files that have been changed or lost since.
LOST: dict[str, tuple[Damage, str]] = {
    "a truncated file": (truncate, "is not what its manifest says"),
    "no adapter": (lambda f: (f / ADAPTER).unlink(), f"step-000004 has no {ADAPTER}"),
    "no config": (lambda f: (f / ADAPTER_CONFIG).unlink(), f"step-000004 has no {ADAPTER_CONFIG}"),
    "another config": (lambda f: change_config(f, lora_alpha=1), "is not what its manifest says"),
    "no manifest": (lambda f: (f / MANIFEST).unlink(), "there is no checkpoint in"),
    "a damaged manifest": (lambda f: (f / MANIFEST).write_text('{"step":'), "is not a manifest: not a JSON object"),
    "another checkpoint": (lambda f: shutil.copy(f.parent / "step-000002" / MANIFEST, f), "holds "),
    "no folder": (shutil.rmtree, "there is no checkpoint in"),
}


def save_anew(run: Run, step: int = 4, **changes: Any) -> Checkpoint:
    """Let manifest and log say what is in the folder of a step now."""
    folder = run.folder / "checkpoints" / f"step-{step:06d}"
    hashes: dict[str, Any] = {
        "adapter_sha256": sha256_of(folder / ADAPTER),
        "adapter_config_sha256": sha256_of(folder / ADAPTER_CONFIG),
    }
    checkpoint = replace(read_manifest(folder), **hashes, **changes)
    write_manifest(folder, checkpoint)
    log = run.folder / "checkpoints.jsonl"
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    lines = [checkpoint.to_json() if line["step"] == step else line for line in lines]
    log.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    return checkpoint


def evaluated(*options: str) -> tuple[list[str], list[dict[str, Any]], str]:
    """The checkpoints that were scored, what is said of the others, and the notes."""
    done = Cli("eval", "--all-checkpoints", "--limit", "4", "--json", *options)
    answer = done.json()
    scored = [e["candidate"]["name"] for e in answer["evaluations"] if e["candidate"]["step"] is not None]
    return scored, answer["failed"], done.err


def not_loaded(*_: object) -> None:
    pytest.fail("the base was loaded")


@pytest.fixture
def one_baseline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.commands.parts.baselines.BASELINES", dict([*BASELINES.items()][:1]))


@pytest.mark.usefixtures("one_baseline")
class TestRealAdapters:
    @pytest.mark.parametrize("kind", SAVED)
    def test_an_adapter_that_was_saved_so_is_named_and_not_tried_again(
        self, kind: str, trained: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        damage, reason = SAVED[kind]
        damage(trained / "checkpoints" / "step-000004")
        save_anew(Run(trained))

        scored, failed, notes = evaluated()

        assert scored == ["step-000002", "step-000006"]
        assert [one["name"] for one in failed] == ["step-000004"]
        assert reason in failed[0]["reason"]
        assert f"step-000004 cannot be scored: {failed[0]['reason']}" in notes.splitlines()

        monkeypatch.setattr("pricer.commands.parts.opening.load_scorer", not_loaded)
        assert evaluated()[:2] == (scored, failed)
        assert json.loads(Cli("pick", "--json").out)["failed"][0]["name"] == "step-000004"

    @pytest.mark.parametrize("kind", LOST)
    def test_files_that_have_changed_are_named_and_may_be_put_back(
        self, kind: str, trained: Path, tmp_path: Path
    ) -> None:
        damage, reason = LOST[kind]
        folder = trained / "checkpoints" / "step-000004"
        shutil.copytree(folder, tmp_path / "whole")
        damage(folder)

        scored, failed, _ = evaluated()

        assert scored == ["step-000002", "step-000006"]
        assert [one["name"] for one in failed] == ["step-000004"]
        assert reason in failed[0]["reason"]

        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(tmp_path / "whole", folder)
        assert evaluated()[:2] == (["step-000002", "step-000004", "step-000006"], [])
        assert Run(trained).evaluations.failures() == []

    def test_weights_that_are_finite_and_useless_get_a_score(self, trained: Path) -> None:
        change_tensors(trained / "checkpoints" / "step-000004", lambda tensor: tensor * 1e30)
        save_anew(Run(trained))

        assert evaluated()[0] == ["step-000002", "step-000004", "step-000006"]

    def test_every_command_goes_on_without_it(self, trained: Path) -> None:
        folder = trained / "checkpoints" / "step-000004"
        change_tensors(folder, lambda tensor: tensor * torch.nan)
        save_anew(Run(trained))
        jsonl({"description": "A small desktop computer", "price": 400.0})

        table = Cli("eval", "--all-checkpoints", "--limit", "4")
        assert table.code == 0
        said = (
            f"not scored: step-000004: the adapter in {folder.relative_to(Path.cwd())} has weights that are not numbers"
        )
        assert any(line.startswith(said) for line in table.out.splitlines())
        assert "WARNING: 1 checkpoint could not be scored, and only the others are compared" in table.err.splitlines()

        assert evaluated("--data", "items.jsonl")[0] == ["step-000002", "step-000006"]
        picked = Cli("pick")
        assert picked.code == 0
        assert "cannot be used, so not in the ranking: step-000004: " in picked.err
        assert "without an evaluation" not in picked.err

        assert Cli("pick", "--confirm").code == 0

        assert Cli("report").code == 0
        assert "Not scored, so not shown: step-000004: " in (trained / "report.html").read_text()
        (overview,) = json.loads(Cli("runs", "--json").out)["runs"]
        assert (overview["checkpoints"], overview["scored"], overview["failed"]) == (3, 2, 1)

    def test_the_only_one_that_is_asked_for_is_an_error_and_is_tried_again(self, trained: Path) -> None:
        change_tensors(trained / "checkpoints" / "step-000004", lambda tensor: tensor * torch.nan)
        save_anew(Run(trained))

        for _ in range(2):
            asked = Cli("eval", "--checkpoint", "4", "--limit", "4")
            assert (asked.code, asked.out) == (1, "")
            assert asked.err.splitlines()[-1].startswith("error: the adapter in ")


class TestAnyStore:
    def test_where_none_can_be_scored_it_is_an_error_with_the_reason(self, run: Run, scorer: FakeScorer) -> None:
        scorer.bad = {"step-000002", "step-000004", "step-000006"}
        problem = (
            "error: none of the 3 checkpoints of quickstart can be scored; step-000002: the adapter in step-000002 has "
            "weights that are not numbers"
        )

        for options in ((), ("--race",)):
            done = Cli("eval", "--all-checkpoints", *options)
            assert (done.code, done.out, done.err.splitlines()[-1]) == (1, "", problem)
        picked = Cli("pick")
        assert picked.code == 1
        assert picked.err.startswith(
            "error: no checkpoint of quickstart that can be used has been evaluated; step-000002"
        )

    @pytest.mark.parametrize("bad", [2, 4, 6])
    def test_a_race_is_as_it_would_be_without_the_bad_one(
        self, bad: int, run: Run, scorer: FakeScorer, tmp_path: Path
    ) -> None:
        scorer.bad = {f"step-{bad:06d}"}
        others = [f"step-{step:06d}" for step in (2, 4, 6) if step != bad]

        answer = Cli("eval", "--all-checkpoints", "--race", "--json").json()
        again = Cli("eval", "--all-checkpoints", "--race", "--json").json()

        assert again == answer
        assert [one["name"] for one in answer["failed"]] == [f"step-{bad:06d}"]
        ids = {c.id: c.name for c in run.store.checkpoints()}
        raced = [ids[answer["race"]["winner"]], *(ids[one["id"]] for one in answer["race"]["dropped"])]
        assert sorted(raced) == others
        picked = json.loads(Cli("pick", "--json").out)
        assert (picked["candidate"]["id"], picked["unscored"]) == (answer["race"]["winner"], [])
        assert [one["name"] for one in picked["failed"]] == [f"step-{bad:06d}"]

    def test_a_checkpoint_that_is_lost_after_it_was_scored_is_not_picked(
        self, trained: Path, scorer: FakeScorer
    ) -> None:
        assert Cli("eval", "--all-checkpoints").code == 0
        first = json.loads(Cli("pick", "--json").out)
        best = first["candidate"]["name"]
        (trained / "checkpoints" / best / ADAPTER).unlink()

        second = json.loads(Cli("pick", "--json").out)

        assert [one["name"] for one in second["failed"]] == [best]
        assert second["candidate"]["name"] == first["ranking"][1]["candidate"]["name"]
        tagged = Run(trained).store.tagged("best")
        assert tagged is not None
        assert tagged.name == second["candidate"]["name"]

    def test_an_adapter_of_another_base_is_left_out(self, trained: Path, scorer: FakeScorer) -> None:
        save_anew(Run(trained), base="acme/other", base_revision="0" * 40)

        scored, failed, _ = evaluated()

        assert scored == ["step-000002", "step-000006"]
        assert "was trained with base acme/other@0000000000" in failed[0]["reason"]

    def test_an_adapter_of_another_base_does_not_say_how_the_others_are_asked(
        self, trained: Path, scorer: FakeScorer
    ) -> None:
        answers = Run(trained).store.checkpoints()[0].answers
        assert answers is not None
        other = replace(answers, train_median=1.0)
        save_anew(Run(trained), 2, base="acme/other", base_revision="0" * 40, answers=other)
        jsonl({"description": "A small desktop computer", "price": 400.0})

        scored, failed, _ = evaluated("--data", "items.jsonl")

        assert scored == ["step-000004", "step-000006"]
        assert "was trained with base acme/other@0000000000" in failed[0]["reason"]

    def test_a_damaged_line_of_the_log_is_named_in_every_command(self, trained: Path, scorer: FakeScorer) -> None:
        log = trained / "checkpoints.jsonl"
        first, _, last = log.read_text().splitlines()
        log.write_text(f"{first}\n{last[:40]}\n{last}\n")
        name = "line 2 of runs/quickstart/checkpoints.jsonl"

        scored, failed, _ = evaluated()
        picked = json.loads(Cli("pick", "--json").out)

        assert scored == ["step-000002", "step-000006"]
        assert [(one["name"], one["id"]) for one in [*failed, *picked["failed"]]] == [(name, None)] * 2
        assert Cli("report").code == 0
        assert f"Not scored, so not shown: {name}: " in (trained / "report.html").read_text()
        (overview,) = json.loads(Cli("runs", "--json").out)["runs"]
        assert (overview["checkpoints"], overview["failed"]) == (2, 1)


def fail(hub: LoopbackHub, commit: str, fault: Fault) -> None:
    """Let each request for the adapter of a commit fail."""
    for method in ("HEAD", "GET"):
        hub.faults.script(method, f"/resolve/{commit}/{ADAPTER}", [fault] * 50)


class TestOnTheHub:
    @pytest.mark.parametrize("status", [404, 410])
    def test_files_that_the_hub_has_lost(
        self, status: int, pushed: Repo, hub: LoopbackHub, scorer: FakeScorer, waits: list[float]
    ) -> None:
        lost = pushed.tags["step-000004"]
        fail(hub, lost, Fault.status(status))

        done = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json")

        answer = done.json()
        assert [one["name"] for one in answer["failed"]] == ["step-000004"]
        assert f"step-000004 of ann/prices ({lost[:12]}) cannot be downloaded: " in answer["failed"][0]["reason"]
        assert waits == []
        picked = Cli("pick", "--repo", "ann/prices", "--json")
        assert picked.code == 0, picked.err
        assert [one["name"] for one in json.loads(picked.out)["failed"]] == ["step-000004"]

    def test_a_hub_in_trouble_stops_with_its_error_and_the_command_goes_on_later(
        self, pushed: Repo, hub: LoopbackHub, scorer: FakeScorer, waits: list[float], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.stores.hub.pause", lambda *_: 0.0)
        commit = pushed.tags["step-000004"]
        fail(hub, commit, Fault.status(503))

        stopped = Cli("eval", "--repo", "ann/prices", "--all-checkpoints")

        assert stopped.code == 1
        assert "503" in stopped.err
        assert Run(Path("runs/ann--prices")).evaluations.failures() == []
        hub.faults.clear()
        answer = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        assert answer["failed"] == []
