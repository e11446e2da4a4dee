"""Resume the training of a run from its repository, on any machine."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from pricer.commands.parts.claim import (
    acquire_if_reachable,
    describe_previous,
    open_lease,
    open_lease_of,
    refuse_read_only,
    released_at_end,
)
from pricer.commands.parts.hub_records import LARGEST_CONFIG, read_facts, read_text, with_local_paths, with_repo
from pricer.commands.parts.resuming import settle_optimizer
from pricer.config import RunConfig
from pricer.config_file import parse_config, to_yaml
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, RunError
from pricer.stores.checkpoints import read_manifest
from pricer.stores.files import parse_json, write_atomically, write_json
from pricer.stores.hub import Hub, Refs
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.hub_downloads import LARGEST_LOG
from pricer.stores.hub_lease import STATE_BRANCH, HubLease, Owner
from pricer.stores.hub_states import fetch_state, newest_state, read_state_step
from pricer.stores.known_repo import replace_known
from pricer.stores.repo_scan import scan_repo
from pricer.stores.runs import RUNS, Run, free_name, now, refuse_name, runs_of


@dataclass(frozen=True, slots=True)
class _Resumable:
    """What a repository says of a run that can be resumed. `state` is the commit of its newest training state, None if
    training begins again. `has_checkpoints`: at least one was delivered.
    """

    config: RunConfig
    facts: dict[str, Any]
    state: str | None
    has_checkpoints: bool


def find_local_run(repo: str, name: str | None) -> Run | None:
    """The newest run here, of that name if one is given, that was trained into the repository."""
    found = [run for run in runs_of(repo) if not run.facts().get("from_hub") and name in (None, run.name)]
    return found[-1] if found else None


@contextmanager
def downloaded_run(
    repo: str, name: str | None, note: Callable[[str], None], *, take_over: bool = False
) -> Iterator[tuple[Run, HubLease]]:
    """A new run here with everything that its repository has of it, and the lease of the repository. The run is locked
    and the lease is held until the block ends. A PricerError if this machine cannot go on with the run, or if another
    process does. `name`: the name of the run here, None for the repository's.
    """
    hub, resume = Hub(repo), f"pricer train --resume --repo {repo}"
    found = _read_resumable(hub)
    settle_optimizer(found.config, resume)  # before gigabytes of a state are downloaded
    run_id = found.facts.get("id")
    refuse_read_only(repo)
    HubLease(hub, Owner(run_id, "", resume), dict).look(take_over=take_over)
    refuse_name(name)
    run = Run(RUNS / (name or free_name(repo.rpartition("/")[2])))
    run.folder.mkdir(parents=True, exist_ok=True)
    with run.lock():
        run.clear()  # an earlier attempt may have been killed
        lease = open_lease(run, repo, run_id, resume)
        with released_at_end(run, lease, note):
            lease.acquire(take_over=take_over)
            describe_previous(lease, note)
            # Read again: the commit of the lease is newer, and so may be the state.
            _fill(run, hub, _read_resumable(hub), note)
            yield run, lease


@contextmanager
def held_run(run: Run, note: Callable[[str], None], *, take_over: bool = False) -> Iterator[HubLease | None]:
    """A run of this machine, ready to go on, and the lease of its repository; None if it has none. If another machine
    has gone further, the run goes on from its state. The run is locked and the lease is held until the block ends. If
    the Hub cannot be reached, the lease is not held yet.
    """
    with run.lock():
        lease = open_lease_of(run) if run.repo else None
        with released_at_end(run, lease, note):
            if lease:
                try:
                    acquire_if_reachable(run, lease, note, take_over=take_over)
                except HubError as error:
                    if error.refused:
                        error.hint += f"; or move the run: pricer push --run {run.name} --repo USER/NEW"
                    raise
                if lease.is_held:
                    _catch_up_if_reachable(run, lease, note)
            yield lease


def _catch_up_if_reachable(run: Run, lease: HubLease, note: Callable[[str], None]) -> None:
    try:
        _catch_up(run, Hub(lease.repo), note)
    except HubError as error:
        # If nobody else was there, this machine is not behind.
        if not error.transient or lease.had_other_holder:
            raise


def _catch_up(run: Run, hub: Hub, note: Callable[[str], None]) -> None:
    """Go on from the training state on the Hub, if it is of a later step than the one here."""
    store = HubStore(hub, run.folder)
    if not set(hub.refs().step_tags) <= {checkpoint.name for checkpoint in store.checkpoints() if checkpoint.commit}:
        store.log_found(scan_repo(hub, store.checkpoints()).checkpoints)
    own = run.training_states.newest()
    is_behind = read_state_step(hub) > (own[1] if own else 0)
    found = _read_resumable(hub) if is_behind else None
    _set_uploads_aside(run, note, every=is_behind)
    if found:
        own_paths = with_local_paths(found.config, run.config())
        _fill(run, hub, replace(found, config=own_paths), note)


def _read_resumable(hub: Hub) -> _Resumable:
    """What the repository says of its run. A RunError if nobody can go on with it."""
    repo, refs = hub.repo, hub.refs()
    to_score = f"pricer eval --repo {repo} --all-checkpoints"
    record = _find_record(hub, refs)
    if record is None:
        main = refs.branches.get("main")
        if main is None or hub.all_files(main).keys() <= {".gitattributes", "README.md"}:
            raise RunError(f"{repo} is empty, there is nothing to go on with", f"pricer train CONFIG --repo {repo}")
        raise RunError(f"{repo} was not pushed by pricer train, so it cannot be resumed")
    if hub.read_record(refs.branches.get("main"), "run.json").get("finished"):
        raise RunError(f"the training in {repo} is finished, there is nothing to go on with", to_score)
    state = newest_state(hub)
    config = parse_config(read_text(hub, state or record, "config.yaml", LARGEST_CONFIG), f"config.yaml of {repo}")
    if state is None and refs.step_tags and config.hub.state == "none":
        text = f"{repo} has no training state (hub.state: none), so its training cannot go on"
        raise RunError(text, to_score)
    return _Resumable(config, read_facts(hub, state or record), state, bool(refs.step_tags))


def _find_record(hub: Hub, refs: Refs) -> str | None:
    """The newest commit with the run's own record: on the branch `state`, on `main`, or at the last step's tag."""
    last = [refs.tags[name] for name in refs.step_tags[-1:]]
    places = [refs.branches.get(STATE_BRANCH), refs.branches.get("main"), *last]
    for commit in places:
        if commit and len(hub.files(commit, ["config.yaml", "run.json"])) == 2:
            return commit
    return None


def _set_uploads_aside(run: Run, note: Callable[[str], None], *, every: bool) -> None:
    """Take checkpoints out of the outbox that the Hub has with other weights, because another machine was faster. They
    are kept in the run's folder. `every`: the whole outbox is out of date.
    """
    delivered = {known.step: known for known in run.store.checkpoints() if known.commit}
    kept, aside = run.folder / "replaced", []
    for entry in run.outbox.entries():
        if entry.kind != "checkpoint":
            if every:
                run.outbox.drop(entry)
        elif entry.step in delivered and _has_manifest(entry.folder, delivered[entry.step]):
            run.outbox.drop(entry)
        elif every or entry.step in delivered:
            kept.mkdir(exist_ok=True)
            entry.folder.replace(kept / entry.folder.name)
            aside.append(entry.name)
    if aside:
        note(f"another machine has gone on with {run.name}; not pushed, but kept in {kept}: {', '.join(aside)}")


def _has_manifest(folder: Path, checkpoint: Checkpoint) -> bool:
    try:
        return read_manifest(folder) == checkpoint
    except CheckpointError:
        return False


def _fill(run: Run, hub: Hub, found: _Resumable, note: Callable[[str], None]) -> None:
    """Write the files of a run that its repository has. A kill leaves no run, or the one that was there before."""
    repo, log, count = hub.repo, b"", 0
    if found.has_checkpoints:
        # A checkpoint without its tag is not delivered yet.
        scan = replace(scan_repo(hub), untagged=())
        for text in (*scan.notes, *replace_known(run.folder, repo, scan)):
            note(text)
        count = len(scan.checkpoints)
    if found.state is not None:
        state, step = fetch_state(hub, found.state, run.training_states)
        if _trainer_step(repo, (state / "trainer_state.json").read_bytes()) != step:
            text = f"the training state in {repo} has the adapter of step {step:,}, but its trainer is at another step"
            raise CheckpointError(text)
        run.training_states.mark_complete(state)
        log = hub.read(found.state, "metrics.jsonl", LARGEST_LOG) or b""
        note(f"{repo}: {count} checkpoints, training state of step {step:,}, now {run.folder}")
    else:
        # No state arrived. Training from the beginning makes the same checkpoints.
        note(f"{repo} has no training state yet: training begins again, now {run.folder}")
    write_atomically(run.folder / "metrics.jsonl", log)
    write_atomically(run.folder / "config.yaml", to_yaml(with_repo(found.config, repo)))
    # run.json is written last: a folder that has it is a complete run.
    write_json(run.folder / "run.json", {**found.facts, "repo": repo, "started": now(), "finished": None})


def _trainer_step(repo: str, text: bytes) -> int:
    """The step that the trainer has reached."""
    reached = (parse_json(text) or {}).get("global_step")
    if isinstance(reached, int):
        return reached
    raise CheckpointError(f"the training state in {repo} has no trainer_state.json that can be read")
