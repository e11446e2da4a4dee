"""LoRA adapters: adds a new one for training; reads and switches saved ones.

A saved adapter may come from a stranger. It is read as data, never run as code, and everything in it is checked.
"""

import itertools
import json
import math
import warnings
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import Linear as LoraLinear
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open

from pricer.config import AdapterConfig
from pricer.core.adapter_config import AdapterSettings, read_adapter_settings
from pricer.errors import CheckpointError, ModelError, first_line
from pricer.ml.devices import is_mixed
from pricer.ml.merging import choose_merger, is_linear, layer_sizes

_CONFIG_LIMIT = 1_000_000  # bytes; the names of every layer of a large model take 100,000
_HEADER_LIMIT = 16_000_000  # bytes; each tensor takes 150
_FLOATS = {"F64", "F32", "F16", "BF16"}


def add_adapter(model: Any, config: AdapterConfig, seed: int) -> Any:
    """The model with a new LoRA adapter, whose initial weights depend on the seed alone."""
    transformers.set_seed(seed)
    lora = LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,
        lora_dropout=config.dropout,
        target_modules=config.target_modules,
        bias="none",
        task_type="CAUSAL_LM",
    )
    targets, hint = f"adapter.target_modules = {config.target_modules}", "adapter.target_modules: all-linear"
    try:
        adapted = get_peft_model(model, lora)
    except ValueError as error:
        raise ModelError(f"no adapter fits {targets}: {first_line(error)}", hint) from None
    if is_mixed(model.device.type, model.dtype):
        for module in adapted.modules():
            if isinstance(module, BaseTunerLayer):
                # On a 16-bit layer, peft would convert the input to float32, and autocast would convert it back.
                module.cast_input_dtype_enabled = False
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        # loss.py computes logits from the layer itself, without an adapter on it.
        raise ModelError(f"{targets} includes the output layer, which cannot be adapted", hint)
    return adapted


def find_plain_layers(model: Any) -> list[Any]:
    """The adapted layers (peft's) of a model with plain weights in float32 or bfloat16."""
    return [
        layer
        for layer in model.modules()
        if type(layer) is LoraLinear
        and type(layer.base_layer) is torch.nn.Linear
        and layer.base_layer.weight.dtype in (torch.float32, torch.bfloat16)
    ]


def check_adapter(model: Any, folder: Path) -> None:
    """Raise a CheckpointError unless the adapter in `folder` has the same tensors as the model's adapter, all of them
    finite. (If a tensor is missing, peft silently keeps the initial weights.)
    """
    expected = get_peft_model_state_dict(model, save_embedding_layers=False)
    read_tensors(folder, {name: list(tensor.shape) for name, tensor in expected.items()})


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits a base. `targets` are the full paths of the layers it changes. `tensors` has A (r,
    inputs) and B (outputs, r) of each layer in float32, by their names in the file.
    """

    settings: AdapterSettings
    targets: list[str]
    tensors: dict[str, torch.Tensor]


def read_settings(folder: Path) -> AdapterSettings:
    """The checked adapter_config.json in a folder; a CheckpointError if it cannot be used."""
    path = folder / "adapter_config.json"
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_LIMIT + 1)
        if len(data) > _CONFIG_LIMIT:
            raise CheckpointError(f"{path} cannot be used: it is larger than {_CONFIG_LIMIT:,} bytes")
        record = json.loads(data.decode("utf-8"))
    except (OSError, ValueError, RecursionError):  # ValueError: also numbers with thousands of digits
        raise CheckpointError(f"{folder} has no adapter_config.json that can be read") from None
    try:
        return read_adapter_settings(record)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None


def read_tensors(folder: Path, shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """Read the adapter's weights in float32, by name. A CheckpointError unless the file has exactly the tensors in
    `shapes`. Shapes are checked before a tensor is read.
    """
    path = folder / "adapter_model.safetensors"
    # Without this file, peft would look for adapter_model.bin, a pickle.
    if not path.is_file():
        raise CheckpointError(f"{folder} has no adapter_model.safetensors")
    try:
        with path.open("rb") as head:
            size = int.from_bytes(head.read(8), "little")
        if size > _HEADER_LIMIT:
            raise CheckpointError(f"{path} cannot be used: its header has {size:,} bytes, {_HEADER_LIMIT:,} at most")
        with safe_open(path, framework="pt") as file:
            if odd := shapes.keys() ^ set(file.keys()):
                raise _misfit(folder, f"{len(odd)} tensors are missing or unknown, {_shown(min(odd))} for one")
            for name, shape in shapes.items():
                entry = file.get_slice(name)
                if entry.get_shape() != shape:
                    raise _misfit(folder, f"{name} has shape {entry.get_shape()}, not {shape}")
                if entry.get_dtype() not in _FLOATS:
                    raise CheckpointError(f"{path} cannot be used: {name} holds {entry.get_dtype()}, not floats")
            # In float32, as in training, whatever dtype was saved. Copied, because a tensor's alignment in the file
            # affects the last bits of its products.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {_shown(first_line(error))}") from None
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"the adapter in {folder} has weights that are not numbers ({len(bad)} tensors, {bad[0]} for one)"
        )
    return tensors


def _misfit(folder: Path, why: str) -> CheckpointError:
    return CheckpointError(f"the adapter in {folder} does not fit the base: {why}")


def _shown(text: str) -> str:
    """Untrusted text for a message: shortened, with control characters escaped."""
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 150 else f"{text[:150]}…"


class AdapterSwitch:
    """One base in memory, with one adapter at a time. With `merge`, the adapter is merged into the layers if
    `choose_merger` finds a way. Otherwise it is computed beside the layers.
    """

    def __init__(self, base: Any, *, merge: bool = True) -> None:
        self.model = base
        # Numbers for adapter names. Each name is used once, so an adapter that failed half-way is never used again.
        self._numbers = itertools.count()
        self._active: str | None = None
        # The settings (without the base's name) and targets of the active adapter.
        self._shape: tuple[AdapterSettings, list[str]] | None = None
        # Collected now, because peft replaces the linear layers when it adds an adapter.
        modules = dict(base.named_modules())
        self._modules = [name for name in modules if name]
        linear = {name: module for name, module in modules.items() if is_linear(module)}
        self._linear = {name: layer_sizes(module) for name, module in linear.items()}
        self._output = {name for name, module in modules.items() if module is base.get_output_embeddings()}
        layers = {name: module for name, module in linear.items() if name not in self._output}
        self._merger = choose_merger(base, layers) if merge else None

    def use(self, folder: Path) -> None:
        """Replace the active adapter by the adapter in `folder`. Unless this is a plain LoRA adapter in safetensors
        that fits the base, a CheckpointError is raised and the active adapter stays.
        """
        adapter = self._read(folder)
        settings, targets, tensors = adapter.settings, adapter.targets, adapter.tensors
        if self._merger is not None and not self._output.isdisjoint(targets):
            # The output layer may share its weight with the embeddings, so adapters are no longer merged from now on.
            self._merger.merge({})
            self._merger = None
        if self._merger is not None:
            scale = settings.alpha / (math.sqrt(settings.r) if settings.use_rslora else settings.r)
            names = {target: _tensor_names(target) for target in targets}
            self._merger.merge({target: (tensors[a], tensors[b], scale) for target, (a, b) in names.items()})
            return
        shape = (replace(settings, base=None, base_revision=None), targets)
        if self._shape == shape:
            # Only the weights differ. Copying them is faster: a new adapter takes seconds at a high rank.
            weights = get_peft_model_state_dict(self.model, adapter_name=self._active, save_embedding_layers=False)
            for name, weight in weights.items():
                weight.copy_(tensors[name])
            return
        lora = LoraConfig(
            r=settings.r,
            lora_alpha=settings.alpha,
            use_rslora=settings.use_rslora,
            fan_in_fan_out=settings.fan_in_fan_out,
            target_modules=targets,
            task_type="CAUSAL_LM",
            inference_mode=True,
        )
        # peft warns about two things that are intended here: a second adapter, and a base with another name.
        with warnings.catch_warnings(action="ignore"):
            try:
                self._activate(lora, tensors)
            except ValueError as error:  # peft has no adapters for some linear layers
                raise _misfit(folder, first_line(error)) from None
        self._shape = shape
        self.model.eval()

    def _read(self, folder: Path) -> Adapter:
        """Read the adapter in `folder`, with the same errors as in `use`. The base does not change."""
        settings = read_settings(folder)
        targets = self._targets(settings, folder)
        shapes: dict[str, list[int]] = {}
        for name in targets:
            (inputs, outputs), (a, b) = self._linear[name], _tensor_names(name)
            shapes |= {a: [settings.r, inputs], b: [outputs, settings.r]}
        return Adapter(settings, targets, read_tensors(folder, shapes))

    def _targets(self, settings: AdapterSettings, folder: Path) -> list[str]:
        """The full paths of the layers that the adapter changes, by the same rules as in peft."""
        if settings.target_modules == "all-linear":
            return [name for name in self._linear if name not in self._output]
        wanted = set(settings.target_modules)
        found = [name for name in self._modules if not wanted.isdisjoint(_endings(name))]
        if not found:
            raise _misfit(folder, f"none of its target_modules is there, {min(wanted)} for one")
        if odd := [name for name in found if name not in self._linear]:
            raise _misfit(folder, f"its target_modules take in {odd[0]}, which is not a linear layer")
        return found

    def _activate(self, lora: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        name = f"adapter{next(self._numbers)}"
        if not isinstance(self.model, PeftModel):
            self.model = get_peft_model(self.model, lora, adapter_name=name)
        else:
            self.model.add_adapter(name, lora)
        set_peft_model_state_dict(self.model, tensors, adapter_name=name)
        self.model.set_adapter(name, inference_mode=True)
        if self._active is not None:
            self.model.delete_adapter(self._active)
        self._active = name
        if is_mixed(self.model.device.type, self.model.dtype):
            # Round the weights once, instead of in autocast before every product.
            for path, parameter in self.model.named_parameters():
                if ".lora_" in path:
                    parameter.data = parameter.data.to(self.model.dtype)


def _tensor_names(layer: str) -> tuple[str, str]:
    """The names of A and B of a layer in an adapter's file."""
    return f"base_model.model.{layer}.lora_A.weight", f"base_model.model.{layer}.lora_B.weight"


def _endings(name: str) -> list[str]:
    """The names that select a module in target_modules. For `a.b.c` they are `a.b.c`, `b.c` and `c`."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
