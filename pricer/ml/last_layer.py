"""Computes the last layer of a model only where its output is used."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def last_layer_only_at(model: Any, positions: torch.Tensor) -> Iterator[None]:
    """A context in which the MLP of a model's last layer is computed only at `positions` (N,) of the flattened batch.

    The output at other positions is meaningless. No other layer follows, so nothing else depends on it. Models whose
    layers have other names are computed in full.
    """
    layers = getattr(model.get_decoder(), "layers", None)
    mlp = getattr(layers[-1], "mlp", None) if layers else None
    if mlp is None:
        yield
        return
    compute = mlp.forward

    def compute_at(hidden_BTH: torch.Tensor) -> Any:
        chosen = compute(hidden_BTH.flatten(0, 1)[positions][None])
        if not isinstance(chosen, torch.Tensor):  # a mixture of experts may return more
            return compute(hidden_BTH)
        output_BTH = torch.zeros_like(hidden_BTH)
        output_BTH.view(-1, hidden_BTH.shape[-1])[positions] = chosen[0]
        return output_BTH

    mlp.forward = compute_at
    try:
        yield
    finally:
        mlp.forward = compute
