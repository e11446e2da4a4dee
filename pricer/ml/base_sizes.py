"""How large a run is, on disk and on a GPU, from the base's config.json alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pricer.config import AdapterConfig
from pricer.core.gpus import Gpu
from pricer.core.memory import LINEAR_LAYERS, TrainingShape
from pricer.ml.adapters import add_adapter
from pricer.ml.devices import Precision

# NF4 with double quantization (QLoRA, Dettmers et al. 2023, section 3): 4 bits per weight, an 8-bit constant per 64
# weights, and a 32-bit constant per 256 of those.
_NF4_BYTES = 4 / 8 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of parameters, and bytes in memory (base) or in a file (adapter, in float32). `training` decides the
    memory of a training; None if the base is not built like Llama, so that it cannot be estimated.
    """

    base_parameters: int
    base_bytes: int
    adapter_parameters: int
    adapter_bytes: int
    training: TrainingShape | None


def gpu_here() -> Gpu | None:
    """The GPU of this machine, or None."""
    if not torch.cuda.is_available():
        return None
    found = torch.cuda.get_device_properties(0)
    return Gpu(found.name, found.total_memory, bfloat16=found.major >= 8)


def measure(folder: Path, adapter: AdapterConfig, precision: Precision) -> Sizes:
    """The sizes of a base and its adapter. The architecture is built without memory for its weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    dtype = getattr(torch, precision.dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    # bitsandbytes stores these in 4 bits.
    linear = _linear_layers(model)
    quantized = sum(linear.values()) if precision.quantization == "nf4" else 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch.device("meta"):
        adapted = add_adapter(model, adapter, seed=0)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    base_bytes = round(quantized * _NF4_BYTES) + (parameters - quantized) * dtype.itemsize
    decoder = config.get_text_config()
    training = None
    if sorted(name.split(".")[-1] for name in linear) == sorted(LINEAR_LAYERS * decoder.num_hidden_layers):
        adapted = {name.split(".lora_A.")[0] for name, _ in adapted.named_parameters() if ".lora_A." in name}
        width = getattr(decoder, "head_dim", None) or decoder.hidden_size // decoder.num_attention_heads
        training = TrainingShape(
            base_bytes=base_bytes,
            packed_bytes=round(quantized * _NF4_BYTES),
            dense_bytes=quantized * dtype.itemsize,
            dequantized_bytes=max(linear.values()) * dtype.itemsize if quantized else 0,
            layers=decoder.num_hidden_layers,
            hidden=decoder.hidden_size,
            intermediate=decoder.intermediate_size,
            query=decoder.num_attention_heads * width,
            key_value=(decoder.num_key_value_heads or decoder.num_attention_heads) * width,
            heads=decoder.num_attention_heads,
            vocabulary=decoder.vocab_size,
            adapted=frozenset(name.split(".")[-1] for name in adapted),
            adapter_parameters=trained,
            rank=adapter.r,
            dropout=adapter.dropout > 0,
            compute_bytes=dtype.itemsize,
        )
    return Sizes(
        base_parameters=parameters,
        base_bytes=base_bytes,
        adapter_parameters=trained,
        adapter_bytes=trained * torch.float32.itemsize,
        training=training,
    )


def _linear_layers(model: Any) -> dict[str, int]:
    """The number of weights of each linear layer except the output layer, by path."""
    head = model.get_output_embeddings()
    return {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    }
