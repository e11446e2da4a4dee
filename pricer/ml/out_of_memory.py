"""Running out of memory: the errors that mean it, and batches split into parts that fit."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from pricer.errors import ModelError

Result = TypeVar("Result")

# Messages for which torch has no exception class: from the CPU's allocator, from a CUDA call outside of torch's
# allocator, and from cuBLAS and cuDNN when they ask for a workspace.
_MESSAGES = (
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
)


class OutOfMemoryError(ModelError):
    """Not even the smallest part fits."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)
    )


def free_memory() -> None:
    """Return the memory that torch has cached. To be called after the `except` block, whose traceback keeps tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class BatchSplitter:
    """Splits batches that do not fit into memory into halves, and continues with the size that did fit.

    `action` completes "there is no memory left to …" for a single member of a batch, which `name_of` names.
    """

    def __init__(self, action: str, name_of: Callable[[Any], str]) -> None:
        self._action = action
        self._name_of = name_of
        # The size of the smallest batch that did not fit.
        self._too_large: int | None = None

    def run(
        self,
        call: Callable[[Sequence[Any]], list[Result]],
        batch: Sequence[Any],
        size: Callable[[Sequence[Any]], int] = len,
    ) -> list[Result]:
        """The results of `call` for a batch, computed at once or in parts. `size` measures the memory that a batch
        takes, in any unit. An OutOfMemoryError if a single member does not fit.
        """
        if len(batch) == 1 or self._too_large is None or size(batch) < self._too_large:
            try:
                return call(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()
            if len(batch) == 1:
                self._too_large = None  # smaller batches would not have helped
                raise OutOfMemoryError(
                    f"there is no memory left to {self._action} {self._name_of(batch[0])} by itself",
                    "model.quantization: nf4, or a GPU with more",
                )
            self._too_large = size(batch)
        half = len(batch) // 2
        return [*self.run(call, batch[:half], size), *self.run(call, batch[half:], size)]
