"""Open a repository on the Hub as a run here, to score its checkpoints."""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.commands.parts.checkpoints import is_local_folder
from pricer.commands.parts.held_out import settle_training
from pricer.commands.parts.hub_records import LARGEST_CONFIG, read_facts, read_text, with_repo
from pricer.config import RunConfig
from pricer.config_file import load_config, parse_config, to_yaml
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, ConfigError, HubError, RunError
from pricer.stores.cached_repo import CachedRepo
from pricer.stores.checkpoints import FolderStore
from pricer.stores.files import locked, write_atomically, write_json
from pricer.stores.hub import Hub
from pricer.stores.hub_client import is_offline, offline_variable
from pricer.stores.known_repo import add_known, replace_known
from pricer.stores.repo_scan import RepoScan, scan_repo
from pricer.stores.runs import RUNS, Run, find_run, now, runs_of
from pricer.stores.scan_records import keep_scan, read_scan

# The facts that stay in this machine's run.json when its repository is opened again.
_OWN_FACTS = ("tracking_id", "batch_tokens", "dense", "trained_on", "held_out")


@dataclass(frozen=True, slots=True)
class GivenConfig:
    """The config that the command line gives: a file (None: the file in the repository) and overrides."""

    path: Path | None
    overrides: Sequence[str]


NOT_GIVEN = GivenConfig(None, ())
"""The command line gives no config."""


def open_run(name: str | None, repo: str | None, note: Callable[[str], object], given: GivenConfig = NOT_GIVEN) -> Run:
    """The run with this name (None: the newest) or, if `repo` is given, the run here of that repository."""
    return find_run(name, note=note) if repo is None else open_hub_run(repo, given, note)


def open_hub_run(repo: str, given: GivenConfig, note: Callable[[str], object]) -> Run:
    """The run here of a repository, with the checkpoints and the pick that the repository has now.

    If a run here was trained into that repository, it is that run. Any other repository gets a folder
    `runs/USER--NAME`. Its config is the one that is `given`, otherwise the one in the repository. A repository of
    another trainer has none, so one must be given. While the Hub is switched off, the last look counts, or else what
    the cache has.
    """
    present = next(reversed(runs_of(repo)), None)
    if present and not present.facts().get("from_hub"):
        if given.path or given.overrides:
            raise RunError(f"{present.name} was trained here and has its own config", f"--run {present.name}")
        _add_to_own(present, repo, note)
        return present
    hub = Hub(repo)
    run = present or Run(RUNS / repo.replace("/", "--"))
    found = look_at_repo(hub, run, note)
    if not found.found:
        raise CheckpointError(f"the run in {repo} has no checkpoint yet", f"pricer train --resume --repo {repo}")
    replaced: set[str] = set()
    settled: dict[str, Any] = {}
    if given.path or given.overrides or not present:  # otherwise keep the revision that was pinned the first time
        config = _config(hub, found, given)
        replaced = {"trained_on", "held_out"}
        if not found.has_manifests:
            config, settled["trained_on"] = settle_training(hub, config, note)
        write_atomically(run.folder / "config.yaml", to_yaml(config))
    for text in replace_known(run.folder, repo, found):
        note(text)
    newest = _newest(found).commit
    facts = read_facts(hub, newest) if found.has_manifests and newest else {}
    facts |= {**settled, "repo": repo, "from_hub": True, "finished": None}
    _write_facts(run, facts, {*_OWN_FACTS} - replaced)
    return Run(run.folder)


def _write_facts(run: Run, facts: Mapping[str, Any], own: Collection[str]) -> None:
    """Replace run.json, but not the `own` facts in it. They are read under the lock of `Run.record`, because another
    shard in this folder may record some at the same time.
    """
    with locked(run.folder.parent):
        known: dict[str, Any] = {}
        with suppress(RunError):  # it is damaged, or there is none
            known = run.facts()
        kept = {name: value for name, value in known.items() if name in own}
        write_json(run.folder / "run.json", {**facts, **kept, "started": now()})


def _add_to_own(run: Run, repo: str, note: Callable[[str], object]) -> None:
    """Add what the repository of a run that was trained here has now."""
    if is_offline():
        note(f"the Hub is switched off ({offline_variable()}): {repo} as {run.name} knows it")
        return
    hub = Hub(repo)
    try:
        found = look_at_repo(hub, run, note)
    except CheckpointError as problem:
        note(f"{problem.message}: {run.name} is used as it is here")
        return
    except HubError as problem:
        here = f"what is here: --run {run.name}"
        raise HubError(problem.message, f"{problem.hint}; {here}" if problem.hint else here) from None
    new = {checkpoint.id for checkpoint in found.found} - {checkpoint.id for checkpoint in run.store.checkpoints()}
    commit = _newest(found).commit if found.found else None
    if new and commit and found.has_manifests and read_facts(hub, commit).get("id") != run.facts().get("id"):
        text = f"{repo} holds another run than {run.name}, which was trained here with that repository"
        raise RunError(text, f"--run {run.name}; to score what {repo} holds, start pricer in another folder")
    for text in add_known(run.folder, repo, found):
        note(text)


def look_again(run: Run, repo: str, note: Callable[[str], object]) -> None:
    """Add what the repository of a run here has now."""
    if run.facts().get("from_hub"):
        for text in replace_known(run.folder, repo, look_at_repo(Hub(repo), run, note)):
            note(text)
    else:
        _add_to_own(run, repo, note)


def look_before_picking(run: Run, repo: str, note: Callable[[str], object]) -> None:
    """Add what the repository of a run here has now. Without the Hub, the pick is among what is known here."""
    try:
        look_again(run, repo, note)
    except (CheckpointError, HubError) as problem:
        note(f"{problem.message}: the pick is among the checkpoints that {run.name} knows")


def look_at_repo(hub: Hub, run: Run, note: Callable[[str], object]) -> RepoScan:
    """What the repository holds now, with notes for the user. While the Hub is switched off: what it held at the last
    look from this machine, or else what the cache has.
    """
    logged = FolderStore(run.folder).checkpoints()
    if not is_offline():
        found = scan_repo(hub, [checkpoint for checkpoint in logged if checkpoint.commit])
        keep_scan(hub.repo, found, now())
    elif kept := read_scan(hub.repo):
        found, when = kept
        note(f"the Hub is switched off ({offline_variable()}): {hub.repo} as of {when[:16]} UTC")
    else:
        cached = CachedRepo(hub.repo)
        note(f"the Hub is switched off ({offline_variable()}): {hub.repo} as downloaded until {cached.as_of[:16]} UTC")
        found = scan_repo(cached)
    for text in found.notes:
        note(text)
    return found


def _newest(found: RepoScan) -> Checkpoint:
    return (found.checkpoints or found.untagged)[-1]


def _config(hub: Hub, found: RepoScan, given: GivenConfig) -> RunConfig:
    newest = _newest(found).commit
    assert newest is not None  # it was found in the repository
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
        named = f"the base {bases[0]}, a folder on another machine" if bases[0] else "no base"
        raise CheckpointError(f"the adapters of {repo} name {named}", "say what it is: --set model.base=USER/NAME")
    return config.model_copy(update={"model": config.model.model_copy(update={"base": bases[0]})})
