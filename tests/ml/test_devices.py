"""What is known of a device (a GPU is faked): precision, memory, and what launchers leave in the environment."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

from pricer.config import ModelConfig
from pricer.errors import ModelError
from pricer.ml.devices import (
    Precision,
    choose_precision,
    gpu_utilisation,
    has_fast_bfloat16,
    memory,
    peak_memory,
    refuse_several_gpus,
    remove_launcher_variables,
)
from tests.conftest import hides_gpus

GPU = Precision("cuda", "nf4", "bfloat16")


@pytest.fixture
def a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """An A100 with 40 GB, 10 of them in use, 7 of those at most by this process; it is busy for 87 %."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (30, 40))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 7)
    monkeypatch.setattr(torch.cuda, "utilization", lambda: 87)


class TestPrecision:
    @pytest.mark.parametrize(("amx", "dtype"), [(False, "float32"), (True, "bfloat16")])
    def test_auto_on_a_machine_without_a_gpu_is_bfloat16_where_it_is_fast(
        self, monkeypatch: pytest.MonkeyPatch, amx: bool, dtype: str
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        monkeypatch.setattr("pricer.ml.devices.has_fast_bfloat16", lambda: amx)

        assert choose_precision(ModelConfig()) == Precision("cpu", "nf4", dtype)

    @pytest.mark.parametrize(
        ("capabilities", "fast"), [({"amx_bf16": True}, True), ({"avx512_bf16": True}, False), ({}, False)]
    )
    def test_bfloat16_is_fast_with_amx(
        self, monkeypatch: pytest.MonkeyPatch, capabilities: dict[str, bool], fast: bool
    ) -> None:
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)

        assert has_fast_bfloat16() is fast

    def test_bfloat16_is_slow_where_torch_does_not_say(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)

        assert not has_fast_bfloat16()

    @pytest.mark.parametrize(("capability", "dtype"), [((7, 5), "float16"), ((8, 0), "bfloat16"), ((9, 0), "bfloat16")])
    def test_auto_on_a_gpu_is_bfloat16_only_where_it_has_it(
        self, a_gpu: None, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], dtype: str
    ) -> None:
        # A T4 has capability 7.5: torch would emulate bfloat16 there, many times slower.
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: capability)

        assert choose_precision(ModelConfig()) == Precision("cuda", "nf4", dtype)

    def test_a_run_that_began_on_a_t4_stays_in_float16_on_an_a100(self, a_gpu: None) -> None:
        assert choose_precision(ModelConfig(compute_dtype="float16")) == Precision("cuda", "nf4", "float16")

    def test_cuda_where_there_is_none_is_refused(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)

        with pytest.raises(ModelError, match=r"model\.device is cuda, but this machine has no CUDA device"):
            choose_precision(ModelConfig(device="cuda"))


class TestMeasures:
    def test_a_run_on_a_gpu_shows_the_gpus(self, a_gpu: None) -> None:
        assert (memory("cuda"), peak_memory("cuda"), gpu_utilisation("cuda")) == ((10, 40), 7, 87.0)

    def test_a_run_on_the_cpu_of_a_machine_with_a_gpu_shows_the_cpus(self, a_gpu: None) -> None:
        used, total = memory("cpu")

        assert total == psutil.virtual_memory().total
        # More than a Python with torch in it takes, and less than this machine has.
        assert 100e6 < used <= peak_memory("cpu") * 1.1 < total
        assert gpu_utilisation("cpu") is None

    @pytest.mark.parametrize("error", [ModuleNotFoundError("pynvml"), RuntimeError("no driver"), Exception("a slice")])
    def test_a_part_of_a_gpu_has_memory_of_its_own_and_no_utilisation(
        self, a_gpu: None, error: Exception, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def refuse() -> int:
            raise error

        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda: (4, 5))
        monkeypatch.setattr(torch.cuda, "utilization", refuse)

        assert (memory("cuda"), gpu_utilisation("cuda")) == ((1, 5), None)


class TestSeveralGpus:
    @pytest.mark.parametrize(("visible", "hint"), [(None, "0"), ("", "0"), ("2,3", "2"), ("GPU-8a, GPU-9b", "GPU-8a")])
    def test_training_is_told_to_take_one_that_it_may_use(
        self, visible: str | None, hint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

        with pytest.raises(ModelError) as caught:
            refuse_several_gpus(GPU)

        assert caught.value.message == "several GPUs are visible (2), and a run trains on one"
        assert caught.value.hint == f"export CUDA_VISIBLE_DEVICES={hint}"

    def test_on_the_cpu_they_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

        refuse_several_gpus(Precision("cpu", "nf4", "float32"))


class TestLaunchers:
    @pytest.mark.parametrize(
        ("environment", "message", "hint"),
        [
            (
                {"WORLD_SIZE": "8", "RANK": "0", "LOCAL_RANK": "0"},
                "a launcher started 8 processes (WORLD_SIZE), and a run trains in one",
                "start pricer by itself, without torchrun, accelerate launch or mpirun",
            ),
            (
                {"OMPI_COMM_WORLD_SIZE": "2"},
                "a launcher started 2 processes (OMPI_COMM_WORLD_SIZE), and a run trains in one",
                "start pricer by itself, without torchrun, accelerate launch or mpirun",
            ),
            (
                # srun -n 4, which starts Intel MPI's processes, too
                {"SLURM_NTASKS": "4", "SLURM_PROCID": "3", "SLURM_STEP_NUM_TASKS": "4", "PMI_SIZE": "4"},
                "Slurm started 4 tasks (SLURM_STEP_NUM_TASKS), and a run trains in one process",
                "srun -n 1 pricer train",
            ),
        ],
    )
    def test_one_of_several_processes_is_told_how_to_start_one(
        self, environment: dict[str, str], message: str, hint: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        with pytest.raises(ModelError) as caught:
            remove_launcher_variables()

        assert (caught.value.message, caught.value.hint) == (message, hint)

    @pytest.mark.parametrize(
        "environment",
        [
            {},
            {"WORLD_SIZE": "1", "RANK": "0", "LOCAL_RANK": "0"},  # torchrun --nproc-per-node 1
            {"SLURM_NTASKS": "4", "SLURM_PROCID": "0"},  # an sbatch script, where one process runs
            {"SLURM_NTASKS": "4", "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1"},  # srun -n 1 in it
            {"WORLD_SIZE": "many"},
        ],
    )
    def test_a_single_process_is_fine(self, environment: dict[str, str], monkeypatch: pytest.MonkeyPatch) -> None:
        for name, value in environment.items():
            monkeypatch.setenv(name, value)

        remove_launcher_variables()

    def test_what_a_launcher_of_one_process_left_is_forgotten_and_what_would_have_counted_is_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = {
            "WORLD_SIZE": "1",
            "LOCAL_RANK": "0",
            "ACCELERATE_MIXED_PRECISION": "bf16",
            "ACCELERATE_USE_CPU": "False",
        }
        for name, value in left.items():
            monkeypatch.setenv(name, value)

        assert remove_launcher_variables() == ["ACCELERATE_MIXED_PRECISION=bf16"]
        assert left.keys().isdisjoint(os.environ)
        assert remove_launcher_variables() == []


def test_tests_hide_the_gpu_unless_they_are_those_that_need_one() -> None:
    assert os.environ.get("CUDA_VISIBLE_DEVICES") == ""
    assert [marks for marks in ("", "not slow", "not gpu", "gpu") if not hides_gpus(marks)] == ["gpu"]


def test_widths_that_the_fast_kernel_does_not_take_are_no_warning_of_ours() -> None:
    spec = importlib.util.find_spec("bitsandbytes")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "backends" / "cuda" / "ops.py").read_text(encoding="utf-8")
    assert 'f"inner dimension ({K}) is not aligned for fast kernel "' in source  # as it is said today
    said = "inner dimension (160) is not aligned for fast kernel with blocksize=64, falling back"
    code = f"import pricer.ml, warnings; warnings.warn({said!r}); warnings.warn('something else')"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert "aligned" not in found.stderr
    assert "UserWarning: something else" in found.stderr
    assert "gemm_4bit_forward" not in found.stderr  # on a CPU with AVX512-BF16
