"""What torch and the GPU's driver report about this machine, for `pricer doctor`. It runs in a separate process:

    python -c "from pricer.ml.probe import main; main(['GPU', …])"

A broken driver or kernel may hang or end the process instead of raising. At the top, this module imports no other
module of pricer.ml, because transformers may be missing.
"""

import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict

import torch

from pricer.config import ModelConfig
from pricer.core.gpus import Card, Cuda, Driver, Product, judge_cuda, judge_driver, judge_product
from pricer.core.machine_checks import Finding, Status, report_unexpected
from pricer.errors import first_line
from pricer.ml.devices import choose_precision

# Multiples of the block sizes of weights (64) and scales (256). Not square, so that a transposed product fails.
_INPUTS, _OUTPUTS = 512, 256
# bitsandbytes has different kernels for one row, a few rows and many rows.
_ROWS = (1, 16, 512)


def cuda() -> Cuda:
    """Every GPU that torch can use, with its free memory before anything is loaded; or the reason why there is none."""
    built_for = torch.version.cuda
    with warnings.catch_warnings(action="ignore"):  # the exception below says the same
        if torch.cuda.is_available():
            cards = tuple(_card(index) for index in range(torch.cuda.device_count()))
            return Cuda(torch.__version__, built_for, cards, archs=tuple(torch.cuda.get_arch_list()))
        try:
            torch.cuda.init()  # type: ignore[no-untyped-call]
        except Exception as error:  # RuntimeError or AssertionError
            return Cuda(torch.__version__, built_for, problem=first_line(error))
    return Cuda(torch.__version__, built_for)


def _card(index: int) -> Card:
    free, total = torch.cuda.mem_get_info(index)
    return Card(torch.cuda.get_device_name(index), torch.cuda.get_device_capability(index), free, total)


def driver() -> Driver:
    """What NVIDIA's driver reports about itself and the GPUs, whether or not torch can use them."""
    try:
        import pynvml  # noqa: PLC0415
    except ImportError:
        return Driver("unknown", problem="nvidia-ml-py is missing")
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        absent = error.value in (pynvml.NVML_ERROR_LIBRARY_NOT_FOUND, pynvml.NVML_ERROR_DRIVER_NOT_LOADED)
        return Driver("absent" if absent else "fails", problem=first_line(error))
    try:
        newest = pynvml.nvmlSystemGetCudaDriverVersion()
        handles = [pynvml.nvmlDeviceGetHandleByIndex(index) for index in range(pynvml.nvmlDeviceGetCount())]
        names = tuple(pynvml.nvmlDeviceGetName(handle) for handle in handles)
        version = pynvml.nvmlSystemGetDriverVersion()
        return Driver("works", version, f"{newest // 1000}.{newest % 1000 // 10}", names)
    except pynvml.NVMLError as error:
        return Driver("fails", problem=first_line(error))
    finally:
        pynvml.nvmlShutdown()


def product() -> Product:
    """Compare products with 4-bit and with dequantised weights, on the device and in the dtype of training."""
    import bitsandbytes  # noqa: PLC0415

    on_gpu = torch.cuda.is_available()
    device = "cuda" if on_gpu else "cpu"
    name = choose_precision(ModelConfig()).dtype
    dtype = getattr(torch, name)
    random = torch.Generator().manual_seed(0)
    weight = torch.randn(_OUTPUTS, _INPUTS, generator=random)
    layer = bitsandbytes.nn.Linear4bit(
        *(_INPUTS, _OUTPUTS), bias=False, compute_dtype=dtype, quant_type="nf4", compress_statistics=True
    )
    layer.weight = bitsandbytes.nn.Params4bit(
        weight.to(dtype), requires_grad=False, quant_type="nf4", compress_statistics=True
    )
    layer = layer.to(device)  # quantises the weights
    layer.support_avx512bf16_for_cpu = False  # as load_base does
    whole = bitsandbytes.functional.dequantize_4bit(layer.weight.data, layer.weight.quant_state).float().cpu()
    errors = {}
    for rows in _ROWS:
        inputs = torch.randn(rows, _INPUTS, generator=random).to(dtype)
        with torch.no_grad():
            errors[f"{rows} rows"] = _relative_error(layer(inputs.to(device)), inputs.float() @ whole.T)
    inputs = inputs.to(device).requires_grad_()
    gradient = torch.randn(_ROWS[-1], _OUTPUTS, generator=random).to(dtype)
    layer(inputs).backward(gradient.to(device))
    assert inputs.grad is not None
    errors["gradient"] = _relative_error(inputs.grad, gradient.float() @ whole)
    return Product(device, name, _relative_error(whole, weight), errors)


def _relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found.float().cpu() - expected).norm() / expected.norm())


def _libraries() -> Iterable[Finding]:
    """Import everything that training imports. Incompatible versions fail here."""
    start = time.monotonic()
    importlib.import_module("pricer.ml.sft")
    importlib.import_module("pricer.ml.predict")
    text = f"transformers, trl, peft and bitsandbytes can be imported, in {time.monotonic() - start:.0f} s"
    return [Finding("libraries", "ok", text)]


STEPS: dict[str, tuple[Callable[[], Iterable[Finding]], Status]] = {
    "GPU": (lambda: judge_cuda(cuda(), driver(), os.environ.get("CUDA_VISIBLE_DEVICES")), "failed"),
    "driver": (lambda: [judge_driver(driver(), cuda())], "warning"),
    "4-bit product": (lambda: [judge_product(product())], "failed"),
    "libraries": (_libraries, "failed"),
}
"""The checks by name, in order, and the status of a check that raises."""


def main(steps: Sequence[str]) -> None:
    """Run checks. Writes lines of JSON: before each check its name, then its Findings, and at the end an empty name."""
    for name in steps:
        _write({"step": name})
        check, if_it_raises = STEPS[name]
        try:
            findings = list(check())
        except Exception as error:  # the next check runs whatever this one raises
            findings = [report_unexpected(name, if_it_raises, error)]
        for finding in findings:
            _write(asdict(finding))
    _write({"step": ""})  # later failures do not matter: some drivers fail at the end of a process


def _write(record: dict[str, str]) -> None:
    sys.stdout.write(f"\n{json.dumps(record)}\n")  # on a line of its own, even if a library has written before
    sys.stdout.flush()
