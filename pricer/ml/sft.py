"""Supervised fine-tuning with TRL's SFTTrainer. An interrupted and resumed training gives the same result."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import torch
from transformers import PrinterCallback
from trl import SFTConfig, SFTTrainer

from pricer.config import TrainConfig
from pricer.core.ranks import Ranks
from pricer.core.training import Progress
from pricer.errors import first_line
from pricer.ml.adapters import check_adapter
from pricer.ml.batches import EpochOrder, OutOfMemoryError, free_memory, is_out_of_memory, right_padded_ids
from pricer.ml.block_attention import attention_in_float32
from pricer.ml.cpu_layers import speed_up
from pricer.ml.devices import Precision, choose_optimizer, read_state
from pricer.ml.events import Events
from pricer.ml.loss import Span, completion_loss
from pricer.ml.micro_batch import (
    StepSettings,
    can_recompute,
    compile_layers,
    set_checkpointing,
    use_compiled,
)
from pricer.ml.processes import Processes
from pricer.ml.random_states import find_random_states, seed_dropout
from pricer.ml.token_table import TokenTable
from pricer.ml.tokens import TokenizedExample

# How a process ended its part of a step.
_NONE, _NOT_COMPILED, _OUT_OF_MEMORY = 0, 1, 2


class _Trainer(SFTTrainer):  # type: ignore[misc]  # trl is untyped
    """SFTTrainer with a reproducible order of items and a different training step.

    A step is one batch. Each process computes its share of the items, in micro-batches that fit into memory. The loss
    is computed only at the positions of completions.
    """

    processes: Processes
    trained: Sequence[torch.nn.Parameter]
    order: EpochOrder
    settings: StepSettings
    note: Callable[[str], None]
    may_recompute: bool
    draws_anew: bool
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
        while (loss := self._try_step(model, ids_BT, spans)) is None:
            pass
        self.tokens += sum(end for _, end in spans)
        self._metrics["train"]["num_tokens"] = [self.tokens]
        return loss

    def _try_step(self, model: Any, ids_BT: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor | None:
        """Accumulate the gradients of a batch. Returns its loss; None if any process had to give up, and all of them
        repeat the step with other settings.
        """
        problem, why = _NONE, ""
        try:
            loss = self._accumulate(model, ids_BT, spans)
        except Exception as error:
            problem, why = _OUT_OF_MEMORY if is_out_of_memory(error) else _NOT_COMPILED, first_line(error)[:200]
            # Compiled code can fail for a length or size that was not measured, or if this machine has no compiler.
            if problem == _NOT_COMPILED and (self.processes.sharded or not self.settings.compiled):
                raise
            if self.processes.sharded:  # the others wait for this process's part of a layer, and cannot start again
                step, hint = self.state.global_step + 1, "a smaller train.micro_batch"
                raise OutOfMemoryError(f"memory ran out at step {step:,}, with FSDP", hint) from None
        worst = self.processes.largest(problem)
        if worst == _NONE:
            return self.processes.add_up(self.trained, loss)
        # No weight has changed yet, so the step can be repeated once the gradients are deleted.
        model.zero_grad(set_to_none=True)
        free_memory()
        if worst == _OUT_OF_MEMORY:
            self._reduce_memory(model)
        else:
            self.settings = replace(self.settings, compiled=False)
            torch.compiler.set_stance("force_eager")
            why = why or "they failed in another process"
            self.note(f"step {self.state.global_step + 1:,} is repeated without compiled layers: {why}")
        return None

    def _accumulate(self, model: Any, ids_BT: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        """Accumulate the gradients of this process's share of a batch, divided by the number of completion tokens in
        the whole batch. Returns the share's part of the loss (a scalar).
        """
        count = sum(end - start for start, end in spans)
        # Neighbours have similar lengths, so every process gets about as many tokens.
        first, step, size = self.processes.rank, self.processes.count, self.settings.micro_batch
        own_BT, own = ids_BT[first::step], spans[first::step]
        parts = [(own_BT[start : start + size], own[start : start + size], 1) for start in range(0, len(own), size)]
        # Every process must compute a pass, because the float16 gradient scaler starts with the first one, and as many
        # as the others with FSDP. Those of this row have no weight.
        most = math.ceil(math.ceil(len(spans) / step) / size) if self.processes.sharded else 1
        parts += [(ids_BT[:1], spans[:1], 0)] * (most - len(parts))
        total = torch.zeros((), device=ids_BT.device)
        for part_BT, part, weight in parts:
            with self.compute_loss_context_manager():
                loss = weight * completion_loss(model, part_BT, part) / count
            self.accelerator.backward(loss)
            total += loss.detach()
        return total

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        if self.processes.rank == 0:
            super()._save_checkpoint(model, trial)
            return
        # All processes have the same weights, but each has its own random state.
        folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
        folder.mkdir(parents=True, exist_ok=True)
        self._save_rng_state(str(folder))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if self.draws_anew:
            seed_dropout(self.args.seed, self.state.global_step, self.processes.rank)
        else:
            super()._load_rng_state(checkpoint)

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
    on_checkpoint: Callable[[Path, int, bool], None],
    on_progress: Callable[[Progress], None],
    should_stop: Callable[[], bool],
    settings: StepSettings,
    note: Callable[[str], None],
    processes: Processes | None = None,
) -> bool:
    """Train the model's adapter on the completions. Returns True if it reached the last step, False if it was stopped.

    A step is computed according to `settings`. If memory runs out, the step is repeated in smaller parts. If compiled
    layers fail, it is repeated without them. `note` gets a line about it.

    `on_checkpoint(folder, step, hurries)` gets every saved folder, with the adapter and the training state. Passing the
    folder as `resume_from` continues to the same weights, bit for bit on the CPU. Only the newest two folders are kept.
    `hurries`: several processes were asked to stop, and may be killed soon.

    Each of several `processes` gets the same arguments, except that each has its own folders, and its own random state
    in `resume_from`. Only process 0 saves adapters. If another number of processes wrote the state, dropout goes on
    with new random numbers.
    """
    processes = processes or Processes(Ranks())
    table = TokenTable.of(examples)
    trainer = _Trainer(
        model=model,
        args=SFTConfig(**trainer_arguments(config, precision, state_folder)),
        train_dataset=build_dataset(table),
        data_collator=partial(collate, pad=tokenizer.pad_token_id),
        processing_class=tokenizer,
        callbacks=[Events(processes, config.seed, on_checkpoint, on_progress, should_stop, note)],
    )
    trainer.remove_callback(PrinterCallback)
    trainer.order = EpochOrder(table.lengths, config.batch_size, config.seed)
    trainer.processes, trainer.settings, trainer.note = processes, settings, note
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
    trainer.trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    writers = len(find_random_states(resume_from)) if resume_from else 0
    trainer.draws_anew = processes.receive(writers not in (0, processes.count))
    if trainer.draws_anew:
        note(f"{writers} processes wrote the training state, not {processes.count}: dropout has new random numbers")
    if resume_from:
        check_adapter(model, resume_from)
        read_state(resume_from)  # raises unless it holds nothing but numbers
    model.train()  # peft's own module says so already, but the base's modules are loaded for scoring
    try:
        with processes.noticing(), use_compiled(trainer.settings.compiled), attention_in_float32(model):
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
