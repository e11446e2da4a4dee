"""Resume the training of a run from its repository, on any machine."""

from collections.abc import Callable
from dataclasses import replace

from pricer.commands.parts.hub_records import LARGEST_CONFIG, read_facts, read_text, with_local_paths, with_repo
from pricer.commands.parts.resuming import settle_optimizer
from pricer.config_file import parse_config, to_yaml
from pricer.errors import CheckpointError, HubError, RunError
from pricer.stores.checkpoints import MANIFEST
from pricer.stores.files import parse_json, write_atomically, write_json
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import LARGEST_LOG, LARGEST_TEXT
from pricer.stores.hub_states import fetch_state, newest_state
from pricer.stores.known_repo import replace_known
from pricer.stores.repo_scan import scan_repo
from pricer.stores.runs import RUNS, Run, free_name, now, refuse_name, runs_of


def resume_hub_run(repo: str, name: str | None, note: Callable[[str], None]) -> Run:
    """The run of a repository with its newest training state, ready to be resumed on this machine."""
    hub = Hub(repo)
    here = next((run for run in reversed(runs_of(repo)) if not run.facts().get("from_hub")), None)
    here = here if here and name in (None, here.name) else None
    if here and not _is_behind(here, hub):
        return here
    # A checkpoint without its tag is not delivered yet.
    found = replace(scan_repo(hub), untagged=())
    newest = found.checkpoints[-1].commit if found.checkpoints else None
    commit = newest_state(hub)
    if not found.has_manifests or newest is None:
        raise RunError(f"{repo} was not pushed by pricer train, which alone can go on with its own")
    config = parse_config(read_text(hub, commit or newest, "config.yaml", LARGEST_CONFIG), f"config.yaml of {repo}")
    to_score = f"pricer eval --repo {repo} --all-checkpoints"
    if commit is None and config.hub.state == "none":
        text = f"{repo} has no training state (hub.state: none), without which nobody can go on with it"
        raise RunError(text, to_score)
    facts = read_facts(hub, commit or newest)
    if commit is not None:
        reached, last = _trainer_steps(repo, read_text(hub, commit, "trainer_state.json", LARGEST_LOG))
        if reached >= last:
            raise RunError(f"the training in {repo} is finished, there is nothing to go on with", to_score)
    settle_optimizer(config, f"pricer train --resume --repo {repo}")  # before gigabytes of a state are downloaded
    if here:
        run, config = here, with_local_paths(config, here.config())
        run.outbox.clear()  # another machine has continued the run, so these uploads are out of date
    else:
        refuse_name(name)
        run = Run(RUNS / (name or free_name(repo.rpartition("/")[2])))
        run.clear()  # an earlier attempt may have been killed
    for text in (*found.notes, *replace_known(run.folder, repo, found)):
        note(text)
    log = b""
    if commit is not None:
        state, step = fetch_state(hub, commit, run.training_states)
        if _trainer_steps(repo, (state / "trainer_state.json").read_bytes())[0] != step:
            text = f"the training state in {repo} has the adapter of step {step:,}, its trainer another step"
            raise CheckpointError(text)
        run.training_states.mark_complete(state)
        log = hub.read(commit, "metrics.jsonl", LARGEST_LOG) or b""
        note(f"{repo}: {len(found.checkpoints)} checkpoints, training state of step {step:,}, now {run.folder}")
    else:
        # The first checkpoint arrived, but its state did not. Training from the beginning makes the same checkpoint.
        note(f"{repo} has no training state yet: training begins again, now {run.folder}")
    write_atomically(run.folder / "metrics.jsonl", log)
    write_atomically(run.folder / "config.yaml", to_yaml(with_repo(config, repo)))
    # run.json is written last: a folder that has it is a complete run.
    write_json(run.folder / "run.json", {**facts, "repo": repo, "started": now(), "finished": None})
    return Run(run.folder)


def _is_behind(run: Run, hub: Hub) -> bool:
    """Whether the state on the Hub has a later step than the local one: another machine has continued the run."""
    if run.facts().get("finished"):
        return False  # a finished run has no states, and its remaining uploads are here
    own = run.training_states.newest()
    try:
        commit = newest_state(hub)
        manifest = hub.read(commit, MANIFEST, LARGEST_TEXT) if commit else None
    except HubError:
        return False  # if the Hub does not answer, continue from the local state
    step = (parse_json(manifest or b"") or {}).get("step")
    return isinstance(step, int | float) and step > (own[1] if own else 0)


def _trainer_steps(repo: str, text: bytes) -> tuple[int, int]:
    """The step that the trainer has reached, and its last one."""
    record = parse_json(text) or {}
    reached, last = record.get("global_step"), record.get("max_steps")
    if isinstance(reached, int) and isinstance(last, int):
        return reached, last
    raise CheckpointError(f"the training state in {repo} has no trainer_state.json that can be read")
