"""Base models: loads them and their tokenizers, sets their precision, and measures their size."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

from pricer.config import AdapterConfig
from pricer.core.memory import LINEAR_LAYERS, TrainingShape, has_room_for_dense
from pricer.errors import ModelError, first_line
from pricer.ml.adapters import add_adapter
from pricer.ml.devices import Precision, free_bytes, is_mixed
from pricer.ml.loss import score_in_float32
from pricer.ml.merging import plain_linear

# transformers' warnings would hide important lines. Errors are still raised as exceptions.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

# NF4 with double quantization (QLoRA, Dettmers et al. 2023, section 3): 4 bits per weight, an 8-bit constant per 64
# weights, and a 32-bit constant per 256 of those.
_NF4_BYTES = 4 / 8 + 1 / 64 + 4 / (64 * 256)


def mixed_precision(model: Any) -> torch.autocast:
    """The autocast context of a model, the same in training and in scoring. On a 16-bit base, an adapter computes in 16
    bits, although its weights are stored in float32.
    """
    mixed = is_mixed(model.device.type, model.dtype)
    return torch.autocast(model.device.type, model.dtype if mixed else None, enabled=mixed)


def load_tokenizer(folder: Path) -> Any:
    """Load the base's tokenizer. A ModelError if it is missing or needs code from the folder."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises many kinds of errors for a missing or foreign tokenizer
        raise ModelError(f"{folder} has no tokenizer that can be read: {first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no end-of-text token", "without one a price has no end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked everywhere, so any token will do
    return tokenizer


def load_base(folder: Path, precision: Precision, *, dense: bool | None = None, sharded: bool = False) -> Any:
    """Load the base model, in the same way for training and for prediction.

    `dense`: dequantize 4-bit weights once. None: dequantize them if this takes little of the device's memory.
    `sharded`: load it into main memory, with 4-bit weights as FSDP can share them out; they are never dequantized.
    """
    dtype = getattr(torch, precision.dtype)
    # cuDNN plans attention again for each length. This takes a millisecond, which is half of a step on an H200.
    torch.backends.cuda.enable_cudnn_sdp(False)
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        # FSDP shares out tensors of floats, all of one dtype.
        bnb_4bit_quant_storage=dtype if sharded else torch.uint8,
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            quantization_config=nf4 if precision.quantization == "nf4" else None,
            # A process sees only its own GPU, whatever its LOCAL_RANK is.
            device_map={"": 0 if precision.device == "cuda" and not sharded else "cpu"},
            local_files_only=True,
            trust_remote_code=False,
            use_safetensors=True,
        )
    except Exception as error:  # a damaged or foreign model can raise any error
        raise ModelError(f"the base in {folder} cannot be loaded: {first_line(error)}") from None
    for layer in layers_in_4_bits(model).values():
        # On CPUs with AVX512-BF16, bitsandbytes repacks the weights for a bfloat16 kernel at the first forward pass in
        # eval mode. Scores would then have another precision than training. Training after a validation would get no
        # gradient through the layer, with only a warning.
        layer.support_avx512bf16_for_cpu = False
    if sharded:
        dense = False
    elif dense is None:
        dense = has_room_for_dense(dense_bytes(model), free_bytes(precision.device))
    if dense:
        dequantize(model)
    score_in_float32(model)
    return model


def dense_bytes(model: Any) -> int:
    """The bytes that a model's 4-bit weights would take at its compute dtype; 0 if it has none."""
    weights = sum(layer.in_features * layer.out_features for layer in layers_in_4_bits(model).values())
    return int(weights * model.dtype.itemsize)


def dequantize(model: Any) -> None:
    """Convert a model's 4-bit weights to its compute dtype once, instead of for every product. The results are the
    same, but the weights take more memory.
    """
    for name, layer in layers_in_4_bits(model).items():
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(model.dtype)
        model.set_submodule(name, plain_linear(weight, layer.bias))


def layers_in_4_bits(model: Any) -> dict[str, Any]:
    """The layers with 4-bit weights, by their names."""
    return {name: module for name, module in model.named_modules() if isinstance(module, Linear4bit)}


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers of parameters, and sizes in bytes: of the base in memory, and of the adapter in a file (float32).
    `training` is the shape from which the memory of a training is estimated, None if the base is not built like Llama.
    """

    base_parameters: int
    base_bytes: int
    adapter_parameters: int
    adapter_bytes: int
    training: TrainingShape | None


def measure(folder: Path, adapter: AdapterConfig, precision: Precision) -> Sizes:
    """Measure a base and its adapter. Only the base's config.json is read, and no memory is allocated for weights."""
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    dtype = getattr(torch, precision.dtype)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, dtype=dtype, trust_remote_code=False)
    output = model.get_output_embeddings()
    linear = {
        name: module.weight.numel()
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and module is not output
    }
    # bitsandbytes stores these in 4 bits.
    quantized = sum(linear.values()) if precision.quantization == "nf4" else 0
    packed_bytes = round(quantized * _NF4_BYTES)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    base_bytes = packed_bytes + (parameters - quantized) * dtype.itemsize
    with torch.device("meta"):
        adapted = add_adapter(model, adapter, seed=0)
    trained = {name: parameter.numel() for name, parameter in adapted.named_parameters() if parameter.requires_grad}
    adapter_parameters = sum(trained.values())
    decoder = config.get_text_config()
    training = None
    if sorted(name.split(".")[-1] for name in linear) == sorted(LINEAR_LAYERS * decoder.num_hidden_layers):
        width = getattr(decoder, "head_dim", None) or decoder.hidden_size // decoder.num_attention_heads
        training = TrainingShape(
            base_bytes=base_bytes,
            packed_bytes=packed_bytes,
            dense_bytes=quantized * dtype.itemsize,
            dequantized_bytes=max(linear.values()) * dtype.itemsize if quantized else 0,
            layers=decoder.num_hidden_layers,
            hidden=decoder.hidden_size,
            intermediate=decoder.intermediate_size,
            query=decoder.num_attention_heads * width,
            key_value=(decoder.num_key_value_heads or decoder.num_attention_heads) * width,
            heads=decoder.num_attention_heads,
            vocabulary=decoder.vocab_size,
            adapted=frozenset(name.split(".lora_A.")[0].split(".")[-1] for name in trained if ".lora_A." in name),
            adapter_parameters=adapter_parameters,
            rank=adapter.r,
            dropout=adapter.dropout > 0,
            compute_bytes=dtype.itemsize,
        )
    return Sizes(parameters, base_bytes, adapter_parameters, adapter_parameters * torch.float32.itemsize, training)
