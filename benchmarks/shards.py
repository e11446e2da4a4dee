"""Are shards that are killed again and again the undisturbed evaluation? Real processes, a real model, SIGKILL.

python benchmarks/shards.py RUN_FOLDER [--hub] [CHECKPOINTS ITEMS SHARDS SEED]

Copies a run, makes as many checkpoints from its own, and scores them in one process. Then scores a second copy in
shards: in random order, two at a time, each killed at random until it gets through, one of them a second time. Compares
every file of the two evaluations. With --hub, the run is in a repository of a Hub on 127.0.0.1, and every process,
started again or not, has an empty folder of its own.
"""

import itertools
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.stores.checkpoints import ADAPTER, PARTS, write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.runs import Run
from tests.loopback_hub import LoopbackHub

# A shard is killed with this probability, within so many seconds of its start.
KILLED, LONGEST = 0.6, 90.0
AT_ONCE, REPO = 2, "ann/shards"
Start = Callable[..., "subprocess.Popen[bytes]"]
"""Starts pricer with arguments. With `folder`, there; otherwise in an empty folder."""


def make_run(source: Path, target: Path, checkpoints: int) -> None:
    """A copy of a run with so many checkpoints: its own in turn, each with somewhat smaller weights than before."""
    target.mkdir(parents=True)
    for name in ("config.yaml", "run.json"):
        shutil.copyfile(source / name, target / name)
    config = target / "config.yaml"
    config.write_text(config.read_text().replace("batch_tokens: auto", "batch_tokens: 2048"))
    run, own = Run(target), Run(source).store
    for index in range(checkpoints):
        known = own.checkpoints()
        checkpoint = known[index % len(known)]
        with tempfile.TemporaryDirectory() as folder:
            for name in PARTS:
                shutil.copyfile(own.fetch(checkpoint) / name, Path(folder) / name)
            adapter = Path(folder) / ADAPTER
            tensors = {name: tensor * (1 - 0.02 * index) for name, tensor in load_file(adapter).items()}
            save_file(tensors, adapter, metadata={"format": "pt"})
            write_manifest(Path(folder), replace(checkpoint, step=index + 1, adapter_sha256=sha256_of(adapter)))
            run.store.push(Path(folder), index + 1)


def make_starter(scratch: Path, env: dict[str, str]) -> Start:
    """What starts `pricer eval` in a folder, or in a new one, with a home of its own."""
    numbers = itertools.count(1)

    def start(*arguments: str, folder: Path | None = None) -> "subprocess.Popen[bytes]":
        folder = folder or scratch / f"machine-{next(numbers)}"
        folder.mkdir(exist_ok=True)
        own = {
            "PYTHONPATH": str(Path(__file__).parent.parent),
            "OMP_NUM_THREADS": "1",
            "HF_HOME": str(folder / ".home"),
        }
        command = [sys.executable, "-m", "pricer", *arguments]
        environment = {**os.environ, **own, **env}
        return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)

    return start


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that must succeed."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def run_shards(start: Callable[[str], "subprocess.Popen[bytes]"], shards: int, dice: random.Random) -> tuple[int, int]:
    """Answer all shards, one of them twice. Returns how many processes were started, and how many were killed."""
    waiting = [*range(1, shards + 1), dice.randint(1, shards)]
    dice.shuffle(waiting)
    running: dict[int, tuple[subprocess.Popen[bytes], float]] = {}
    started = killed = 0
    while waiting or running:
        free = [number for number in waiting if number not in running]
        if free and len(running) < AT_ONCE:
            waiting.remove(free[0])
            deadline = time.monotonic() + (dice.uniform(0, LONGEST) if dice.random() < KILLED else 3600)
            running[free[0]] = start(f"{free[0]}/{shards}"), deadline
            started += 1
            continue
        time.sleep(0.02)
        for number, (process, deadline) in list(running.items()):
            if process.poll() is None and time.monotonic() > deadline:
                process.kill()
                process.communicate()
                killed += 1
                waiting.insert(dice.randint(0, len(waiting)), number)
                del running[number]
            elif process.poll() is not None:
                finish(process)
                del running[number]
    return started, killed


def read_tree(run: Path) -> dict[str, bytes]:
    """Every file of a run's evaluations."""
    folder = run / "evaluations"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def main() -> None:
    """Print how many processes were started and killed, and whether the files are the same."""
    through_hub = "--hub" in sys.argv
    words = [word for word in sys.argv[1:] if word != "--hub"]
    source = Path(words[0]).resolve()
    checkpoints, items, shards, seed = (int(word) for word in (words[1:] or ["20", "600", "8", "0"]))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        scratch, env = Path(folder), dict[str, str]()
        whole, parts = scratch / "whole", scratch / "parts"
        make_run(source, whole / "runs" / source.name, checkpoints)
        shutil.copytree(whole, parts)
        if through_hub:
            hub = stack.enter_context(LoopbackHub())
            env = {"HF_ENDPOINT": hub.url, "HF_TOKEN": hub.add_user("ann"), "HF_HUB_DISABLE_XET": "1"}
        start = make_starter(scratch, env)
        evaluate = ["eval", "--all-checkpoints", "--limit", str(items)]
        began = time.perf_counter()
        finish(start(*evaluate, folder=whole))
        print(f"in one process: {time.perf_counter() - began:.0f} s", flush=True)
        began, dice = time.perf_counter(), random.Random(seed)
        if through_hub:
            finish(start("push", "--run", source.name, "--repo", REPO, folder=scratch / "parts"))
            merged = scratch / "merged"
            counts = run_shards(lambda shard: start(*evaluate, "--repo", REPO, "--shard", shard), shards, dice)
        else:
            merged = parts
            counts = run_shards(lambda shard: start(*evaluate, "--shard", shard, folder=parts), shards, dice)
        print(
            f"{shards} shards: {counts[0]} processes, {counts[1]} killed, {time.perf_counter() - began:.0f} s",
            flush=True,
        )
        torn = [path for path in scratch.rglob("predictions-*.jsonl") if not path.read_bytes().endswith(b"\n")]
        began = time.perf_counter()
        finish(start(*evaluate, *(["--repo", REPO, "--merge"] if through_hub else []), folder=merged))
        print(f"merged: {time.perf_counter() - began:.0f} s ({len(torn)} files had a torn last line)", flush=True)
        first, second = (read_tree(next(one.glob("runs/*"))) for one in (whole, merged))
        lines = sum(content.count(b"\n") for name, content in first.items() if name.endswith("predictions.jsonl"))
        different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        print(f"{len(first)} files, {lines} batches; different: {', '.join(different) or 'none'}")


if __name__ == "__main__":
    main()
