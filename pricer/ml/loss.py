"""The training loss. Logits are computed in float32, and only at the positions of completions.

Shape suffixes: B items, T tokens in a row, N scored positions in all rows together, H hidden size, V vocabulary.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from pricer.core.memory import needs_attention_mask
from pricer.ml.last_layer import last_layer_only_at

Span = tuple[int, int]
"""The start and the end of a completion in its row. The end-of-text token is included."""

# Number of weights that are converted to float32 at once, if a device cannot multiply 16-bit factors into 32 bits.
_WEIGHTS_AT_ONCE = 2**25


def completion_loss(model: Any, ids_BT: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """The negative log-likelihood, in nats, summed over all tokens of the completions. Rows are right-padded.

    If attention is fast without a mask, none is used. No token sees later tokens, so right padding has no effect.
    """
    width = max(end for _, end in spans)
    # The logits for a token are at the position before it.
    positions = [row * width + column - 1 for row, (start, end) in enumerate(spans) for column in range(start, end)]
    positions_N = torch.tensor(positions).to(ids_BT.device, non_blocking=True)
    ids_BT = ids_BT[: len(spans), :width]
    mask_11TT = make_causal_mask(model, width)
    with logits_only_at(model, positions_N), last_layer_only_at(model, positions_N):
        logits_NV = model(input_ids=ids_BT, attention_mask=mask_11TT, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits_NV, ids_BT.flatten()[positions_N + 1], reduction="sum")


def make_causal_mask(model: Any, width: int) -> torch.Tensor | None:
    """The mask (1, 1, T, T) of a causal LM for rows of `width` tokens; None if its attention is fast without one."""
    if not is_slow_without_mask(model.device, model.dtype):
        return None
    # The mask is added to the attention scores. transformers uses a mask with four dimensions unchanged. It drops a
    # mask with two dimensions if all rows have the same length.
    mask_TT = torch.full((width, width), torch.finfo(model.dtype).min, dtype=model.dtype, device=model.device)
    return mask_TT.triu(1)[None, None]


def is_slow_without_mask(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention on this device is slow without a mask."""
    if device.type != "cuda":
        return False
    is_ampere = torch.cuda.get_device_capability(device)[0] >= 8
    return needs_attention_mask(is_ampere=is_ampere, compute_bytes=dtype.itemsize)


def score_in_float32(model: Any) -> None:
    """Make a causal LM's output layer compute float32 logits.

    In 16 bits, logits between 16 and 32 are rounded to steps of 0.125, which changes one median in six.
    """
    layer = model.get_output_embeddings()
    layer.forward = _OutputLayer(layer)


@contextmanager
def logits_only_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """A context in which the model computes logits only at `positions` (N,) of the flattened batch, as (1, N, V).

    An architecture's own changes to its logits (a cap, a scale) still apply.
    """
    output_layer = model.get_output_embeddings().forward
    assert isinstance(output_layer, _OutputLayer)
    output_layer.positions = positions
    try:
        yield
    finally:
        output_layer.positions = None


class _OutputLayer:
    """The forward pass of an output layer."""

    def __init__(self, layer: torch.nn.Linear) -> None:
        self._layer = layer
        self.positions: torch.Tensor | None = None

    def __call__(self, hidden_BTH: torch.Tensor) -> torch.Tensor:
        weight_VH, bias_V = self._layer.weight, self._layer.bias
        if self.positions is not None:
            hidden_BTH = hidden_BTH.flatten(0, 1)[self.positions][None]  # (1, N, H)
        # Autocast would compute the product in 16 bits again.
        with torch.autocast(hidden_BTH.device.type, enabled=False):
            if weight_VH.dtype == torch.float32:
                return torch.nn.functional.linear(hidden_BTH.float(), weight_VH, bias_V)
            hidden_NH = hidden_BTH.flatten(0, -2).to(weight_VH.dtype)
            logits_NV: torch.Tensor = _Product.apply(hidden_NH, weight_VH)  # type: ignore[no-untyped-call]
            logits_BTV = logits_NV.view(*hidden_BTH.shape[:-1], -1)
            return logits_BTV if bias_V is None else logits_BTV + bias_V.float()


class _Product(torch.autograd.Function):
    """x_NH · weight_VHᵀ in float32, from factors in 16 bits. The weight is not trained."""

    @staticmethod
    def forward(ctx: Any, x_NH: torch.Tensor, weight_VH: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(weight_VH)
        ctx.dtype = x_NH.dtype
        if x_NH.is_cuda:
            return torch.mm(x_NH, weight_VH.t(), out_dtype=torch.float32)
        parts = torch.split(weight_VH, max(1, _WEIGHTS_AT_ONCE // weight_VH.shape[1]))
        return torch.cat([x_NH.float() @ part.float().t() for part in parts], dim=1)

    @staticmethod
    def backward(ctx: Any, grad_NV: torch.Tensor) -> tuple[torch.Tensor, None]:
        (weight_VH,) = ctx.saved_tensors
        return (grad_NV.to(weight_VH.dtype) @ weight_VH).to(ctx.dtype), None
