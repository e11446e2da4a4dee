"""Computes the last layer of a model only where its output is used: on the CPU, where this was measured."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch


@contextmanager
def last_layer_only_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """A context in which a model's last layer computes no more than keys and values, except at `positions` (N,) of the
    flattened batch.

    Its output at other positions is meaningless. No other layer follows, so nothing else depends on it. It is computed
    in full on other devices and in float16, if its modules have other names, if it is compiled, and if its
    activations are recomputed, which happens after this context has ended.
    """
    modules = _modules_after_keys_and_values(model)
    before = [vars(module).get("forward") for module in modules]
    for module in modules:
        module.forward = partial(_compute_at, module.forward, positions)
    try:
        yield
    finally:
        for module, forward in zip(modules, before, strict=True):
            if forward is None:
                del module.forward
            else:
                module.forward = forward


def _modules_after_keys_and_values(model: Any) -> list[Any]:
    """The modules of the last layer whose output at a position is used only at that position."""
    layers = getattr(model.get_decoder(), "layers", None)
    if not layers or model.device.type != "cpu" or model.dtype == torch.float16:
        return []
    last = layers[-1]
    if last._compiled_call_impl is not None or (last.training and getattr(last, "gradient_checkpointing", False)):
        return []
    attention, mlp = getattr(last, "self_attn", None), getattr(last, "mlp", None)
    found = [getattr(attention, "q_proj", None), getattr(attention, "o_proj", None), mlp]
    return [module for module in found if module is not None]


def _compute_at(compute: Callable[[torch.Tensor], Any], positions: torch.Tensor, x_BTI: torch.Tensor) -> Any:
    """The output of a module at the positions, and 0 elsewhere."""
    chosen_1NO = compute(x_BTI.flatten(0, 1)[positions][None])
    if not isinstance(chosen_1NO, torch.Tensor):  # a mixture of experts may return more
        return compute(x_BTI)
    rows, width = x_BTI.shape[:2]
    zeros = chosen_1NO.new_zeros((rows * width, chosen_1NO.shape[-1]))
    return zeros.index_copy(0, positions, chosen_1NO[0]).view(rows, width, -1)
