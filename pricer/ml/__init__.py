"""Everything that needs torch: base models, tokens, fine-tuning and prediction. It does not import pricer.stores."""

import logging
import warnings
from contextlib import suppress
from typing import Any

import torch


def _import_bitsandbytes() -> None:
    """Import bitsandbytes first, with `torch.compile` switched off.

    At import, bitsandbytes compiles one function, a fallback that neither CPU nor CUDA needs, and ignores a failure.
    Loading the compiler would add 2.9 s of CPU time and 41 MB to training and scoring (medians of 8 runs on two shared
    cores).
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nothing is compiled")

    # On CPUs with AVX512-BF16, bitsandbytes warns that it found no bfloat16 kernel. load_base switches this kernel off.
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    compiler, torch.compile = torch.compile, refuse
    try:
        log.setLevel(logging.ERROR)
        # If it is missing or broken, the modules that need it raise. `pricer doctor` can still check the GPU.
        with suppress(Exception):
            import bitsandbytes  # noqa: F401, PLC0415
    finally:
        torch.compile = compiler
        log.setLevel(level)


_import_bitsandbytes()
# On a GPU, bitsandbytes warns about each width that is not a multiple of 64. The bundled base has widths of 160 and
# 480, and a user cannot change them.
warnings.filterwarnings(
    "ignore", message=r"inner dimension \(\d+\) is not aligned for fast kernel", category=UserWarning
)
