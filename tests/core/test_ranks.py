"""The processes of a training: what a launcher says of them, and their share of a batch."""

import pytest

from pricer.core.ranks import Ranks, choose_gpu, is_random_state, name_random_state, read_ranks, share_batch
from pricer.errors import ConfigError, ModelError

# torchrun --nnodes 2 --nproc-per-node 4, the second process of the second machine
TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "10.0.0.1",
    "MASTER_PORT": "29500",
}


class TestLaunchers:
    @pytest.mark.parametrize(
        ("environment", "ranks"),
        [
            ({}, Ranks(0, 1, 0, 1)),
            (TORCHRUN, Ranks(5, 8, 1, 4)),
            # srun --ntasks-per-node 1 torchrun: one task of Slurm for each machine
            ({**TORCHRUN, "SLURM_STEP_NUM_TASKS": "2", "PMI_SIZE": "2"}, Ranks(5, 8, 1, 4)),
            ({"SLURM_NTASKS": "4", "SLURM_PROCID": "0"}, Ranks()),  # an sbatch script, where one process runs
            ({"SLURM_NTASKS": "4", "SLURM_STEP_NUM_TASKS": "1"}, Ranks()),  # srun -n 1 in it
            ({"WORLD_SIZE": "many"}, Ranks()),
        ],
    )
    def test_they_say_which_process_this_is(self, environment: dict[str, str], ranks: Ranks) -> None:
        assert read_ranks(environment) == ranks

    @pytest.mark.parametrize(
        ("environment", "message", "hint"),
        [
            (
                {"WORLD_SIZE": "8", "RANK": "0", "LOCAL_RANK": "0"},
                "a launcher started 8 processes (WORLD_SIZE), which cannot find each other",
                "torchrun --nproc-per-node 8 -m -- pricer train",
            ),
            (
                {"OMPI_COMM_WORLD_SIZE": "2"},
                "a launcher started 2 processes (OMPI_COMM_WORLD_SIZE), which cannot find each other",
                "torchrun --nproc-per-node 2 -m -- pricer train",
            ),
            (
                # srun -n 4, which starts Intel MPI's processes, too
                {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "PMI_SIZE": "4"},
                "Slurm started 4 tasks (SLURM_STEP_NUM_TASKS), which cannot find each other",
                "one task for each machine, with torchrun in it: srun --nodes 2 --ntasks-per-node 1 bash -c 'torchrun "
                "--nnodes 2 --nproc-per-node 8 --node-rank $SLURM_NODEID --master-addr FIRST_HOST -m -- pricer train'",
            ),
            (
                {**TORCHRUN, "RANK": "first"},
                "these are not numbers of processes: RANK=first, WORLD_SIZE=8, LOCAL_RANK=1, LOCAL_WORLD_SIZE=4",
                "unset RANK WORLD_SIZE LOCAL_RANK LOCAL_WORLD_SIZE",
            ),
        ],
    )
    def test_processes_that_would_each_train_the_whole_run_are_refused(
        self, environment: dict[str, str], message: str, hint: str
    ) -> None:
        with pytest.raises(ModelError) as caught:
            read_ranks(environment)

        assert (caught.value.message, caught.value.hint) == (message, hint)


@pytest.mark.parametrize(
    ("visible", "gpu"),
    [(None, "1"), ("4,5,6,7", "5"), ("GPU-8a, GPU-9b, GPU-7c, GPU-1d", "GPU-9b"), ("", ""), ("-1", "")],
)
def test_each_process_sees_one_gpu_of_its_own(visible: str | None, gpu: str) -> None:
    assert choose_gpu(visible, Ranks(5, 8, 1, 4)) == gpu


def test_more_processes_than_gpus_are_refused() -> None:
    with pytest.raises(ModelError) as caught:
        choose_gpu("0,1", Ranks(5, 8, 1, 4))

    assert caught.value.message == "4 processes on this machine see 2 GPUs (CUDA_VISIBLE_DEVICES=0,1)"


def test_a_batch_is_shared_equally() -> None:
    assert [share_batch(16, count) for count in (1, 2, 8, 16)] == [16, 8, 2, 1]


@pytest.mark.parametrize(
    ("size", "count", "is_new", "hint"),
    [
        (10, 4, True, "--set train.batch_size=8 or --set train.batch_size=12"),
        (2, 4, True, "--set train.batch_size=4"),
        (10, 4, False, "resume with 2 processes"),  # 10 = 2 x 5, but 3 does not divide it
        (7, 4, False, "resume with one process"),
    ],
)
def test_a_batch_that_cannot_be_shared_equally_is_refused(size: int, count: int, is_new: bool, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        share_batch(size, count, is_new=is_new)

    assert caught.value.message == f"train.batch_size is {size}, which {count} processes cannot share equally"
    assert caught.value.hint == hint


def test_only_names_of_random_states_are_taken_for_them() -> None:
    names = [name_random_state(rank) for rank in (0, 1, 10)]

    assert names == ["rng_state.pth", "rng_state_1.pth", "rng_state_10.pth"]
    assert [
        name for name in (*names, "rng_state_0.pth", "rng_state_../x.pth", "optimizer.pt") if is_random_state(name)
    ] == names
