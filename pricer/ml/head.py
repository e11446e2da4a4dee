"""The output layer: float32 logits whatever the weights are in, and only at the positions that are scored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# Numbers of a weight matrix that are made float32 at once where a device cannot multiply 16 bits into 32.
_CELLS = 2**25


def score_in_float32(model: Any) -> None:
    """Have a causal LM's output layer give float32 logits.

    In 16 bits logits are rounded to steps of 0.125 between 16 and 32, which moves one median in six.
    """
    layer = model.get_output_embeddings()
    layer.forward = _Head(layer)


@contextmanager
def logits_only_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """While open, the model's logits are those of `positions` (n,) of the flattened batch alone, as (1, n, vocabulary).

    Whatever an architecture does to logits afterwards (a cap, a scale) is done to these, too.
    """
    head = model.get_output_embeddings().forward
    assert isinstance(head, _Head)
    head.positions = positions
    try:
        yield
    finally:
        head.positions = None


class _Head:
    """The forward pass of an output layer."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        self._layer = layer
        self.positions: torch.Tensor | None = None

    def __call__(self, hidden: torch.Tensor) -> torch.Tensor:
        weight, bias = self._layer.weight, self._layer.bias
        if self.positions is not None:
            hidden = hidden.flatten(0, 1)[self.positions][None]
        # Under autocast the product would be one of 16 bits again.
        with torch.autocast(hidden.device.type, enabled=False):
            if weight.dtype == torch.float32:
                return torch.nn.functional.linear(hidden.float(), weight, bias)
            logits: torch.Tensor = _Product.apply(hidden.flatten(0, -2).to(weight.dtype), weight)  # type: ignore[no-untyped-call]
            logits = logits.view(*hidden.shape[:-1], -1)
            return logits if bias is None else logits + bias.float()


class _Product(torch.autograd.Function):
    """x (n, inputs) · weightᵀ (inputs, outputs), both in 16 bits, as float32. The weight is not trained."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight)
        ctx.dtype = x.dtype
        if x.is_cuda:
            return torch.mm(x, weight.t(), out_dtype=torch.float32)
        parts = torch.split(weight, max(1, _CELLS // weight.shape[1]))
        return torch.cat([x.float() @ part.float().t() for part in parts], dim=1)

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight,) = ctx.saved_tensors
        return (grad.to(weight.dtype) @ weight).to(ctx.dtype), None
