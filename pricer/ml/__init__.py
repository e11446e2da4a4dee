"""Everything that needs a tensor: base models, tokens, fine-tuning and prediction. Never imports stores."""

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

    compiler, torch.compile = torch.compile, refuse
    try:
        # Where it is missing or broken, whoever needs it says so; `pricer doctor` looks at the GPU all the same.
        with suppress(Exception):
            import bitsandbytes  # noqa: F401, PLC0415
    finally:
        torch.compile = compiler


_import_bitsandbytes()
