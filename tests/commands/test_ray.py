"""`pricer eval --ray` with real actors on this machine: the same files as without Ray, whatever happens to a worker."""

import shutil
import signal
import time
from pathlib import Path

import psutil
import pytest

from tests.processes import finish, start

RACE = "runs/quickstart/race.json"
OPTIONS = ("eval", "--all-checkpoints")


@pytest.fixture
def run_twice(trained: Path) -> tuple[Path, Path]:
    """Two folders with the same trained run, to be scored in different ways."""
    config = trained / "config.yaml"
    # Batches that small are several cells for each candidate.
    config.write_text(config.read_text().replace("batch_tokens: auto", "batch_tokens: 256"))
    folders = Path("alone"), Path("ray")
    for folder in folders:
        shutil.copytree(trained.parent, folder / "runs")
    return folders


def scored_files(folder: Path) -> dict[str, bytes]:
    """Everything in the evaluations of the run in this folder."""
    kept = folder / "runs" / "quickstart" / "evaluations"
    return {path.relative_to(kept).as_posix(): path.read_bytes() for path in kept.rglob("*") if path.is_file()}


def workers_of(process: psutil.Process) -> list[psutil.Process]:
    """The actors of a command, which Ray names after their class."""
    return [child for child in process.children(recursive=True) if "ray::Worker" in " ".join(child.cmdline())]


def answers_in(folder: Path) -> dict[Path, bytes]:
    """The whole lines of the answers of checkpoints, whose names are 40 hexadecimal digits."""
    found = folder.glob(f"runs/*/evaluations/{'[0-9a-f]' * 40}-*/predictions.jsonl")
    return {path: content[: content.rfind(b"\n") + 1] for path in found if (content := path.read_bytes())}


def wait_for_answers(folder: Path) -> None:
    """Wait until the first cell of a checkpoint is saved."""
    for _ in range(1200):
        if answers_in(folder):
            return
        time.sleep(0.1)
    raise TimeoutError


def test_two_workers_of_whom_one_is_killed_leave_the_files_of_one_process(run_twice: tuple[Path, Path]) -> None:
    alone, shared = run_twice
    finish(*OPTIONS, folder=alone)

    process = start(*OPTIONS, "--ray", "local", "--workers", "2", folder=shared)
    wait_for_answers(shared)
    worker = workers_of(psutil.Process(process.pid))[0]
    assert worker.environ()["RAY_AUTH_MODE"] == "token"  # Ray listens on all network interfaces
    worker.kill()
    shown, errors = process.communicate(timeout=300)

    assert process.returncode == 0, errors
    assert "raylet" not in shown + errors  # messages of Ray itself
    assert errors.count("died, and its cells are answered again") == 1
    assert scored_files(shared) == scored_files(alone)


@pytest.mark.slow
def test_ctrl_c_ends_the_workers_and_keeps_the_answers(run_twice: tuple[Path, Path]) -> None:
    alone, shared = run_twice
    process = start(*OPTIONS, "--ray", "local", "--workers", "1", folder=shared)
    wait_for_answers(shared)
    saved = answers_in(shared)
    ray_processes = psutil.Process(process.pid).children(recursive=True)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)

    assert (process.returncode, errors.splitlines()[-1]) == (130, "interrupted; what was saved before is whole")
    _, left = psutil.wait_procs(ray_processes, timeout=30)
    assert left == []
    kept = answers_in(shared)
    assert all(kept[path].startswith(content) for path, content in saved.items())
    finish(*OPTIONS, folder=alone)
    finish(*OPTIONS, folder=shared)
    assert scored_files(shared) == scored_files(alone)


@pytest.mark.slow
def test_a_race_on_workers_leaves_the_files_of_one_process(run_twice: tuple[Path, Path]) -> None:
    alone, shared = run_twice

    finish(*OPTIONS, "--race", folder=alone)
    finish(*OPTIONS, "--race", "--ray", "local", "--workers", "2", folder=shared)

    assert scored_files(shared) == scored_files(alone)
    assert (shared / RACE).read_bytes() == (alone / RACE).read_bytes()
