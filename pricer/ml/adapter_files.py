"""LoRA adapters as files: read with every check before a model is touched, written, and averaged.

An adapter may be a stranger's. It is data, never code, and nothing in it is trusted.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from pricer.core.adapter_config import MAX_RANK, AdapterSettings, read_adapter_settings
from pricer.errors import CheckpointError, first_line

_CONFIG_LIMIT = 1_000_000  # bytes; the names of every layer of a large model take 100,000
_HEADER_LIMIT = 16_000_000  # bytes; each tensor takes 150
_FLOATS = {"F64", "F32", "F16", "BF16"}


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that fits a base. `targets` are the full paths of the layers it changes. `tensors` are A (r,
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
    except OSError:
        raise CheckpointError(f"{folder} has no adapter_config.json that can be read") from None
    if len(data) > _CONFIG_LIMIT:
        raise CheckpointError(f"{path} cannot be used: it is larger than {_CONFIG_LIMIT:,} bytes")
    try:
        record = json.loads(data.decode("utf-8"))
    except (ValueError, RecursionError):  # also: numbers of thousands of digits, lists in lists in lists
        raise CheckpointError(f"{folder} has no adapter_config.json that can be read") from None
    try:
        return read_adapter_settings(record)
    except ValueError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from None


def read_tensors(folder: Path, shapes: dict[str, list[int]]) -> dict[str, torch.Tensor]:
    """The adapter's weights in float32, by name; a CheckpointError unless the header has exactly these `shapes`. No
    weight is read before that is known.
    """
    path = folder / "adapter_model.safetensors"
    # Without this file, peft would look for adapter_model.bin, a pickle.
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
            # In float32, as it was trained, whatever it was saved in. Copied, because a tensor's alignment in the file
            # would decide the last bits of its products.
            tensors = {name: file.get_tensor(name).to(torch.float32, copy=True) for name in shapes}
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} cannot be read: {_shown(first_line(error))}") from None
    if bad := [name for name, tensor in tensors.items() if not bool(tensor.isfinite().all())]:
        raise CheckpointError(
            f"the adapter in {folder} has weights that are not numbers ({len(bad)} tensors, {bad[0]} for one)"
        )
    return tensors


def average_adapters(adapters: Sequence[Adapter]) -> Adapter:
    """The adapter whose update of each layer is the mean of theirs (a model soup); a CheckpointError if they change
    different layers or have different settings.

    Averaging A and B separately would be wrong: (A₁ + A₂)/2 · (B₁ + B₂)/2 multiplies one adapter's A with the other's
    B. The sum of k updates is one update of rank k·r, with A = [A₁; …; A_k] and B = [B₁ … B_k] (`cat` in peft's
    `add_weighted_adapter`). The scale makes it the mean: with the same alpha, alpha/(k·r) is a k-th of alpha/r, so the
    weights are copied bit by bit. In rsLoRA the scale is alpha/√r, so alpha is divided by √k.
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


def write_adapter(adapter: Adapter, folder: Path) -> None:
    """Write an adapter as peft reads it; the same adapter always gives the same bytes."""
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
    weights.chmod(0o644)  # safetensors writes 0600, which shuts out the rest of a team
    (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def _shown(text: str) -> str:
    """A stranger's text for a message: short, without anything that a terminal would obey."""
    text = text.encode("unicode_escape").decode("ascii")
    return text if len(text) <= 150 else f"{text[:150]}…"
