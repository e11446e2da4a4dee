"""`--repo`: checkpoints on the Hub are scored, picked and gone on with where nobody has ever seen the run."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard

from pricer.commands.parts.fetching import fetch_ahead
from pricer.commands.parts.opening import load_scorer
from pricer.commands.parts.setup import prepare
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.errors import HubError
from pricer.ml.batches import make_batches
from pricer.stores.hub import Hub
from pricer.stores.records import parse_record
from pricer.stores.runs import Run
from tests.builders import a_checkpoint
from tests.loopback_hub import LoopbackHub, Repo
from tests.loopback_hub.fixtures import connect
from tests.repositories import ADAPTER, Cli, sha256, use_cache

Go = Callable[[str], Path]


@pytest.fixture
def mine(tmp_path: Path) -> str:
    """A config that says what another trainer's adapters are asked: six items."""
    path = tmp_path / "mine.yaml"
    path.write_text("data:\n  train_limit: 48\n  val_limit: 6\n  test_limit: 6\n")
    return str(path)


@pytest.fixture
def on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Go:
    """Go to a machine by name: its own folder, its own cache."""

    def go(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        monkeypatch.chdir(folder)
        use_cache(folder / ".huggingface", monkeypatch)
        return folder

    return go


def checkpoints(answer: dict[str, Any]) -> list[dict[str, Any]]:
    """The evaluations that are not baselines."""
    return [evaluation for evaluation in answer["evaluations"] if evaluation["candidate"]["step"] is not None]


def steps(answer: dict[str, Any]) -> list[int]:
    return [evaluation["candidate"]["step"] for evaluation in checkpoints(answer)]


def downloads(hub: LoopbackHub, repo: str = "") -> list[str]:
    """The files that were asked for so far, by what they are called in their repository."""
    asked = [request.path for request in hub.requests if request.method == "GET" and "/resolve/" in request.path]
    return [path.partition("/resolve/")[2].partition("/")[2] for path in asked if path.startswith(f"/{repo}")]


def answers(name: str, evaluation: dict[str, Any]) -> list[Prediction]:
    """What a run here keeps of the answers of a checkpoint."""
    run, spec = Run(Path("runs") / name), parse_record(EvalSpec, json.dumps(evaluation["spec"]))
    batches = run.evaluations.predictions(evaluation["candidate"]["id"], spec)
    return [prediction for batch in batches for prediction in batch]


def answers_of_files(name: str, files: dict[str, bytes], folder: Path) -> list[Prediction]:
    """What an adapter answers that lies in a folder here, asked the same as the run of that name."""
    folder.mkdir()
    for file in (ADAPTER, "adapter_config.json"):
        (folder / file).write_bytes(files[file])
    setup = prepare(Run(Path("runs") / name).config())
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.items(Split.VAL)])
    scorer = load_scorer(setup, None, prompts)
    scorer.use(folder)
    batches = make_batches([len(prompt.ids) for prompt in prompts], setup.batch_tokens)
    return [answer for batch in batches for answer in scorer.predict([prompts[index] for index in batch])]


class TestTheTrainersOwnPushes:
    def test_what_it_pushes_at_each_save(self, saves: Repo, mine: str, tmp_path: Path) -> None:
        titles = [commit.title for commit in reversed(saves.commits())]
        # `push_to_hub()` at the end has nothing new to say, and huggingface_hub makes no empty commits.
        assert titles == ["initial commit", *(f"Training in progress, step {step}" for step in (2, 4, 6))]

        answer = Cli("eval", "--repo", "ann/saves", "--config", mine, "--all-checkpoints", "--json").json()

        assert (answer["run"], answer["n"], steps(answer)) == ("ann--saves", 6, [2, 4, 6])
        for evaluation in checkpoints(answer):
            assert evaluation["spec"]["base"] == "acme/base"
            assert evaluation["spec"]["base_revision"] == repo_head("acme/base")
        for commit, evaluation in zip(reversed(saves.commits()[:3]), checkpoints(answer), strict=True):
            here = answers_of_files("ann--saves", saves.files(commit.hash), tmp_path / commit.hash)
            assert answers("ann--saves", evaluation) == here

    @pytest.mark.slow
    def test_what_it_pushes_as_folders(self, plain: dict[str, Repo], hub: LoopbackHub, mine: str) -> None:
        head = plain["ann/folders"].files()
        assert {name for name in head if name.endswith("optimizer.pt")} == {
            f"checkpoint-{step}/optimizer.pt" for step in (2, 4, 6)
        }

        saves = Cli("eval", "--repo", "ann/saves", "--config", mine, "--all-checkpoints", "--json").json()
        folders = Cli("eval", "--repo", "ann/folders", "--config", mine, "--all-checkpoints", "--json").json()

        # The same training twice: each adapter is the same, and so is everything but the commit that it lies at.
        assert steps(folders) == steps(saves)
        for one, other in zip(checkpoints(folders), checkpoints(saves), strict=True):
            assert {**one, "candidate": None} == {**other, "candidate": None}
        assert sorted(set(downloads(hub, "ann/folders"))) == [
            "README.md",  # may say what was trained on
            "checkpoint-2/adapter_config.json",  # the same file in all three
            *(f"checkpoint-{step}/{ADAPTER}" for step in (2, 4, 6)),
        ]

    @pytest.mark.slow
    def test_saves_that_it_skipped_and_a_last_commit_without_a_step(self, plain: dict[str, Repo], mine: str) -> None:
        last, *_, first = plain["ann/skipped"].commits()[:-1]
        assert (first.title, last.title) == ("Training in progress, step 2", "End of training")

        scored = Cli("eval", "--repo", "ann/skipped", "--config", mine, "--all-checkpoints", "--json")

        assert steps(scored.json()) == [2]
        said = "main holds an adapter that differs from those of all steps, and nothing names its step: left out"
        assert said in scored.err.splitlines()

    def test_without_a_config_nobody_knows_what_to_ask(self, saves: Repo) -> None:
        result = Cli("eval", "--repo", "ann/saves")

        assert result.err.splitlines() == [
            "error: ann/saves does not say what its checkpoints were asked, nor what they were trained on",
            " hint: pricer eval --repo ann/saves --config CONFIG.yaml, whose prompt and data are the ones to score "
            "with",
        ]
        assert (result.code, result.out, Path("runs").exists()) == (1, "", False)

    @pytest.mark.slow
    def test_a_base_that_moves_on_is_not_followed(self, plain: dict[str, Repo], hub: LoopbackHub, mine: str) -> None:
        first = Cli("eval", "--repo", "ann/saves", "--config", mine, "--checkpoint", "6", "--json").json()
        hub.repo("acme/base").commit({"pretraining.json": b"{}"}, "something else")

        again = Cli("eval", "--repo", "ann/saves", "--all-checkpoints", "--json").json()

        assert steps(again) == [2, 4, 6]
        assert checkpoints(again)[-1] == checkpoints(first)[0]
        (revision,) = {evaluation["spec"]["base_revision"] for evaluation in checkpoints(again)}
        assert revision == hub.repo("acme/base").commits()[1].hash

    def test_pick_tags_the_best_and_writes_no_card(self, saves: Repo, mine: str) -> None:
        repo = saves
        before = repo.commits()
        Cli("eval", "--repo", "ann/saves", "--config", mine, "--all-checkpoints", "--json").json()

        picked = Cli("pick", "--repo", "ann/saves", "--json").json()

        by_step = {int(commit.title.rpartition(" ")[2]): commit.hash for commit in before[:3]}
        assert repo.tags == {"best": by_step[picked["candidate"]["step"]]}
        assert repo.commits() == before

    def test_pick_in_somebody_elses_repository_says_how_to_load_it(
        self, saves: Repo, hub: LoopbackHub, mine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        connect(hub, monkeypatch, hub.add_user("bob"))
        Cli("eval", "--repo", "ann/saves", "--config", mine, "--all-checkpoints", "--json").json()

        result = Cli("pick", "--repo", "ann/saves")
        record = Cli("pick", "--repo", "ann/saves", "--json").json()

        assert result.code == 0
        by_step = {int(commit.title.rpartition(" ")[2]): commit.hash for commit in saves.commits()[:3]}
        commit = by_step[record["candidate"]["step"]]
        assert [line for line in result.err.splitlines() if "ann/saves" in line][-2:] == [
            "no tag best: this account may not change ann/saves",
            f'to load the pick: PeftModel.from_pretrained(base, "ann/saves", revision="{commit}")',
        ]
        assert record["untagged"] == {"repo": "ann/saves", "revision": commit, "folder": ""}
        assert "error" not in result.err
        best = Cli("eval", "--repo", "ann/saves", "--checkpoint", "best", "--split", "test", "--json")
        assert steps(best.json()) == [record["candidate"]["step"]]
        assert any(line.startswith("ann/saves has no tag best: step-0") for line in best.err.splitlines())
        assert saves.tags == {}

    def test_a_pick_in_a_folder_is_loaded_from_that_folder(
        self, saves: Repo, hub: LoopbackHub, mine: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        adapter = {name: content for name, content in saves.files().items() if name.startswith("adapter")}
        head = hub.create("ann/folder").commit({f"checkpoint-6/{name}": file for name, file in adapter.items()}, "up")
        connect(hub, monkeypatch, hub.add_user("bob"))
        Cli("eval", "--repo", "ann/folder", "--config", mine, "--json").json()

        result = Cli("pick", "--repo", "ann/folder")

        line = f'PeftModel.from_pretrained(base, "ann/folder", revision="{head.hash}", subfolder="checkpoint-6")'
        assert (result.code, f"to load the pick: {line}" in result.err.splitlines()) == (0, True)


def repo_head(name: str) -> str:
    return Hub(name).refs().branches["main"]


class TestRepositoriesThatPeopleMake:
    @pytest.fixture
    def by_step(self, saves: Repo) -> dict[int, dict[str, bytes]]:
        """The adapters of a real training."""
        return {2 * n: saves.files(commit.hash) for n, commit in enumerate(reversed(saves.commits()[:3]), start=1)}

    @pytest.mark.slow
    def test_a_base_that_is_a_folder_elsewhere_has_to_be_named(
        self, hub: LoopbackHub, by_step: dict[int, dict[str, bytes]], mine: str
    ) -> None:
        repo = hub.create("ann/colab")
        config = by_step[2]["adapter_config.json"].replace(b"acme/base", b"/content/drive/My Drive/base")
        repo.commit({**by_step[2], "adapter_config.json": config}, "step 2")

        refused = Cli("eval", "--repo", "ann/colab", "--config", mine)
        scored = Cli("eval", "--repo", "ann/colab", "--config", mine, "--set", "model.base=acme/base", "--json").json()

        assert refused.err.splitlines() == [
            "error: the adapters of ann/colab name the base /content/drive/My Drive/base, a folder on another machine",
            " hint: say what it is: --set model.base=USER/NAME",
        ]
        saves = Cli("eval", "--repo", "ann/saves", "--config", mine, "--checkpoint", "2", "--json").json()
        assert checkpoints(scored)[0]["metrics"] == checkpoints(saves)[0]["metrics"]

    def test_another_base_than_the_adapters_name_is_refused(self, saves: Repo, mine: str) -> None:
        result = Cli("eval", "--repo", "ann/saves", "--config", mine, "--set", "model.base=builtin:base")

        assert result.err.splitlines() == [
            "error: checkpoint step 6 is an adapter of acme/base, this config has builtin:base",
            " hint: --set model.base=acme/base",
        ]
        assert result.code == 1

    def test_adapters_of_two_bases_are_refused(
        self, hub: LoopbackHub, by_step: dict[int, dict[str, bytes]], mine: str
    ) -> None:
        repo = hub.create("ann/two")
        repo.commit(by_step[2], "step 2")
        other = by_step[4]["adapter_config.json"].replace(b"acme/base", b"acme/other")
        repo.commit({**by_step[4], "adapter_config.json": other}, "step 4")

        result = Cli("eval", "--repo", "ann/two", "--config", mine)

        assert result.err.splitlines() == [
            "error: the checkpoints of ann/two are adapters of several bases: acme/base, acme/other"
        ]


def test_a_machine_that_never_saw_the_run_finds_the_same(pushed: Repo, on: Go) -> None:
    on("trainer")
    there = Cli("eval", "--all-checkpoints", "--json").json()

    on("scorer")
    here = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()

    assert steps(here) == [2, 4, 6]
    assert here["evaluations"] == there["evaluations"]
    assert (there["run"], here["run"]) == ("quickstart", "ann--prices")
    for evaluation in checkpoints(here):
        assert answers("ann--prices", evaluation)


@pytest.mark.usefixtures("scorer")
class TestPricersOwn:
    def test_only_what_is_needed_is_fetched_and_only_once(self, pushed: Repo, hub: LoopbackHub, on: Go) -> None:
        on("scorer")
        Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        first = downloads(hub)
        again = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()

        # What is the same in all three commits comes once.
        wanted = [ADAPTER, "manifest.json"] * 3 + ["adapter_config.json", "config.yaml", "run.json"]
        assert sorted(first) == sorted(wanted)
        assert downloads(hub) == first
        assert steps(again) == [2, 4, 6]

    def test_a_checkpoint_is_its_commit_whatever_happens_to_branches(self, pushed: Repo, on: Go) -> None:
        on("scorer")
        Cli("eval", "--repo", "ann/prices", "--checkpoint", "6", "--json").json()
        pushed.commit({ADAPTER: b"something else", "README.md": b"moved"}, "another training", delete=["manifest.json"])

        answer = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()

        assert steps(answer) == [2, 4, 6]
        logged = Run(Path("runs/ann--prices")).store.checkpoints()
        assert {checkpoint.name: checkpoint.commit for checkpoint in logged} == pushed.tags

    def test_a_checkpoint_is_named_by_the_start_of_its_commit(self, pushed: Repo) -> None:
        commit = pushed.tags["step-000004"]

        answer = Cli("eval", "--repo", "ann/prices", "--checkpoint", commit[:8], "--json").json()
        refused = Cli("eval", "--repo", "ann/prices", "--checkpoint", commit[:3])

        assert steps(answer) == [4]
        assert refused.err.splitlines()[0] == f"error: {commit[:3]} names no checkpoint of ann--prices"

    def test_an_adapter_that_is_not_what_its_manifest_says_is_refused(self, pushed: Repo) -> None:
        files = pushed.files("step-000006")
        spoiled = files[ADAPTER][:-4] + b"\0\0\0\1"
        pushed.tags["step-000006"] = pushed.commit({ADAPTER: spoiled}, "step-000006").hash

        result = Cli("eval", "--repo", "ann/prices")

        assert result.code == 1
        assert result.err.splitlines()[-1:] == [
            f"error: step-000006 of ann/prices ({pushed.tags['step-000006'][:12]}) is not what its manifest says: the "
            f"Hub has sha256 {sha256(spoiled)[:12]}…, the manifest {sha256(files[ADAPTER])[:12]}…"
        ]

    @pytest.mark.parametrize(
        ("setting", "what"),
        [("data.val_limit=5", "data"), ("data.train_limit=47", "data"), ("prompt.question=How much?", "prompt")],
    )
    def test_other_data_or_another_prompt_is_refused(self, pushed: Repo, setting: str, what: str) -> None:
        result = Cli("eval", "--repo", "ann/prices", "--set", setting)

        assert result.err.startswith("error: checkpoint step 6 (")
        assert f"was trained with {what} " in result.err.splitlines()[0]
        assert (result.code, result.out) == (1, "")

    def test_new_checkpoints_are_seen_and_old_ones_not_scored_again(self, pushed: Repo, hub: LoopbackHub) -> None:
        newest = pushed.tags.pop("step-000006")
        first = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()
        pushed.tags["step-000006"] = newest
        before = len(downloads(hub))

        second = Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()

        assert (steps(first), steps(second)) == ([2, 4], [2, 4, 6])
        assert checkpoints(second)[:2] == checkpoints(first)
        # The last checkpoint may have been pushed after the end of training, which changes run.json.
        assert sorted({*downloads(hub)[before:]} - {"run.json"}) == [ADAPTER, "manifest.json"]

    def test_pick_before_an_evaluation(self, pushed: Repo) -> None:
        result = Cli("pick", "--repo", "ann/prices")

        assert result.err.splitlines() == [
            "error: no checkpoint of ann/prices has been evaluated here",
            " hint: pricer eval --repo ann/prices --all-checkpoints",
        ]

    def test_pick_tags_the_best_and_writes_a_card(self, pushed: Repo, hub: LoopbackHub, on: Go) -> None:
        on("scorer")
        Cli("eval", "--repo", "ann/prices", "--all-checkpoints", "--json").json()

        result = Cli("pick", "--repo", "ann/prices", "--json")

        best = result.json()
        name = best["candidate"]["name"]
        assert pushed.tags["best"] == pushed.tags[name]
        assert [commit.title for commit in pushed.commits()[:2]] == [
            "The pick, and its model card",
            "training finished",
        ]
        card = ModelCard(pushed.files()["README.md"].decode())
        # The base is embedded in pricer: there is no repository that the card could name.
        assert card.data.get("library_name") == "peft"
        assert pushed.tags[name] in card.content
        others = {tag for tag in pushed.tags if tag.startswith("step-")} - {name}
        assert others
        assert pushed.files()[ADAPTER] == pushed.files(name)[ADAPTER]
        assert all(pushed.files(tag)[ADAPTER] != pushed.files(name)[ADAPTER] for tag in others)

    def test_a_confirmed_pick_has_its_number_in_the_card(self, pushed: Repo, hub: LoopbackHub, on: Go) -> None:
        on("scorer")
        Cli("eval", "--repo", "ann/prices", "--json").json()

        found = Cli("pick", "--repo", "ann/prices", "--confirm", "--json").json()["confirmation"]
        commits = len(pushed.commits())
        Cli("pick", "--repo", "ann/prices", "--confirm", "--json").json()

        assert (found["candidate"]["step"], found["metric"]["n"], found["look"]) == (6, 8, 1)
        card = ModelCard(pushed.files()["README.md"].decode())
        assert (
            f"On 8 test items, which took no part in the choice, MAE is ${found['metric']['value']:,.2f}"
            in card.content
        )
        assert "Not measured under the same conditions" not in card.content
        # The second time nothing of it is new.
        assert len(pushed.commits()) == commits


class TestFetchedAhead:
    def test_the_next_one_comes_while_the_present_one_is_used(self) -> None:
        begun = {step: threading.Event() for step in (1, 2, 3)}

        def fetch(checkpoint: Checkpoint) -> Path:
            begun[checkpoint.step].set()
            return Path(checkpoint.name)

        folders = fetch_ahead(fetch, [a_checkpoint(step) for step in (1, 2, 3)])

        assert next(folders)() == Path("step-000001")
        assert begun[2].wait(10)
        assert not begun[3].is_set()
        assert [folder() for folder in folders] == [Path("step-000002"), Path("step-000003")]

    def test_nothing_is_fetched_before_the_first_is_wanted(self) -> None:
        fetched: list[int] = []

        def fetch(checkpoint: Checkpoint) -> Path:
            fetched.append(checkpoint.step)
            return Path(checkpoint.name)

        fetch_ahead(fetch, [a_checkpoint(1)])

        assert fetched == []

    def test_a_failure_is_of_its_checkpoint_alone(self) -> None:
        def fetch(checkpoint: Checkpoint) -> Path:
            if checkpoint.step == 2:
                raise HubError("gone")
            return Path(checkpoint.name)

        first, second, third = fetch_ahead(fetch, [a_checkpoint(step) for step in (1, 2, 3)])

        assert (first(), third()) == (Path("step-000001"), Path("step-000003"))
        with pytest.raises(HubError, match="gone"):
            second()

    def test_an_interruption_waits_for_no_download(self) -> None:
        never = threading.Event()

        def fetch(checkpoint: Checkpoint) -> Path:
            if checkpoint.step == 2:
                never.wait(60)
            return Path(checkpoint.name)

        folders = fetch_ahead(fetch, [a_checkpoint(step) for step in (1, 2)])

        assert next(folders)() == Path("step-000001")
        assert all(thread.daemon for thread in threading.enumerate() if thread.name != "MainThread")
        never.set()
