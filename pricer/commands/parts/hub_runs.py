"""Open a repository on the Hub as a run here, to score its checkpoints."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from pricer.commands.parts.checkpoints import is_local_folder
from pricer.commands.parts.held_out import settle_training
from pricer.commands.parts.hub_records import LARGEST_CONFIG, read_facts, read_text, with_repo
from pricer.config import RunConfig
from pricer.config_file import load_config, parse_config, to_yaml
from pricer.errors import CheckpointError, ConfigError, RunError
from pricer.stores.files import write_atomically, write_json
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.repo_scan import RepoScan, scan_repo
from pricer.stores.runs import RUNS, Run, find_run, now, runs_of

# The facts that stay in this machine's run.json when its repository is opened again.
_OWN_FACTS = ("tracking_id", "batch_tokens", "dense", "trained_on", "held_out")


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
        config = _config(hub, found, given)
        known = {name: value for name, value in known.items() if name not in ("trained_on", "held_out")}
        if not found.has_manifests:
            config, known["trained_on"] = settle_training(hub, config, note)
        write_atomically(run.folder / "config.yaml", to_yaml(config))
    store.record_scan([*found.checkpoints, *found.soups], found.tags)
    newest = found.checkpoints[-1].commit
    facts = read_facts(hub, newest) if found.has_manifests and newest else {}
    facts |= {name: value for name, value in known.items() if name in _OWN_FACTS}
    record = {**facts, "repo": repo, "from_hub": True, "started": now(), "finished": None}
    write_json(run.folder / "run.json", record)
    return Run(run.folder)


def _config(hub: Hub, found: RepoScan, given: GivenConfig) -> RunConfig:
    newest = found.checkpoints[-1].commit
    assert newest is not None  # the scan found at least one checkpoint
    if not found.has_manifests:
        config = _for_foreign(hub.repo, sorted({checkpoint.base for checkpoint in found.checkpoints}), given)
    elif given.path is not None:
        config = load_config(given.path, given.overrides)
    else:
        text = read_text(hub, newest, "config.yaml", LARGEST_CONFIG)
        # A downloaded config must not decide what this machine shows on W&B. The command line may.
        config = parse_config(text, f"config.yaml of {hub.repo}", ["tracking.mode=off", *given.overrides])
    return with_repo(config, hub.repo)


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
