"""Adapters merged into their layers: one product where an adapter beside its layer takes three."""

from collections.abc import Callable, Mapping
from typing import Any

import torch


class Merger:
    """Puts merged layers into a model in place of its linear ones, and takes them out again.

    A merged weight is worked out from the base's own each time, so nothing of one adapter is left for the next.
    `dense` gives a layer's weight (outputs, inputs) in float32, a tensor of its own.
    """

    def __init__(self, model: Any, dense: Callable[[Any], torch.Tensor]) -> None:
        self._model = model
        self._dense = dense
        self._own: dict[str, Any] = {}

    def merge(self, updates: Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]) -> None:
        """The base's layers with these updates alone: of each layer's name A (r, inputs), B (outputs, r) and the scale
        of B·A.
        """
        for name in self._own.keys() - updates.keys():
            self._model.set_submodule(name, self._own.pop(name))
        for name, (a, b, scale) in updates.items():
            own = self._own.setdefault(name, self._model.get_submodule(name))
            weight = self._dense(own).addmm_(b, a, alpha=scale)
            merged = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=own.bias is not None, device="meta")
            merged.weight = torch.nn.Parameter(weight, requires_grad=False)
            merged.bias = own.bias
            self._model.set_submodule(name, merged.eval())
