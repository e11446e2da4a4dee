"""A training on several processes: process 0 decides and keeps everything, the others compute their share."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.token_cache import tokenize_training
from pricer.commands.parts.training import catch_stop_signals, plan_validation
from pricer.config_file import parse_config, to_yaml
from pricer.core.ranks import RANDOM_STATE, Ranks, is_random_state, name_random_state
from pricer.core.training import Progress
from pricer.errors import LostProcess, RunError
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.batches import OutOfMemoryError
from pricer.ml.devices import leave_launcher
from pricer.ml.micro_batch import StepSettings
from pricer.ml.processes import Processes, joined
from pricer.ml.sft import fine_tune
from pricer.ml.sharding import shard
from pricer.stores.training_states import pick_state_files
from pricer.views import terminal

_PACKAGES = ("pricer", "torch", "transformers", "trl", "peft", "bitsandbytes")


@dataclass(frozen=True, slots=True)
class Task:
    """What process 0 tells the others: the settled config as YAML, how a step is computed, and whether 4-bit weights
    are dequantized.
    """

    config: str
    settings: StepSettings
    dense: bool


@contextmanager
def leading(
    ranks: Ranks, setup: Setup, model: Any, settings: StepSettings, *, dense: bool, state: Path | None
) -> Iterator[Processes]:
    """A context in which the other processes train with this one, which is process 0. It begins when all of them are
    ready. `state` is the training state from which they continue, None for a new training.

    A RunError if a process has other data, another prompt, base or precision, or other versions of packages.
    """
    with joined(ranks, _end_now) as processes:
        if processes.count > 1:
            processes.receive(Task(to_yaml(setup.config), settings, dense))
            _compare(processes.gather(_describe(setup)))
            _send_state(processes, state)
            if processes.sharded:
                with processes.noticing():
                    shard(model, setup.precision.device, processes)
        yield processes


def dismiss(ranks: Ranks) -> None:
    """Let the other processes end, because there is nothing to train."""
    with joined(ranks, _end_now) as processes:
        processes.receive(None)


def follow(ranks: Ranks) -> None:
    """Train as process 1 or later: the same steps as process 0, with this process's share of each batch. Nothing is
    printed, and all files are temporary.
    """
    leave_launcher()
    with joined(ranks, _end_now) as processes, tempfile.TemporaryDirectory(prefix="pricer-") as scratch:
        task: Task | None = processes.receive(None)
        if task is None:
            return
        setup = prepare(parse_config(task.config.encode(), "the config of process 0"), progress=_ignore)
        config, examples = setup.config.train, tokenize_training(setup, _ignore)
        base = load_base(setup.base.folder, setup.precision, dense=task.dense, sharded=ranks.sharded)
        model = add_adapter(base, setup.config.adapter, config.seed)
        _compare(processes.gather(_describe(setup)))
        resumed = Path(scratch) / "resumed"
        state = _receive_state(processes, resumed)
        if processes.sharded:
            with processes.noticing():
                shard(model, setup.precision.device, processes)
        validate = plan_validation(setup, model, processes)

        def on_checkpoint(folder: Path, _step: int, hurries: bool) -> None:
            if config.val_items and not hurries:
                with suppress(OutOfMemoryError):  # process 0 says so, and training goes on
                    validate()
            shutil.rmtree(folder)

        def on_progress(_: Progress) -> None:
            shutil.rmtree(resumed, ignore_errors=True)  # the Trainer has read it before its first step

        with catch_stop_signals(_ignore, launched=True) as signals:
            if not processes.receive(False):
                return
            fine_tune(
                model,
                setup.tokenizer,
                examples,
                config,
                setup.precision,
                state_folder=Path(scratch),
                resume_from=state,
                on_checkpoint=on_checkpoint,
                on_progress=on_progress,
                should_stop=lambda: bool(signals),
                settings=task.settings,
                note=_ignore,
                processes=processes,
            )


def _describe(setup: Setup) -> dict[str, str]:
    """What must be the same in all processes, by its name in an error message."""
    return {
        "the device": setup.precision.device,
        "the precision": setup.precision.label,
        "the base": f"{setup.base.name}, revision {setup.base.revision}",
        "training data": setup.items.fingerprint,
        "the prompt": setup.template.fingerprint,
        **{name: version(name) for name in _PACKAGES},
    }


def _compare(processes: list[dict[str, str]]) -> None:
    first = processes[0]
    for rank, other in enumerate(processes):
        for what, value in other.items():
            if value != first[what]:
                raise RunError(
                    f"process {rank} has {what} {value}, but process 0 has {first[what]}",
                    "all processes need the same files, packages and kind of device",
                )


def _send_state(processes: Processes, state: Path | None) -> None:
    """Send the files of a training state to the other processes. Their machines may not see this folder."""
    names = pick_state_files(path.name for path in state.iterdir()) if state else []
    processes.receive((state.name, names) if state else None)
    for name in names:  # one by one, because an optimizer's state may take much memory
        processes.receive((state / name).read_bytes() if state else b"")


def _receive_state(processes: Processes, folder: Path) -> Path | None:
    """The training state from process 0, in a new folder with this process's random state in place of its own."""
    sent: tuple[str, list[str]] | None = processes.receive(None)
    if sent is None:
        return None
    state = folder / sent[0]
    state.mkdir(parents=True)
    for name in sent[1]:
        content = processes.receive(b"")
        if name == name_random_state(processes.rank):
            (state / RANDOM_STATE).write_bytes(content)
        elif not is_random_state(name):
            (state / name).write_bytes(content)
    return state


def _end_now(error: LostProcess) -> None:
    """End this process with a line. Nothing is cleaned up, because its main thread may never go on."""
    terminal.error(error)
    os._exit(1)


def _ignore(*_: object) -> None:
    """Only process 0 shows notes and progress."""
