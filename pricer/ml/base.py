"""Base models in memory: tokenizer, 4-bit loading, and the precision they compute in."""

from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Linear4bit
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from pricer.core.memory import has_room_for_dense
from pricer.errors import ModelError, first_line
from pricer.ml.devices import Precision, is_mixed
from pricer.ml.loss import score_in_float32
from pricer.ml.merging import plain_linear

# Its warnings would hide the lines that matter; errors still come as exceptions.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


def mixed_precision(model: Any) -> torch.autocast:
    """The autocast context of a model, the same in training and in scoring: on a base in 16 bits, an adapter is
    multiplied in 16 bits, though its weights are kept in float32.
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
        tokenizer.pad_token = tokenizer.eos_token  # padding is masked everywhere, so any token will do
    return tokenizer


def load_base(folder: Path, precision: Precision, *, dense: bool | None = None) -> Any:
    """The base model, loaded the same way for training and for prediction: scores mean what training saw.

    `dense`: 4-bit weights are dequantized once. None: they are on a GPU, if that takes little of its memory.
    """
    dtype = getattr(torch, precision.dtype)
    # cuDNN plans its attention for each new length, which takes a millisecond: half of a step on an H200.
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
            # On CPUs with AVX512-BF16 bitsandbytes repacks the weights in place for a bfloat16 kernel, at the first
            # forward pass in eval mode. Scores would have another precision than training, and training that goes on
            # after a validation would get no gradient through the layer (there is only a warning).
            module.support_avx512bf16_for_cpu = False
    if dense is None and precision.device == "cuda":
        dense = has_room_for_dense(dense_bytes(model), torch.cuda.mem_get_info()[0])
    if dense:
        dequantize(model)
    # `generate` takes its defaults from here. Some bases (Qwen's chat models) bring a repetition penalty, which makes
    # prices with the same digit twice less probable.
    model.generation_config = GenerationConfig()
    score_in_float32(model)
    return model


def dense_bytes(model: Any) -> int:
    """The bytes that a model's 4-bit weights would take at its compute dtype; 0 if it has none."""
    layers = (module for module in model.modules() if isinstance(module, Linear4bit))
    weights = sum(int(layer.in_features * layer.out_features) for layer in layers)
    dtype: torch.dtype = model.dtype
    return weights * dtype.itemsize


def dequantize(model: Any) -> None:
    """Convert a model's 4-bit weights to its compute dtype once, instead of at every product: the same numbers, in more
    memory.
    """
    layers = [(name, module) for name, module in model.named_modules() if isinstance(module, Linear4bit)]
    for name, layer in layers:
        weight = dequantize_4bit(layer.weight.data, layer.weight.quant_state).to(model.dtype)
        model.set_submodule(name, plain_linear(weight, layer.bias))
