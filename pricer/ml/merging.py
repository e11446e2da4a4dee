"""Adapters merged into their layers: one product where an adapter beside its layer takes three."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

Updates = Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]
"""Of each layer's name A (r, inputs), B (outputs, r) and the scale of B·A."""


class MergedInPlace:
    """Merges adapters into the weights of a model's linear layers, where they lie: it takes no memory. What they were
    is read again from the base's folder each time, so nothing of one adapter is left for the next.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._stored = _StoredWeights(folder)
        self._changed: set[str] = set()

    def can_restore(self, layers: Mapping[str, Any]) -> bool:
        """Whether the weights of these layers are in the base's folder as they are in memory."""
        return all(self._stored.holds(f"{name}.weight", layer.weight.data) for name, layer in layers.items())

    def merge(self, updates: Updates) -> None:
        """The base's layers with these updates alone."""
        for name in sorted(self._changed | updates.keys()):
            weight = self._model.get_submodule(name).weight.data
            self._changed.add(name)
            weight.copy_(self._stored.read(f"{name}.weight"))
            if name in updates:
                a, b, scale = updates[name]
                weight.addmm_(b, a, alpha=scale)


class MergedBeside:
    """Puts merged layers into a model in place of its linear ones, and takes them out again: for layers whose weights
    are not numbers as they stand. `dense` gives a layer's weight (outputs, inputs) in float32, a tensor of its own.
    """

    def __init__(self, model: Any, dense: Callable[[Any], torch.Tensor]) -> None:
        self._model = model
        self._dense = dense
        self._own: dict[str, Any] = {}

    def merge(self, updates: Updates) -> None:
        """The base's layers with these updates alone."""
        for name in self._own.keys() - updates.keys():
            self._model.set_submodule(name, self._own.pop(name))
        for name, (a, b, scale) in updates.items():
            own = self._own.setdefault(name, self._model.get_submodule(name))
            weight = self._dense(own).addmm_(b, a, alpha=scale)
            self._model.set_submodule(name, plain_linear(weight, own.bias).eval())


def plain_linear(weight: torch.Tensor, bias: Any) -> torch.nn.Linear:
    """A layer of these frozen weights (outputs, inputs) and this bias or None, which are not copied."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = bias
    return layer


class _StoredWeights:
    """The tensors in the safetensors files of a folder, by name."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def holds(self, name: str, tensor: torch.Tensor) -> bool:
        """Whether a tensor of that name is there, and equal to this one at its precision."""
        return name in self._files and torch.equal(self.read(name).to(tensor.dtype), tensor)

    def read(self, name: str) -> torch.Tensor:
        """The tensor of that name, as it is stored."""
        with safe_open(self._files[name], framework="pt") as file:
            tensor: torch.Tensor = file.get_tensor(name)
        return tensor
