"""What happens at the Trainer's events: progress is reported, and checkpoints are kept."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from pricer.core.training import Progress
from pricer.ml.devices import gpu_utilisation, memory
from pricer.ml.micro_batch import use_compiled
from pricer.ml.processes import Processes
from pricer.ml.random_states import gather_random_states, seed_dropout


@dataclass(eq=False)
class Events(TrainerCallback):
    """Forwards the Trainer's events. On request of any process, all save a checkpoint and stop. `since` is the time of
    the last logged step, and `tokens` the number of tokens seen by then.
    """

    processes: Processes
    seed: int
    on_checkpoint: Callable[[Path, int, bool], None]
    on_progress: Callable[[Progress], None]
    should_stop: Callable[[], bool]
    note: Callable[[str], None]
    tokens: float = 0.0
    since: float = 0.0
    hurries: bool = False

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.since = time.monotonic()
        if self.processes.rank:  # process 0 draws what a single process would draw
            seed_dropout(self.seed, 0, self.processes.rank)

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.processes.step = state.global_step
        self.on_progress(Progress(state.global_step, state.max_steps, state.epoch))
        last = state.global_step >= state.max_steps
        stops = bool(self.processes.largest(self.should_stop()))
        if stops and self.processes.count > 1:
            self.note("all processes stop, and a checkpoint is saved")
            # The launcher kills them some seconds after it has asked them to stop: torchrun after 30.
            self.hurries = True
        if last or stops:
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
        gather_random_states(folder, self.processes)
        # Validation has other shapes, which are not compiled.
        with use_compiled(False):
            self.on_checkpoint(folder, state.global_step, self.hurries)
        self.since += time.monotonic() - before  # scoring a checkpoint is not training time
