"""Everything that needs a tensor: base models, tokens, fine-tuning and prediction. Never imports stores."""

import logging
import warnings
from contextlib import suppress
from typing import Any

import torch


def _import_bitsandbytes() -> None:
    """Import bitsandbytes before anything else does, but not torch's compiler with it, which takes a second and 40 MB.

    It has one function compiled, which stands in where a device has no kernel of its own (CPU and CUDA have one), and
    leaves it as it is where that fails.
    """

    def refuse(*_: Any, **__: Any) -> Any:
        raise RuntimeError("nothing is compiled")

    # On CPUs with AVX512-BF16 it looks for a kernel that answers in bfloat16 whatever the run's precision is, and warns
    # that it found none. load_base sees to it that none is used.
    log = logging.getLogger("bitsandbytes.backends.cpu.ops")
    level = log.level
    compiler, torch.compile = torch.compile, refuse
    try:
        log.setLevel(logging.ERROR)
        # Where it is missing or broken, whoever needs it says so; `pricer doctor` looks at the GPU all the same.
        with suppress(Exception):
            import bitsandbytes  # noqa: F401, PLC0415
    finally:
        torch.compile = compiler
        log.setLevel(level)


_import_bitsandbytes()
# On a GPU bitsandbytes says so for each width that is no multiple of 64. The builtin base has widths of 160 and 480,
# and a user can change neither the width of a base nor what such a product costs.
warnings.filterwarnings(
    "ignore", message=r"inner dimension \(\d+\) is not aligned for fast kernel", category=UserWarning
)
