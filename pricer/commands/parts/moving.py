"""Move a run to another repository: what `pricer push --repo` does before it delivers."""

from collections.abc import Mapping, Sequence

from pricer.commands.parts.claim import claim, name_repo
from pricer.commands.parts.uploads import Uploads
from pricer.commands.parts.watcher import Watcher
from pricer.config_file import load_config, to_yaml
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, PricerError, RunError
from pricer.stores.checkpoints import PARTS, FolderStore
from pricer.stores.files import link_or_copy, locked, write_atomically
from pricer.stores.runs import Run


def move_run(run: Run, repo: str, watcher: Watcher) -> Run:
    """Put every checkpoint of a run into the outbox, and make `repo` the run's repository. The old repository keeps
    what it has; it may be gone. Nothing is delivered yet.

    The run's folder names the new repository only when everything that goes there is in the outbox. So a kill at any
    moment loses nothing, and the same command goes on.
    """
    facts, old = run.facts(), run.repo
    if facts.get("from_hub"):
        text = f"{run.name} is a repository that was evaluated here, not a training"
        raise RunError(text, "on the Hub, its owner can rename or duplicate it")
    config = load_config(run.folder / "config.yaml", [f"hub.repo={repo}"])
    run.outbox.folder.mkdir(exist_ok=True)
    busy = RunError(f"another process is delivering the checkpoints of {run.name}", "wait for it to end")
    with run.lock(), locked(run.outbox.folder, busy):
        name = name_repo(repo, config.tracking.project, run.name)
        claim(name, facts.get("id"), watcher.note, private=config.hub.private)
        _fill_outbox(run, watcher)
        newest = None if facts.get("finished") else run.training_states.newest()
        if newest:
            Uploads(run, name, watcher.note).put_state(*newest)
        if run.selection():
            run.outbox.keep_pick()
        if old is not None:  # the log of a run without a repository names no pushes
            FolderStore(run.folder).clear_log()
        config = config.model_copy(update={"hub": config.hub.model_copy(update={"repo": name})})
        write_atomically(run.folder / "config.yaml", to_yaml(config))
        run.record(repo=name, claimed=True, ended=None)
        run.outbox.budget.reset()  # the Hub counts the commits to each repository
    watcher.note(f"the repository of {run.name} is now {name}" + (f"; {old} keeps what it has" if old else ""))
    return Run(run.folder)


def _fill_outbox(run: Run, watcher: Watcher) -> None:
    """Put every checkpoint into the outbox in the order of steps, before its other entries. A checkpoint that is not
    here and cannot be fetched is named and left out. A RunError if that leaves none. A HubError if the Hub fails, but
    may have a checkpoint later.
    """
    before, waiting, checkpoints = run.outbox.entries(), run.outbox.checkpoints(), run.store.checkpoints()
    missing = _find_missing(run, checkpoints)
    if missing and len(missing) == len(checkpoints):
        text = f"no checkpoint of {run.name} is here or can be fetched: {_list_problems(missing)}"
        raise RunError(text, "nothing was changed")
    queued = [checkpoint for checkpoint in checkpoints if checkpoint.name not in missing]
    for checkpoint in queued:
        folder = FolderStore(run.folder).fetch(checkpoint)
        run.outbox.put("checkpoint", checkpoint.step, [folder / name for name in PARTS])
    other = [checkpoint for checkpoint in waiting if checkpoint not in checkpoints]
    done = {waiting[checkpoint] for checkpoint in waiting if checkpoint in queued or checkpoint in other}
    for entry in before:
        if entry.folder in done:
            run.outbox.drop(entry)
        else:  # a training state, or a damaged entry, which its delivery reports
            run.outbox.requeue(entry)
    if missing:
        watcher.note(f"left out, because they are not here and cannot be fetched: {_list_problems(missing)}")
    if other:
        names = ", ".join(checkpoint.name for checkpoint in other)
        watcher.note(f"left out, because {run.repo} holds the same steps with other weights: {names}")


def _find_missing(run: Run, wanted: Sequence[Checkpoint]) -> dict[str, PricerError]:
    """Keep a copy of these checkpoints in the run's folder. Returns the problems of those that are not here and cannot
    be fetched, by name.
    """
    missing: dict[str, PricerError] = {}
    for checkpoint in wanted:
        try:
            FolderStore(run.folder).keep(checkpoint, run.store.fetch(checkpoint), link_or_copy)
        except (CheckpointError, HubError) as problem:
            if isinstance(problem, HubError) and problem.transient:
                raise
            missing[checkpoint.name] = problem
    return missing


def _list_problems(missing: Mapping[str, PricerError]) -> str:
    return "; ".join(f"{name} ({problem.message})" for name, problem in missing.items())
