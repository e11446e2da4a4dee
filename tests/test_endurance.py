"""Long runs against a Hub that misbehaves: kills, faults and slow uploads, and every revision holds its own weights."""

import random
import time
from pathlib import Path

import pytest

from tests.loopback_hub import COMMON_FAULTS, Fault, LoopbackHub
from tests.processes import finish, kill_after, options
from tests.repositories import ADAPTER, assert_each_is_there_once, sha256

pytestmark = pytest.mark.slow

# 160 items in batches of 16 are 10 steps an epoch.
SETTINGS = options(
    data__train_limit=160,
    data__val_limit=16,
    adapter__r=4,
    train__batch_size=16,
    train__checkpoint_every=4,
    train__log_every=1,
    train__val_items=0,
)
# What the Hub does besides failing and cutting: refusing who was let in, and conflicts.
WORST = (
    *COMMON_FAULTS,
    Fault.rate_limit(reset_in=0),
    Fault.stall(0.5),
    *(Fault.status(code) for code in (401, 403, 409, 412)),
)


def settings(epochs: float) -> list[str]:
    return [*SETTINGS, *options(train__epochs=epochs)]


def adapters_without_a_hub(epochs: float) -> dict[str, str]:
    """The sha256 of each checkpoint's adapter, by tag, of a run that nothing disturbs."""
    finish("train", "quickstart", "--run", "whole", *settings(epochs))
    folders = sorted(Path("runs/whole/checkpoints").glob("step-*"))
    return {folder.name: sha256((folder / ADAPTER).read_bytes()) for folder in folders}


def test_fifty_checkpoints_arrive_although_a_third_of_all_requests_fails(hub: LoopbackHub) -> None:
    adapters = adapters_without_a_hub(epochs=20)
    hub.faults.random(rate=0.3, seed=3, kinds=WORST, spare="/api/repos/create")

    finish("train", "quickstart", "--run", "pushed", "--repo", "ann/prices", *settings(20))

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
        *("train", "quickstart", "--run", "pushed", "--repo", "ann/prices"), *settings(4), *options(hub__state="none")
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
            # Before a third of the time libraries are still being imported: a kill would hit nothing of ours.
            ended = kill_after(moments.uniform(0.35, 0.9) * seconds, *arguments, folder=folder)
            kills += ended is None
            if ended is not None:
                # Killed after all had arrived, and then started again: there is nothing left to do.
                over = ended[0] == 0 or "finished, there is nothing to go on with" in ended[1]
                assert over, ended[1]
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
