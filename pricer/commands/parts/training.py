"""Record and report a training (metrics, checkpoints, facts about the machine), and stop it in order."""

import json
import math
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pricer.commands.parts.setup import Setup
from pricer.commands.parts.uploads import Uploads
from pricer.commands.parts.watcher import Watcher
from pricer.core.checkpoints import Checkpoint
from pricer.core.training import Progress, Validation
from pricer.errors import RunError
from pricer.ml.batches import OutOfMemoryError
from pricer.ml.devices import device_name
from pricer.ml.processes import Processes
from pricer.ml.validation import prepare_validation
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, write_manifest
from pricer.stores.files import sha256_of, write_json
from pricer.stores.runs import Run
from pricer.stores.wandb import Tracker

# A disk with fewer free bytes counts as full.
_MIN_FREE_BYTES = 1_000_000
# Seconds in which a launcher repeats the signal that it got itself.
_REPEATED = 5.0
_PACKAGES = ("pricer", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")


@dataclass
class Recorder:
    """Keeps and reports the metrics and checkpoints of a training."""

    run: Run
    setup: Setup
    validate: Callable[[], Validation]
    to_hub: Uploads | None
    tracker: Tracker
    watcher: Watcher
    has_diverged: bool = False

    def progress(self, progress: Progress) -> None:
        """Report a step; log it if it has a loss."""
        every = self.setup.config.train.checkpoint_every
        self.watcher.progress(progress, min(progress.steps, (progress.step // every + 1) * every))
        if progress.loss is None:
            return
        self._log(progress.step, progress.to_json())
        if not math.isfinite(progress.loss) and not self.has_diverged:
            self.has_diverged = True
            self.watcher.note(
                f"the loss is {progress.loss} at step {progress.step:,}: training has diverged; stop it, and take a "
                "lower train.learning_rate or train.max_grad_norm"
            )

    def checkpoint(self, folder: Path, step: int, hurries: bool) -> None:
        """Validate and keep a checkpoint that the trainer has saved. There is no validation if training `hurries`,
        because the checkpoint would be lost if training was killed in it.
        """
        epoch = round(json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["epoch"], 6)
        checkpoint = self._describe(folder, step, epoch)
        validation = self._validate(step, epoch, hurries) if self.setup.config.train.val_items else None
        # The state is complete before the checkpoint is kept: a kept step must never be trained again, because a GPU
        # would give it other weights. After a kill between the two, resuming keeps the checkpoint from the state.
        self.run.training_states.mark_complete(folder)
        self.keep(folder, step)
        self.watcher.checkpoint(checkpoint, validation)

    def keep(self, folder: Path, step: int) -> None:
        """Keep the checkpoint of a complete state folder. Keeping it twice changes nothing."""
        if self.to_hub:
            self.to_hub.put_checkpoint(folder, step)
            self.to_hub.put_state(folder, step)
        else:
            self.run.store.push(folder, step)

    def _validate(self, step: int, epoch: float, hurries: bool) -> Validation | None:
        """The validation of a step; None, with a note, if there is none."""
        try:
            why, validation = "training stops", None if hurries else self.validate()
        except OutOfMemoryError as error:
            why, validation = error.message, None
        if validation is None:
            self.watcher.note(f"step {step:,} is kept without a validation: {why}; pricer eval scores it")
            return None
        self._log(step, validation.to_json(), epoch=epoch, val_items=validation.n)
        return validation

    def _log(self, step: int, measured: dict[str, Any], **more: float) -> None:
        self.run.log({"step": step, **more, **measured})
        self.tracker.log(measured, step)

    def _describe(self, folder: Path, step: int, epoch: float) -> Checkpoint:
        """Write the manifest of the adapter in `folder`."""
        path, base = folder / ADAPTER_CONFIG, self.setup.base
        settings = json.loads(path.read_text(encoding="utf-8"))
        # peft writes the local folder of the base, which other machines do not have. It writes target_modules in an
        # order that differs between processes.
        targets = settings["target_modules"]
        settings["target_modules"] = sorted(targets) if isinstance(targets, list) else targets
        write_json(path, {**settings, "base_model_name_or_path": base.name, "revision": base.revision})
        checkpoint = Checkpoint(
            step=step,
            epoch=epoch,
            base=base.name,
            base_revision=base.revision,
            prompt_fingerprint=self.setup.template.fingerprint,
            data_fingerprint=self.setup.items.fingerprint,
            adapter_sha256=sha256_of(folder / ADAPTER),
            adapter_config_sha256=sha256_of(path),
            answers=self.setup.answers,
        )
        write_manifest(folder, checkpoint)
        return checkpoint


def plan_validation(setup: Setup, model: Any, processes: Processes) -> Callable[[], Validation]:
    """A function that validates a model in training as the config says. The processes share out the items."""
    return prepare_validation(
        model,
        setup.tokenizer,
        setup.items.val[: setup.config.train.val_items],
        setup.template,
        setup.encoder,
        fallback=setup.answers.train_median,
        batch_tokens=setup.batch_tokens,
        processes=processes,
    )


def describe_machine(setup: Setup) -> dict[str, Any]:
    """The facts in run.json about data, defaults, machine and versions."""
    items = setup.items
    return {
        "device": device_name(setup.precision),
        "precision": setup.precision.label,
        "seed": setup.config.train.seed,
        "defaults": {setting: asdict(default) for setting, default in setup.defaults.items()},
        "items": {"train": len(items.train), "val": len(items.val), "test": len(items.test)},
        **describe_data(setup),
        "data_fingerprint": items.fingerprint,
        "prompt_fingerprint": setup.template.fingerprint,
        "train_median": setup.answers.train_median,
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in _PACKAGES}},
    }


def describe_data(setup: Setup) -> dict[str, Any]:
    """The facts in run.json about the prepared data of this machine."""
    summary, folder = setup.items.summary, setup.items.folder
    return {"data": asdict(summary) if summary else None, "data_folder": None if folder is None else str(folder)}


def _git_commit() -> str | None:
    """The git commit of the current folder, or None."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@contextmanager
def explain_full_disk(run: Run) -> Iterator[None]:
    """Raise a RunError for a full disk. Each library reports it differently; torch reports an unexpected position."""
    try:
        yield
    except Exception:
        if shutil.disk_usage(run.folder).free < _MIN_FREE_BYTES:
            raise RunError(
                f"no space left on the disk with {run.folder}; what was saved before is whole",
                f"make room, then pricer train --resume --run {run.name}",
            ) from None
        raise


@contextmanager
def catch_stop_signals(note: Callable[[str], object], *, launched: bool = False) -> Iterator[list[int]]:
    """While open, append the first SIGINT or SIGTERM to the list. Training then stops at the next step with a
    checkpoint. A second signal stops at once and loses the steps since the newest checkpoint.

    `launched`: a launcher started this process. It sends SIGTERM also if another process has ended, when nothing can be
    saved, so there is no note. It repeats the signals of a user, so a second one counts only after some seconds.
    """
    received: list[int] = []
    first = 0.0

    def on_signal(number: int, _frame: Any) -> None:
        nonlocal first
        if launched and received:
            if time.monotonic() - first < _REPEATED:
                return
            restore()
            os.kill(os.getpid(), number)
        received.append(number)
        first = time.monotonic()
        if not launched:
            note("saving a checkpoint before stopping; once more to stop at once")
            restore()

    def restore() -> None:
        for handled, handler in previous.items():
            signal.signal(handled, handler)

    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in previous:
        signal.signal(number, on_signal)
    try:
        yield received
    finally:
        restore()
