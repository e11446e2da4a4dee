"""Passes: in how many parts a step's batch is computed, and how, so that it fits and is fast."""

import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch

from pricer.config import TrainConfig
from pricer.core.memory import USABLE
from pricer.errors import ModelError, first_line
from pricer.ml.base import computing
from pricer.ml.loss import completion_loss
from pricer.ml.out_of_memory import OutOfMemoryError, free, is_out_of_memory
from pricer.ml.tokens import TokenizedExample, right_padded

# Bytes of AdamW's two states for each trained parameter.
_STATES = 8
# Seconds of training from which compiling pays, and how much faster it has to be.
_WORTH_COMPILING = 1800.0
_FASTER = 0.95


@dataclass(frozen=True, slots=True)
class Passes:
    """How a step is computed: items per forward and backward pass, whether its activations are computed again, and
    whether by compiled layers.
    """

    micro_batch: int
    activation_checkpointing: bool = False
    compiled: bool = False


Trial = tuple[float, bool] | None
"""Seconds per item of a forward and backward pass, and whether that left room to spare; None: it does not fit."""


def choose_passes(
    model: Any, examples: Sequence[TokenizedExample], config: TrainConfig, pad: int, note: Callable[[str], None]
) -> Passes:
    """The Passes that a config asks for; on a GPU what it leaves open is found by computing the longest items' batch.
    Layers that were compiled for that stay so, and compute as before where `as_compiled` says so.

    An OutOfMemoryError if a step cannot be computed as the config has it. The model is left as it was.
    """
    asked = as_asked(config)
    if model.device.type != "cuda":
        if config.compile is True:
            note("train.compile is for GPUs: the model's layers are not compiled")
        return asked
    longest = sorted(examples, key=lambda example: -len(example.ids))[: config.batch_size]

    def trial(passes: Passes) -> Trial:
        return _tried(model, longest, passes, pad)

    passes, seconds = fastest(config, trial, can_recompute=can_recompute(model))
    if passes != asked:
        parts = -(-config.batch_size // passes.micro_batch)
        again = ", activations recomputed" if passes.activation_checkpointing else ""
        note(f"batches of {config.batch_size:,} in {parts:,} parts of {passes.micro_batch:,}{again}, to fit this GPU")
    whole = seconds * min(config.batch_size, len(examples)) * config.steps(len(examples))
    if config.compile is True or (config.compile == "auto" and whole > _WORTH_COMPILING):
        note("compiling the model's layers, which takes a minute or two")
        compiled = replace(passes, compiled=True)
        try:
            compile_layers(model)
            found = trial(compiled)
        except Exception as error:  # a compiler fails in as many ways as there are machines
            note(f"layers are not compiled: {first_line(error)[:200]}")
            return passes
        if found is None:
            note("layers are not compiled: that does not fit into this GPU's memory")
        elif config.compile is True or found[0] < _FASTER * seconds:
            return compiled
    return passes


def as_asked(config: TrainConfig) -> Passes:
    """What a config says, and where it leaves it open, what is fastest with enough memory."""
    micro = config.batch_size if config.micro_batch == "auto" else min(config.micro_batch, config.batch_size)
    return Passes(micro, config.activation_checkpointing is True)


def fastest(
    config: TrainConfig, trial: Callable[[Passes], Trial], *, can_recompute: bool = True
) -> tuple[Passes, float]:
    """The fastest Passes that fit with room to spare, else the smallest that fit at all, and their seconds per item.

    A smaller batch is no faster, so of each way the largest that fits is compared. An OutOfMemoryError if none fits.
    """
    first = as_asked(config)
    sizes = [first.micro_batch]
    while config.micro_batch == "auto" and sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    ways = [first.activation_checkpointing]
    if config.activation_checkpointing == "auto" and can_recompute:
        ways = [False, True]
    found: list[tuple[float, Passes]] = []
    tight: list[tuple[float, Passes]] = []
    for way in ways:
        for size in sizes:
            passes = Passes(size, way)
            if (result := trial(passes)) is not None:
                seconds, has_room = result
                (found if has_room else tight).append((seconds, passes))
                if has_room:
                    break
        if found and found[0][1] == first:
            break
    found = found or tight[-1:]
    if not found:
        raise OutOfMemoryError(
            f"a step of {sizes[-1]:,} items does not fit into this GPU's memory",
            "train.micro_batch: auto and train.activation_checkpointing: auto"
            if config.micro_batch != "auto" or config.activation_checkpointing is False
            else "a smaller prompt.max_length or adapter.r, or a GPU with more memory",
        )
    seconds, passes = min(found, key=lambda pair: pair[0])
    return passes, seconds


def recompute_activations(model: Any, wanted: bool) -> None:
    """Switch activation checkpointing on or off."""
    base = model.get_base_model()
    if wanted:
        if not can_recompute(model):
            raise ModelError(
                f"{type(base).__name__} cannot compute its activations again", "train.activation_checkpointing: false"
            )
        base.activation_checkpointing_enable({"use_reentrant": False})
    else:
        base.activation_checkpointing_disable()


def can_recompute(model: Any) -> bool:
    """Whether the base knows activation checkpointing."""
    return bool(model.get_base_model().supports_gradient_checkpointing)


def compile_layers(model: Any) -> None:
    """Have a model's repeated layers computed by compiled code, the same for all of them and for any length."""
    base = model.get_base_model()
    names = base._no_split_modules or ()  # what transformers calls those layers
    layers = [module for module in base.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(f"{type(base).__name__} does not say which of its layers are alike")
    if all(layer._compiled_call_impl is not None for layer in layers):
        return
    # Otherwise the first layer, whose input needs no gradient, is compiled by itself.
    base.enable_input_require_grads()
    for layer in layers:
        layer.compile(dynamic=True)


def as_compiled(wanted: bool) -> Any:
    """A context in which compiled layers compute as such, or as if they never had been."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()  # nothing is compiled, and loading the compiler takes a second
    return torch.compiler.set_stance("default" if wanted else "force_eager")


def _tried(model: Any, batch: Sequence[TokenizedExample], passes: Passes, pad: int) -> Trial:
    """Of three forward and backward passes the last one's seconds. The optimizer's states count as memory in use."""
    part = batch[: passes.micro_batch]
    was_training = model.training
    torch.cuda.reset_peak_memory_stats()
    seconds: float | None = None
    try:
        model.train()
        recompute_activations(model, passes.activation_checkpointing)
        with as_compiled(passes.compiled):
            for _ in range(3):
                torch.cuda.synchronize()
                start = time.perf_counter()
                _forward_and_backward(model, part, pad)
                torch.cuda.synchronize()
                seconds = (time.perf_counter() - start) / len(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        seconds = None
    finally:
        model.zero_grad(set_to_none=True)
        recompute_activations(model, False)
        model.train(was_training)
    peak = torch.cuda.max_memory_reserved() + _STATES * trained_parameters(model)
    room = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    free()
    return None if seconds is None else (seconds, peak <= USABLE * room)


def _forward_and_backward(model: Any, batch: Sequence[TokenizedExample], pad: int) -> None:
    ids, spans = right_padded(batch, pad)
    with computing(model):
        loss = completion_loss(model, torch.from_numpy(ids).to(model.device), spans)
    torch.autograd.backward(loss)


def trained_parameters(model: Any) -> int:
    """How many numbers are trained."""
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
