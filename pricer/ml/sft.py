"""Supervised fine-tuning with TRL's SFTTrainer. An interrupted and resumed training gives the same result."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from pricer.config import TrainConfig
from pricer.core.training import Progress
from pricer.errors import first_line
from pricer.ml.adapters import check_adapter
from pricer.ml.batches import EpochOrder, OutOfMemoryError, free_memory, is_out_of_memory, right_padded_ids
from pricer.ml.block_attention import attention_in_float32
from pricer.ml.cpu_layers import speed_up
from pricer.ml.devices import Precision, choose_optimizer, gpu_utilisation, memory, read_state
from pricer.ml.loss import Span, completion_loss
from pricer.ml.micro_batch import (
    StepSettings,
    can_recompute,
    compile_layers,
    set_checkpointing,
    use_compiled,
)
from pricer.ml.token_table import TokenTable
from pricer.ml.tokens import TokenizedExample


class _Trainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """SFTTrainer with a reproducible order of items and a different training step.

    A step is one batch, computed in micro-batches that fit into memory. The loss is computed only at the positions of
    completions.
    """

    order: EpochOrder
    settings: StepSettings
    note: Callable[[str], None]
    may_recompute: bool
    tokens: int = 0

    def _get_train_sampler(self, train_dataset: Any = None) -> EpochOrder:
        return self.order

    def floating_point_ops(self, inputs: Any) -> int:
        """Nothing reads them, and counting all parameters in each step takes milliseconds."""
        return 0

    def training_step(self, model: Any, inputs: Any, num_items_in_batch: Any = None) -> torch.Tensor:
        if not model.training:  # after a validation; walking through all modules takes milliseconds
            model.train()
        inputs = self._prepare_inputs(inputs)
        ids_BT, spans = inputs["input_ids"], inputs["spans"]
        while True:
            try:
                loss = self._accumulate(model, ids_BT, spans)
                break
            except Exception as error:
                out_of_memory, why = is_out_of_memory(error), first_line(error)[:200]
                # Compiled code can fail for a length or size that was not measured, or if this machine has no compiler.
                if not out_of_memory and not self.settings.compiled:
                    raise
            # No weight has changed yet, so the step can be repeated once the gradients are deleted.
            model.zero_grad(set_to_none=True)
            free_memory()
            if out_of_memory:
                self._reduce_memory(model)
            else:
                self.settings = replace(self.settings, compiled=False)
                torch.compiler.set_stance("force_eager")
                self.note(f"step {self.state.global_step + 1:,} is repeated without compiled layers: {why}")
        self.tokens += sum(end for _, end in spans)
        self._metrics["train"]["num_tokens"] = [self.tokens]
        return loss

    def _accumulate(self, model: Any, ids_BT: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Accumulate the gradients of the batch's mean loss per completion token, and return that loss (a scalar)."""
        count = sum(end - start for start, end in spans)
        total = torch.zeros((), device=ids_BT.device)
        size = self.settings.micro_batch
        for first in range(0, len(spans), size):
            with self.compute_loss_context_manager():
                part = completion_loss(model, ids_BT[first : first + size], spans[first : first + size]) / count
            self.accelerator.backward(part)
            total += part.detach()
        return total

    def _reduce_memory(self, model: Any) -> None:
        """Use less memory per step from now on. An OutOfMemoryError if that is impossible."""
        step, settings = self.state.global_step + 1, self.settings
        if settings.micro_batch > 1:
            self.settings = replace(settings, micro_batch=-(-settings.micro_batch // 2))
            change = f"parts of {self.settings.micro_batch:,} from now on (train.micro_batch)"
        elif self.may_recompute and not settings.activation_checkpointing:
            self.settings = replace(settings, activation_checkpointing=True)
            set_checkpointing(model, True)
            change = "activations are recomputed from now on (train.activation_checkpointing)"
        else:
            raise OutOfMemoryError(
                f"there is no memory left for a single item at step {step:,}",
                "free the GPU of other work, then pricer train --resume",
            )
        self.note(f"memory ran out at step {step:,}, which is repeated: {change}")


@dataclass(eq=False)
class _Events(TrainerCallback):
    """Forwards the Trainer's events, and on request saves a checkpoint and stops. `since` is the time of the last
    logged step, and `tokens` the number of tokens seen by then.
    """

    on_checkpoint: Callable[[Path, int], None]
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    tokens: float = 0.0
    since: float = 0.0

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.since = time.monotonic()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.on_progress(Progress(state.global_step, state.max_steps, state.epoch))
        last = state.global_step >= state.max_steps
        if last or self.should_stop():
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
            tokens_per_second=(tokens - self.tokens) / max(now - self.since, 1e-9) if tokens > self.tokens else None,
            memory_used=used,
            memory_total=total,
            gpu_utilisation=gpu_utilisation(args.device.type),
        )
        self.tokens, self.since = tokens, now
        self.on_progress(progress)

    def on_save(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        # A pickle of the arguments, which is never used.
        (folder / "training_args.bin").unlink(missing_ok=True)
        before = time.monotonic()
        # Validation has other shapes, which are not compiled.
        with use_compiled(False):
            self.on_checkpoint(folder, state.global_step)
        self.since += time.monotonic() - before  # scoring a checkpoint is not training time


def build_dataset(table: TokenTable) -> datasets.Dataset:
    """The examples in the Trainer's format: token ids, and the start of the completion. A mapped file stays mapped."""
    rows = datasets.table.InMemoryTable(table.rows.select(["input_ids", "start"]))
    # Without a fingerprint, `datasets` would copy all rows to compute one.
    return datasets.Dataset(rows, fingerprint="tokens")


def collate(rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Any]:
    """A batch: `input_ids` (items, longest), right-padded, and `spans`, each completion's start and end."""
    ids_BT = torch.from_numpy(right_padded_ids([row["input_ids"] for row in rows], pad))
    return {"input_ids": ids_BT, "spans": [(row["start"], len(row["input_ids"])) for row in rows]}


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
    settings: StepSettings,
    note: Callable[[str], None],
) -> bool:
    """Train the model's adapter on the completions. Returns True if it reached the last step, False if it was stopped.

    A step is computed according to `settings`. If memory runs out, the step is repeated in smaller parts. If compiled
    layers fail, it is repeated without them. `note` gets a line about it.

    `on_checkpoint(folder, step)` gets every saved folder, with the adapter and the training state. Passing the folder
    as `resume_from` continues to the same weights, bit for bit on the CPU. Only the newest two folders are kept.
    """
    table = TokenTable.of(examples)
    trainer = _Trainer(
        model=model,
        args=SFTConfig(**trainer_arguments(config, precision, state_folder)),
        train_dataset=build_dataset(table),
        data_collator=partial(collate, pad=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[_Events(on_checkpoint, on_progress, should_stop)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.order = EpochOrder(table.lengths, config.batch_size, config.seed)
    trainer.settings, trainer.note = settings, note
    trainer.may_recompute = config.activation_checkpointing == "auto" and can_recompute(model)
    set_checkpointing(model, trainer.settings.activation_checkpointing)
    if model.device.type == "cpu":
        speed_up(model)
    if trainer.settings.compiled:
        compile_layers(model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            # SFTTrainer converts a QLoRA adapter to bfloat16. Its eight bits of mantissa lose AdamW's small updates,
            # and the float16 gradient scaler of older GPUs cannot unscale bfloat16 gradients.
            parameter.data = parameter.data.to(torch.float32)
    if resume_from:
        check_adapter(model, resume_from)
        read_state(resume_from)  # raises unless it holds nothing but numbers
    model.train()  # peft's own module says so already, but the base's modules are loaded for scoring
    try:
        with use_compiled(trainer.settings.compiled), attention_in_float32(model):
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
    """The arguments of SFTConfig."""
    on_gpu = precision.device == "cuda"
    return {
        "output_dir": str(state_folder),
        "num_train_epochs": config.epochs,
        "per_device_train_batch_size": config.batch_size,
        "learning_rate": config.learning_rate,
        # transformers' plain "constant" has no warm-up.
        "lr_scheduler_type": "constant_with_warmup" if config.schedule == "constant" else config.schedule,
        "warmup_steps": config.warmup,  # below 1 it is a share of all steps
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "optim": choose_optimizer(config.optimizer),
        "seed": config.seed,
        "bf16": precision.dtype == "bfloat16",
        "fp16": on_gpu and precision.dtype == "float16",
        "use_cpu": not on_gpu,
        # Switched by StepSettings.
        "activation_checkpointing": False,
        "logging_steps": config.log_every,
        # transformers would log a loss that is not a number as 0.
        "logging_nan_inf_filter": False,
        "save_strategy": "steps",
        "save_steps": config.checkpoint_every,
        # Two, so that one is complete while the newest is being written.
        "save_total_limit": 2,
        # Examples are tokenized and cut already: SFTTrainer would cut the completion, not the description.
        "dataset_kwargs": {"skip_prepare_dataset": True},
        # `start` is an argument of collate, not of the model.
        "remove_unused_columns": False,
        "max_length": None,
        "completion_only_loss": True,
        "dataloader_pin_memory": on_gpu,
        "disable_tqdm": True,
        "report_to": "none",
    }
