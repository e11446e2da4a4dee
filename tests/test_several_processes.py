"""Training on several processes: the same run as on one, and what happens when one of them ends."""

import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest
from accelerate.commands.config.config_args import load_config_from_file  # type: ignore[import-untyped]
from safetensors.numpy import load

from pricer.config_file import CONFIGS
from pricer.stores.files import read_lines
from tests.processes import finish, options, start
from tests.processes import run as run_command

# 49 items in batches of 8 are 7 steps an epoch, the last of one item: 14 steps, checkpoints at 4, 8, 12 and 14. In the
# last step of an epoch, the second of two processes has nothing to do.
SETTINGS: dict[str, object] = {
    "model__compute_dtype": "float32",
    "data__train_limit": 49,
    "data__val_limit": 40,
    "adapter__r": 4,
    "adapter__dropout": 0.0,
    "train__epochs": 2,
    "train__batch_size": 8,
    "train__checkpoint_every": 4,
    "train__log_every": 1,
    "train__val_items": 9,
}
STEPS = [4, 8, 12, 14]


def torchrun(processes: int, *nodes: str) -> list[str]:
    return [sys.executable, "-m", "torch.distributed.run", *nodes, "--nproc-per-node", str(processes)]


def launch(
    processes: int, *arguments: str, nodes: tuple[str, ...] = ("--standalone",), folder: str = "."
) -> subprocess.Popen[str]:
    launcher = torchrun(processes, *nodes)
    # Without "--", torchrun would take --run for an option of its own.
    command = [*launcher, "-m", "--", "pricer", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def wait(launcher: subprocess.Popen[str]) -> tuple[int, str]:
    """The exit code of a launcher, and what it and its processes wrote to stderr."""
    _, errors = launcher.communicate(timeout=600)
    return launcher.returncode, errors


def finish_launched(processes: int, *arguments: str) -> str:
    code, errors = wait(launch(processes, *arguments))
    assert code == 0, errors
    return errors


def find_process(launcher: subprocess.Popen[str], rank: int) -> psutil.Process:
    children = psutil.Process(launcher.pid).children()
    return next(child for child in children if child.environ().get("RANK") == str(rank))


def wait_for_step(run: Path, step: int) -> None:
    end = time.monotonic() + 300
    while not any(line["step"] >= step for line in metrics(run)):
        assert time.monotonic() < end
        time.sleep(0.05)


def metrics(run: Path) -> list[dict[str, Any]]:
    path = run / "metrics.jsonl"
    return list(read_lines(path)) if path.exists() else []


def values(run: Path, name: str) -> dict[int, float]:
    return {line["step"]: line[name] for line in metrics(run) if name in line}


def checkpoints(run: Path) -> list[tuple[int, float]]:
    return [(line["step"], line["epoch"]) for line in read_lines(run / "checkpoints.jsonl")]


def differences(one: Path, two: Path, name: str) -> list[float]:
    """The differences of a metric between two runs, by step."""
    first, second = values(one, name), values(two, name)
    assert first.keys() == second.keys()
    return [abs(first[step] - second[step]) for step in first]


def adapter(run: Path, step: int) -> dict[str, Any]:
    return load(read_adapter(run, step))


def read_adapter(run: Path, step: int) -> bytes:
    (path,) = run.glob(f"checkpoints/*{step}/adapter_model.safetensors")
    return path.read_bytes()


def assert_trained_alike(one: Path, two: Path) -> None:
    assert checkpoints(one) == checkpoints(two)
    assert max(differences(one, two, "loss")) < 1e-4
    assert max(differences(one, two, "val_loss")) < 1e-4
    first, second = adapter(one, 14), adapter(two, 14)
    assert max(abs(first[name] - second[name]).max() for name in first) < 1e-3


def test_two_processes_train_like_one_and_only_the_first_keeps_and_prints() -> None:
    finish("train", "--run", "one", *options(**SETTINGS))
    errors = finish_launched(2, "train", "--run", "two", *options(**SETTINGS))

    one, two = Path("runs/one"), Path("runs/two")
    assert [step for step, _ in checkpoints(two)] == STEPS
    assert_trained_alike(one, two)
    assert json.loads((two / "run.json").read_text())["processes"] == 2
    assert sorted(path.name for path in Path("runs").iterdir() if path.is_dir()) == ["one", "two"]
    # One line for each checkpoint, from one process.
    assert [errors.count(f"step-{step:06d} ") for step in STEPS] == [1, 1, 1, 1], errors


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_others_and_two_processes_or_one_can_go_on() -> None:
    # 7 steps an epoch, 20 epochs: 140 steps.
    settings = SETTINGS | {"adapter__dropout": 0.1, "train__epochs": 20, "train__checkpoint_every": 20}
    launcher = launch(2, "train", "--run", "killed", *options(**settings))
    run = Path("runs/killed")
    wait_for_step(run, 50)
    first, second = find_process(launcher, 0), find_process(launcher, 1)

    second.send_signal(signal.SIGKILL)
    first.wait(120)

    code, errors = wait(launcher)
    assert code != 0
    assert errors.count("error: ") == 1, errors
    said = errors.index("error: another of the 2 processes of this training was ended after step ")
    assert " hint: what was saved is whole; start all processes again: pricer train --resume --run killed" in errors
    assert "saving a checkpoint" not in errors
    assert "Traceback" not in errors[:said]  # torchrun shows one of its own afterwards

    shutil.copytree("runs", "elsewhere/runs")
    finish_launched(2, "train", "--resume", "--run", "killed")
    finish("train", "--resume", "--run", "killed", folder="elsewhere")
    every = [20, 40, 60, 80, 100, 120, 140]
    assert [[step for step, _ in checkpoints(place / run)] for place in (Path(), Path("elsewhere"))] == [every, every]


# pricer, but process 1 has no memory for a validation, or is killed in a step.
SABOTAGED = """
import os, signal, sys
import torch
import pricer.ml.predict, pricer.ml.loss, pricer.ml.sft
from pricer.cli import app

def no_memory(*_):
    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

def killed(*_):
    os.kill(os.getpid(), signal.SIGKILL)

if os.environ["RANK"] == "1" and sys.argv[1] == "no memory":
    pricer.ml.predict.TreeDecoder._predict = no_memory
if os.environ["RANK"] == "1" and sys.argv[1] == "killed":
    pricer.ml.sft.completion_loss = killed
app(sys.argv[2:])
"""


def sabotage(how: str, processes: int, monkeypatch: pytest.MonkeyPatch, *, sharded: bool) -> tuple[int, str]:
    Path("sabotaged.py").write_text(SABOTAGED)
    if sharded:  # as `accelerate launch` does
        monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
        monkeypatch.setenv("FSDP_VERSION", "2")
    command = [
        *torchrun(processes, "--standalone"),
        "--",
        "sabotaged.py",
        how,
        "train",
        "--run",
        "x",
        *options(**SETTINGS),
    ]
    return wait(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True))


@pytest.mark.slow
def test_a_validation_that_runs_out_of_memory_in_one_process_costs_no_checkpoint(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    code, errors = sabotage("no memory", 2, monkeypatch, sharded=False)

    assert code == 0, errors
    assert [step for step, _ in checkpoints(Path("runs/x"))] == STEPS
    assert [errors.count(f"step {step:,} is kept without a validation: ") for step in STEPS] == [1, 1, 1, 1], errors


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("no memory", "memory ran out in a validation, with FSDP: "),
        ("killed", "another of the 3 processes of this training was ended before the first step ("),
    ],
)
def test_with_fsdp_a_process_that_ends_ends_all_of_them_with_one_line(
    how: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(SETTINGS, "train__batch_size", 9)

    code, errors = sabotage(how, 3, monkeypatch, sharded=True)

    assert code != 0
    assert errors.count("error: ") == 1, errors
    assert f"error: {said}" in errors


def stop_after(step: int, run: Path, processes: int, *arguments: str) -> None:
    """Start a training, and stop it as a launcher is stopped by the user."""
    launcher = launch(processes, *arguments)
    wait_for_step(run, step)
    launcher.send_signal(signal.SIGINT)
    _, errors = wait(launcher)
    assert "all processes stop, and a checkpoint is saved" in errors, errors
    assert f"stopped; {run.name} is saved" in errors, errors
    assert "is kept without a validation: training stops; pricer eval scores it" in errors


@pytest.mark.slow
def test_a_stopped_run_goes_on_with_as_many_processes_bit_for_bit_and_also_with_one() -> None:
    # 7 steps an epoch, 20 epochs: 140 steps.
    settings = options(**SETTINGS | {"adapter__dropout": 0.1, "train__epochs": 20, "train__checkpoint_every": 100})
    finish_launched(2, "train", "--run", "whole", *settings)
    run, whole = Path("runs/stopped"), Path("runs/whole")
    stop_after(10, run, 2, "train", "--run", "stopped", *settings)
    state = max((run / "state").glob("checkpoint-*"), key=lambda folder: int(folder.name.removeprefix("checkpoint-")))
    assert {"rng_state.pth", "rng_state_1.pth"} <= {path.name for path in state.iterdir()}
    shutil.copytree("runs", "elsewhere/runs")

    both = finish_launched(2, "train", "--resume", "--run", "stopped")
    code, alone = run_command("train", "--resume", "--run", "stopped", folder="elsewhere")

    assert values(run, "loss") == values(whole, "loss")
    assert read_adapter(run, 140) == read_adapter(whole, 140)
    assert code == 0, alone
    assert checkpoints("elsewhere" / run)[-1] == (140, 20.0)
    said = "2 processes wrote the training state, not 1: dropout has new random numbers"
    assert [said in errors for errors in (both, alone)] == [False, True]


@pytest.mark.slow
def test_a_run_of_one_process_goes_on_with_two() -> None:
    finish("train", "--run", "one", *options(**SETTINGS))
    stopped = start("train", "--run", "two", *options(**SETTINGS))
    run = Path("runs/two")
    wait_for_step(run, 5)
    stopped.send_signal(signal.SIGTERM)
    stopped.communicate()

    errors = finish_launched(2, "train", "--resume", "--run", "two")

    assert "1 processes wrote the training state, not 2" in errors
    assert max(differences(Path("runs/one"), run, "loss")) < 1e-4


@pytest.mark.slow
def test_two_machines_train_together() -> None:
    """Two agents of torchrun, each with the working folder, the caches and the data of a machine of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    nodes = ("--nnodes", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", f"127.0.0.1:{port}", "--rdzv-id", "pricer")
    machines = []
    for name in ("first", "second"):
        Path(name).mkdir()
        machines.append(launch(1, "train", "--run", "two", *options(**SETTINGS), nodes=nodes, folder=name))

    assert [wait(machine)[0] for machine in machines] == [0, 0]

    finish("train", "--run", "one", *options(**SETTINGS))
    kept = [Path(name) / "runs" / "two" for name in ("first", "second")]
    (run,) = [folder for folder in kept if folder.exists()]
    assert_trained_alike(Path("runs/one"), run)


def accelerate(config: str, *arguments: str) -> str:
    """Train with `accelerate launch` and one of the bundled files, on two processes. Returns stderr."""
    launcher = [
        sys.executable,
        "-m",
        "accelerate.commands.launch",
        "--config_file",
        str(CONFIGS / "accelerate" / config),
    ]
    command = [*launcher, "--num_processes", "2", "--main_process_port", "0", "-m", "pricer", "train", *arguments]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.mark.slow
def test_accelerate_launches_the_same_training_and_fsdp_shares_out_the_base() -> None:
    finish("train", "--run", "one", *options(**SETTINGS))

    accelerate("one-node.yaml", "--run", "launched", *options(**SETTINGS))
    errors = accelerate("fsdp2.yaml", "--run", "sharded", *options(**SETTINGS | {"train__micro_batch": 3}))
    assert "FSDP: each of the 2 processes holds a part of the base's layers" in errors
    assert "not used" not in errors

    one, launched, sharded = Path("runs/one"), Path("runs/launched"), Path("runs/sharded")
    assert_trained_alike(one, launched)
    assert_trained_alike(one, sharded)
    finish("eval", "--run", "sharded", "--limit", "20")


@pytest.mark.parametrize("file", sorted((CONFIGS / "accelerate").glob("*.yaml")), ids=lambda file: file.stem)
def test_an_accelerate_file_starts_with_the_command_that_runs_it(file: Path) -> None:
    commands = [
        line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("# accelerate launch")
    ]

    assert commands
    assert all(f"--config_file configs/accelerate/{file.name} " in command for command in commands)
    assert load_config_from_file(str(file)).num_machines == (2 if file.stem == "two-nodes" else 1)
