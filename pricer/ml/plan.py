"""How large a run is, before anything is loaded: from the base's config.json alone."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModelForCausalLM

from pricer.config import AdapterConfig
from pricer.ml.devices import Precision
from pricer.ml.model import add_adapter

# NF4 with double quantization (QLoRA, Dettmers et al. 2023, section 3): 4 bits a weight, an 8-bit constant for each
# 64 weights, and a 32-bit one for each 256 of those.
_NF4_BYTES = 4 / 8 + 1 / 64 + 4 / (64 * 256)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Parameters, and bytes in memory (base) or in a file (adapter, kept in float32)."""

    base_parameters: int
    base_bytes: int
    adapter_parameters: int
    adapter_bytes: int


def measure(folder: Path, adapter: AdapterConfig, precision: Precision) -> Sizes:
    """Sizes of a base and its adapter. Builds the architecture without memory for its weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    dtype = getattr(torch, precision.dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    quantized = _quantized_weights(model) if precision.quantization == "nf4" else 0
    parameters = sum(parameter.numel() for parameter in model.parameters())
    with torch.device("meta"):
        adapted = add_adapter(model, adapter, seed=0)
    trained = sum(parameter.numel() for parameter in adapted.parameters() if parameter.requires_grad)
    return Sizes(
        base_parameters=parameters,
        base_bytes=round(quantized * _NF4_BYTES) + (parameters - quantized) * dtype.itemsize,
        adapter_parameters=trained,
        adapter_bytes=trained * torch.float32.itemsize,
    )


def _quantized_weights(model: Any) -> int:
    """Weights that bitsandbytes stores in 4 bits: those of linear layers, the output layer excepted."""
    head = model.get_output_embeddings()
    return sum(
        module.weight.numel()
        for module in model.modules()
        if isinstance(module, torch.nn.Linear) and module is not head
    )
