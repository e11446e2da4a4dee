"""The micro-batch finder: how to compute a training step so that it fits into the GPU's memory and is fast."""

import math
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch

from pricer.config import TrainConfig
from pricer.core.memory import USABLE
from pricer.errors import ModelError, first_line
from pricer.ml.base import mixed_precision
from pricer.ml.batches import OutOfMemoryError, free_memory, is_out_of_memory, right_padded
from pricer.ml.loss import completion_loss
from pricer.ml.token_table import TokenTable
from pricer.ml.tokens import TokenizedExample

# Bytes of AdamW's two moments for each trained parameter.
_OPTIMIZER_BYTES = 8
# Maximum number of tokens in a pass on a CPU, padding included. The bundled base takes 240 kB of memory for each: a
# gigabyte. Passes of 94,000 tokens took 11.6 GB and were slower.
_CPU_TOKENS = 4_096
# Compiling is worthwhile for trainings of at least this many seconds, if it reduces the time to this share.
_WORTH_COMPILING = 1800.0
_FASTER = 0.95


@dataclass(frozen=True, slots=True)
class StepSettings:
    """How a step is computed: the number of items per forward and backward pass, whether activations are recomputed,
    and whether layers are compiled.
    """

    micro_batch: int
    activation_checkpointing: bool = False
    compiled: bool = False


Timing = tuple[float, bool] | None
"""Seconds per item of a forward and backward pass, and whether enough memory was left. None: the step does not fit."""


def choose_step_settings(
    model: Any,
    examples: Sequence[TokenizedExample],
    config: TrainConfig,
    pad: int,
    note: Callable[[str], None],
    *,
    processes: int = 1,
) -> StepSettings:
    """Choose the settings for a config, for each of so many processes. On a GPU, `auto` settings are measured with a
    batch of the longest items. Layers that were compiled for a measurement stay compiled, but run compiled only in
    `use_compiled(True)`.

    Raises an OutOfMemoryError if no step that the config allows fits. The model's weights do not change.
    """
    requested = requested_settings(config, processes)
    share = config.batch_size // processes
    if model.device.type != "cuda":
        if config.compile is True:
            note("train.compile is for GPUs: the model's layers are not compiled")
        if config.micro_batch != "auto":
            return requested
        return replace(requested, micro_batch=_fit_tokens(examples, share))
    longest = TokenTable.of(examples).longest(share)

    measure = partial(_measure_step, model, longest, pad)
    settings, seconds = find_fastest(config, measure, can_recompute=can_recompute(model), processes=processes)
    if settings != requested:
        parts = -(-share // settings.micro_batch)
        recomputed = ", activations recomputed" if settings.activation_checkpointing else ""
        note(f"batches of {share:,} in {parts:,} parts of {settings.micro_batch:,}{recomputed}, to fit this GPU")
    total = seconds * min(share, len(examples)) * config.steps(len(examples))
    if config.compile is True or (config.compile == "auto" and total > _WORTH_COMPILING):
        note("compiling the model's layers, which takes a minute or two")
        compiled = replace(settings, compiled=True)
        try:
            compile_layers(model)
            timing = measure(compiled)
        except Exception as error:  # a compiler fails in as many ways as there are machines
            note(f"layers are not compiled: {first_line(error)[:200]}")
            return settings
        if timing is None:
            note("layers are not compiled: that does not fit into this GPU's memory")
        elif config.compile is True or timing[0] < _FASTER * seconds:
            return compiled
    return settings


def choose_sharded_settings(
    model: Any, examples: Sequence[TokenizedExample], config: TrainConfig, processes: int
) -> StepSettings:
    """The settings for a base whose weights are shared out. One process cannot measure a step, so `auto` means parts
    like a CPU's, and activations that are recomputed.
    """
    requested = requested_settings(config, processes)
    if config.micro_batch == "auto":
        requested = replace(requested, micro_batch=_fit_tokens(examples, config.batch_size // processes))
    recomputes = config.activation_checkpointing is not False and can_recompute(model)
    return replace(requested, activation_checkpointing=recomputes)


def _fit_tokens(examples: Sequence[TokenizedExample], share: int) -> int:
    """The size of equal parts of a share whose passes have a limited number of tokens."""
    parts = math.ceil(share * int(TokenTable.of(examples).lengths.max()) / _CPU_TOKENS)
    return math.ceil(share / parts)


def requested_settings(config: TrainConfig, processes: int = 1) -> StepSettings:
    """What a config asks of each process; where it leaves something open, what is fastest with enough memory."""
    share = config.batch_size // processes
    micro_batch = share if config.micro_batch == "auto" else min(config.micro_batch, share)
    return StepSettings(micro_batch, config.activation_checkpointing is True)


def find_fastest(
    config: TrainConfig, measure: Callable[[StepSettings], Timing], *, can_recompute: bool = True, processes: int = 1
) -> tuple[StepSettings, float]:
    """The fastest settings that fit with memory to spare (else the smallest that fit), and their seconds per item.

    A smaller micro-batch is never faster, so only the largest that fits is compared, with activations kept and
    recomputed. An OutOfMemoryError if none fits.
    """
    first = requested_settings(config, processes)
    sizes = [first.micro_batch]
    while config.micro_batch == "auto" and sizes[-1] > 1:
        sizes.append(-(-sizes[-1] // 2))
    checkpointing = [first.activation_checkpointing]
    if config.activation_checkpointing == "auto" and can_recompute:
        checkpointing = [False, True]
    spacious: list[tuple[float, StepSettings]] = []
    tight: list[tuple[float, StepSettings]] = []
    for recomputes in checkpointing:
        for size in sizes:
            settings = StepSettings(size, recomputes)
            timing = measure(settings)
            if timing and timing[1]:
                spacious.append((timing[0], settings))
                break
            if timing:
                tight.append((timing[0], settings))
        if spacious and spacious[0][1] == first:
            break
    fitting = spacious or tight[-1:]
    if not fitting:
        raise OutOfMemoryError(
            f"a step of {sizes[-1]:,} items does not fit into this GPU's memory",
            "train.micro_batch: auto and train.activation_checkpointing: auto"
            if config.micro_batch != "auto" or config.activation_checkpointing is False
            else "a smaller prompt.max_length or adapter.r, or a GPU with more memory",
        )
    seconds, settings = min(fitting, key=lambda pair: pair[0])
    return settings, seconds


def set_checkpointing(model: Any, enabled: bool) -> None:
    """Switch activation checkpointing on or off; a ModelError if the base does not support it."""
    base = model.get_base_model()
    if not enabled:
        base.activation_checkpointing_disable()
        return
    if not can_recompute(model):
        raise ModelError(
            f"{type(base).__name__} cannot recompute its activations", "train.activation_checkpointing: false"
        )
    base.activation_checkpointing_enable({"use_reentrant": False})


def can_recompute(model: Any) -> bool:
    """Whether the base supports activation checkpointing."""
    return bool(model.get_base_model().supports_gradient_checkpointing)


def compile_layers(model: Any) -> None:
    """Compile a model's repeated layers. All of them share one compiled code for any length."""
    base = model.get_base_model()
    names = base._no_split_modules or ()  # transformers' name for those layers
    layers = [module for module in base.modules() if type(module).__name__ in names]
    if not layers:
        raise ModelError(f"{type(base).__name__} does not say which of its layers are alike")
    if all(layer._compiled_call_impl is not None for layer in layers):
        return
    # Without this, the input of the first layer needs no gradient, and the layer would be compiled separately.
    base.enable_input_require_grads()
    for layer in layers:
        layer.compile(dynamic=True)


def use_compiled(enabled: bool) -> Any:
    """A context in which compiled layers run compiled (`enabled`), or as if they were not compiled."""
    if "torch._dynamo" not in sys.modules:
        return nullcontext()  # nothing is compiled, and loading the compiler takes seconds
    return torch.compiler.set_stance("default" if enabled else "force_eager")


def _measure_step(model: Any, batch: Sequence[TokenizedExample], pad: int, settings: StepSettings) -> Timing:
    """The timing of the last of three forward and backward passes. The optimizer's state is counted as used memory."""
    part = batch[: settings.micro_batch]
    was_training = model.training
    torch.cuda.reset_peak_memory_stats()
    seconds: float | None = None
    try:
        model.train()
        set_checkpointing(model, settings.activation_checkpointing)
        with use_compiled(settings.compiled):
            for _ in range(3):
                torch.cuda.synchronize()
                start = time.perf_counter()
                ids_BT, spans = right_padded(part, pad)
                with mixed_precision(model):
                    loss = completion_loss(model, torch.from_numpy(ids_BT).to(model.device), spans)
                torch.autograd.backward(loss)
                torch.cuda.synchronize()
                seconds = (time.perf_counter() - start) / len(part)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        seconds = None
    finally:
        model.zero_grad(set_to_none=True)
        set_checkpointing(model, False)
        model.train(was_training)
    trained = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    peak = torch.cuda.max_memory_reserved() + _OPTIMIZER_BYTES * trained
    room = torch.cuda.mem_get_info()[0] + torch.cuda.memory_reserved()
    free_memory()
    return None if seconds is None else (seconds, peak <= USABLE * room)
