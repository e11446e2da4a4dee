"""Merges adapters into their layers. A merged layer takes one matrix product, an adapter beside it three."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from safetensors import safe_open
from transformers.pytorch_utils import Conv1D

# Maximum size in bytes of merged copies of layers that are kept in addition to the base's own layers.
_MAX_MERGED_BYTES = 200_000_000

Updates = Mapping[str, tuple[torch.Tensor, torch.Tensor, float]]
"""For each layer name: A (r, inputs), B (outputs, r), and the scale of their product B·A."""


class Merger:
    """Merges adapters into the weights of plain float32 linear layers. `read` returns the original weight of a layer.
    It is called for every merge, so nothing of an earlier adapter remains.
    """

    def __init__(self, layers: Mapping[str, Any], read: Callable[[str], torch.Tensor]) -> None:
        self._layers = layers
        self._read = read
        self._changed: set[str] = set()

    def merge(self, updates: Updates) -> None:
        """Set the layers' weights to the base's weights plus these updates. Earlier updates are removed."""
        for name in sorted(self._changed | updates.keys()):
            weight = self._layers[name].weight.data
            self._changed.add(name)
            weight.copy_(self._read(name))
            if name in updates:
                a, b, scale = updates[name]
                weight.addmm_(b, a, alpha=scale)


def choose_merger(base: Any, layers: Mapping[str, Any]) -> Merger | None:
    """Choose how to merge adapters into these layers of a base. The results are the same as with adapters beside the
    layers, and merging takes little memory. None if this is impossible.

    Adapters are only merged on the CPU and in float32: a 16-bit layer would round the update. On the CPU, 4-bit weights
    are multiplied in float32 too.
    """
    if base.device.type != "cpu" or base.dtype != torch.float32:
        return None
    kinds = {type(layer) for layer in layers.values()}
    if kinds == {torch.nn.Linear}:
        stored = _StoredWeights(Path(base.name_or_path))
        if all(stored.holds(name, layer.weight.data) for name, layer in layers.items()):
            # Merge in place, which takes no memory: the original weights can be read again from the files.
            return Merger(layers, stored.read)
    size = sum(math.prod(layer_sizes(layer)) for layer in layers.values()) * 4
    if not kinds <= {torch.nn.Linear, Linear4bit, Conv1D} or size > _MAX_MERGED_BYTES:
        return None
    copies = {name: plain_linear(_copy_dense(layer), layer.bias).eval() for name, layer in layers.items()}
    for name, layer in copies.items():
        base.set_submodule(name, layer)
    return Merger(copies, lambda name: _copy_dense(layers[name]))


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


class _StoredWeights:
    """The weights in the safetensors files of a base's folder, by layer."""

    def __init__(self, folder: Path) -> None:
        self._files: dict[str, Path] = {}
        for path in sorted(folder.glob("*.safetensors")):
            with safe_open(path, framework="pt") as file:
                self._files |= dict.fromkeys(file.keys(), path)

    def holds(self, layer: str, weight: torch.Tensor) -> bool:
        """Whether a layer's weight is stored, and equals `weight` after conversion to its dtype."""
        return f"{layer}.weight" in self._files and torch.equal(self.read(layer).to(weight.dtype), weight)

    def read(self, layer: str) -> torch.Tensor:
        """A layer's weight, as it is stored."""
        name = f"{layer}.weight"
        with safe_open(self._files[name], framework="pt") as file:
            weight: torch.Tensor = file.get_tensor(name)
        return weight
