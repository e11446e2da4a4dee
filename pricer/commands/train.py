"""`pricer train`: fine-tune, keep a checkpoint every N steps, and resume after any interruption."""

from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from pricer.commands.data import CARD, write_card
from pricer.commands.parts.claim import (
    acquire_if_reachable,
    claim_repo,
    name_repo,
    open_lease_of,
    refuse_repo,
    released_at_end,
)
from pricer.commands.parts.early_stops import describe_end, record_stop, stop_requests
from pricer.commands.parts.hub_resume import downloaded_run, find_local_run, held_run
from pricer.commands.parts.loading import Training, load_training
from pricer.commands.parts.resuming import settle_optimizer, settle_resumed
from pricer.commands.parts.settling import describe_defaults, find_warnings
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.several_processes import dismiss
from pricer.commands.parts.token_cache import tokenize_training
from pricer.commands.parts.training import (
    Recorder,
    catch_stop_signals,
    describe_data,
    describe_machine,
    explain_full_disk,
    plan_validation,
)
from pricer.commands.parts.uploads import deliver_outbox, has_uploads, uploads
from pricer.commands.parts.wandb_report import open_tracker
from pricer.commands.parts.watcher import Watcher
from pricer.commands.pick import publish_pick_of
from pricer.config import RunConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.defaults import MUCH_CUT
from pricer.core.ranks import Ranks, share_batch
from pricer.errors import Interrupted, ModelError, PricerError, RunError
from pricer.ml.devices import leave_launcher
from pricer.ml.processes import Processes
from pricer.ml.sft import fine_tune
from pricer.ml.token_table import TokenTable
from pricer.stores.hub_lease import HubLease
from pricer.stores.runs import Run, check_runs_folder, create_run, find_run, free_name, refuse_name

# Seconds that a stopped training continues to upload. Cloud machines disappear 30 seconds after their notice.
_GRACE = 20.0


@dataclass(frozen=True, slots=True)
class Trained:
    """The result of `pricer train`."""

    run: Run
    checkpoints: tuple[Checkpoint, ...]


def start(config: RunConfig, stem: str, name: str | None, watcher: Watcher) -> Trained:
    """Train a new run, named `name` or after its config (`stem`)."""
    refuse_name(name)
    check_runs_folder()
    ranks = _leave_launcher(watcher)
    settled, repo = settle_optimizer(config), config.hub.repo
    if repo is not None:  # before data and a base are loaded, which may take long
        name = name or free_name(stem)
        repo = name_repo(repo, config.tracking.project, name)
        refuse_repo(repo)
    setup = _prepare(settled, watcher)
    share_batch(setup.config.train.batch_size, ranks.count)
    for text in describe_defaults(setup):
        watcher.note(text)
    examples = tokenize_training(setup, watcher.preparing)
    cut = float(examples.cut.mean())
    for text in find_warnings(setup, cut):
        watcher.note(text)
    if cut <= MUCH_CUT:  # otherwise a warning has said it
        _say_cut(examples, setup, watcher)
    if setup.items.folder and not (setup.items.folder / CARD).exists():
        write_card(setup)
    # Load before the run is created: a run without a model could never be resumed, but would be the newest.
    training = load_training(setup, examples, None, ranks, watcher)
    with training.leading(ranks, setup) as processes:
        facts = describe_machine(setup) | training.facts
        if repo is not None:
            # The run is created before its repository. A kill in between leaves a run that can be resumed.
            facts |= {"repo": repo, "claimed": False}
            hub = setup.config.hub.model_copy(update={"repo": repo})
            setup = replace(setup, config=setup.config.model_copy(update={"hub": hub}))
        run = create_run(setup.config, stem, name, facts)
        with run.lock():
            lease = _claim_repo(run, watcher) if run.repo else None
            with released_at_end(run, lease, watcher.note):
                return _train(run, setup, training, None, lease, processes, watcher)


def resume(name: str | None, watcher: Watcher, *, take_over: bool = False) -> Trained:
    """Resume a run (None: the newest) from its newest complete training state, here or on the Hub, with its own config.
    A finished run only continues its uploads; a RunError if it has none. `take_over`: train although another process
    holds the lease of the repository.
    """
    ranks = _leave_launcher(watcher)
    run = find_run(name, trained=True, note=watcher.note)
    facts = run.facts()
    if facts.get("from_hub"):
        raise RunError(
            f"{run.name} is a repository that was evaluated here, not a training",
            f"pricer train --resume --repo {run.repo}",
        )
    if facts.get("finished"):
        if not has_uploads(run):
            text = f"the run {run.name} {describe_end(facts)}, there is nothing to go on with"
            raise RunError(text, "pricer eval --all-checkpoints")
        dismiss(ranks)
        with run.lock():
            deliver_outbox(run, watcher)
        publish_pick_of(run)
        return Trained(run, tuple(run.store.checkpoints()))
    with held_run(run, watcher.note, take_over=take_over) as lease:
        return _resume(run, lease, ranks, watcher)


def resume_repo(repo: str, name: str | None, watcher: Watcher, *, take_over: bool = False) -> Trained:
    """Resume the run of a repository. A machine that does not have the run yet creates it as `name`."""
    if here := find_local_run(repo, name):
        return resume(here.name, watcher, take_over=take_over)
    ranks = _leave_launcher(watcher)
    with downloaded_run(repo, name, watcher.note, take_over=take_over) as (run, lease):
        return _resume(run, lease, ranks, watcher)


def _claim_repo(run: Run, watcher: Watcher) -> HubLease:
    """The lease of the repository of a new run. If the repository is refused, the run is removed again."""
    try:
        claim_repo(run, watcher.note)
        lease = open_lease_of(run)
        acquire_if_reachable(run, lease, watcher.note)
    except PricerError:
        run.discard()
        raise
    return lease


def _resume(run: Run, lease: HubLease | None, ranks: Ranks, watcher: Watcher) -> Trained:
    """Train a run from its newest training state here."""
    state = run.training_states.newest()
    setup = _prepare(settle_resumed(run, state[0] if state else None, watcher.note), watcher)
    _refuse_changed(run, setup)
    share_batch(setup.config.train.batch_size, ranks.count, is_new=False)
    examples = tokenize_training(setup, watcher.preparing)
    _say_cut(examples, setup, watcher)
    training = load_training(setup, examples, run, ranks, watcher)
    with training.leading(ranks, setup, state and state[0]) as processes:
        run.record(**describe_data(setup), **training.facts)
        return _train(run, setup, training, state, lease, processes, watcher)


def _leave_launcher(watcher: Watcher) -> Ranks:
    ranks, settings = leave_launcher()
    if ranks.rank:
        raise ModelError(f"this is process {ranks.rank} of {ranks.count}, and process 0 trains", "call follow()")
    if ranks.sharded:
        watcher.note(f"FSDP: each of the {ranks.count} processes holds a part of the base's layers")
    if settings:
        watcher.note(f"not used, since a run's config says how it is trained: {', '.join(settings)}")
    return ranks


def _prepare(config: RunConfig, watcher: Watcher) -> Setup:
    """The Setup of a config. Its notes are shown before anything slow begins."""
    setup = prepare(config, progress=watcher.preparing)
    for note in setup.notes:
        watcher.note(note)
    return setup


def _refuse_changed(run: Run, setup: Setup) -> None:
    """Raise a RunError if the run began with other data or another prompt: its adapter would learn from both."""
    facts = run.facts()
    present = {"data": setup.items.fingerprint, "prompt": setup.template.fingerprint}
    for what, fingerprint in present.items():
        first = facts.get(f"{what}_fingerprint", fingerprint)
        if first != fingerprint:
            raise RunError(
                f"{run.name} began to train with {what} {first}, this is {what} {fingerprint}",
                f"put the data and {run.folder / 'config.yaml'} back as they were, or train another run",
            )


def _say_cut(examples: TokenTable, setup: Setup, watcher: Watcher) -> None:
    if cut := int(examples.cut.sum()):
        watcher.note(
            f"{cut:,} of {len(examples):,} training descriptions ({cut / len(examples):.1%}) are cut to "
            f"{setup.template.max_length} tokens (prompt.max_length)"
        )


def _train(
    run: Run,
    setup: Setup,
    training: Training,
    state: tuple[Path, int] | None,
    lease: HubLease | None,
    processes: Processes,
    watcher: Watcher,
) -> Trained:
    """Train a run to its end. `state` is a complete training state with its step; None: from the beginning. `lease` is
    the lease of its repository, if it has one.
    """
    config = setup.config.train
    processes.resume = f"pricer train --resume --run {run.name}"
    reached = state[1] if state else 0
    run.delete_metrics_after(reached)
    run.training_states.delete_after(reached)
    if state:
        watcher.note(f"going on with {run.name} after step {state[1]:,}")
    validate = plan_validation(setup, training.model, processes)
    with ExitStack() as stack:
        # A resumed training continues the same W&B run, on any machine.
        tracker = open_tracker(run, setup.config, watcher.note, "training goes on")
        stack.callback(tracker.finish)
        to_hub = stack.enter_context(uploads(run, watcher.note, lease))
        recorder = Recorder(run, setup, validate, to_hub, tracker, watcher)
        if state:
            recorder.keep(*state)  # a kill may have prevented this
        find_stop = stack.enter_context(stop_requests(run, setup.config.eval.patience, watcher.note, is_new=not state))
        with explain_full_disk(run), catch_stop_signals(watcher.note, launched=processes.count > 1) as signals:
            # A request that is there already was made before training was interrupted.
            finished = processes.receive(not (state and find_stop())) and fine_tune(
                training.model,
                setup.tokenizer,
                training.examples,
                config,
                setup.precision,
                state_folder=run.training_states.folder,
                resume_from=state[0] if state else None,
                on_checkpoint=recorder.checkpoint,
                on_progress=recorder.progress,
                should_stop=lambda: bool(signals or (to_hub and to_hub.lost) or find_stop()),
                settings=training.settings,
                note=watcher.note,
                processes=processes,
            )
        if to_hub and to_hub.lost:
            raise to_hub.explain_loss(to_hub.lost)
        if finished or (not signals and record_stop(run, find_stop(), watcher.note)):
            run.finish()
            if to_hub:
                to_hub.put_end()
                to_hub.deliver_all(watcher.uploading)
                publish_pick_of(run)
        else:
            if to_hub:
                with suppress(KeyboardInterrupt):  # whoever does not want to wait stops a second time
                    to_hub.drain(watcher.uploading, _GRACE)
            raise Interrupted(f"stopped; {run.name} is saved", f"pricer train --resume --run {run.name}")
    return Trained(run, tuple(run.store.checkpoints()))
