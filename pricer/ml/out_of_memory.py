"""Memory that runs out: the errors that mean it, and batches taken in parts that fit."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch

from pricer.errors import ModelError

Result = TypeVar("Result")

# What torch and the libraries under it say where they have no class for it: the CPU's allocator, a CUDA call outside of
# torch's allocator, cuBLAS and cuDNN asking for room to work in.
_SAID = (
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
        isinstance(error, RuntimeError) and any(said in str(error) for said in _SAID)
    )


def free() -> None:
    """Give back what torch keeps for later. To be called past the `except`: a traceback keeps what did not fit."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Halving:
    """Takes batches in halves where they do not fit, and goes on with the size that did.

    `what` completes "there is no memory left to …" for a part of one, which is named by `name_of`.
    """

    def __init__(self, what: str, name_of: Callable[[Any], str]) -> None:
        self._what = what
        self._name_of = name_of
        # The most of a batch that is taken at once, as (length of the longest, how many) that did not fit.
        self._too_much: int | None = None

    def take(
        self,
        call: Callable[[Sequence[Any]], list[Result]],
        batch: Sequence[Any],
        size: Callable[[Sequence[Any]], int] = len,
    ) -> list[Result]:
        """What `call` gives for a batch, or for its parts, one after the other. `size` says how much memory a batch
        takes, in any unit.

        An OutOfMemoryError if a single member does not fit.
        """
        if len(batch) == 1 or self._too_much is None or size(batch) < self._too_much:
            try:
                return call(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            free()
            if len(batch) == 1:
                self._too_much = None  # that was not for want of smaller batches
                raise OutOfMemoryError(
                    f"there is no memory left to {self._what} {self._name_of(batch[0])} by itself",
                    "model.quantization: nf4, or a GPU with more",
                )
            self._too_much = size(batch)
        half = len(batch) // 2
        return [*self.take(call, batch[:half], size), *self.take(call, batch[half:], size)]
