"""Passes: in how many parts a step's batch is computed, and how, so that it fits and is fast."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from pricer.config import TrainConfig
from pricer.ml.loss import completion_loss
from pricer.ml.model import computing
from pricer.ml.out_of_memory import OutOfMemoryError, free, is_out_of_memory
from pricer.ml.tokens import TokenizedExample, right_padded

# The share of a GPU's memory that training may take: what is left is for what comes and goes in pieces of odd sizes.
_ROOM = 0.92
# Bytes of AdamW's two states for each trained parameter.
_STATES = 8


@dataclass(frozen=True, slots=True)
class Passes:
    """How a step is computed: items per forward and backward pass, and whether its activations are computed again."""

    micro_batch: int
    activation_checkpointing: bool = False


def choose_passes(
    model: Any, examples: Sequence[TokenizedExample], config: TrainConfig, pad: int, note: Callable[[str], None]
) -> Passes:
    """The Passes that a config asks for; on a GPU what it leaves open is found by computing the longest items' batch.

    An OutOfMemoryError if a step cannot be computed as the config has it. The model is left as it was.
    """
    asked = as_asked(config)
    if model.device.type != "cuda":
        return asked
    longest = sorted(examples, key=lambda example: -len(example.ids))[: config.batch_size]
    passes = fastest(config, lambda passes: _seconds_per_item(model, longest, passes, pad))
    if passes != asked:
        parts = -(-config.batch_size // passes.micro_batch)
        again = ", activations recomputed" if passes.activation_checkpointing else ""
        note(f"batches of {config.batch_size:,} in {parts:,} parts of {passes.micro_batch:,}{again}, to fit this GPU")
    return passes


def as_asked(config: TrainConfig) -> Passes:
    """What a config says, and where it leaves it open, what is fastest with enough memory."""
    micro = config.batch_size if config.micro_batch == "auto" else min(config.micro_batch, config.batch_size)
    return Passes(micro, config.activation_checkpointing is True)


def fastest(config: TrainConfig, trial: Callable[[Passes], float | None]) -> Passes:
    """The fastest Passes that fit. `trial` gives seconds per item, or None for what does not fit.

    A smaller batch is no faster, so of each way the largest that fits is compared. An OutOfMemoryError if none fits.
    """
    first = as_asked(config)
    sizes = [first.micro_batch]
    while config.micro_batch == "auto" and sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    ways = [first.activation_checkpointing] if config.activation_checkpointing != "auto" else [False, True]
    found: list[tuple[float, Passes]] = []
    for way in ways:
        for size in sizes:
            seconds = trial(Passes(size, way))
            if seconds is not None:
                found.append((seconds, Passes(size, way)))
                break
        if found and found[0][1] == first:
            return first
    if not found:
        raise OutOfMemoryError(
            f"a step of {sizes[-1]:,} items does not fit into this GPU's memory",
            "train.micro_batch: auto and train.activation_checkpointing: auto"
            if config.micro_batch != "auto" or config.activation_checkpointing is False
            else "a smaller prompt.max_length or adapter.r, or a GPU with more memory",
        )
    return min(found, key=lambda pair: pair[0])[1]


def recompute_activations(model: Any, wanted: bool) -> None:
    """Switch activation checkpointing on or off."""
    base = model.get_base_model()
    if wanted:
        base.activation_checkpointing_enable({"use_reentrant": False})
    else:
        base.activation_checkpointing_disable()


def _seconds_per_item(model: Any, batch: Sequence[TokenizedExample], passes: Passes, pad: int) -> float | None:
    """Seconds per item of a forward and backward pass, the second of two; None if it does not fit with room to spare,
    the optimizer's states counted.
    """
    part = batch[: passes.micro_batch]
    was_training = model.training
    model.train()
    recompute_activations(model, passes.activation_checkpointing)
    torch.cuda.reset_peak_memory_stats()
    seconds: float | None = None
    try:
        for _ in range(2):
            torch.cuda.synchronize()
            start = time.perf_counter()
            _forward_and_backward(model, part, pad)
            torch.cuda.synchronize()
            seconds = (time.perf_counter() - start) / len(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        seconds = None
    model.zero_grad(set_to_none=True)
    recompute_activations(model, False)
    model.train(was_training)
    peak = torch.cuda.max_memory_reserved() + _STATES * trained_parameters(model)
    room = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    free()
    return seconds if peak <= _ROOM * room else None


def _forward_and_backward(model: Any, batch: Sequence[TokenizedExample], pad: int) -> None:
    ids, spans = right_padded(batch, pad)
    with computing(model):
        loss = completion_loss(model, torch.from_numpy(ids).to(model.device), spans)
    torch.autograd.backward(loss)


def trained_parameters(model: Any) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
