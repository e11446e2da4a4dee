"""LoRA adapters on a base: a new one to train, and saved ones to switch between."""

import math
import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import transformers
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer

from pricer.config import AdapterConfig
from pricer.core.adapter_config import AdapterSettings
from pricer.errors import CheckpointError, ModelError, first_line
from pricer.ml.adapter_files import Adapter, read_settings, read_tensors
from pricer.ml.devices import is_mixed
from pricer.ml.merging import choose_merger, is_linear, layer_sizes


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
    try:
        adapted = get_peft_model(model, lora)
    except ValueError as error:
        raise ModelError(
            f"no adapter fits adapter.target_modules = {config.target_modules}: {first_line(error)}",
            "adapter.target_modules: all-linear",
        ) from None
    if is_mixed(model.device.type, model.dtype):
        for module in adapted.modules():
            if isinstance(module, BaseTunerLayer):
                # On a layer in 16 bits, peft would convert the input to float32 and autocast would convert it back.
                module.cast_input_dtype_enabled = False
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        # Logits are computed from the layer itself (loss.py), without any adapter on it.
        raise ModelError(
            f"adapter.target_modules = {config.target_modules} includes the output layer, which cannot be adapted",
            "adapter.target_modules: all-linear",
        )
    return adapted


def check_adapter(model: Any, folder: Path) -> None:
    """Raise a CheckpointError unless the adapter in `folder` has the same tensors as the model's own, all finite. (peft
    would silently leave the model's initial weights where some are missing.)
    """
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    read_tensors(folder, {name: list(tensor.shape) for name, tensor in own.items()})


class AdapterSwitch:
    """One base in memory, with one adapter at a time on it.

    `merge`: adapters are merged into their layers where `choose_merger` finds a way; otherwise they stand beside them.
    """

    def __init__(self, base: Any, *, merge: bool = True) -> None:
        self.model = base
        self._count = 0
        self._active: str | None = None
        # Settings (without the base's name) and targets of the active adapter.
        self._shape: tuple[AdapterSettings, list[str]] | None = None
        # Found now: once there is an adapter, the linear layers are peft's.
        self._modules = [name for name, _ in base.named_modules() if name]
        self._linear = {name: layer_sizes(module) for name, module in base.named_modules() if is_linear(module)}
        output = base.get_output_embeddings()
        self._output = {name for name, module in base.named_modules() if module is output}
        layers = {n: m for n, m in base.named_modules() if is_linear(m) and n not in self._output}
        self._merger = choose_merger(base, layers) if merge else None

    def use(self, folder: Path) -> None:
        """Replace the active adapter by the one in `folder`. If that is not a plain LoRA adapter in safetensors that
        fits the base, nothing changes and a CheckpointError is raised.
        """
        adapter = self.read(folder)
        settings, targets, tensors = adapter.settings, adapter.targets, adapter.tensors
        if self._merger is not None and not self._output.isdisjoint(targets):
            # The output layer may share its weight with the embeddings: from now on, adapters stand beside layers.
            self._merger.merge({})
            self._merger = None
        if self._merger is not None:
            scale = settings.alpha / (math.sqrt(settings.r) if settings.use_rslora else settings.r)
            path = "base_model.model.{}.lora_{}.weight"
            self._merger.merge(
                {name: (tensors[path.format(name, "A")], tensors[path.format(name, "B")], scale) for name in targets}
            )
            return
        shape = (replace(settings, base=None, base_revision=None), targets)
        if self._shape == shape:
            self._copy_weights(tensors)
            return
        # peft warns about what is intended here: an adapter beside another, a base with another name.
        with warnings.catch_warnings(action="ignore"):
            lora = LoraConfig(
                r=settings.r,
                lora_alpha=settings.alpha,
                use_rslora=settings.use_rslora,
                fan_in_fan_out=settings.fan_in_fan_out,
                target_modules=targets,
                task_type="CAUSAL_LM",
                inference_mode=True,
            )
            try:
                self._activate(lora, tensors)
            except ValueError as error:  # linear layers for which peft has no adapters
                raise CheckpointError(f"the adapter in {folder} does not fit the base: {first_line(error)}") from None
        self._shape = shape
        self.model.eval()

    def _copy_weights(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Copy other weights into the active adapter: a new one takes seconds at a high rank."""
        weights = get_peft_model_state_dict(self.model, adapter_name=self._active, save_embedding_layers=False)
        for name, weight in weights.items():
            weight.copy_(tensors[name])

    def read(self, folder: Path) -> Adapter:
        """The adapter in `folder`; a CheckpointError as in `use`. The base does not change."""
        settings = read_settings(folder)
        targets = self._targets(settings, folder)
        shapes = {}
        for name in targets:
            inputs, outputs = self._linear[name]
            shapes[f"base_model.model.{name}.lora_A.weight"] = [settings.r, inputs]
            shapes[f"base_model.model.{name}.lora_B.weight"] = [outputs, settings.r]
        return Adapter(settings, targets, read_tensors(folder, shapes))

    def _targets(self, settings: AdapterSettings, folder: Path) -> list[str]:
        """Full paths of the base's layers that the adapter changes, found as peft finds them."""
        if settings.target_modules == "all-linear":
            return [name for name in self._linear if name not in self._output]
        wanted = set(settings.target_modules)
        found = [name for name in self._modules if not wanted.isdisjoint(_endings(name))]
        if not found:
            raise CheckpointError(
                f"the adapter in {folder} does not fit the base: none of its target_modules is there, "
                f"{min(wanted)} for one"
            )
        for name in found:
            if name not in self._linear:
                raise CheckpointError(
                    f"the adapter in {folder} does not fit the base: its target_modules take in {name}, "
                    "which is not a linear layer"
                )
        return found

    def _activate(self, lora: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        # A new name each time, so that one that failed half-way is never used again.
        name = f"adapter{self._count}"
        self._count += 1
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
            # Rounded once here, instead of by autocast before every product.
            for path, parameter in self.model.named_parameters():
                if ".lora_" in path:
                    parameter.data = parameter.data.to(self.model.dtype)


def _endings(name: str) -> list[str]:
    """The names by which target_modules may mean the module `a.b.c`: `a.b.c`, `b.c` and `c`."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]
