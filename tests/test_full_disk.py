"""A disk that fills up while a checkpoint is saved: said plainly, nothing before it harmed, and then there is room."""

import hashlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pricer.stores.checkpoints import read_manifest, verify
from tests.loopback_hub import LoopbackHub
from tests.processes import finish, options, run

pytestmark = pytest.mark.slow

SETTINGS = options(
    data__train_limit=160,
    adapter__r=16,
    train__epochs=3,
    train__batch_size=16,
    train__checkpoint_every=5,
    train__val_items=0,
)


def mount(folder: Path, size: str, *, remount: bool = False) -> bool:
    options = f"{'remount,' if remount else ''}size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if not mount(folder, "9m"):
        pytest.skip("a file system of its own needs the right to mount one")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def adapters(run: Path) -> dict[str, str]:
    return {
        path.parent.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(run.glob("checkpoints/step-*/adapter_model.safetensors"))
    }


@pytest.mark.parametrize("to", ["a folder", "the Hub"])
def test_a_full_disk_costs_nothing_that_was_saved(small_disk: Path, tmp_path: Path, hub: LoopbackHub, to: str) -> None:
    repo = ["--repo", "ann/prices"] if to == "the Hub" else []
    finish("train", "quickstart", "--run", "whole", *SETTINGS, folder=tmp_path)

    code, errors = run("train", "quickstart", "--run", "cramped", *SETTINGS, *repo, folder=small_disk)

    cramped = small_disk / "runs/cramped"
    assert code == 1
    assert [line for line in errors.splitlines() if line.startswith(("error", " hint"))] == [
        "error: no space left on the disk with runs/cramped; what was saved before is whole",
        " hint: make room, then pricer train --resume --run cramped",
    ]
    kept = sorted(cramped.glob("checkpoints/step-*"))
    assert 0 < len(kept) < 6
    for folder in kept:
        verify(read_manifest(folder), folder)

    assert mount(small_disk, "90m", remount=True)
    finish("train", "--resume", "--run", "cramped", folder=small_disk)

    assert adapters(cramped) == adapters(tmp_path / "runs/whole")
    if repo:
        on_hub = {tag: hub.repo("ann/prices").files(commit) for tag, commit in hub.repo("ann/prices").tags.items()}
        assert {
            tag: hashlib.sha256(files["adapter_model.safetensors"]).hexdigest() for tag, files in on_hub.items()
        } == adapters(cramped)
