"""Are shards that are killed again and again the undisturbed evaluation? Real processes, a real model, SIGKILL.

python benchmarks/shards.py RUN_FOLDER [CHECKPOINTS ITEMS SHARDS SEED]

Copies a run, makes as many checkpoints from its own, and scores them in one process. Then scores a second copy in
shards: in random order, two at a time, each killed at random until it gets through, one of them a second time. Compares
every file of the two evaluations.
"""

import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from safetensors.numpy import load_file, save_file

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.stores.checkpoints import ADAPTER, PARTS, write_manifest
from pricer.stores.files import sha256_of
from pricer.stores.runs import Run

# A shard is killed with this probability, within so many seconds of its start.
KILLED, LONGEST = 0.6, 40.0
AT_ONCE = 2


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


def start(folder: Path, items: int, *options: str) -> "subprocess.Popen[bytes]":
    """Start `pricer eval` in a folder with a run."""
    command = [sys.executable, "-m", "pricer", "eval", "--all-checkpoints", "--limit", str(items), *options]
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(process: "subprocess.Popen[bytes]") -> None:
    """Wait for a process that must succeed."""
    _, errors = process.communicate()
    assert process.returncode == 0, errors.decode()


def run_shards(folder: Path, items: int, shards: int, dice: random.Random) -> tuple[int, int]:
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
            running[free[0]] = start(folder, items, "--shard", f"{free[0]}/{shards}"), deadline
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
    source = Path(sys.argv[1]).resolve()
    checkpoints, items, shards, seed = (int(word) for word in (sys.argv[2:] or ["20", "600", "8", "0"]))
    with tempfile.TemporaryDirectory() as scratch:
        whole, parts = Path(scratch) / "whole", Path(scratch) / "parts"
        make_run(source, whole / "runs" / source.name, checkpoints)
        shutil.copytree(whole, parts)
        began = time.perf_counter()
        finish(start(whole, items))
        print(f"in one process: {time.perf_counter() - began:.0f} s", flush=True)
        began = time.perf_counter()
        started, killed = run_shards(parts, items, shards, random.Random(seed))
        print(f"{shards} shards: {started} processes, {killed} killed, {time.perf_counter() - began:.0f} s", flush=True)
        torn = [path for path in parts.rglob("predictions-*.jsonl") if not path.read_bytes().endswith(b"\n")]
        began = time.perf_counter()
        finish(start(parts, items))
        print(f"merged: {time.perf_counter() - began:.0f} s ({len(torn)} files had a torn last line)", flush=True)
        first, second = (read_tree(folder / "runs" / source.name) for folder in (whole, parts))
        lines = sum(content.count(b"\n") for name, content in first.items() if name.endswith("predictions.jsonl"))
        different = sorted(name for name in first.keys() | second.keys() if first.get(name) != second.get(name))
        print(f"{len(first)} files, {lines} batches; different: {', '.join(different) or 'none'}")


if __name__ == "__main__":
    main()
