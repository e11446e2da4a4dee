"""Base models in memory: 4-bit loading, and LoRA adapters put on and swapped."""

import json
import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import SafetensorError, safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig
from transformers.pytorch_utils import Conv1D

from pricer.config import AdapterConfig
from pricer.core.adapter_config import AdapterSettings, read_adapter_settings
from pricer.core.memory import has_room_for_dense
from pricer.errors import CheckpointError, ModelError, first_line
from pricer.ml.devices import Precision, is_mixed
from pricer.ml.head import score_in_float32
from pricer.ml.merging import MergedBeside, MergedInPlace, plain_linear

# Warnings by the screenful would hide the one line that matters; errors still come as exceptions.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def computing(model: Any) -> torch.autocast:
    """The context that a model computes in, the same in training and in scoring: over a base in 16 bits an adapter,
    though its weights are kept in float32, is multiplied in 16 bits, too.
    """
    mixed = is_mixed(model.device.type, model.dtype)
    return torch.autocast(model.device.type, model.dtype if mixed else None, enabled=mixed)


def load_tokenizer(folder: Path) -> Any:
    """The base's tokenizer; a ModelError if the folder has none that runs without code of its own."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what it likes for a missing or foreign tokenizer
        raise ModelError(f"{folder} has no tokenizer that can be read: {first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no end-of-text token", "without one a price has no end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # positions that are masked everywhere, so any token will do
    return tokenizer


def load_base(folder: Path, precision: Precision, *, dense: bool | None = None) -> Any:
    """The base model for training or prediction, loaded the same way for both: scores mean what training saw.

    `dense`: 4-bit weights are dequantized once; None: on a GPU, where they take little of its memory.
    """
    dtype = getattr(torch, precision.dtype)
    # cuDNN plans its attention anew, for a millisecond, for each length it has not met: half of a step on an H200.
    torch.backends.cuda.enable_cudnn_sdp(False)
    quantization = (
        BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
        if precision.quantization == "nf4"
        else None
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=quantization,
            device_map={"": 0 if precision.device == "cuda" else "cpu"},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # a damaged or foreign model fails in as many ways as there are architectures
        raise ModelError(f"the base in {folder} cannot be loaded: {first_line(error)}") from None
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On CPUs with AVX512-BF16 bitsandbytes repacks the weights at the first forward in eval mode, in place, for
            # a bfloat16 kernel: scores at another precision than training, and, where training goes on after a
            # validation, no gradient through the layer at all (a warning is all it says).
            module.support_avx512bf16_for_cpu = False
    if dense is None and precision.device == "cuda":
        dense = has_room_for_dense(dense_bytes(model), torch.cuda.mem_get_info()[0])
    if dense:
        dequantize(model)
    # `generate` fills what its caller left open from here, and some bases bring a repetition penalty along (Qwen's
    # chat models do), under which a price with the same digit twice is no longer the likeliest answer.
    model.generation_config = GenerationConfig()
    score_in_float32(model)
    return model


def dense_bytes(model: Any) -> int:
    """Bytes that a model's 4-bit weights take at its compute dtype."""
    layers = (module for module in model.modules() if isinstance(module, Linear4bit))
    weights = sum(int(layer.in_features * layer.out_features) for layer in layers)
    dtype: torch.dtype = model.dtype
    return weights * dtype.itemsize


def dequantize(model: Any) -> None:
    """Put a model's 4-bit weights at its compute dtype once, in place of each time they are multiplied: the same
    numbers, in more memory.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    for name, layer in layers:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(model.dtype)
        model.set_submodule(name, plain_linear(weight, layer.bias))


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
                # Beside a layer of 16 bits peft would turn the input into float32, and autocast that into 16 bits.
                module.cast_input_dtype_enabled = False
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        # Logits come from the layer itself (head.py), past any adapter on it.
        raise ModelError(
            f"adapter.target_modules = {config.target_modules} takes in the output layer, where an adapter is not "
            "trained",
            "adapter.target_modules: all-linear",
        )
    return adapted


def check_adapter(model: Any, folder: Path) -> None:
    """Raise a CheckpointError unless the adapter in `folder` has the shapes of the model's own, and numbers in them.

    peft takes what it finds: where weights are missing, the model's stay as they were made.
    """
    own = get_peft_model_state_dict(model, save_embedding_layers=False)
    _read_tensors(folder, {name: list(tensor.shape) for name, tensor in own.items()})


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits a base: `targets` are whole paths of the layers it changes, `tensors` A (r, inputs) and
    B (outputs, r) of each in float32, by their names in the file.
    """

    settings: AdapterSettings
    targets: list[str]
    tensors: dict[str, torch.Tensor]


class AdapterSwitch:
    """One base in memory with one adapter at a time on it.

    An adapter may be a stranger's: it is data, of which everything is checked before the model is touched.

    Where `merge` is asked for, adapters are merged into their layers if that is the same precision and takes little
    memory: on the CPU in float32, the dtype in which 4-bit weights are multiplied there. A 16-bit layer would round
    what is merged into it.
    """

    def __init__(self, base: Any, *, merge: bool = True) -> None:
        self.model = base
        self._count = 0
        self._on: str | None = None
        # Settings, but for the base's name, and targets of the adapter that is on.
        self._shape: tuple[AdapterSettings, list[str]] | None = None
        # Of the base as it is now: with an adapter on it, its linear layers are peft's.
        self._modules = [name for name, _ in base.named_modules() if name]
        self._linear = {name: _sizes(module) for name, module in base.named_modules() if _is_linear(module)}
        output = base.get_output_embeddings()
        self._output = {name for name, module in base.named_modules() if module is output}
        layers = {n: m for n, m in base.named_modules() if _is_linear(m) and n not in self._output}
        self._merger = _merger(base, layers) if merge else None

    def use(self, folder: Path) -> None:
        """Put the adapter in `folder` on in place of the one before. A CheckpointError, and no change, if it is not a
        plain LoRA adapter in safetensors that fits the base.
        """
        adapter = self.read(folder)
        settings, targets, tensors = adapter.settings, adapter.targets, adapter.tensors
        if self._merger is not None and not self._output.isdisjoint(targets):
            # The output layer may have its weight in common with the embeddings: from now on, adapters are beside.
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
            self._copy(tensors)
            return
        # peft warns of what is meant here (an adapter beside another, a base by another name), by the screenful.
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
                self._put_on(lora, tensors)
            except ValueError as error:  # layers that peft has no adapters for, though they are linear
                raise CheckpointError(f"the adapter in {folder} does not fit the base: {first_line(error)}") from None
        self._shape = shape
        self.model.eval()

    def _copy(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put other weights into the adapter that is on: making one anew takes seconds at a high rank."""
        weights = get_peft_model_state_dict(self.model, adapter_name=self._on, save_embedding_layers=False)
        for name, weight in weights.items():
            weight.copy_(tensors[name])

    def read(self, folder: Path) -> "Adapter":
        """The adapter in `folder`, with the base left as it is; a CheckpointError as by `use`."""
        settings = _read_settings(folder)
        targets = self._targets(settings, folder)
        shapes = {}
        for name in targets:
            inputs, outputs = self._linear[name]
            shapes[f"base_model.model.{name}.lora_A.weight"] = [settings.r, inputs]
            shapes[f"base_model.model.{name}.lora_B.weight"] = [outputs, settings.r]
        return Adapter(settings, targets, _read_tensors(folder, shapes))

    def _targets(self, settings: AdapterSettings, folder: Path) -> list[str]:
        """Whole paths of the base's layers that the adapter changes, found as peft finds them."""
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

    def _put_on(self, lora: LoraConfig, tensors: dict[str, torch.Tensor]) -> None:
        # A new name each time: one that failed half-way is not met again.
        name = f"adapter{self._count}"
        self._count += 1
        if not isinstance(self.model, PeftModel):
            self.model = get_peft_model(self.model, lora, adapter_name=name)
        else:
            self.model.add_adapter(name, lora)
        set_peft_model_state_dict(self.model, tensors, adapter_name=name)
        self.model.set_adapter(name, inference_mode=True)
        if self._on is not None:
            self.model.delete_adapter(self._on)
        self._on = name
        if is_mixed(self.model.device.type, self.model.dtype):
            # Rounded once, as autocast would before every product.
            for path, parameter in self.model.named_parameters():
                if ".lora_" in path:
                    parameter.data = parameter.data.to(self.model.dtype)


_CONFIG_LIMIT = 1_000_000  # bytes; a list of every layer of a large model takes 100,000
_HEADER_LIMIT = 16_000_000  # bytes; 150 for each tensor
_FLOATS = {"F64", "F32", "F16", "BF16"}


def _read_settings(folder: Path) -> AdapterSettings:
    path = folder / "adapter_config.json"
    try:
        with path.open("rb") as file:
            data = file.read(_CONFIG_LIMIT + 1)
    except OSError:
        raise CheckpointError(f"{folder} has no adapter_config.json that can be read") from None
    if len(data) > _CONFIG_LIMIT:
        raise CheckpointError(f"{path} cannot be used: it is larger than {_CONFIG_LIMIT:,} bytes")
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):  # also of numbers with thousands of digits, and lists in lists in lists
        raise CheckpointError(f"{folder} has no adapter_config.json that can be read") from None
    try:
        return read_adapter_settings(record)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None


def _read_tensors(folder: Path, shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The adapter's weights as float32. Nothing is read before the header is known to hold exactly `shapes`."""
    path = folder / "adapter_model.safetensors"
    # Without this file peft would look for adapter_model.bin, a pickle.
    if not path.is_file():
        raise CheckpointError(f"{folder} has no adapter_model.safetensors")
    misfit = f"the adapter in {folder} does not fit the base"
    try:
        with path.open("rb") as head:
            size = int.from_bytes(head.read(8), "little")
        if size > _HEADER_LIMIT:
            raise CheckpointError(f"{path} cannot be used: its header has {size:,} bytes, {_HEADER_LIMIT:,} at most")
        with safe_open(path, framework="pt") as file:
            if odd := shapes.keys() ^ set(file.keys()):
                raise CheckpointError(
                    f"{misfit}: {len(odd)} tensors are missing or unknown, {_shown(min(odd))} for one"
                )
            for name, shape in shapes.items():
                entry = file.get_slice(name)
                if entry.get_shape() != shape:
                    raise CheckpointError(f"{misfit}: {name} has shape {entry.get_shape()}, not {shape}")
                if entry.get_dtype() not in _FLOATS:
                    raise CheckpointError(f"{path} cannot be used: {name} holds {entry.get_dtype()}, not floats")
            # An adapter is kept in float32 whatever it was saved in, as it was trained.
            # Copied, since what lies where in a file would decide how it is multiplied, to the last bit.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {_shown(first_line(error))}") from None
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"the adapter in {folder} has weights that are not numbers ({len(bad)} tensors, {bad[0]} for one)"
        )
    return tensors


# Bytes that dense layers beside the base's own may take.
_ROOM_FOR_DENSE = 200_000_000


def _merger(base: Any, layers: Mapping[str, Any]) -> MergedInPlace | MergedBeside | None:
    """What merges adapters into these layers of a base so that they give what they give with one beside them, in little
    memory; None: nothing does.
    """
    if base.device.type != "cpu" or base.dtype != torch.float32:
        return None
    kinds = {type(layer) for layer in layers.values()}
    if kinds == {torch.nn.Linear}:
        merger = MergedInPlace(base, Path(base.name_or_path))
        if merger.can_restore(layers):
            return merger
    size = sum(math.prod(_sizes(layer)) for layer in layers.values()) * 4
    if kinds <= {torch.nn.Linear, Linear4bit, Conv1D} and size <= _ROOM_FOR_DENSE:
        return MergedBeside(base, _dense_weight)
    return None


def _dense_weight(layer: Any) -> torch.Tensor:
    """A linear layer's weight (outputs, inputs) in float32, a tensor of its own."""
    if isinstance(layer, Linear4bit):
        weight: torch.Tensor = dequantize_4bit(layer.weight.data, layer.weight.quant_state)
        return weight.float()
    return (layer.weight.T if isinstance(layer, Conv1D) else layer.weight).detach().clone().contiguous()


def _is_linear(module: Any) -> bool:
    return isinstance(module, torch.nn.Linear | Conv1D)


def _sizes(module: Any) -> tuple[int, int]:
    """Inputs and outputs; of a 4-bit layer too, whose weight has another shape."""
    return (module.nx, module.nf) if isinstance(module, Conv1D) else (module.in_features, module.out_features)


def _endings(name: str) -> list[str]:
    """`a.b.c`, `b.c` and `c`: what may name the module `a.b.c`."""
    parts = name.split(".")
    return [".".join(parts[start:]) for start in range(len(parts))]


def _shown(text: str) -> str:
    """A stranger's text for a message: short, and nothing in it that a terminal would obey."""
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 150 else f"{text[:150]}…"
