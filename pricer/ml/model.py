"""Base models in memory: device and precision, 4-bit loading, and LoRA adapters put on and swapped."""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict
from peft.tuners.tuners_utils import BaseTunerLayer
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

from pricer.config import AdapterConfig, ModelConfig
from pricer.errors import CheckpointError, ModelError

# Warnings by the screenful would hide the one line that matters; errors still come as exceptions.
transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()


@dataclass(frozen=True, slots=True)
class Precision:
    """How a base is held in memory: `device` is cpu or cuda, `quantization` nf4 or none, `dtype` the compute dtype."""

    device: str
    quantization: str
    dtype: str

    @property
    def label(self) -> str:
        """As it stands in an EvalSpec. The device is no part of it: the same numbers are meant on any."""
        return f"{self.quantization}/{self.dtype}"


def choose_precision(config: ModelConfig) -> Precision:
    """Settle `auto`: bfloat16 on a GPU from compute capability 8, float16 on older ones, float32 on the CPU."""
    has_gpu = torch.cuda.is_available()
    if config.device == "cuda" and not has_gpu:
        raise ModelError("model.device is cuda, but this machine has no CUDA device", "model.device: auto, or cpu")
    device = "cuda" if has_gpu and config.device != "cpu" else "cpu"
    dtype: str = config.compute_dtype
    if dtype == "auto":
        if device == "cpu":
            dtype = "float32"
        else:
            dtype = "bfloat16" if torch.cuda.get_device_capability()[0] >= 8 else "float16"
    return Precision(device, config.quantization, dtype)


def device_name(precision: Precision) -> str:
    """The device in words, for run.json."""
    return torch.cuda.get_device_name() if precision.device == "cuda" else "cpu"


def load_tokenizer(folder: Path) -> Any:
    """The base's tokenizer; a ModelError if the folder has none that runs without code of its own."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except Exception as error:  # transformers raises what it likes for a missing or foreign tokenizer
        raise ModelError(f"{folder} has no tokenizer that can be read: {_first_line(error)}") from None
    if tokenizer.eos_token_id is None:
        raise ModelError(f"the tokenizer in {folder} has no end-of-text token", "without one a price has no end")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token  # positions that are masked everywhere, so any token will do
    return tokenizer


def load_base(folder: Path, precision: Precision) -> Any:
    """The base model for training or prediction, loaded the same way for both: scores mean what training saw."""
    dtype = getattr(torch, precision.dtype)
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
        raise ModelError(f"the base in {folder} cannot be loaded: {_first_line(error)}") from None
    for module in model.modules():
        if isinstance(module, Linear4bit):
            # On CPUs with AVX512-BF16 bitsandbytes repacks the weights at the first forward in eval mode, in place, for
            # a bfloat16 kernel: scores at another precision than training, and, where training goes on after a
            # validation, no gradient through the layer at all (a warning is all it says).
            module.support_avx512bf16_for_cpu = False
    # `generate` fills what its caller left open from here, and some bases bring a repetition penalty along (Qwen's
    # chat models do), under which a price with the same digit twice is no longer the likeliest answer.
    model.generation_config = GenerationConfig()
    return model


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
            f"no adapter fits adapter.target_modules = {config.target_modules}: {_first_line(error)}",
            "adapter.target_modules: all-linear",
        ) from None
    if isinstance(adapted.get_output_embeddings(), BaseTunerLayer):
        # trl computes the loss from the output layer's own weight, past any adapter on it.
        raise ModelError(
            f"adapter.target_modules = {config.target_modules} takes in the output layer, where an adapter is not "
            "trained",
            "adapter.target_modules: all-linear",
        )
    return adapted


class AdapterSwitch:
    """One base in memory with one adapter at a time on it."""

    def __init__(self, base: Any) -> None:
        self.model = base
        self._count = 0

    def use(self, folder: Path) -> None:
        """Put the adapter in `folder` on in place of the one before. Safetensors only; a CheckpointError if it does
        not fit the base.
        """
        _check_adapter(folder)
        name = f"adapter{self._count}"
        try:
            with warnings.catch_warnings(action="ignore"):  # of missing tensors: they are refused below
                self._put_on(folder, name)
        except (RuntimeError, ValueError, KeyError, OSError) as error:
            raise CheckpointError(f"the adapter in {folder} does not fit the base: {_first_line(error)}") from None
        self._count += 1
        # peft leaves a tensor that the file lacks as it was initialised, with a warning at most.
        expected = set(get_peft_model_state_dict(self.model, adapter_name=name, save_embedding_layers=False))
        with safe_open(folder / "adapter_model.safetensors", framework="pt") as file:
            odd = expected.symmetric_difference(file.keys())
        if odd:
            raise CheckpointError(
                f"the adapter in {folder} does not fit the base: {len(odd)} tensors are missing or unknown, "
                f"{min(odd)} for one"
            )
        self.model.eval()

    def _put_on(self, folder: Path, name: str) -> None:
        if not isinstance(self.model, PeftModel):
            self.model = PeftModel.from_pretrained(self.model, folder, adapter_name=name)
        else:
            self.model.load_adapter(folder, adapter_name=name)
            self.model.set_adapter(name)
            self.model.delete_adapter(f"adapter{self._count - 1}")


def _check_adapter(folder: Path) -> None:
    try:
        config = json.loads((folder / "adapter_config.json").read_text(encoding="utf-8"))
        kind = config["peft_type"]
    except (OSError, ValueError, KeyError, TypeError):
        raise CheckpointError(f"{folder} has no adapter_config.json that can be read") from None
    if kind != "LORA":
        raise CheckpointError(f"the adapter in {folder} is of type {kind}, pricer trains LORA")
    # Without this file peft would look for adapter_model.bin, a pickle.
    if not (folder / "adapter_model.safetensors").is_file():
        raise CheckpointError(f"{folder} has no adapter_model.safetensors")


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
