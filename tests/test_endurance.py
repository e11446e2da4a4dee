"""Long runs against a Hub that misbehaves: kills, faults and slow uploads, and every revision holds its own weights."""

import hashlib
import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.loopback_hub import COMMON_FAULTS, Fault, LoopbackHub, Repo

pytestmark = pytest.mark.slow

ADAPTER = "adapter_model.safetensors"
EVERY = 4
# 160 items in batches of 16 are 10 steps an epoch.
SETTINGS = {
    "data.train_limit": 160,
    "data.val_limit": 16,
    "adapter.r": 4,
    "train.batch_size": 16,
    "train.checkpoint_every": EVERY,
    "train.log_every": 1,
    "train.val_items": 0,
}
# What the Hub does besides failing and cutting: refusing who was let in, and conflicts.
WORST = (
    *COMMON_FAULTS,
    Fault.rate_limit(reset_in=0),
    Fault.stall(0.5),
    *(Fault.status(code) for code in (401, 403, 409, 412)),
)


def start(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    folder.mkdir(parents=True, exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-m", "pricer", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


def finish(*arguments: str, folder: Path, seconds: float = 900) -> str:
    process = start(*arguments, folder=folder)
    _, errors = process.communicate(timeout=seconds)
    assert process.returncode == 0, errors
    return errors


def settings(epochs: float, **more: object) -> list[str]:
    values = {**SETTINGS, "train.epochs": epochs, **{key.replace("__", "."): value for key, value in more.items()}}
    return [option for key, value in values.items() for option in ("--set", f"{key}={value}")]


def adapters_without_a_hub(epochs: float, **more: object) -> dict[str, str]:
    """The sha256 of each checkpoint's adapter, by tag, of a run that nothing disturbs."""
    finish("train", "quickstart", "--run", "whole", *settings(epochs, **more), folder=Path.cwd())
    folders = sorted(Path("runs/whole/checkpoints").glob("step-*"))
    return {folder.name: hashlib.sha256((folder / ADAPTER).read_bytes()).hexdigest() for folder in folders}


def adapters_on(repo: Repo) -> dict[str, str]:
    """The sha256 of the adapter that each tag leads to, computed from the bytes that the Hub holds."""
    return {tag: hashlib.sha256(repo.files(commit)[ADAPTER]).hexdigest() for tag, commit in sorted(repo.tags.items())}


def assert_each_is_there_once(repo: Repo, adapters: dict[str, str]) -> None:
    assert adapters_on(repo) == adapters
    # The newest first, and below them the commit with which the repository begins: ordered, none lost, none twice.
    assert [commit.title for commit in repo.commits("main")] == [*sorted(adapters, reverse=True), "initial commit"]
    for tag, commit in repo.tags.items():
        assert json.loads(repo.files(commit)["manifest.json"])["step"] == int(tag.removeprefix("step-"))


def test_fifty_checkpoints_arrive_although_a_third_of_all_requests_fails(hub: LoopbackHub) -> None:
    adapters = adapters_without_a_hub(epochs=20)
    hub.faults.random(rate=0.3, seed=3, kinds=WORST, spare="/api/repos/create")

    finish("train", "quickstart", "--run", "pushed", "--repo", "ann/prices", *settings(20), folder=Path.cwd())

    assert len(adapters) == 50  # 20 epochs of 10 steps, one each 4
    assert_each_is_there_once(hub.repo("ann/prices"), adapters)


def test_uploads_ten_times_slower_than_training_mislabel_nothing(hub: LoopbackHub) -> None:
    before = time.monotonic()
    adapters = adapters_without_a_hub(epochs=4)
    # The whole run, its start included, bounds the time between two saves from above.
    interval = (time.monotonic() - before) / len(adapters)
    size = next(Path("runs/whole/checkpoints").glob(f"*/{ADAPTER}")).stat().st_size
    hub.slow_uploads(size / (10 * interval))

    finish(
        *("train", "quickstart", "--run", "pushed", "--repo", "ann/prices"),
        *settings(4, hub__state="none"),
        folder=Path.cwd(),
    )

    assert_each_is_there_once(hub.repo("ann/prices"), adapters)


def test_thirty_kills_lose_and_repeat_nothing(hub: LoopbackHub) -> None:
    moments = random.Random(11)
    before = time.monotonic()
    adapters = adapters_without_a_hub(epochs=10)
    seconds = time.monotonic() - before
    hub.slow_uploads(1_000_000)  # so that kills hit uploads too
    kills = moves = lives = 0
    while kills < 30 or moves < 10:
        lives, machine, over = lives + 1, 0, False
        repo_id = f"ann/prices-{lives}"
        begin = ["train", "quickstart", "--run", "killed", "--repo", repo_id, *settings(10)]
        arguments = begin
        while not over:
            folder = Path(f"life-{lives}/machine-{machine}")
            process = start(*arguments, folder=folder)
            try:
                # Before a third of the time libraries are still being imported: a kill would hit nothing of ours.
                _, errors = process.communicate(timeout=moments.uniform(0.35, 0.9) * seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGKILL)
                process.communicate()
                kills += 1
            else:
                # Killed after all had arrived, and then started again: there is nothing left to do.
                over = process.returncode == 0 or "is finished, there is nothing to go on with" in errors
                assert over, errors
                continue
            if has_state(hub, repo_id) and moments.random() < 0.5:
                machine, moves = machine + 1, moves + 1  # a new machine that has never seen the run
                arguments = ["train", "--resume", "--repo", repo_id, "--run", "killed"]
            elif (folder / "runs/killed/run.json").exists():
                arguments = ["train", "--resume", "--run", "killed"]
        assert_each_is_there_once(hub.repo(repo_id), adapters)


def has_state(hub: LoopbackHub, repo_id: str) -> bool:
    try:
        repo = hub.repo(repo_id)
    except KeyError:
        return False
    return "state" in repo.branches and "state.json" in repo.files("state")
