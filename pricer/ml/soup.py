"""Soups: the exact average of LoRA adapters, which is an adapter again."""

import json
import math
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from pricer.core.adapter_config import MAX_RANK, AdapterSettings
from pricer.errors import CheckpointError
from pricer.ml.base import Adapter


def average(adapters: Sequence[Adapter]) -> Adapter:
    """The adapter whose update of each layer is the mean of theirs.

    A and B averaged apart are not that: (A₁ + A₂)/2 · (B₁ + B₂)/2 has products of one adapter's A with the other's B.
    The sum of k updates is one update of rank k·r, with A = [A₁; …; A_k] and B = [B₁ … B_k] (the combination `cat` of
    peft's `add_weighted_adapter`). The scale makes it the mean: with alpha as it is, alpha/(k·r) is a k-th of alpha/r,
    so the weights are taken over bit by bit. Of rsLoRA, where it is alpha/√r, alpha is divided by √k.

    Adapters of different layers or settings are a CheckpointError: their average would be of different things.
    """
    first, count = adapters[0].settings, len(adapters)
    kinds = {(a.settings.r, a.settings.alpha, a.settings.use_rslora, a.settings.fan_in_fan_out) for a in adapters}
    if len({frozenset(adapter.targets) for adapter in adapters}) > 1:
        raise CheckpointError("these adapters change different layers (target_modules), and have no average")
    if len(kinds) > 1:
        raise CheckpointError("these adapters have different settings (r, lora_alpha, use_rslora), and have no average")
    if count * first.r > MAX_RANK:
        raise CheckpointError(
            f"the average of {count} adapters of rank {first.r} has rank {count * first.r:,}, {MAX_RANK:,} at most",
            "--candidates checkpoints",
        )
    settings = AdapterSettings(
        base=first.base,
        base_revision=first.base_revision,
        r=count * first.r,
        alpha=first.alpha / math.sqrt(count) if first.use_rslora else first.alpha,
        target_modules=first.target_modules,
        use_rslora=first.use_rslora,
        fan_in_fan_out=first.fan_in_fan_out,
    )
    tensors = {}
    for name in adapters[0].tensors:
        axis = 0 if name.endswith(".lora_A.weight") else 1
        tensors[name] = torch.cat([adapter.tensors[name] for adapter in adapters], dim=axis)
    return Adapter(settings, adapters[0].targets, tensors)


def write(adapter: Adapter, folder: Path) -> None:
    """Write an adapter as peft reads it; the same one always as the same bytes."""
    settings = adapter.settings
    modules = settings.target_modules
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": settings.base,
        "revision": settings.base_revision,
        "r": settings.r,
        "lora_alpha": int(settings.alpha) if settings.alpha.is_integer() else settings.alpha,
        "target_modules": modules if isinstance(modules, str) else sorted(modules),
        "use_rslora": settings.use_rslora,
        "fan_in_fan_out": settings.fan_in_fan_out,
        "bias": "none",
        "lora_dropout": 0.0,
        "inference_mode": True,
    }
    weights = folder / "adapter_model.safetensors"
    save_file(adapter.tensors, weights, metadata={"format": "pt"})
    weights.chmod(0o644)  # safetensors' 0600 would shut out the rest of a team
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
