"""The processes of one training: what their launcher says of each, its GPU, and its share of a batch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import takewhile

from pricer.errors import ConfigError, ModelError

# What torchrun and `accelerate launch` set. With them, processes can find each other.
_RENDEZVOUS = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LAUNCHED = _RENDEZVOUS[:4]
"""The variables that make a library believe that it runs in one of several processes."""
MPI = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")
"""The number of processes of Open MPI, of Intel MPI and MPICH, and of MVAPICH."""

RANDOM_STATE = "rng_state.pth"
"""The file with the random state of process 0, by the Trainer's name for the state of a single process."""

_SLURM_RECIPE = (
    # Only with --node-rank is process 0, which has the run's folder, on a machine that is known before.
    "one task for each machine, with torchrun in it: srun --nodes 2 --ntasks-per-node 1 bash -c 'torchrun --nnodes 2 "
    "--nproc-per-node 8 --node-rank $SLURM_NODEID --master-addr FIRST_HOST -m -- pricer train'"
)


@dataclass(frozen=True, slots=True)
class Ranks:
    """Which process this is among the `count` processes of a training, counted from 0 by `rank`. `local_rank` and
    `local_count` are the same for the processes on this machine. `sharded`: the launcher asks for FSDP, so every
    process holds a part of the base's weights.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    sharded: bool = False


def read_ranks(environment: Mapping[str, str]) -> Ranks:
    """What torchrun or `accelerate launch` says of this process; without a launcher, one process. A ModelError if there
    are several processes that cannot find each other: each of them would train the whole run.
    """
    if all(environment.get(name) for name in _RENDEZVOUS):
        numbers = [environment[name] for name in LAUNCHED]
        if not all(number.isdecimal() for number in numbers):
            text = ", ".join(f"{name}={environment[name]}" for name in LAUNCHED)
            raise ModelError(f"these are not numbers of processes: {text}", f"unset {' '.join(LAUNCHED)}")
        rank, count, local_rank, local_count = map(int, numbers)
        return Ranks(rank, count, local_rank, local_count, count > 1 and _asks_for_fsdp(environment))
    # SLURM_NTASKS says nothing: a single process in an sbatch script has it too, for the tasks of a later srun.
    if (count := _number(environment, "SLURM_STEP_NUM_TASKS")) > 1:
        raise ModelError(
            f"Slurm started {count} tasks (SLURM_STEP_NUM_TASKS), which cannot find each other", _SLURM_RECIPE
        )
    for name in ("WORLD_SIZE", *MPI):
        if (count := _number(environment, name)) > 1:
            raise ModelError(
                f"a launcher started {count} processes ({name}), which cannot find each other",
                f"torchrun --nproc-per-node {count} -m -- pricer train",
            )
    return Ranks()


def _asks_for_fsdp(environment: Mapping[str, str]) -> bool:
    if environment.get("ACCELERATE_USE_FSDP", "").lower() not in ("1", "true"):
        return False
    if (found := environment.get("FSDP_VERSION", "1")) != "2":
        raise ModelError(f"FSDP version {found} does not train 4-bit bases with adapters well", "fsdp_version: 2")
    return True


def choose_gpu(visible: str | None, ranks: Ranks) -> str:
    """The value of CUDA_VISIBLE_DEVICES for this process, with one GPU of its own. `visible` is the value that all
    processes of this machine were started with. A ModelError if it names fewer GPUs than there are processes.
    """
    if visible is None:
        return str(ranks.local_rank)
    listed = [name.strip() for name in visible.split(",") if name.strip()]
    names = list(takewhile(lambda name: name != "-1", listed))  # CUDA reads no further
    if names and len(names) < ranks.local_count:
        raise ModelError(
            f"{ranks.local_count} processes on this machine see {len(names)} GPUs (CUDA_VISIBLE_DEVICES={visible})",
            f"one process for each GPU: --nproc-per-node {len(names)}",
        )
    return names[ranks.local_rank] if names else ""


def share_batch(batch_size: int, processes: int, *, is_new: bool = True) -> int:
    """The number of items of a batch for each process. A ConfigError unless all processes get as many. The config of a
    run that is not `is_new` cannot change, but the number of processes can.
    """
    share, rest = divmod(batch_size, processes)
    if not rest:
        return share
    sizes = [size for size in (share * processes, (share + 1) * processes) if size]
    hint = " or ".join(f"--set train.batch_size={size}" for size in sizes)
    if not is_new:
        counts = [count for count in range(processes - 1, 0, -1) if batch_size % count == 0]
        hint = f"resume with {counts[0]} processes" if counts[0] > 1 else "resume with one process"
    raise ConfigError([f"train.batch_size is {batch_size}, which {processes} processes cannot share equally"], hint)


def name_random_state(rank: int) -> str:
    """The file of a training state with the random state of a process."""
    return f"rng_state_{rank}.pth" if rank else RANDOM_STATE


def is_random_state(name: str) -> bool:
    """Whether a file of a training state has the random state of a process."""
    return name == RANDOM_STATE or re.fullmatch(r"rng_state_[1-9][0-9]{0,3}\.pth", name) is not None


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 1
