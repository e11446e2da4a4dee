"""Sizes from a config.json alone, against the figures published for the Llama bases."""

import weakref
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter
from transformers import AutoModelForCausalLM, LlamaConfig, OPTConfig

from pricer.config import AdapterConfig
from pricer.core.memory import COMPLETION_TOKENS, fit_to_gpu, training_memory
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base, measure, mixed_precision
from pricer.ml.devices import Precision
from pricer.ml.loss import completion_loss
from pricer.ml.micro_batch import set_checkpointing

BASES = Path(__file__).parent.parent / "bases"
NF4 = Precision("cpu", "nf4", "bfloat16")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("base", "rank", "targets", "adapter_parameters", "base_gb"),
    [
        # 32 layers × 32 × (4096+4096 + 4096+1024 + 4096+1024 + 4096+4096) = 27,262,976
        ("llama-3.1-8b", 32, ATTENTION, 27_262_976, 5.59),
        # 28 layers × 32 × (3072+3072 + 3072+1024 + 3072+1024 + 3072+3072) = 18,350,080
        ("llama-3.2-3b", 32, ATTENTION, 18_350_080, 2.2),
        # 28 layers × 256 × (20,480 + 3 × (3072+8192)) = 389,021,696
        ("llama-3.2-3b", 256, ALL, 389_021_696, 2.2),
    ],
)
def test_sizes_of_the_published_runs(
    base: str, rank: int, targets: list[str], adapter_parameters: int, base_gb: float
) -> None:
    sizes = measure(BASES / base, AdapterConfig(r=rank, target_modules=targets), NF4)

    assert sizes.adapter_parameters == adapter_parameters
    assert sizes.adapter_bytes == 4 * adapter_parameters
    assert sizes.base_bytes / 1e9 == pytest.approx(base_gb, rel=0.03)


def test_an_unquantized_base_takes_two_bytes_a_parameter_in_bfloat16() -> None:
    sizes = measure(BASES / "llama-3.2-3b", AdapterConfig(), Precision("cpu", "none", "bfloat16"))

    assert sizes.base_bytes == 2 * sizes.base_parameters == 2 * 3_212_749_824


def test_the_shape_that_decides_memory_is_read_from_the_config() -> None:
    shape = measure(BASES / "llama-3.2-3b", AdapterConfig(r=256, target_modules=ATTENTION, dropout=0.0), NF4).training

    assert shape is not None
    assert (shape.layers, shape.hidden, shape.intermediate, shape.vocabulary) == (28, 3072, 8192, 128_256)
    # 24 heads of queries, 8 of keys, each 128 wide.
    assert (shape.heads, shape.query, shape.key_value) == (24, 3072, 1024)
    assert (shape.adapted, shape.rank, shape.dropout) == (frozenset(ATTENTION), 256, False)
    assert (shape.compute_bytes, shape.dequantized_bytes) == (2, 2 * 3072 * 8192)
    # 28 layers x 3072 x (2 x 3072 (q, o) + 2 x 1024 (k, v) + 3 x 8192 (the MLP)) weights in 4 bits.
    weights = 28 * 3072 * (2 * 3072 + 2 * 1024 + 3 * 8192)
    assert shape.packed_bytes == pytest.approx(weights / 2, rel=0.04)
    assert shape.dense_bytes == 2 * weights
    assert shape.base_bytes - shape.packed_bytes == 2 * (3_212_749_824 - weights)


def test_a_base_of_another_build_has_no_shape(tmp_path: Path) -> None:
    OPTConfig(num_hidden_layers=2, hidden_size=32, num_attention_heads=2, vocab_size=64).save_pretrained(tmp_path)

    assert measure(tmp_path, AdapterConfig(target_modules=["q_proj"]), NF4).training is None


class LiveBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of tensors that were made under it and are alive."""

    def __init__(self, known: Any) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self._sizes = {tensor.untyped_storage()._cdata: 0 for tensor in known}

    def __torch_dispatch__(self, operation: Any, _types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = operation(*args, **(kwargs or {}))
        for tensor in tree_iter(out):
            if isinstance(tensor, torch.Tensor) and tensor.untyped_storage()._cdata not in self._sizes:
                storage = tensor.untyped_storage()
                self._sizes[storage._cdata] = storage.nbytes()
                self.now += storage.nbytes()
                weakref.finalize(storage, self._gone, storage._cdata)
        self.peak = max(self.peak, self.now)
        return out

    def _gone(self, key: int) -> None:
        self.now -= self._sizes.pop(key)


class GpuDropout(torch.autograd.Function):
    """The tensors of dropout on a GPU, where its mask has a byte for each number, and none of its randomness."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(torch.ones(x.shape, dtype=torch.bool))
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        del ctx
        return gradient.clone()


@pytest.mark.parametrize(
    ("targets", "dropout", "intermediate", "vocabulary", "fused", "weights", "checkpointing"),
    [
        (ATTENTION, 0.1, 384, 64, True, "nf4", False),
        (ATTENTION, 0.1, 384, 64, False, "dequantized", True),
        (ATTENTION, 0.1, 384, 16_384, True, "nf4", True),  # the loss takes the most
        (ALL, 0.1, 192, 64, True, "dequantized", False),
        (ALL, 0.1, 768, 64, True, "nf4", True),
        (ALL, 0.0, 384, 64, False, "nf4", False),
    ],
)
def test_the_estimate_is_what_a_step_in_bfloat16_has_alive_at_most(
    targets: list[str],
    dropout: float,
    intermediate: int,
    vocabulary: int,
    fused: bool,
    weights: str,
    checkpointing: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # On the CPU, made to do what a GPU does: peft asks whether CUDA is under autocast, and dropout's mask is narrow.
    asked = torch.is_autocast_enabled
    # torch itself asks for a device by name, and puts back what it was told.
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda *device: asked(*device) if device else True)
    monkeypatch.setattr(torch.nn.functional, "dropout", lambda x, *_: GpuDropout.apply(x))  # type: ignore[no-untyped-call]
    config = LlamaConfig(
        hidden_size=128,
        intermediate_size=intermediate,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=vocabulary,
    )
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path)
    adapter = AdapterConfig(r=4, target_modules=targets, dropout=dropout)
    shape = measure(tmp_path, adapter, NF4).training
    assert shape is not None
    shape = fit_to_gpu(shape, 10**12 if weights == "dequantized" else 0, is_ampere=fused)
    items, tokens = 16, 64
    estimate = training_memory(shape, micro_batch=items, tokens=tokens, checkpointing=checkpointing, accumulates=False)

    model = add_adapter(load_base(tmp_path, NF4, dense=weights == "dequantized"), adapter, seed=0).train()
    set_checkpointing(model, checkpointing)
    ids = torch.randint(3, 64, (items, tokens))
    spans = [(tokens - COMPLETION_TOKENS, tokens)] * items
    monkeypatch.setattr("pricer.ml.loss.is_slow_without_mask", lambda *_: not fused)
    monkeypatch.setattr("pricer.ml.loss.last_layer_only_at", lambda *_: nullcontext())
    # It keeps the same as on a GPU.
    with LiveBytes(model.parameters()) as live, sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        with mixed_precision(model):
            loss = completion_loss(model, ids, spans)
        loss.backward()  # type: ignore[no-untyped-call]

    made = estimate.activations + estimate.transients + estimate.gradients
    made += estimate.adapter - 4 * shape.adapter_parameters  # the copies
    assert made == pytest.approx(live.peak, rel=0.05)
