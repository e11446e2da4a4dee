"""Faster training of a LoRA adapter on the CPU, where a step waits for memory as much as for products.

With weights in bfloat16, the layers compute in bfloat16 from an adapter in float32, as they do under autocast.

Shape suffixes: N tokens of all rows, I inputs, O outputs, R rank.
"""

from functools import partial
from typing import Any

import numpy as np
import torch

from pricer.ml.adapters import find_plain_layers

# Random bits per draw: a probability is rounded to 1/65,536.
_DRAWS = 2**16


def speed_up(model: Any) -> None:
    """Train a model's adapter on the CPU in fewer operations, with the same results up to rounding. Adapted layers
    whose weights are not in float32 or bfloat16 stay as they are.
    """
    dropout = SharedDropout()
    for layer in find_plain_layers(model):
        layer.forward = partial(_forward, layer, dropout)


def _forward(layer: Any, dropout: "SharedDropout", x: torch.Tensor) -> torch.Tensor:
    """The forward pass of a layer with one adapter."""
    (name,) = layer.active_adapters
    share = layer.lora_dropout[name].p if layer.training and hasattr(layer.lora_dropout[name], "p") else 0.0
    weight_OI = layer.base_layer.weight
    x = x.to(weight_OI.dtype)
    a_RI, b_OR = (part[name].weight.to(x.dtype) for part in (layer.lora_A, layer.lora_B))
    d, factor = dropout(x, share)
    y: torch.Tensor = _LoraProduct.apply(  # type: ignore[no-untyped-call]
        x, d, weight_OI, layer.base_layer.bias, a_RI, b_OR, factor * layer.scaling[name]
    )
    return y


class _LoraProduct(torch.autograd.Function):
    """y = x·Wᵀ + bias + scale · (d·Aᵀ)·Bᵀ, where d is x after dropout, or x itself. W and bias are not trained.

    The second term is added within its product. peft multiplies it by the scale, and adds it, in operations of their
    own: they read and write tensors of y's size three times in each direction.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        d: torch.Tensor,
        weight_OI: torch.Tensor,
        bias_O: torch.Tensor | None,
        a_RI: torch.Tensor,
        b_OR: torch.Tensor,
        scale: float,
    ) -> torch.Tensor:
        d_NI = d.flatten(0, -2)
        u_NR = d_NI @ a_RI.t()
        y = torch.nn.functional.linear(x, weight_OI, bias_O)
        y.flatten(0, -2).addmm_(u_NR, b_OR.t(), alpha=scale)
        ctx.save_for_backward(d_NI, u_NR, weight_OI, a_RI, b_OR)
        ctx.scale, ctx.is_dropped = scale, d is not x
        return y

    @staticmethod
    def backward(ctx: Any, grad_y: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        d_NI, u_NR, weight_OI, a_RI, b_OR = ctx.saved_tensors
        grad_NO = grad_y.flatten(0, -2)
        grad_u_NR = (grad_NO @ b_OR).mul_(ctx.scale)
        grad_x = grad_d = None
        if ctx.needs_input_grad[0]:
            grad_x = grad_NO @ weight_OI
            if not ctx.is_dropped:
                grad_x.addmm_(grad_u_NR, a_RI)
            grad_x = grad_x.view(*grad_y.shape[:-1], -1)
        if ctx.needs_input_grad[1] and ctx.is_dropped:
            grad_d = (grad_u_NR @ a_RI).view(*grad_y.shape[:-1], -1)
        grad_b_OR = (grad_NO.t() @ u_NR).mul_(ctx.scale)
        return grad_x, grad_d, None, None, grad_u_NR.t() @ d_NI, grad_b_OR, None


class SharedDropout:
    """Dropout with one mask for all layers that get the same input, such as queries, keys and values.

    torch draws a mask from a Mersenne Twister, one draw after another, which takes a tenth of a step. Here, numpy's
    SFC64 draws it, seeded by one draw of torch's generator: a training that is resumed draws the same masks.
    """

    def __init__(self) -> None:
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, x: torch.Tensor, share: float) -> tuple[torch.Tensor, float]:
        """The input with this share of its numbers set to 0, and the factor that makes up for them. With a share of 0,
        the input itself.
        """
        if share == 0:
            self._last = None
            return x, 1.0
        if self._last is None or self._last[0] is not x:
            self._last = x, x * draw_mask(x.shape, share).to(x.dtype)
        return self._last[1], _DRAWS / (_DRAWS - round(share * _DRAWS))


def draw_mask(shape: torch.Size, share: float) -> torch.Tensor:
    """A float32 mask of this shape: 0 with probability `share`, otherwise 1. (`masked_fill` takes four times as long as
    a product.)
    """
    seed = int(torch.randint(2**63 - 1, ()))
    draws = np.random.SFC64(seed).random_raw(-(-shape.numel() // 4)).view(np.uint16)[: shape.numel()]
    return torch.from_numpy((draws >= round(share * _DRAWS)).astype(np.float32)).view(shape)
