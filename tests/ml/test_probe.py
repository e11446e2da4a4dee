"""What torch and a driver find: real 4-bit products on the CPU, and cards and drivers that are made up."""

import json
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import bitsandbytes
import pynvml
import pytest
import torch

from pricer.config import ModelConfig
from pricer.core.gpus import Card, Driver, judge_product
from pricer.core.machine_checks import Finding
from pricer.ml import probe
from pricer.ml.devices import choose_precision


def cards(monkeypatch: pytest.MonkeyPatch, *present: Card) -> None:
    """Let torch have these cards; nothing can be put on them."""
    for name, value in {
        "is_available": lambda: bool(present),
        "device_count": lambda: len(present),
        "get_device_name": lambda index=0: present[index].name,
        "get_device_capability": lambda index=0: present[index].capability,
        "mem_get_info": lambda index=0: (present[index].free, present[index].total),
    }.items():
        monkeypatch.setattr(torch.cuda, name, value)


def raising(error: Exception) -> Callable[..., Any]:
    def raise_it(*_: Any, **__: Any) -> Any:
        raise error

    return raise_it


@pytest.fixture
def on_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    cards(monkeypatch)


class TestCuda:
    def test_every_card_with_its_memory(self, monkeypatch: pytest.MonkeyPatch) -> None:
        both = (Card("A", (8, 0), 30, 40), Card("B", (7, 5), 10, 16))
        cards(monkeypatch, *both)
        monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_80"])

        assert probe.cuda().cards == both
        assert probe.cuda().archs == ("sm_75", "sm_80")
        assert probe.cuda().problem == ""

    def test_a_driver_that_raises_is_quoted(self, monkeypatch: pytest.MonkeyPatch, on_cpu: None) -> None:
        monkeypatch.setattr(torch.cuda, "init", raising(RuntimeError("CUDA unknown error\nand much more")))

        found = probe.cuda()

        assert (found.cards, found.problem) == ((), "CUDA unknown error")
        assert (found.torch, found.built_for) == (torch.__version__, torch.version.cuda)

    @pytest.mark.parametrize("capability", [(7, 5), (8, 0), (9, 0), (12, 0)])
    def test_the_dtype_is_what_training_would_choose(
        self, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int]
    ) -> None:
        card = Card("A", capability, 30, 40)
        cards(monkeypatch, card)

        assert card.dtype == choose_precision(ModelConfig()).dtype


class FakeNvml:
    """NVIDIA's library with one card, or failing where it is told to."""

    NVMLError = pynvml.NVMLError
    NVML_ERROR_LIBRARY_NOT_FOUND = pynvml.NVML_ERROR_LIBRARY_NOT_FOUND
    NVML_ERROR_DRIVER_NOT_LOADED = pynvml.NVML_ERROR_DRIVER_NOT_LOADED

    def __init__(self, **raises: int) -> None:
        for name, value in {
            "nvmlInit": None,
            "nvmlSystemGetCudaDriverVersion": 12080,
            "nvmlSystemGetDriverVersion": "570.1",
            "nvmlDeviceGetCount": 1,
            "nvmlDeviceGetHandleByIndex": "handle",
            "nvmlDeviceGetName": "Tesla T4",
            "nvmlShutdown": None,
        }.items():
            error = raises.get(name)
            answer = (lambda *_, value=value: value) if error is None else raising(pynvml.NVMLError(error))
            setattr(self, name, answer)


class TestDriver:
    def ask(self, monkeypatch: pytest.MonkeyPatch, library: object) -> Driver:
        monkeypatch.setitem(sys.modules, "pynvml", library)
        return probe.driver()

    def test_what_it_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        # 12080: 12 thousands, 8 tens.
        assert self.ask(monkeypatch, FakeNvml()) == Driver("works", "570.1", "12.8", ("Tesla T4",))

    @pytest.mark.parametrize("error", [pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED])
    def test_without_one(self, monkeypatch: pytest.MonkeyPatch, error: int) -> None:
        assert self.ask(monkeypatch, FakeNvml(nvmlInit=error)).state == "absent"

    def test_one_that_was_updated_under_a_running_kernel(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = FakeNvml(nvmlInit=pynvml.NVML_ERROR_LIB_RM_VERSION_MISMATCH)

        assert self.ask(monkeypatch, library) == Driver("fails", problem="RM has detected an NVML/RM version mismatch.")

    def test_a_card_that_fell_off_the_bus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        library = FakeNvml(nvmlDeviceGetHandleByIndex=pynvml.NVML_ERROR_GPU_IS_LOST)

        assert self.ask(monkeypatch, library) == Driver("fails", problem="GPU is lost")

    def test_without_the_package(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert self.ask(monkeypatch, None) == Driver("unknown", problem="nvidia-ml-py is missing")


class TestProduct:
    def test_it_is_right_on_the_cpu(self, on_cpu: None) -> None:
        found = probe.product()

        assert (found.device, found.dtype) == ("cpu", "float32")
        assert set(found.errors) == {"1 rows", "16 rows", "512 rows", "gradient"}
        assert 0.05 < found.quantisation < 0.15
        assert judge_product(found).status == "ok"

    def test_a_kernel_that_is_off_is_found(self, monkeypatch: pytest.MonkeyPatch, on_cpu: None) -> None:
        right = bitsandbytes.nn.Linear4bit.forward
        # Only for a single row, as a kernel of its own would be.
        monkeypatch.setattr(
            *(bitsandbytes.nn.Linear4bit, "forward"),
            lambda layer, x: right(layer, x) * (1.01 if len(x) == 1 else 1.0),
        )

        found = judge_product(probe.product())

        assert (found.status, found.text) == ("failed", "wrong on the CPU in float32: 1 rows off by 1%")

    def test_weights_that_come_back_as_others_are_found(self, monkeypatch: pytest.MonkeyPatch, on_cpu: None) -> None:
        right = bitsandbytes.functional.dequantize_4bit
        monkeypatch.setattr(bitsandbytes.functional, "dequantize_4bit", lambda *a, **k: right(*a, **k).flip(0))

        assert judge_product(probe.product()).status == "failed"

    @pytest.mark.gpu
    @pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
    def test_it_is_right_on_a_gpu(self) -> None:
        found = probe.product()

        assert found.device == "cuda"
        assert judge_product(found).status == "ok", found


class TestMain:
    def run(self, capsys: pytest.CaptureFixture[str], *steps: str) -> list[dict[str, str]]:
        probe.main(steps)
        return [json.loads(line) for line in capsys.readouterr().out.splitlines() if line]

    def test_a_step_that_raises_is_a_finding_and_the_next_goes_on(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", raising(RuntimeError("CUDA error: unknown")))
        monkeypatch.setitem(probe.STEPS, "libraries", (lambda: [Finding("libraries", "ok", "fine")], "failed"))

        assert self.run(capsys, "GPU", "libraries") == [
            {"step": "GPU"},
            {
                "name": "GPU",
                "status": "failed",
                "text": "could not be checked: RuntimeError: CUDA error: unknown",
                "hint": "if all packages are as tested: please report it, with this output",
            },
            {"step": "libraries"},
            {"name": "libraries", "status": "ok", "text": "fine", "hint": ""},
            {"step": ""},
        ]

    def test_a_card_without_kernels_in_this_torch_fails_in_the_product(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        cards(monkeypatch, Card("Tesla K80", (3, 7), 10, 11))
        no_kernel = RuntimeError("CUDA error: no kernel image is available for execution on the device")
        monkeypatch.setattr(bitsandbytes.nn.Linear4bit, "to", raising(no_kernel))

        found = self.run(capsys, "4-bit product")[1]

        assert (found["status"], found["text"]) == ("failed", f"could not be checked: RuntimeError: {no_kernel}")

    def test_libraries_that_do_not_fit_each_other(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        error = ImportError("cannot import name 'X' from 'transformers'")
        monkeypatch.setattr(probe, "importlib", SimpleNamespace(import_module=raising(error)))

        found = self.run(capsys, "libraries")[1]

        assert (found["status"], found["text"]) == ("failed", f"could not be checked: ImportError: {error}")
