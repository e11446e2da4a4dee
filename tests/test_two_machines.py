"""Real processes on one run: two at a time, and killed at each request of the first push."""

import json
import re
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.processes import finish, options, run, start
from tests.repositories import adapters_on, assert_each_is_there_once

pytestmark = pytest.mark.slow

# 48 items in batches of 16 are 3 steps an epoch, 6 in all: checkpoints at 2, 4 and 6.
SETTINGS = options(
    data__train_limit=48,
    data__val_limit=12,
    adapter__r=4,
    train__epochs=2,
    train__batch_size=16,
    train__checkpoint_every=2,
    train__val_items=0,
)
POINTS = 13


def assert_is_finished(repo: Repo, adapters: dict[str, str]) -> None:
    """Every checkpoint is there once, the run says that it is finished, and no training state is left."""
    assert_each_is_there_once(repo, adapters)
    assert json.loads(repo.files()["run.json"])["finished"]
    assert sorted(repo.branches) == ["main"]


def wait_until(happened: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    while not happened():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)


def kill(process: subprocess.Popen[str]) -> None:
    process.send_signal(signal.SIGKILL)
    process.communicate()


def train(name: str, repo: str) -> list[str]:
    return ["train", "quickstart", "--run", name, "--repo", repo, *SETTINGS]


def test_a_kill_at_each_request_of_the_first_push_loses_nothing(hub: LoopbackHub) -> None:
    finish(*train("whole", "ann/whole"))
    adapters = adapters_on(hub.repo("ann/whole"))
    assert_is_finished(hub.repo("ann/whole"), adapters)
    # The requests about the repository, after the commit that says what run it is for.
    paths = [request.path for request in hub.requests if "ann/whole" in request.path]
    first = next(number for number, path in enumerate(paths) if path.endswith("/commit/state")) + 1
    assert any("/tag/" in path for path in paths[first : first + POINTS])

    for point in range(first, first + POINTS):
        own, copy = f"ann/own-{point}", f"ann/copy-{point}"
        hub.faults.script("*", re.escape(own), [*[None] * point, Fault.stall(600)])
        process = start(*train("killed", own), folder=f"own-{point}")
        wait_until(lambda: hub.faults.left == 0, process)
        kill(process)
        hub.create(copy, private=True).restore(hub.repo(own))

        finish("train", "--resume", "--run", "killed", folder=f"own-{point}")
        finish("train", "--resume", "--repo", copy, folder=f"copy-{point}")

        for repo in (own, copy):
            assert_is_finished(hub.repo(repo), adapters)


def test_a_kill_before_the_repository_says_what_it_is_for_is_gone_on_from_here(hub: LoopbackHub) -> None:
    hub.faults.script("POST", "/repos/create", [Fault.stall(600)])
    hub.faults.script("POST", "/branch/", [Fault.stall(600)])

    process = start(*train("killed", "ann/prices"))
    wait_until(lambda: hub.faults.left == 1, process)
    kill(process)
    process = start("train", "--resume")
    wait_until(lambda: hub.faults.left == 0, process)
    kill(process)
    code, said = run("train", "--resume", "--repo", "ann/prices", folder="elsewhere")
    assert (code, said.splitlines()) == (
        1,
        [
            "error: ann/prices is empty, there is nothing to go on with",
            " hint: pricer train CONFIG --repo ann/prices",
        ],
    )
    finish("train", "--resume")

    assert_is_finished(hub.repo("ann/prices"), adapters_on(hub.repo("ann/prices")))
    assert len(hub.repo("ann/prices").tags) == 3


def test_the_second_is_refused_while_the_first_lives_and_takes_over_when_it_is_told_to(hub: LoopbackHub) -> None:
    hub.faults.script("POST", "/tag/", [Fault.stall(1)])  # of the first checkpoint
    longer = options(train__epochs=20, train__checkpoint_every=20)
    first = start(*train("prices", "ann/prices"), *longer, folder="first")
    wait_until(lambda: hub.faults.left == 0, first)
    first.send_signal(signal.SIGSTOP)  # from now on, it is a machine that nobody can reach
    repo = hub.repo("ann/prices")
    before = (dict(repo.tags), dict(repo.branches))

    code, said = run("train", "--resume", "--repo", "ann/prices", folder="second")

    assert re.fullmatch(
        rf"error: ann/prices is being trained by \S+ \(process {first.pid}\) since \S+ \S+ UTC",
        said.splitlines()[0],
    ), said
    assert said.splitlines()[1] == (
        " hint: wait until it ends; if that machine is dead: pricer train --resume --repo ann/prices --take-over"
    )
    assert (code, repo.tags, repo.branches) == (1, *before)
    assert not Path("second/runs").exists()

    finish("train", "--resume", "--repo", "ann/prices", "--take-over", folder="second")
    adapters = adapters_on(repo)
    assert_is_finished(repo, adapters)
    assert list(adapters) == ["step-000020", "step-000040", "step-000060"]

    first.send_signal(signal.SIGCONT)  # it was not dead
    _, said = first.communicate(timeout=600)

    finished = "the training in ann/prices was finished on another machine, there is nothing to go on with"
    assert first.returncode == 1, said
    assert f"error: {finished}" in said
    assert_is_finished(repo, adapters)  # it has changed nothing any more
    code, said = run("train", "--resume", folder="first")
    assert (code, said.splitlines()[0]) == (1, f"error: {finished}")
