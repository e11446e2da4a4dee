"""What the environment says of the processes and GPUs that somebody else arranged: launchers, Slurm, CUDA."""

from collections.abc import Mapping

# Where launchers say how many processes they started: torchrun, accelerate and deepspeed; Open MPI; Intel MPI and
# MPICH; MVAPICH. accelerate reads all of them, and makes one distributed training of the processes.
_WORLD_SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def several_processes(environment: Mapping[str, str]) -> tuple[str, str] | None:
    """What is so, and what to do, where this is one of several processes that a launcher started; None if it is not.
    Each would train the whole run, in the same folder.
    """
    # Not SLURM_NTASKS, which an sbatch script has too, where one process runs: the tasks are those of an srun in it.
    if (count := _number(environment, "SLURM_STEP_NUM_TASKS")) > 1:
        text = f"Slurm started {count} tasks (SLURM_STEP_NUM_TASKS), and a run trains in one process"
        return text, "srun -n 1 pricer train"
    for name in _WORLD_SIZES:
        if (count := _number(environment, name)) > 1:
            text = f"a launcher started {count} processes ({name}), and a run trains in one"
            return text, "start pricer by itself, without torchrun, accelerate launch or mpirun"
    return None


def show_one_gpu(visible: str | None) -> str:
    """The command that leaves the first GPU that may be used; `visible`: CUDA_VISIBLE_DEVICES. A scheduler may have
    allotted GPU 2 and 3 of a machine, so it need not be 0.
    """
    return f"export CUDA_VISIBLE_DEVICES={(visible or '').partition(',')[0].strip() or '0'}"


def _number(environment: Mapping[str, str], name: str) -> int:
    value = environment.get(name, "")
    return int(value) if value.isdecimal() else 1
