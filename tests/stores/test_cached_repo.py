"""A repository as the Hub's cache has it: the same scan, without a request."""

import json
import os
import shutil
from pathlib import Path

import pytest
from huggingface_hub import hf_hub_download, snapshot_download

from pricer.errors import HubError
from pricer.stores.cached_repo import CachedRepo
from pricer.stores.hub import Hub
from pricer.stores.repo_scan import scan_repo
from tests.builders import a_checkpoint
from tests.loopback_hub import LoopbackHub, Repo
from tests.repositories import adapter_files


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    return hub.create("ann/plain")


def pushed(repo: Repo, step: int) -> str:
    """A checkpoint as pricer pushes it."""
    checkpoint, weights = a_checkpoint(step, b"%d" % step), b"%d" % step
    files = {**adapter_files(weights), "manifest.json": json.dumps(checkpoint.to_json()).encode()}
    repo.create_tag(checkpoint.name, repo.commit(files, checkpoint.name).hash)
    return repo.tags[checkpoint.name]


def test_each_snapshot_of_pricers_is_a_checkpoint(repo: Repo, hub: LoopbackHub) -> None:
    commits = [pushed(repo, step) for step in (5, 6, 7)]
    snapshot_download("ann/plain", revision=commits[0])
    snapshot_download("ann/plain", revision="step-000006")
    before = len(hub.requests)

    found = scan_repo(CachedRepo("ann/plain"))

    assert [(c.step, c.commit) for c in found.checkpoints] == [(5, commits[0]), (6, commits[1])]
    assert (found.has_manifests, found.notes, len(hub.requests)) == (True, (), before)


def test_a_manifest_without_its_adapter_is_no_checkpoint(repo: Repo) -> None:
    first, second = (pushed(repo, step) for step in (5, 6))
    snapshot_download("ann/plain", revision=first)
    hf_hub_download("ann/plain", "manifest.json", revision=second)

    assert [c.step for c in scan_repo(CachedRepo("ann/plain")).checkpoints] == [5]


@pytest.mark.parametrize("has_links", [True, False])
def test_adapters_of_another_trainer_are_those_of_main(repo: Repo, has_links: bool) -> None:
    repo.commit({**adapter_files(b"a", "checkpoint-1/"), **adapter_files(b"b", "checkpoint-2/")}, "upload")
    folder = Path(snapshot_download("ann/plain"))
    if not has_links:  # as on a disk that has none
        for path in folder.rglob("*.*"):
            content = Path(os.path.realpath(path))
            path.unlink()
            shutil.copyfile(content, path)

    assert scan_repo(CachedRepo("ann/plain")).checkpoints == scan_repo(Hub("ann/plain")).checkpoints


def test_without_a_branch_the_newest_snapshot_counts(repo: Repo) -> None:
    old, new = (repo.commit(adapter_files(b"%d" % n), f"upload {n}").hash for n in (1, 2))
    for commit, age in ((new, 0), (old, 1000)):
        for path in Path(snapshot_download("ann/plain", revision=commit)).iterdir():
            os.utime(path.resolve(), (10_000 - age, 10_000 - age))

    cached = CachedRepo("ann/plain")

    assert [c.commit for c in scan_repo(cached).checkpoints] == [new]
    assert cached.as_of == "1970-01-01T02:46+00:00"  # 10,000 s are 2 h, 46 min and 40 s


def test_what_was_never_downloaded_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    with pytest.raises(HubError, match=r"^ann/plain was not downloaded to this machine, and the Hub is switched off"):
        CachedRepo("ann/plain")
