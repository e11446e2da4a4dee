"""`pricer train`: fine-tune, keep a checkpoint every so many steps, and resume after any interruption."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from pricer.commands.parts.hub_runs import resume_hub_run
from pricer.commands.parts.machine import leave_launcher, settle, settle_resumed
from pricer.commands.parts.setup import Setup, dense_fact, load_base_of, prepare
from pricer.commands.parts.training import (
    Watcher,
    catch_stop_signals,
    describe_machine,
    explain_full_disk,
    keep,
    keep_checkpoints,
    log_progress,
)
from pricer.commands.parts.uploads import claim, uploads
from pricer.commands.parts.wandb_report import tracker_of
from pricer.config import RunConfig
from pricer.core.checkpoints import Checkpoint
from pricer.errors import Interrupted, RunError
from pricer.ml.adapters import add_adapter
from pricer.ml.devices import device_name
from pricer.ml.micro_batch import StepSettings, choose_step_settings
from pricer.ml.sft import fine_tune
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt
from pricer.ml.validation import build_validation_set, validate
from pricer.stores.runs import Run, create_run, find_run, free_name, refuse_name, refuse_place
from pricer.stores.wandb import Tracker

# Seconds in which a stopped training still uploads: cloud machines are taken away half a minute after the notice.
_GRACE = 20.0


@dataclass(frozen=True, slots=True)
class Trained:
    """What `pricer train` returns."""

    run: Run
    checkpoints: tuple[Checkpoint, ...]


@dataclass(frozen=True, slots=True)
class _Training:
    """A model with its adapter, the examples it learns from, and how a step is computed."""

    model: Any
    examples: list[TokenizedExample]
    settings: StepSettings


def start(config: RunConfig, stem: str, name: str | None, watcher: Watcher) -> Trained:
    """Train a new run, named `name` or after its config (`stem`)."""
    refuse_name(name)
    refuse_place()
    leave_launcher(watcher.note)
    setup = _prepare(settle(config), watcher)
    # Before the run is created: a run without a model could never be resumed, and would be the newest.
    model, examples = _load_model(setup, None), _examples(setup)
    settings = _choose_settings(setup, model, examples, watcher)
    facts = describe_machine(setup) | {"step_settings": _settings_fact(setup, settings)}
    if setup.precision.device == "cuda":
        facts["dense"] = dense_fact(setup, model)
    if config.hub.repo is not None:
        name = name or free_name(stem)
        repo = claim(config.hub.repo, config.tracking.project, name, private=config.hub.private)
        setup = setup.with_repo(repo)
        facts["repo"] = repo
    run = create_run(setup.config, stem, name, facts)
    with run.lock():
        return _train(run, setup, _Training(model, examples, settings), None, watcher)


def resume(name: str | None, watcher: Watcher) -> Trained:
    """Resume a run (None: the newest) from its newest whole training state, as its own config says."""
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
        setup = _prepare(settle_resumed(run, state[0] if state else None, watcher.note), watcher)
        _refuse_changed(run, setup)
        return _train(run, setup, _prepare_resumed(run, setup, watcher), state, watcher)


def resume_repo(repo: str, name: str | None, watcher: Watcher) -> Trained:
    """Resume the run that a repository holds. On a machine that has never seen it, it becomes the run `name`."""
    leave_launcher(watcher.note)
    return resume(resume_hub_run(repo, name, watcher.note).name, watcher)


def _prepare(config: RunConfig, watcher: Watcher) -> Setup:
    """The Setup of a config. Its notes are shown before anything slow begins."""
    setup = prepare(config)
    for note in setup.notes:
        watcher.note(note)
    return setup


def _resume_finished(run: Run, watcher: Watcher) -> Trained:
    """Upload what was left when training ended; a RunError if nothing was."""
    if not run.outbox.entries():
        raise RunError(
            f"the run {run.name} is finished, there is nothing to go on with", "pricer eval --all-checkpoints"
        )
    with run.lock(), uploads(run, watcher.note) as to_hub:
        if to_hub:
            to_hub.deliver_all(watcher.uploading)
    return Trained(run, tuple(run.store.checkpoints()))


def _refuse_changed(run: Run, setup: Setup) -> None:
    """Raise a RunError if the run began with other data or another prompt: one adapter would learn from both."""
    facts = run.facts()
    present = {"data": setup.items.fingerprint, "prompt": setup.template.fingerprint}
    for what, fingerprint in present.items():
        first = facts.get(f"{what}_fingerprint", fingerprint)
        if first != fingerprint:
            raise RunError(
                f"{run.name} began to train with {what} {first}, this is {what} {fingerprint}",
                f"put the data and {run.folder / 'config.yaml'} back as they were, or train another run",
            )


def _load_model(setup: Setup, run: Run | None) -> Any:
    return add_adapter(load_base_of(setup, run), setup.config.adapter, setup.config.train.seed)


def _examples(setup: Setup) -> list[TokenizedExample]:
    return setup.encoder.examples([setup.template.example(item) for item in setup.items.train])


def _choose_settings(setup: Setup, model: Any, examples: Sequence[TokenizedExample], watcher: Watcher) -> StepSettings:
    return choose_step_settings(model, examples, setup.config.train, setup.tokenizer.pad_token_id, watcher.note)


def _prepare_resumed(run: Run, setup: Setup, watcher: Watcher) -> _Training:
    """What a run is resumed with. A step is computed as before on this device, because other parts are rounded
    differently, unless the config requests something else now.
    """
    model, examples = _load_model(setup, run), _examples(setup)
    known = run.facts().get("step_settings", {})
    found = known.get(device_name(setup.precision), {})
    if found.get("requested") == _requested(setup):
        return _Training(model, examples, StepSettings(**found["settings"]))
    settings = _choose_settings(setup, model, examples, watcher)
    run.record(step_settings={**known, **_settings_fact(setup, settings)})
    return _Training(model, examples, settings)


def _requested(setup: Setup) -> dict[str, Any]:
    """What the config says about how a step is computed."""
    return setup.config.train.model_dump(include={"batch_size", "micro_batch", "activation_checkpointing", "compile"})


def _settings_fact(setup: Setup, settings: StepSettings) -> dict[str, Any]:
    """The fact in run.json: how steps are computed on this device."""
    return {device_name(setup.precision): {"requested": _requested(setup), "settings": asdict(settings)}}


def _train(run: Run, setup: Setup, training: _Training, state: tuple[Path, int] | None, watcher: Watcher) -> Trained:
    """Train a run to its end, from a whole training state and its step (None: from the beginning)."""
    config = setup.config.train
    reached = state[1] if state else 0
    run.delete_metrics_after(reached)
    run.training_states.delete_after(reached)
    _note_cut_prompts([example.prompt for example in training.examples], setup, watcher)
    if state:
        watcher.note(f"going on with {run.name} after step {state[1]:,}")
    validation_set = build_validation_set(
        setup.items.val[: config.val_items], setup.template, setup.encoder, setup.items.train_median
    )
    measure = partial(validate, training.model, setup.tokenizer, validation_set, setup.batch_tokens)
    with _track(run, setup, watcher) as tracker, uploads(run, watcher.note) as to_hub:
        if state:
            keep(*state, run, to_hub)  # a kill may have come just before
        with explain_full_disk(run), catch_stop_signals(watcher) as signals:
            finished = fine_tune(
                training.model,
                setup.tokenizer,
                training.examples,
                config,
                setup.precision,
                state_folder=run.training_states.folder,
                resume_from=state[0] if state else None,
                on_checkpoint=keep_checkpoints(run, setup, measure, to_hub, tracker, watcher),
                on_progress=log_progress(run, config.checkpoint_every, tracker, watcher),
                should_stop=lambda: bool(signals),
                settings=training.settings,
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
def _track(run: Run, setup: Setup, watcher: Watcher) -> Iterator[Tracker]:
    """The run's tracker. A resumed training continues the same W&B run, on any machine."""
    tracker = tracker_of(run, setup.config, watcher.note, "training goes on")
    try:
        yield tracker
    finally:
        tracker.finish()


def _note_cut_prompts(prompts: Sequence[TokenizedPrompt], setup: Setup, watcher: Watcher) -> None:
    if cut := sum(prompt.cut for prompt in prompts):
        watcher.note(
            f"{cut:,} of {len(prompts):,} training descriptions ({cut / len(prompts):.0%}) were cut to "
            f"{setup.template.max_length} tokens (prompt.max_length)"
        )
