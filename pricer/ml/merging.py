"""Adapters merged into their layers: one matrix product, where an adapter beside its layer takes three."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

# Maximum number of bytes of merged layers that are kept beside the base's own.
_MAX_MERGED_BYTES = 200_000_000

Updates = Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]
"""By a layer's name: A (r, inputs), B (outputs, r), and the scale of their product B·A."""


class MergedInPlace:
    """Merges adapters into the weights of a model's linear layers, which takes no memory. The original weights are read
    from the base's folder every time, so nothing of one adapter is left for the next.
    """

    def __init__(self, model: Any, folder: Path) -> None:
        self._model = model
        self._changed: set[str] = set()
        # The files of the base's tensors, by a tensor's name.
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def can_restore(self, layers: Mapping[str, Any]) -> bool:
        """Whether the weights of these layers are the same in the base's folder as in memory."""
        return all(
            f"{name}.weight" in self._files and torch.equal(self._read(name).to(layer.weight.dtype), layer.weight.data)
            for name, layer in layers.items()
        )

    def merge(self, updates: Updates) -> None:
        """Give the layers the base's weights with these updates and no others."""
        for name in sorted(self._changed | updates.keys()):
            weight = self._model.get_submodule(name).weight.data
            self._changed.add(name)
            weight.copy_(self._read(name))
            if name in updates:
                a, b, scale = updates[name]
                weight.addmm_(b, a, alpha=scale)

    def _read(self, layer: str) -> torch.Tensor:
        name = f"{layer}.weight"
        with safe_open(self._files[name], framework="pt") as file:
            weight: torch.Tensor = file.get_tensor(name)
        return weight


class MergedBeside:
    """Replaces linear layers by merged ones, for layers whose weights cannot be changed in place."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._originals: dict[str, Any] = {}

    def merge(self, updates: Updates) -> None:
        """Give the layers the base's weights with these updates and no others."""
        for name in self._originals.keys() - updates.keys():
            self._model.set_submodule(name, self._originals.pop(name))
        for name, (a, b, scale) in updates.items():
            original = self._originals.setdefault(name, self._model.get_submodule(name))
            weight = _copy_dense(original).addmm_(b, a, alpha=scale)
            self._model.set_submodule(name, plain_linear(weight, original.bias).eval())


def choose_merger(base: Any, layers: Mapping[str, Any]) -> MergedInPlace | MergedBeside | None:
    """The way to merge adapters into these layers of a base that gives the same results as adapters beside them, and
    takes little memory; None if there is none.

    Only on the CPU in float32, the dtype in which 4-bit weights are multiplied there: a 16-bit layer would round the
    update.
    """
    if base.device.type != "cpu" or base.dtype != torch.float32:
        return None
    kinds = {type(layer) for layer in layers.values()}
    if kinds == {torch.nn.Linear}:
        merger = MergedInPlace(base, Path(base.name_or_path))
        if merger.can_restore(layers):
            return merger
    size = sum(math.prod(layer_sizes(layer)) for layer in layers.values()) * 4
    if kinds <= {torch.nn.Linear, Linear4bit, Conv1D} and size <= _MAX_MERGED_BYTES:
        return MergedBeside(base)
    return None


def is_linear(module: Any) -> bool:
    """Whether a module is a linear layer of a kind that adapters can change."""
    return isinstance(module, torch.nn.Linear | Conv1D)


def layer_sizes(layer: Any) -> tuple[int, int]:
    """Inputs and outputs of a linear layer. (The weight of a 4-bit layer has another shape.)"""
    return (layer.nx, layer.nf) if isinstance(layer, Conv1D) else (layer.in_features, layer.out_features)


def plain_linear(weight: torch.Tensor, bias: Any) -> torch.nn.Linear:
    """A linear layer with these frozen weights (outputs, inputs) and bias (or None), which are not copied."""
    layer = torch.nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    layer.weight = torch.nn.Parameter(weight, requires_grad=False)
    layer.bias = bias
    return layer


def _copy_dense(layer: Any) -> torch.Tensor:
    """A copy of a linear layer's weight (outputs, inputs) in float32."""
    if isinstance(layer, Linear4bit):
        weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return weight.float()
    return (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).detach().clone().contiguous()
