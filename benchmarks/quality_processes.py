"""Runs the stacks of benchmarks/quality.py in processes, within a time limit.

Each stack gets a new process: an error of CUDA leaves a process unusable. The process is spawned, not forked: importing
bitsandbytes initializes CUDA, and CUDA does not survive a fork.
"""

import json
import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from quality_variants import VARIANTS, Stack

# Seconds that a process gets after the deadline, for its last line.
_GRACE = 20.0


@dataclass(frozen=True, slots=True)
class Task:
    """A stack to train, the file for its lines, and its work: tokens to train on."""

    stack: Stack
    lines: Path
    work: float


@dataclass(slots=True)
class _Running:
    task: Task
    process: BaseProcess
    since: float


def append_line(path: Path, line: dict[str, Any]) -> None:
    """Append a line to a JSON Lines file at once, so that nothing is lost if the process is killed."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(line) + "\n")
        file.flush()
        os.fsync(file.fileno())


def run_tasks(tasks: Sequence[Task], prepared: Path, data: str, settings: dict[str, Any], workers: int) -> None:
    """Train the stacks, in order, `workers` at the same time, until `settings["deadline"]`. Every job gets a line.

    A stack is left out if those before it were so slow that it cannot end in time.
    """
    context = multiprocessing.get_context("spawn")
    waiting, running, rates = list(tasks), list[_Running](), list[float]()
    deadline = settings["deadline"]
    while waiting or running:
        while waiting and len(running) < workers:
            task = waiting.pop(0)
            left, needed = deadline - time.time(), task.work * min(rates, default=0.0)
            if left <= 0 or needed > left:
                why = f"{left:.0f} s were left, and it takes {needed:.0f} s" if left > 0 else "time was up"
                _write_errors(task, data, f"not begun: {why}")
                continue
            process = context.Process(target=_work, args=(prepared, task.stack, task.lines, settings), daemon=True)
            process.start()
            print(f"{task.stack.name} begins, {left:.0f} s are left", file=sys.stderr, flush=True)
            running.append(_Running(task, process, time.time()))
        for one in list(running):
            one.process.join(0.1)
            if one.process.is_alive() and time.time() > deadline + _GRACE:
                one.process.kill()
                one.process.join(10)
            if one.process.is_alive():
                continue
            running.remove(one)
            code, seconds = one.process.exitcode, time.time() - one.since
            print(f"{one.task.stack.name} ended after {seconds:.0f} s with {code}", file=sys.stderr, flush=True)
            if code == 0 and time.time() < deadline:
                rates.append(seconds / one.task.work)
            elif code != 0:
                _write_errors(one.task, data, f"its process ended with {code}")


def _write_errors(task: Task, data: str, why: str) -> None:
    for job in task.stack.jobs:
        append_line(task.lines, {"data": data, "variant": job.variant, "seed": job.seed, "error": why})


def _work(prepared: Path, stack: Stack, lines: Path, settings: dict[str, Any]) -> None:
    """The process of one stack."""
    # Here, and not above: the parent needs none of this, and it takes seconds.
    from quality_items import read_prepared
    from quality_training import Run, train_stack

    train_stack(read_prepared(prepared), stack, Run(**settings), lambda line: append_line(lines, line))


def make_tasks(stacks: Sequence[Stack], tokens: dict[str, int], epochs: int, out: Path, data: str) -> list[Task]:
    """The task of each stack. `tokens` are those of an epoch, by form of prompts."""
    return [
        Task(
            stack,
            out / f"{data}-{index:02d}-{stack.name.replace('+', '_')}.jsonl",
            epochs * sum(tokens[VARIANTS[job.variant].prompts] for job in stack.jobs),
        )
        for index, stack in enumerate(stacks)
    ]
