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
from pricer.core.ranks import Ranks
from pricer.errors import ModelError
from pricer.ml.devices import (
    Precision,
    choose_precision,
    gpu_utilisation,
    has_fast_bfloat16,
    leave_launcher,
    memory,
    peak_memory,
    refuse_several_gpus,
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

        assert caught.value.message == "several GPUs are visible (2), and one process trains on one"
        assert caught.value.hint == (
            f"torchrun --nproc-per-node 2 -m -- pricer train …, or for one GPU: export CUDA_VISIBLE_DEVICES={hint}"
        )

    def test_on_the_cpu_they_do_not_matter(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)

        refuse_several_gpus(Precision("cpu", "nf4", "float32"))


class TestLaunchers:
    def test_their_variables_are_removed_and_settings_that_would_have_counted_are_named(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        left = {
            "RANK": "3",
            "WORLD_SIZE": "4",
            "LOCAL_RANK": "1",
            "LOCAL_WORLD_SIZE": "2",
            "MASTER_ADDR": "127.0.0.1",
            "MASTER_PORT": "29500",
            "ACCELERATE_MIXED_PRECISION": "bf16",
            "ACCELERATE_USE_CPU": "False",
        }
        for name, value in left.items():
            monkeypatch.setenv(name, value)

        assert leave_launcher() == (Ranks(3, 4, 1, 2), ["ACCELERATE_MIXED_PRECISION=bf16"])
        assert os.environ.keys() & left.keys() == {"MASTER_ADDR", "MASTER_PORT"}
        assert leave_launcher() == (Ranks(), [])


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
