"""A Hub data set is pinned in the run: whatever its branch means later, the run keeps its commit."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from pricer.commands import train
from pricer.commands.evaluate import evaluate_on_data, evaluate_run
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.commands.parts.setup import prepare
from pricer.config import DataConfig, HubConfig
from pricer.config_file import parse_config
from pricer.core.items import Split
from pricer.stores.bases import ASSETS
from pricer.stores.runs import Run
from tests.commands.conftest import CONFIG, Listener
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import LoopbackHub, Repo
from tests.repositories import Cli

LINES = (ASSETS / "computers.jsonl").read_bytes().splitlines(keepends=True)
SETTINGS: dict[str, Any] = {"decimals": 0, "val_fraction": 0.2, "test_fraction": 0.2}


@pytest.fixture
def goods(hub: LoopbackHub) -> Repo:
    """The data set ann/goods of 100 items."""
    repo = hub.create("ann/goods", kind="dataset")
    repo.commit({"train.jsonl": b"".join(LINES[:100])}, "data")
    return repo


def test_a_run_keeps_the_commit_of_its_data_here_and_on_the_hub(
    goods: Repo, hub: LoopbackHub, scorer: FakeScorer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = goods.branches["main"]
    update = {"data": DataConfig(source="ann/goods", **SETTINGS), "hub": HubConfig(repo="ann/prices")}
    run = train.start(CONFIG.model_copy(update=update), "goods", None, Listener()).run
    assert run.config().data.revision == first
    repo = hub.repo("ann/prices")
    assert parse_config(repo.files()["config.yaml"], "config.yaml").data.revision == first

    goods.commit({"train.jsonl": b"".join(LINES[100:200])}, "other data")

    here = evaluate_run(run, "all", Split.VAL, None, Listener())
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    there = open_hub_run("ann/prices", GivenConfig(None, ()), Listener().note)
    result = evaluate_run(there, "all", Split.VAL, None, Listener())
    assert result.spec == here.spec
    assert there.config().data.revision == first


def test_a_data_folder_that_was_made_from_a_copy_on_disk_still_pins_the_commit(goods: Repo) -> None:
    Path("copy").mkdir()
    Path("copy/train.jsonl").write_bytes(goods.files()["train.jsonl"])
    local = prepare(CONFIG.model_copy(update={"data": DataConfig(source="copy", **SETTINGS)}))

    config = CONFIG.model_copy(update={"data": DataConfig(source="ann/goods", **SETTINGS)})
    setup = prepare(config)

    assert setup.items.folder == local.items.folder  # the same content, so it is prepared once
    assert setup.config.data.revision == goods.branches["main"]
    assert (
        prepare(CONFIG.model_copy(update={"data": DataConfig(source="copy", **SETTINGS)})).config.data.revision is None
    )


def test_of_two_commits_with_the_same_content_the_one_that_was_read_is_pinned(goods: Repo) -> None:
    config = CONFIG.model_copy(update={"data": DataConfig(source="ann/goods", **SETTINGS)})
    first = prepare(config).config.data.revision

    second = goods.commit({"README.md": b"# Goods"}, "a card").hash

    assert first != second
    assert prepare(config).config.data.revision == second
    pinned = config.model_copy(update={"data": DataConfig(source="ann/goods", revision=first, **SETTINGS)})
    assert prepare(pinned).config.data.revision == first


def test_other_data_are_named_with_their_commit(goods: Repo, trained: Path, scorer: FakeScorer) -> None:
    commit = goods.branches["main"]

    result = evaluate_on_data(Run(trained), "last", "ann/goods", 5, Listener())
    shown = Cli("eval", "--run", "quickstart", "--data", "ann/goods", "--limit", "5")

    assert (result.source, result.revision) == ("ann/goods", commit)
    assert f"5 items of ann/goods at {commit[:7]}" in shown.out
    answer = Cli("eval", "--run", "quickstart", "--data", "ann/goods", "--limit", "5", "--json").json()
    assert answer["data_revision"] == commit
    # The run's own data are what it was trained on.
    assert Run(trained).config().data.revision is None


def test_the_config_of_another_trainers_repository_is_pinned_when_it_is_scored(
    goods: Repo, saves: Repo, scorer: FakeScorer
) -> None:
    Path("mine.yaml").write_text("data: {source: ann/goods, val_fraction: 0.2, test_fraction: 0.2}\n")
    given = GivenConfig(Path("mine.yaml"), ())

    evaluate_run(open_hub_run("ann/saves", given, Listener().note), "last", Split.VAL, None, Listener())
    first = goods.branches["main"]
    goods.commit({"train.jsonl": b"".join(LINES[100:200])}, "other data")
    shutil.rmtree("data")
    again = open_hub_run("ann/saves", GivenConfig(None, ()), Listener().note)
    evaluate_run(again, "last", Split.VAL, None, Listener())

    assert again.config().data.revision == first
