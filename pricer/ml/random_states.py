"""The random state of each process in a training state, so that a resumed training draws the same dropout."""

import hashlib
from pathlib import Path

import torch

from pricer.core.ranks import RANDOM_STATE, is_random_state, name_random_state
from pricer.ml.processes import Processes


def find_random_states(folder: Path) -> list[Path]:
    """The files with the random states of processes in a training state."""
    return sorted(path for path in folder.iterdir() if is_random_state(path.name))


def gather_random_states(folder: Path, processes: Processes) -> None:
    """Write the random states of all processes into the folder of process 0. Each has its own in its own folder."""
    states = processes.gather((folder / RANDOM_STATE).read_bytes() if processes.rank else b"")
    if processes.rank == 0:
        for rank, content in enumerate(states[1:], start=1):
            (folder / name_random_state(rank)).write_bytes(content)


def seed_dropout(seed: int, step: int, rank: int) -> None:
    """Seed the random numbers of a process from a step on. Every process and step has its own."""
    digest = hashlib.sha256(f"{seed} {step} {rank}".encode()).digest()
    torch.manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
