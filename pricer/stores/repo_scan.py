"""Finds the checkpoints in a Hub repository: pricer's by their tags, other trainers' by commits, branches, folders."""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pricer.core.adapter_config import read_adapter_settings
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, MANIFEST, parse_manifest, sort_checkpoints
from pricer.stores.hub import Hub, Refs, RemoteCommit
from pricer.stores.hub_checkpoints import LARGEST_TEXT

_TAG = re.compile(r"step-[0-9]{6,12}")
_SOUP = re.compile(r"soup(-[0-9]{6,12}){2,8}")
# Commit titles of the Trainer with `hub_strategy="every_save"`; _EPOCH is for `save_strategy="epoch"`. _BRANCH matches
# common names of branches for a step.
_TITLE = re.compile(r"\bstep[ _-]?([0-9]{1,12})\b", re.IGNORECASE)
_EPOCH = re.compile(r"\bepoch[ _-]?([0-9]{1,12})\b", re.IGNORECASE)
_BRANCH = re.compile(r"(?:.*[^a-z])?(?:step|checkpoint|ckpt)[-_]?([0-9]{1,12})", re.IGNORECASE)
_FOLDER = re.compile(r"checkpoint-([0-9]{1,12})/" + re.escape(ADAPTER))
# Each commit takes a few requests, and the Hub answers 1,000 in five minutes.
_MAX_COMMITS = 1000
# The Trainer's titles of its last commit.
_LAST = ("End of training", "Model save")


@dataclass(frozen=True, slots=True)
class RepoScan:
    """The content of a repository. `tags` maps names to commit hashes. `has_manifests`: pricer pushed the checkpoints.
    `notes` are messages for the user. `soups` are the soups that were picked.
    """

    checkpoints: tuple[Checkpoint, ...]
    tags: Mapping[str, str]
    has_manifests: bool
    notes: tuple[str, ...] = ()
    soups: tuple[Checkpoint, ...] = ()


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a step's adapter: a commit, and a folder in it. `label` describes the place in messages. If the
    repository counts epochs (`is_epoch`), the epoch replaces the step.
    """

    step: int
    commit: str
    folder: str
    label: str
    is_epoch: bool = False

    def path(self, name: str) -> str:
        return f"{self.folder}/{name}" if self.folder else name


def scan_repo(hub: Hub, known: Iterable[Checkpoint] = ()) -> RepoScan:
    """Find the checkpoints of a repository, sorted by step. Checkpoints in `known` with the same commit are not read
    again.

    Each checkpoint from pricer has a tag `step-…` and a manifest. A repository without such tags comes from another
    trainer. Then the step is in the title of a commit, or in the name of a folder or a branch; prompt and data stay
    unknown. In both cases, a soup has a tag `soup-…`. A repository without a checkpoint is a CheckpointError.
    """
    refs = hub.refs()
    by_place = {(checkpoint.name, checkpoint.commit): checkpoint for checkpoint in known}

    def tagged(pattern: re.Pattern[str]) -> tuple[Checkpoint, ...]:
        places = [place for place in refs.tags.items() if pattern.fullmatch(place[0])]
        return tuple(sort_checkpoints(by_place.get(place) or _read_own_checkpoint(hub, *place) for place in places))

    ours, soups = tagged(_TAG), tagged(_SOUP)
    if ours:
        return RepoScan(ours, refs.tags, has_manifests=True, soups=soups)
    places, last = _find_places(hub, refs)
    found, notes = _describe_places(hub, places)
    if not found:
        raise CheckpointError(
            f"{hub.repo} holds no checkpoint that can be read",
            "one is a tag step-…, a commit or branch that names its step, or a folder checkpoint-N, with an "
            f"{ADAPTER} in it",
        )
    left = hub.files(last.hash, [ADAPTER]).get(ADAPTER) if last else None
    if last and left and left.sha256 not in {checkpoint.adapter_sha256 for checkpoint, _ in found}:
        notes.append(f"commit {last.hash[:7]} ({last.title}) names no step, and holds the adapter of none: left out")
    if any(place.is_epoch for place in places):
        notes.append(f"the commits of {hub.repo} count epochs, not steps: step 2 stands for the end of epoch 2")
    checkpoints, repeated = _deduplicate([checkpoint for checkpoint, _ in found])
    return RepoScan(tuple(checkpoints), refs.tags, has_manifests=False, notes=(*notes, *repeated), soups=soups)


def _read_own_checkpoint(hub: Hub, name: str, commit: str) -> Checkpoint:
    content = hub.read(commit, MANIFEST, LARGEST_TEXT)
    place = f"{hub.repo} at its tag {name}"
    if content is None:
        raise CheckpointError(f"{place} has no {MANIFEST}")
    try:
        checkpoint = parse_manifest(content)
    except ValueError as error:
        raise CheckpointError(f"{place} has no {MANIFEST} that can be read: {error}") from None
    if checkpoint.name != name:
        raise CheckpointError(f"{place} holds {checkpoint.name}", "the tag was moved: put it back")
    return checkpoint.at(commit)


def _find_places(hub: Hub, refs: Refs) -> tuple[list[_Place], RemoteCommit | None]:
    """The places that name a step, the most reliable first; and the Trainer's last commit, which names no step, or
    None.
    """
    if (head := refs.branches.get("main")) is None:
        raise CheckpointError(f"{hub.repo} has no branch main")
    commits = hub.commits()
    if len(commits) > _MAX_COMMITS:
        raise CheckpointError(
            f"{hub.repo} has {len(commits):,} commits: more than {_MAX_COMMITS:,} are not looked through"
        )
    places = [
        _Place(int(match[1]), head, f"checkpoint-{match[1]}", f"folder checkpoint-{match[1]}")
        for path in hub.all_files(head)
        if (match := _FOLDER.fullmatch(path))
    ]
    places += [
        _Place(int(match[1]), commit, "", f"branch {name}")
        for name, commit in refs.branches.items()
        if name != "main" and (match := _BRANCH.fullmatch(name))
    ]
    places += _places_in_titles(commits, _TITLE) or ([] if places else _places_in_titles(commits, _EPOCH))
    return places, next((commit for commit in commits if commit.title in _LAST), None)


def _places_in_titles(commits: Sequence[RemoteCommit], pattern: re.Pattern[str]) -> list[_Place]:
    return [
        _Place(int(match[1]), commit.hash, "", f"commit {commit.hash[:7]} ({commit.title})", pattern is _EPOCH)
        for commit in commits
        if (match := pattern.search(commit.title))
    ]


def _describe_places(hub: Hub, places: Sequence[_Place]) -> tuple[list[tuple[Checkpoint, str]], list[str]]:
    """A Checkpoint for each step, with the label of its place; and notes about places that were left out."""
    found: dict[int, tuple[Checkpoint, str]] = {}
    notes = []
    for place in places:
        adapter = hub.files(place.commit, [place.path(ADAPTER)]).get(place.path(ADAPTER))
        if adapter is None:
            notes.append(f"{place.label} has no {ADAPTER}: left out")
            continue
        if known := found.get(place.step):
            if known[0].adapter_sha256 != adapter.sha256:
                taken = f"{known[1]}, which is scored as step {place.step:,}"
                notes.append(f"{place.label} holds another adapter than {taken}")
            continue
        config = hub.read(place.commit, place.path(ADAPTER_CONFIG), LARGEST_TEXT)
        if config is None:
            notes.append(f"{place.label} has no {ADAPTER_CONFIG}: left out")
            continue
        try:
            settings = read_adapter_settings(json.loads(config))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{ADAPTER_CONFIG} of {hub.repo}, {place.label}: {error}") from None
        if settings.base is None:
            raise CheckpointError(f"{ADAPTER_CONFIG} of {hub.repo}, {place.label}, names no base")
        if adapter.sha256 is None:
            notes.append(f"{place.label} keeps its adapter outside LFS, where its sha256 is not known: left out")
            continue
        checkpoint = Checkpoint(
            step=place.step,
            epoch=float(place.step) if place.is_epoch else None,
            base=settings.base,
            base_revision=None,
            prompt_fingerprint=None,
            data_fingerprint=None,
            adapter_sha256=adapter.sha256,
            adapter_config_sha256=hashlib.sha256(config).hexdigest(),
            answers=None,
            commit=place.commit,
            folder=place.folder,
        )
        found[place.step] = checkpoint, place.label
    return [found[step] for step in sorted(found)], notes


def _deduplicate(found: Sequence[Checkpoint]) -> tuple[list[Checkpoint], list[str]]:
    """Remove duplicate adapters, with a note for each adapter that several steps have. The last of these steps is kept:
    a slow push for an earlier step may read files of a later step, but never the reverse.
    """
    by_adapter: dict[str, list[Checkpoint]] = {}
    for checkpoint in found:
        by_adapter.setdefault(checkpoint.adapter_sha256, []).append(checkpoint)
    notes = [
        f"steps {', '.join(f'{one.step:,}' for one in same)} hold the same adapter (sha256 {digest[:12]}…): "
        f"it is scored once, as step {same[-1].step:,}"
        for digest, same in by_adapter.items()
        if len(same) > 1
    ]
    return sort_checkpoints(same[-1] for same in by_adapter.values()), notes
