"""`pricer train`: fine-tune, measure and keep a checkpoint every so many steps, and go on after any interruption."""

import json
import math
import platform
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from pricer.commands.parts.hub_runs import resume_hub_run
from pricer.commands.parts.machine import leave_launcher, settle, settle_again
from pricer.commands.parts.setup import Setup, dense_fact, load_base_of, prepare
from pricer.commands.parts.uploads import Uploads, claim, uploads
from pricer.commands.parts.validation import Validation, validator
from pricer.commands.parts.wandb_sending import tracker_of
from pricer.commands.parts.watcher import Watcher
from pricer.config import RunConfig
from pricer.core.checkpoints import Checkpoint
from pricer.errors import Interrupted, RunError
from pricer.ml.base import add_adapter
from pricer.ml.devices import device_name
from pricer.ml.micro_batch import Passes, choose_passes
from pricer.ml.out_of_memory import OutOfMemoryError
from pricer.ml.sft import Progress, fine_tune
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, write_manifest
from pricer.stores.files import sha256_of, write_json
from pricer.stores.runs import Run, create_run, find_run, free_name, refuse_name, refuse_place
from pricer.stores.wandb import Tracker

# Seconds in which a training that was stopped still uploads: machines that are taken away say so half a minute before.
_GRACE = 20.0
# Bytes left on a disk that could not take another file.
_FULL = 1_000_000


@dataclass(frozen=True, slots=True)
class Trained:
    """What `pricer train` returns."""

    run: Run
    checkpoints: tuple[Checkpoint, ...]


def start(config: RunConfig, stem: str, name: str | None, watcher: Watcher) -> Trained:
    """Train a new run, named `name` or after its config."""
    refuse_name(name)
    refuse_place()
    leave_launcher(watcher.note)
    setup = _prepared(settle(config), watcher)
    # Before the run is there: one without a model could never be gone on with, and would be the newest.
    model = _model(setup, None)
    examples = _examples(setup)
    passes = choose_passes(model, examples, config.train, setup.tokenizer.pad_token_id, watcher.note)
    facts = _facts(setup) | _passes_fact(setup, passes)
    if setup.precision.device == "cuda":
        facts["dense"] = dense_fact(setup, model)
    if config.hub.repo is not None:
        name = name or free_name(stem)
        repo = claim(config.hub.repo, config.tracking.project, name, private=config.hub.private)
        setup = setup.with_repo(repo)
        facts["repo"] = repo
    run = create_run(setup.config, stem, name, facts)
    with run.lock():
        return _train(run, setup, (model, examples, passes), None, watcher)


def resume(name: str | None, watcher: Watcher) -> Trained:
    """Go on with a run (None: the newest) from its newest whole training state; its own config says how."""
    leave_launcher(watcher.note)
    run = find_run(name, trained=True, note=watcher.note)
    if run.facts().get("attached"):
        raise RunError(
            f"{run.name} is a repository that was evaluated here, not a training",
            f"pricer train --resume --repo {run.repo}",
        )
    if run.facts().get("finished"):
        return _resume_finished(run, watcher)
    with run.lock():
        state = run.training_states.newest()
        setup = _prepared(settle_again(run, state[0] if state else None, watcher.note), watcher)
        _refuse_changed(run, setup)
        return _train(run, setup, _ready(run, setup, watcher), state, watcher)


def _prepared(config: RunConfig, watcher: Watcher) -> Setup:
    """The Setup of a config, whose notes are said before anything slow begins."""
    setup = prepare(config)
    for note in setup.notes:
        watcher.note(note)
    return setup


def _resume_finished(run: Run, watcher: Watcher) -> Trained:
    """Deliver what was left when training ended; a RunError if nothing was."""
    if not run.outbox.entries():
        raise RunError(
            f"the run {run.name} is finished, there is nothing to go on with", "pricer eval --all-checkpoints"
        )
    with run.lock(), uploads(run, watcher.note) as to_hub:
        if to_hub:
            to_hub.deliver_all(watcher.uploading)
    return Trained(run, tuple(run.store.checkpoints()))


def resume_repo(repo: str, name: str | None, watcher: Watcher) -> Trained:
    """Go on with the run that a repository holds, on a machine that may never have seen it (then as run `name`)."""
    leave_launcher(watcher.note)
    return resume(resume_hub_run(repo, name, watcher.note).name, watcher)


def _refuse_changed(run: Run, setup: Setup) -> None:
    """Raise a RunError if the run began with other data or another prompt: one adapter would learn from both."""
    facts = run.facts()
    now = {"data": setup.items.fingerprint, "prompt": setup.template.fingerprint}
    for what, present in now.items():
        began = facts.get(f"{what}_fingerprint", present)
        if began != present:
            raise RunError(
                f"{run.name} began to train with {what} {began}, this is {what} {present}",
                f"put the data and {run.folder / 'config.yaml'} back as they were, or train another run",
            )


def _model(setup: Setup, run: Run | None) -> Any:
    return add_adapter(load_base_of(setup, run), setup.config.adapter, setup.config.train.seed)


_Ready = tuple[Any, list[TokenizedExample], Passes]
"""A model with its adapter, what it learns from, and how a step is computed."""


def _ready(run: Run, setup: Setup, watcher: Watcher) -> _Ready:
    """What a run goes on with."""
    model, examples = _model(setup, run), _examples(setup)
    # As before on this device, unless the config asks for something else now: other parts are rounded otherwise.
    known = run.facts().get("passes", {})
    found = known.get(device_name(setup.precision), {})
    if found.get("asked") == _asked(setup):
        return model, examples, Passes(**found["passes"])
    passes = choose_passes(model, examples, setup.config.train, setup.tokenizer.pad_token_id, watcher.note)
    run.record(passes={**known, **_passes_fact(setup, passes)["passes"]})
    return model, examples, passes


def _asked(setup: Setup) -> dict[str, Any]:
    """What the config says of how a step is computed."""
    return setup.config.train.model_dump(include={"batch_size", "micro_batch", "activation_checkpointing", "compile"})


def _examples(setup: Setup) -> list[TokenizedExample]:
    return setup.encoder.examples([setup.template.example(item) for item in setup.items.train])


def _passes_fact(setup: Setup, passes: Passes) -> dict[str, Any]:
    """What run.json says of how steps are computed on this device."""
    return {"passes": {device_name(setup.precision): {"asked": _asked(setup), "passes": asdict(passes)}}}


def _train(run: Run, setup: Setup, ready: _Ready, state: tuple[Path, int] | None, watcher: Watcher) -> Trained:
    """Train a run to its end, from a whole training state and its step (None: from the beginning)."""
    model, examples, passes = ready
    config = setup.config.train
    reached = state[1] if state else 0
    run.delete_metrics_after(reached)
    run.training_states.delete_after(reached)
    _say_what_was_cut([example.prompt for example in examples], setup, watcher)
    if state:
        watcher.note(f"going on with {run.name} after step {state[1]:,}")
    with _tracked(run, setup, watcher) as tracker, uploads(run, watcher.note) as to_hub:
        if state:
            _keep(*state, run, to_hub)  # a kill may have come just before
        with _full_disk_said_plainly(run), _orderly_stop(watcher) as asked_to_stop:
            finished = fine_tune(
                model,
                setup.tokenizer,
                examples,
                config,
                setup.precision,
                state_folder=run.training_states.folder,
                resume_from=state[0] if state else None,
                on_checkpoint=_checkpoint_keeper(run, setup, validator(model, setup), to_hub, tracker, watcher),
                on_progress=_progress_logger(run, config.checkpoint_every, tracker, watcher),
                should_stop=lambda: bool(asked_to_stop),
                passes=passes,
                note=watcher.note,
            )
        if finished:
            run.finish()
            if to_hub:
                to_hub.deliver_all(watcher.uploading)
        else:
            if to_hub:
                to_hub.drain(watcher.uploading, _GRACE)
            raise Interrupted(f"stopped; {run.name} is saved", f"pricer train --resume --run {run.name}")
    return Trained(run, tuple(run.store.checkpoints()))


@contextmanager
def _tracked(run: Run, setup: Setup, watcher: Watcher) -> Iterator[Tracker]:
    """The run's tracker, the same W&B run as before when training goes on, here or on another machine."""
    tracker = tracker_of(run, setup.config, watcher.note, "training goes on")
    try:
        yield tracker
    finally:
        tracker.finish()


def _progress_logger(run: Run, every: int, tracker: Tracker, watcher: Watcher) -> Callable[[Progress], None]:
    diverged: list[int] = []

    def on_progress(progress: Progress) -> None:
        watcher.progress(progress, min(progress.steps, (progress.step // every + 1) * every))
        if progress.loss is not None:
            line = metrics_line(progress)
            run.log({"step": progress.step, **line})
            tracker.log(line, progress.step)
            if not math.isfinite(progress.loss) and not diverged:
                diverged.append(progress.step)
                watcher.note(
                    f"the loss is {progress.loss} at step {progress.step:,}: training has diverged; stop it, and take "
                    "a lower train.learning_rate or train.max_grad_norm"
                )

    return on_progress


def _checkpoint_keeper(
    run: Run,
    setup: Setup,
    validate: Callable[[], Validation],
    to_hub: Uploads | None,
    tracker: Tracker,
    watcher: Watcher,
) -> Callable[[Path, int], None]:
    def on_checkpoint(folder: Path, step: int) -> None:
        epoch = json.loads((folder / "trainer_state.json").read_text(encoding="utf-8"))["epoch"]
        checkpoint = _describe(folder, step, epoch, setup)
        validation = _validation(validate, step, watcher) if setup.config.train.val_items else None
        if validation:
            line = {
                "val_loss": _finite(validation.loss),
                "val_mae": validation.mae,
                "val_no_price": validation.no_price,
            }
            run.log({"step": step, "epoch": round(epoch, 6), **line, "val_items": validation.n})
            tracker.log(line, step)
        # Before the checkpoint is kept, so that a step that was kept is never trained again, which on a GPU would give
        # it other weights. A kill in between is made good on resuming, from the state, which holds the checkpoint.
        run.training_states.mark_complete(folder)
        _keep(folder, step, run, to_hub)
        watcher.checkpoint(checkpoint, validation)

    return on_checkpoint


def _validation(validate: Callable[[], Validation], step: int, watcher: Watcher) -> Validation | None:
    """None where there is no memory left for it: the checkpoint is worth more than what is known of it."""
    try:
        return validate()
    except OutOfMemoryError as error:
        watcher.note(
            f"step {step:,} is kept without a validation: {error.message}; pricer eval scores it after training"
        )
        return None


def _keep(folder: Path, step: int, run: Run, to_hub: Uploads | None) -> None:
    """Keep the checkpoint in a whole state folder; once more changes nothing."""
    if to_hub:
        to_hub.put_checkpoint(folder, step)
        to_hub.put_state(folder, step)
    else:
        run.store.push(folder, step)


def _describe(folder: Path, step: int, epoch: float, setup: Setup) -> Checkpoint:
    """Write the manifest of the adapter in `folder`."""
    path = folder / ADAPTER_CONFIG
    settings = json.loads(path.read_text(encoding="utf-8"))
    # peft writes the folder the base was loaded from, which means nothing on another machine.
    # And target_modules is a set there, in another order in every process.
    targets = settings["target_modules"]
    settings["target_modules"] = sorted(targets) if isinstance(targets, list) else targets
    write_json(path, {**settings, "base_model_name_or_path": setup.base.name, "revision": setup.base.revision})
    checkpoint = Checkpoint(
        step=step,
        epoch=round(epoch, 6),
        base=setup.base.name,
        base_revision=setup.base.revision,
        prompt_fingerprint=setup.template.fingerprint,
        data_fingerprint=setup.items.fingerprint,
        adapter_sha256=sha256_of(folder / ADAPTER),
        adapter_config_sha256=sha256_of(path),
    )
    write_manifest(folder, checkpoint)
    return checkpoint


def _say_what_was_cut(prompts: Sequence[TokenizedPrompt], setup: Setup, watcher: Watcher) -> None:
    if cut := sum(prompt.cut for prompt in prompts):
        watcher.note(
            f"{cut:,} of {len(prompts):,} training descriptions ({cut / len(prompts):.0%}) were cut to "
            f"{setup.template.max_length} tokens (prompt.max_length)"
        )


def metrics_line(progress: Progress) -> dict[str, Any]:
    """What metrics.jsonl says of a logged step, beside the step itself."""
    gpu = {} if progress.gpu_utilisation is None else {"gpu_utilisation": progress.gpu_utilisation}
    return {
        "epoch": round(progress.epoch, 6),
        "loss": _finite(progress.loss),
        "learning_rate": progress.learning_rate,
        "grad_norm": _finite(progress.grad_norm),
        "tokens_per_second": progress.tokens_per_second and round(progress.tokens_per_second, 1),
        "memory_used": progress.memory_used,
        "memory_total": progress.memory_total,
        **gpu,
    }


def _finite(value: float | None) -> float | None:
    """None for what JSON has no number for."""
    return value if value is not None and math.isfinite(value) else None


def _facts(setup: Setup) -> dict[str, Any]:
    packages = ("pricer", "torch", "transformers", "trl", "peft", "bitsandbytes", "datasets", "accelerate")
    return {
        "device": device_name(setup.precision),
        "precision": setup.precision.label,
        "seed": setup.config.train.seed,
        "items": {"train": len(setup.items.train), "val": len(setup.items.val), "test": len(setup.items.test)},
        "data_fingerprint": setup.items.fingerprint,
        "prompt_fingerprint": setup.template.fingerprint,
        "train_median": setup.items.train_median,
        "git_commit": _git_commit(),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
    }


def _git_commit() -> str | None:
    """The commit of the folder the run was started in, or None."""
    try:
        found = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, check=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return None
    return found.stdout.strip()


@contextmanager
def _full_disk_said_plainly(run: Run) -> Iterator[None]:
    """Libraries report a full disk each in their own words, torch as an unexpected position."""
    try:
        yield
    except Exception:
        if shutil.disk_usage(run.folder).free < _FULL:
            raise RunError(
                f"no space left on the disk with {run.folder}; what was saved before is whole",
                f"make room, then pricer train --resume --run {run.name}",
            ) from None
        raise


@contextmanager
def _orderly_stop(watcher: Watcher) -> Iterator[list[int]]:
    """While open, the first SIGINT or SIGTERM is noted in the list, for training to stop at the next step with a
    checkpoint; a second one stops at once, which loses nothing but the steps since the newest checkpoint.
    """
    received: list[int] = []

    def note(number: int, _frame: Any) -> None:
        received.append(number)
        watcher.note("saving a checkpoint before stopping; once more to stop at once")
        for handled, handler in before.items():
            signal.signal(handled, handler)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
