"""Checks by name, each a line of JSON as it ends: one that fails is a finding, and the next goes on."""

import gc
import json
import os
import resource
import time
import traceback
from collections.abc import Callable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch

IS_GPU = torch.cuda.is_available()
DEVICE = "cuda" if IS_GPU else "cpu"


class Report:
    """What was found. `wanted`: the checks to run, as patterns of their names; none: all of them."""

    def __init__(self, part: str, wanted: Sequence[str]) -> None:
        self._part, self._wanted = part, wanted
        self._began = time.monotonic()
        self._limit = float(os.environ.get("LIMIT_S", "inf"))
        self._folder = Path(os.environ["OUT"]) if "OUT" in os.environ else None
        self._failed: list[str] = []
        self._skipped: list[str] = []

    def say(self, name: str, *, ok: bool | None = None, **facts: Any) -> None:
        """Print a finding. `ok`: whether it is as it should be; None: it is a figure, not a judgement."""
        verdict = {} if ok is None else {"ok": ok}
        line = json.dumps({"check": name, "t": round(time.monotonic() - self._began, 1), **verdict, **facts})
        print(line, flush=True)
        if self._folder:
            with (self._folder / f"{self._part}.jsonl").open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        if ok is False:
            self._failed.append(name)

    def run(self, name: str, check: Callable[[], None]) -> None:
        """Run a check if it is wanted and there is time."""
        if self._wanted and not any(fnmatch(name, wanted) for wanted in self._wanted):
            return
        if time.monotonic() - self._began > self._limit:
            self._skipped.append(name)
            return
        free()
        try:
            check()
        except Exception as error:  # whatever it is, it is what was looked for
            where = "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
            self.say(name, ok=False, error=f"{type(error).__name__}: {error}"[:400], where=where)

    def keep(self, name: str, text: str) -> None:
        """Keep a longer text beside the lines."""
        if self._folder:
            (self._folder / name).write_text(text, encoding="utf-8")

    def verdict(self) -> int:
        """Print it; the exit code."""
        if self._skipped:
            print(f"out of time for {', '.join(self._skipped)}")
        print(f"FAILED: {', '.join(self._failed)}" if self._failed else f"{self._part}: nothing failed")
        return 1 if self._failed else 0


def free() -> None:
    """Begin anew with memory and its peaks."""
    gc.collect()
    if IS_GPU:
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def synchronize() -> None:
    """Wait for the GPU."""
    if IS_GPU:
        torch.cuda.synchronize()


def peaks() -> dict[str, float]:
    """The most memory since `free`, in GB (1e9 bytes): of the GPU, and of this process since it began."""
    found = {"rss_gb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9}
    if IS_GPU:
        left, total = torch.cuda.mem_get_info()
        found |= {
            "allocated_gb": torch.cuda.max_memory_allocated() / 1e9,
            "reserved_gb": torch.cuda.max_memory_reserved() / 1e9,
            "device_gb": (total - left) / 1e9,
        }
    return {name: round(value, 2) for name, value in found.items()}


class Cap:
    """While open, this process gets no more than so many GB of the GPU, as on a smaller card."""

    def __init__(self, gigabytes: float) -> None:
        self._bytes = int(gigabytes * 1e9)
        self._ask = torch.cuda.mem_get_info

    def __enter__(self) -> None:
        if IS_GPU:
            torch.cuda.set_per_process_memory_fraction(self._bytes / self._ask()[1])
            # Whoever asks what is left is told of the smaller card.
            # transformers, when it loads a model, takes every card to have 1.2 GiB.
            total = max(self._bytes, 2 * 2**30)
            torch.cuda.mem_get_info = lambda *_: (self._bytes - torch.cuda.memory_reserved(), total)

    def __exit__(self, *_: object) -> None:
        if IS_GPU:
            torch.cuda.mem_get_info = self._ask
            torch.cuda.set_per_process_memory_fraction(1.0)
