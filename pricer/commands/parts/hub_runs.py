"""Open a repository on the Hub as a run here, to score its checkpoints or to resume its training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.commands.parts.checkpoints import is_local_folder
from pricer.commands.parts.resuming import settle_optimizer
from pricer.config import RunConfig
from pricer.config_file import load_config, parse_config, to_yaml
from pricer.errors import CheckpointError, ConfigError, HubError, RunError
from pricer.stores.checkpoints import MANIFEST
from pricer.stores.files import parse_json, write_atomically, write_json
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import LARGEST_LOG, LARGEST_TEXT, HubStore, fetch_state, newest_state
from pricer.stores.repo_scan import RepoScan, scan_repo
from pricer.stores.runs import RUNS, Run, find_run, free_name, now, refuse_name, runs_of

# The facts that are read from another machine's run.json, with their types; then the objects, with their inner types.
_FACTS: dict[str, type] = {
    **dict.fromkeys(("id", "precision", "data_fingerprint", "prompt_fingerprint", "tracking_id"), str),
    "seed": int,
    "train_median": float,
}
_OBJECTS: dict[str, type] = {"items": int, "versions": str}
# The facts that stay in this machine's run.json when its repository is opened again.
_OWN_FACTS = ("tracking_id", "batch_tokens", "dense")
# Maximum size of a config.yaml in bytes. A usual one has 2,000; reading a million would take ten seconds.
_LARGEST_CONFIG = 100_000


@dataclass(frozen=True, slots=True)
class GivenConfig:
    """The config that the command line gives: a file (None: the file in the repository) and overrides."""

    path: Path | None
    overrides: Sequence[str]


_OWN = GivenConfig(None, ())


def open_run(name: str | None, repo: str | None, note: Callable[[str], None], given: GivenConfig = _OWN) -> Run:
    """The run with this name (None: the newest) or, if `repo` is given, the local run of that repository."""
    return find_run(name, note=note) if repo is None else open_hub_run(repo, given, note)


def open_hub_run(repo: str, given: GivenConfig, note: Callable[[str], None]) -> Run:
    """The local run of a repository, with the checkpoints that the repository has now.

    If a run here was trained into that repository, it is that run. Any other repository gets a folder
    `runs/USER--NAME`. Its config is the one that is `given`, otherwise the one in the repository. A repository of
    another trainer has none, so one must be given.
    """
    present = next(reversed(runs_of(repo)), None)
    known = present.facts() if present else {}
    if present and not known.get("from_hub"):
        if given.path or given.overrides:
            raise RunError(f"{present.name} was trained here and has its own config", f"--run {present.name}")
        return present
    hub = Hub(repo)
    run = present or Run(RUNS / repo.replace("/", "--"))
    store = HubStore(hub, run.folder)
    found = scan_repo(hub, [*store.checkpoints(), *store.soups()])
    for text in found.notes:
        note(text)
    if given.path or given.overrides or not present:  # otherwise keep the revision that was pinned the first time
        write_atomically(run.folder / "config.yaml", to_yaml(_config(hub, found, given)))
    store.record_scan([*found.checkpoints, *found.soups], found.tags)
    newest = found.checkpoints[-1].commit
    facts = _facts(hub, newest) if found.has_manifests and newest else {}
    facts |= {name: value for name, value in known.items() if name in _OWN_FACTS}
    record = {**facts, "repo": repo, "from_hub": True, "started": now(), "finished": None}
    write_json(run.folder / "run.json", record)
    return Run(run.folder)


def resume_hub_run(repo: str, name: str | None, note: Callable[[str], None]) -> Run:
    """The run of a repository with its newest training state, ready to be resumed on this machine."""
    hub = Hub(repo)
    here = next((run for run in reversed(runs_of(repo)) if not run.facts().get("from_hub")), None)
    here = here if here and name in (None, here.name) else None
    if here and not _is_behind(here, hub):
        return here
    found = scan_repo(hub)
    newest = found.checkpoints[-1].commit
    commit = newest_state(hub)
    if not found.has_manifests or newest is None:
        raise RunError(f"{repo} was not pushed by pricer train, which alone can go on with its own")
    config = parse_config(_text(hub, commit or newest, "config.yaml", _LARGEST_CONFIG), f"config.yaml of {repo}")
    to_score = f"pricer eval --repo {repo} --all-checkpoints"
    if commit is None and config.hub.state == "none":
        text = f"{repo} has no training state (hub.state: none), without which nobody can go on with it"
        raise RunError(text, to_score)
    facts = _facts(hub, commit or newest)
    if commit is not None:
        reached, last = _trainer_steps(repo, _text(hub, commit, "trainer_state.json", LARGEST_LOG))
        if reached >= last:
            raise RunError(f"the training in {repo} is finished, there is nothing to go on with", to_score)
    settle_optimizer(config, f"pricer train --resume --repo {repo}")  # before gigabytes of a state are downloaded
    if here:
        run = here
        run.outbox.clear()  # another machine has continued the run, so these uploads are out of date
    else:
        refuse_name(name)
        run = Run(RUNS / (name or free_name(repo.rpartition("/")[2])))
        run.clear()  # an earlier attempt may have been killed
    HubStore(hub, run.folder).record_scan([*found.checkpoints, *found.soups], found.tags)
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
    write_atomically(run.folder / "config.yaml", to_yaml(_with_repo(config, repo)))
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


def _config(hub: Hub, found: RepoScan, given: GivenConfig) -> RunConfig:
    newest = found.checkpoints[-1].commit
    assert newest is not None  # the scan found at least one checkpoint
    if not found.has_manifests:
        config = _for_foreign(hub.repo, sorted({checkpoint.base for checkpoint in found.checkpoints}), given)
    elif given.path is not None:
        config = load_config(given.path, given.overrides)
    else:
        text = _text(hub, newest, "config.yaml", _LARGEST_CONFIG)
        # A downloaded config must not decide what this machine shows on W&B. The command line may.
        config = parse_config(text, f"config.yaml of {hub.repo}", ["tracking.mode=off", *given.overrides])
    return _with_repo(config, hub.repo)


def _for_foreign(repo: str, bases: Sequence[str], given: GivenConfig) -> RunConfig:
    """The config for a repository of another trainer: from the command line, with the base that the adapters name."""
    if given.path is None and not given.overrides:
        text = f"{repo} does not say what its checkpoints were asked, nor what they were trained on"
        hint = f"pricer eval --repo {repo} --config CONFIG.yaml, whose prompt and data are the ones to score with"
        raise ConfigError([text], hint)
    config = load_config(given.path, given.overrides) if given.path else parse_config(b"", "", given.overrides)
    if len(bases) > 1:
        raise CheckpointError(f"the checkpoints of {repo} are adapters of several bases: {', '.join(bases)}")
    if "base" in config.model.model_fields_set:
        return config  # the given base is compared with the base of each checkpoint before scoring
    if is_local_folder(bases[0]):
        text = f"the adapters of {repo} name the base {bases[0]}, a folder on another machine"
        raise CheckpointError(text, "say what it is: --set model.base=USER/NAME")
    return config.model_copy(update={"model": config.model.model_copy(update={"base": bases[0]})})


def _with_repo(config: RunConfig, repo: str) -> RunConfig:
    # A downloaded config must not decide where this machine pushes.
    return config.model_copy(update={"hub": config.hub.model_copy(update={"repo": repo})})


def _text(hub: Hub, commit: str, name: str, limit: int) -> bytes:
    content = hub.read(commit, name, limit)
    if content is None:
        raise RunError(f"{hub.repo} has no {name} at {commit[:12]}", "it was not pushed by pricer train")
    return content


def _facts(hub: Hub, commit: str) -> dict[str, Any]:
    """The facts that may be taken over from the run.json of a commit."""
    record = parse_json(_text(hub, commit, "run.json", LARGEST_TEXT))
    if record is None:
        raise RunError(f"run.json of {hub.repo} cannot be read", "it was not pushed by pricer train")
    facts = {name: record[name] for name, kind in _FACTS.items() if isinstance(record.get(name), kind)}
    for name, kind in _OBJECTS.items():
        values = record.get(name)
        if isinstance(values, dict) and all(isinstance(value, kind) for value in values.values()):
            facts[name] = values
    if isinstance(defaults := record.get("defaults"), dict):
        facts["defaults"] = {name: values for name, values in defaults.items() if _is_default(values)}
    return facts


def _is_default(values: Any) -> bool:
    """Whether a value from run.json is that of an `auto` with its reason."""
    return (
        isinstance(values, dict)
        and values.keys() == {"value", "reason"}
        and isinstance(values["value"], int | float | str | None)
        and isinstance(values["reason"], str)
    )
