"""Nothing that is pushed says where something lies on the machine that trained."""

import json
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricer.commands import train
from pricer.config import DataConfig, HubConfig, ModelConfig
from pricer.errors import DataError, Interrupted, ModelError
from pricer.stores.bases import ASSETS
from pricer.stores.runs import Run
from tests.commands.conftest import CONFIG, Listener, Stopper
from tests.loopback_hub import LoopbackHub, Repo
from tests.repositories import Cli, use_cache

SECRET = "only-on-this-machine"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, in which everything lies in folders that nobody else should hear of."""
    folder = tmp_path / SECRET
    data = folder / SECRET / "data"
    data.mkdir(parents=True)
    lines = (ASSETS / "computers.jsonl").read_text().splitlines(keepends=True)
    for name, part in (("goods", lines[:80]), ("held", lines[80:100]), ("last", lines[100:120])):
        (data / f"{name}.jsonl").write_text("".join(part))
    shutil.copytree(ASSETS / "base", folder / SECRET / "small-base")
    monkeypatch.chdir(folder)
    use_cache(folder / ".huggingface", monkeypatch)
    return folder


def everything(repo: Repo) -> Iterator[tuple[str, str, bytes]]:
    """Each file of each commit of each branch, with the title of the commit."""
    for branch in repo.branches:
        for commit in repo.commits(branch):
            yield from ((commit.title, name, content) for name, content in repo.files(commit.hash).items())


def told(repo: Repo, where: Path) -> list[tuple[str, str]]:
    """The files that hold the name of a secret folder, or the path of this one."""
    marks = (SECRET.encode(), str(where).encode())
    return [(title, name) for title, name, content in everything(repo) if any(mark in content for mark in marks)]


def test_no_pushed_file_holds_a_local_path_and_training_goes_on_where_the_files_are_put(
    here: Path, hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, base = f"{SECRET}/data", f"{SECRET}/small-base"
    config = CONFIG.model_copy(
        update={
            "data": DataConfig(
                source=str(here / data / "goods.jsonl"),
                val_source=f"{data}/held.jsonl",
                test_source=f"./{data}/last.jsonl",
                decimals=0,
                train_limit=48,
            ),
            "model": ModelConfig(base=base),
            "hub": HubConfig(repo="ann/prices"),
        }
    )

    with pytest.raises(Interrupted):
        train.start(config, "mine", None, Stopper(4, signal.SIGTERM))
    repo = hub.repo("ann/prices")

    assert {"config.yaml", "run.json", "metrics.jsonl", "trainer_state.json"} <= repo.files("state").keys()
    assert told(repo, here) == []
    assert json.loads(repo.files()["manifest.json"])["base"] == "small-base"
    assert json.loads(repo.files()["adapter_config.json"])["base_model_name_or_path"] == "small-base"
    # The run's own folder still says where everything is.
    assert Run(Path("runs/mine")).config().model.base == f"./{base}"

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    with pytest.raises(DataError, match=r"there is no file or folder goods\.jsonl"):
        train.resume_repo("ann/prices", "first", Listener())
    for file in (here / data).iterdir():
        shutil.copy(file, elsewhere)
    with pytest.raises(ModelError, match="there is no model folder small-base"):
        train.resume_repo("ann/prices", "second", Listener())
    (elsewhere / "small-base").symlink_to(here / base)

    train.resume_repo("ann/prices", "third", Listener())
    assert Cli("eval", "--run", "third", "--all-checkpoints", "--limit", "4").code == 0
    picked = Cli("pick", "--run", "third")

    assert picked.code == 0, picked.err
    assert sorted(name for name in repo.tags if name.startswith("step-")) == [f"step-{n:06d}" for n in (2, 4, 6)]
    assert "README.md" in repo.files()
    assert told(repo, here) == []
    assert told(repo, elsewhere) == []
