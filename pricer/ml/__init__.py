"""Everything that needs a tensor: base models, tokens, fine-tuning and prediction. Never imports stores."""

import logging
import warnings
from contextlib import suppress
from typing import Any

import torch


def _import_bitsandbytes() -> None:
    """Import bitsandbytes first, with `torch.compile` switched off: it compiles one function at import, a fallback that
    neither CPU nor CUDA needs, and continues without it if that fails. Loading the compiler for it would add 2.9 s of
    CPU time and 41 MB to training and scoring (medians of 8 runs on two shared cores).
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nothing is compiled")

    # On CPUs with AVX512-BF16, bitsandbytes warns that it found no bfloat16 kernel. load_base makes sure that none is
    # used.
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    compiler, torch.compile = torch.compile, refuse
    try:
        log.setLevel(logging.ERROR)
        # If it is missing or broken, the modules that need it raise. `pricer doctor` looks at the GPU all the same.
        with suppress(Exception):
            import bitsandbytes  # noqa: F401, PLC0415
    finally:
        torch.compile = compiler
        log.setLevel(level)


_import_bitsandbytes()
# On a GPU bitsandbytes warns about each width that is not a multiple of 64. The bundled base has widths of 160 and 480,
# and a user cannot change the width of a base.
warnings.filterwarnings(
    "ignore", message=r"inner dimension \(\d+\) is not aligned for fast kernel", category=UserWarning
)
