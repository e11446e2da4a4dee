"""Repositories for the loopback Hub: real ones put back as they were, adapters and bases that nobody had to train."""

import hashlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import typer.testing

from pricer.cli import app
from pricer.commands.parts.hub_resume import downloaded_run, find_local_run, held_run
from pricer.stores.bases import ASSETS
from pricer.stores.runs import Run
from tests.loopback_hub import Commit, LoopbackHub, Repo

RUNNER = typer.testing.CliRunner()
ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"


def put_back(hub: LoopbackHub, recorded: Repo) -> Repo:
    """A repository of an earlier hub in this one: the same commits under the same hashes, branches and tags."""
    repo = hub.create(recorded.id, private=recorded.private)
    repo.restore(recorded)
    return repo


def put_base(hub: LoopbackHub, name: str = "acme/base") -> Commit:
    """The embedded base as a repository."""
    files = {path.name: path.read_bytes() for path in sorted((ASSETS / "base").iterdir()) if path.is_file()}
    return hub.create(name).commit(files, "base")


def adapter_config(base: str | None = "acme/base", **changes: Any) -> bytes:
    """What peft writes beside an adapter, as far as it is read."""
    settings: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base,
        "r": 4,
        "lora_alpha": 8,
        "target_modules": ["q_proj", "v_proj"],
    }
    return json.dumps({**settings, **changes}).encode()


def adapter_files(weights: bytes, folder: str = "", **changes: Any) -> dict[str, bytes]:
    """An adapter as a Trainer pushes it, at the top of a repository or in a folder of it."""
    return {f"{folder}{ADAPTER}": weights, f"{folder}{ADAPTER_CONFIG}": adapter_config(**changes)}


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def adapters_on(repo: Repo) -> dict[str, str]:
    """The sha256 of the adapter that each tag leads to, computed from the bytes that the Hub holds."""
    return {tag: sha256(repo.files(commit)[ADAPTER]) for tag, commit in sorted(repo.tags.items())}


def assert_each_is_there_once(repo: Repo, adapters: dict[str, str]) -> None:
    """A training has finished, and each of its checkpoints has one commit, its tag and its own manifest."""
    assert adapters_on(repo) == adapters
    # The newest first, and below them the commit with which the repository begins: ordered, none lost, none twice.
    assert repo.titles() == ["training finished", *sorted(adapters, reverse=True), "initial commit"]
    for tag, commit in repo.tags.items():
        assert json.loads(repo.files(commit)["manifest.json"])["step"] == int(tag.removeprefix("step-"))


def use_cache(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the libraries of this process keep what they download in another place."""
    monkeypatch.setenv("HF_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_CACHE", str(folder / "hub"))
    if "huggingface_hub" in sys.modules:
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(folder))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder / "hub"))


def adopt(repo: str, name: str | None = None, note: Callable[[str], None] = print) -> Run:
    """What `pricer train --resume --repo` has before it trains: a run here with all that the repository has of it."""
    if here := find_local_run(repo, name):
        with held_run(here, note):
            return here
    with downloaded_run(repo, name, note) as (run, _):
        return run


class Cli:
    """What a pricer command did."""

    def __init__(self, *arguments: str) -> None:
        result = RUNNER.invoke(app, list(arguments))
        self.code, self.out, self.err = result.exit_code, result.stdout, result.stderr

    def json(self) -> dict[str, Any]:
        """Its answer, with --json."""
        assert self.code == 0, self.err
        answer: dict[str, Any] = json.loads(self.out)
        return answer
