"""Supervised fine-tuning: TRL's SFTTrainer, made so that an interruption changes nothing."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Sampler
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from pricer.config import TrainConfig
from pricer.errors import first_line
from pricer.ml.base import check_adapter
from pricer.ml.devices import Precision, gpu_utilisation, memory
from pricer.ml.loss import Span, completion_loss
from pricer.ml.micro_batch import Passes, as_asked, as_compiled, can_recompute, compile_layers, recompute_activations
from pricer.ml.optimizers import choose_optimizer, read_state
from pricer.ml.out_of_memory import OutOfMemoryError, free, is_out_of_memory
from pricer.ml.tokens import TokenizedExample, right_padded_ids

# Batches of similar length are cut from pools of this many batches: long enough to save most padding, short enough
# to stay random.
_POOL = 50


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training is. `loss` is the mean in nats per completion token since the last logged step, None between
    logged steps, as are the other measures; memory is in bytes, the GPU's where there is one, whose utilisation is in
    percent.
    """

    step: int
    steps: int
    epoch: float
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    gpu_utilisation: float | None = None


class EpochOrder(Sampler[int]):
    """The order of items in an epoch: a function of seed and epoch alone, so a resumed epoch is the same epoch.

    (The Trainer's own length grouping draws from the global random state, which a restart does not rebuild.)
    Batches hold items of similar length; which ones, and the order of batches, is random.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of each epoch."""
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self._epoch])
        order = random.permutation(len(self._lengths))
        pool = self._batch_size * _POOL
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        order = np.concatenate([own[np.argsort(-self._lengths[own], kind="stable")] for own in pools])
        whole = len(order) // self._batch_size * self._batch_size
        batches = order[:whole].reshape(-1, self._batch_size)
        # The incomplete batch stays last: anywhere else it would shift all that follow.
        yield from (int(index) for index in batches[random.permutation(len(batches))].ravel())
        yield from (int(index) for index in order[whole:])


class _Trainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """SFTTrainer with our order of items and our step; its hooks for those can only be overridden.

    A step is a batch, computed in as many parts as fit, and the loss is computed at the completions' positions alone.
    """

    order: EpochOrder
    passes: Passes
    note: Callable[[str], None]
    may_recompute: bool
    tokens: int = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        return self.order

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        model.train()
        inputs = self._prepare_inputs(inputs)
        ids, spans = inputs["input_ids"], inputs["spans"]
        while True:
            try:
                loss = self._in_parts(model, ids, spans)
                break
            except Exception as error:
                remedy = self._remedy(error)
                if remedy is None:
                    raise
            # No weight has changed yet: without the gradients so far, the step can be taken once more.
            model.zero_grad(set_to_none=True)
            free()
            remedy(model)
        self.tokens += sum(end for _, end in spans)
        self._metrics["train"]["num_tokens"] = [self.tokens]
        return loss

    def _in_parts(self, model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Gradients of the batch's mean loss per completion token, and that loss."""
        count = sum(end - start for start, end in spans)
        total = torch.zeros((), device=ids.device)
        size = self.passes.micro_batch
        for first in range(0, len(spans), size):
            with self.compute_loss_context_manager():
                part = completion_loss(model, ids[first : first + size], spans[first : first + size]) / count
            self.accelerator.backward(part)
            total += part.detach()
        return total

    def _remedy(self, error: Exception) -> Callable[[Any], None] | None:
        """What may help against an error in a step; None: nothing does."""
        if is_out_of_memory(error):
            return self._make_room
        # A compiler can fail at a length or a size that the trial did not have, or is not on this machine.
        return partial(self._leave_compiler, first_line(error)[:200]) if self.passes.compiled else None

    def _leave_compiler(self, why: str, _model: Any) -> None:
        self.passes = replace(self.passes, compiled=False)
        torch.compiler.set_stance("force_eager")
        self.note(f"step {self.state.global_step + 1:,} is taken once more without compiled layers: {why}")

    def _make_room(self, model: Any) -> None:
        """Compute less at once from now on; an OutOfMemoryError if that cannot be."""
        step, passes = self.state.global_step + 1, self.passes
        if passes.micro_batch > 1:
            self.passes = replace(passes, micro_batch=-(-passes.micro_batch // 2))
            what = f"parts of {self.passes.micro_batch:,} from now on (train.micro_batch)"
        elif self.may_recompute and not passes.activation_checkpointing:
            self.passes = replace(passes, activation_checkpointing=True)
            recompute_activations(model, True)
            what = "activations are computed again from now on (train.activation_checkpointing)"
        else:
            raise OutOfMemoryError(
                f"there is no memory left for a single item at step {step:,}",
                "free the GPU of other work, then pricer train --resume",
            )
        self.note(f"memory ran out at step {step:,}, which is taken once more: {what}")


class _Events(TrainerCallback):
    """Passes the Trainer's events on, and stops it with a checkpoint when asked to."""

    def __init__(
        self,
        on_checkpoint: Callable[[Path, int], None],
        on_progress: Callable[[Progress], None],
        should_stop: Callable[[], bool],
    ) -> None:
        self._on_checkpoint = on_checkpoint
        self._on_progress = on_progress
        self._should_stop = should_stop
        self._tokens = 0.0
        self._since = time.monotonic()

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self._on_progress(Progress(state.global_step, state.max_steps, state.epoch))
        last = state.global_step >= state.max_steps
        if last or self._should_stop():
            control.should_save = control.should_training_stop = True
        control.should_log = control.should_log or last

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        if not logs or "loss" not in logs:
            return
        now, tokens = time.monotonic(), float(logs.get("num_tokens", 0.0))
        used, total = memory(args.device.type)
        progress = Progress(
            step=state.global_step,
            steps=state.max_steps,
            epoch=state.epoch,
            loss=float(logs["loss"]),
            learning_rate=float(logs["learning_rate"]),
            grad_norm=float(logs["grad_norm"]) if "grad_norm" in logs else None,
            tokens_per_second=(tokens - self._tokens) / max(now - self._since, 1e-9) if tokens > self._tokens else None,
            memory_used=used,
            memory_total=total,
            gpu_utilisation=gpu_utilisation(args.device.type),
        )
        self._tokens, self._since = tokens, now
        self._on_progress(progress)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        # A pickle of the arguments, which nobody reads.
        (folder / "training_args.bin").unlink(missing_ok=True)
        before = time.monotonic()
        # What is asked of the model there has other shapes, for which nothing is compiled.
        with as_compiled(False):
            self._on_checkpoint(folder, state.global_step)
        self._since += time.monotonic() - before  # scoring a checkpoint is not training time


def fine_tune(
    model: Any,
    tokenizer: Any,
    examples: Sequence[TokenizedExample],
    config: TrainConfig,
    precision: Precision,
    *,
    state_folder: Path,
    resume_from: Path | None,
    on_checkpoint: Callable[[Path, int], None],
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    passes: Passes | None = None,
    note: Callable[[str], None] | None = None,
) -> bool:
    """Train the model's adapter on the completions; True if it reached the last step, False if it was stopped.

    A step is computed in `passes` (None: as the config has it). Where memory runs out all the same, the step is taken
    once more in smaller parts, and where compiled layers fail, without them; `note` is told.

    `on_checkpoint(folder, step)` gets every saved folder: the adapter, and the training state from which
    `resume_from` goes on to the same weights, bit for bit on the CPU. Only the newest two folders are kept.
    """
    trainer = _Trainer(
        model=model,
        args=SFTConfig(**trainer_arguments(config, precision, state_folder)),
        train_dataset=training_data(examples),
        data_collator=partial(_collated, pad=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[_Events(on_checkpoint, on_progress, should_stop)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.order = EpochOrder([len(example.ids) for example in examples], config.batch_size, config.seed)
    trainer.passes = passes or as_asked(config)
    trainer.note = note or (lambda _: None)
    trainer.may_recompute = config.activation_checkpointing == "auto" and can_recompute(model)
    recompute_activations(model, trainer.passes.activation_checkpointing)
    if trainer.passes.compiled:
        compile_layers(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # SFTTrainer makes a QLoRA adapter bfloat16, whose eight bits lose AdamW's small updates, and which the
            # float16 gradient scaler of older GPUs cannot unscale at all.
            parameter.data = parameter.data.to(torch.float32)
    if resume_from:
        check_adapter(model, resume_from)
        read_state(resume_from)  # raises for what is not numbers
    try:
        with as_compiled(trainer.passes.compiled):
            trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise OutOfMemoryError(
            f"memory ran out outside of a step, after step {trainer.state.global_step:,}",
            "free the GPU of other work, then pricer train --resume",
        ) from None
    return bool(trainer.state.global_step >= trainer.state.max_steps)


def trainer_arguments(config: TrainConfig, precision: Precision, state_folder: Path) -> dict[str, Any]:
    """What SFTConfig is made from."""
    on_gpu = precision.device == "cuda"
    return {
        "output_dir": str(state_folder),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        # transformers' plain "constant" would leave the warm-up out.
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "warmup_steps": config.warmup,  # below 1 it is a share of all steps
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": choose_optimizer(config.optimizer, precision.device),
        "seed": config.seed,
        "bf16": precision.dtype == "bfloat16",
        "fp16": on_gpu and precision.dtype == "float16",
        "use_cpu": not on_gpu,
        # Ours to switch: a step decides it by what fits.
        "activation_checkpointing": False,
        "logging_steps": config.log_every,
        # transformers would log a loss that is not a number as 0.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_every,
        # Two, so that the one before is there while the newest is being written.
        "save_total_limit": 2,
        # Examples come tokenized and fitted: SFTTrainer would cut the completion, not the description.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        "max_length": None,
        "completion_only_loss": True,
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": True,
        "report_to": "none",
    }


def training_data(examples: Sequence[TokenizedExample]) -> datasets.Dataset:
    """Token ids, and as labels those of the completion alone: -100 is a token without a loss."""
    labels = []
    for example in examples:
        own = example.ids.copy()
        own[: example.start] = -100
        labels.append(own)
    return datasets.Dataset.from_dict({"input_ids": [example.ids for example in examples], "labels": labels})


def _collated(rows: Sequence[dict[str, list[int]]], pad: int) -> dict[str, Any]:
    """A batch: `input_ids` (items, longest), right-padded, and `spans`, where each completion starts and ends."""
    ids = right_padded_ids([row["input_ids"] for row in rows], pad)
    spans = [(row["labels"].count(-100), len(row["labels"])) for row in rows]
    return {"input_ids": torch.from_numpy(ids), "spans": spans}
