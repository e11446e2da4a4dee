"""Finds pricer's own checkpoints in a repository: each has a manifest, and a tag or a commit with its name."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pricer.core.checkpoints import BEST, Checkpoint
from pricer.errors import CheckpointError, PricerError
from pricer.stores.cached_repo import RepoReader
from pricer.stores.checkpoints import MANIFEST, parse_manifest, sort_checkpoints
from pricer.stores.hub import LARGEST_TEXT, Refs, RemoteCommit
from pricer.stores.hub_errors import hub_fails

STEP_TAG = re.compile(r"step-[0-9]{6,12}")
"""The tag of a checkpoint, and the title of its commit."""


@dataclass(frozen=True, slots=True)
class OwnCheckpoints:
    """Checkpoints by their tags. `problems` has an error for each tag that cannot be used. `has_manifest`:
    pricer pushed at least one of the commits with the tag of a step.
    """

    steps: tuple[Checkpoint, ...]
    problems: Mapping[str, PricerError]
    has_manifest: bool


def find_tagged(reader: RepoReader, refs: Refs, known: Iterable[Checkpoint]) -> OwnCheckpoints:
    """The checkpoints that tags name. Those in `known` with the same commit are not read again."""
    by_place = {(checkpoint.name, checkpoint.commit): checkpoint for checkpoint in known}
    found: list[Checkpoint] = []
    problems: dict[str, PricerError] = {}
    lacking = set[str]()
    steps = {name for name in refs.tags if STEP_TAG.fullmatch(name)}
    for name in sorted(steps):
        commit = refs.tags[name]
        try:
            if checkpoint := by_place.get((name, commit)) or _read_checkpoint(reader, name, commit):
                found.append(checkpoint)
                continue
            lacking.add(name)
            problems[name] = CheckpointError(f"{reader.repo} at its tag {name} has no {MANIFEST}")
        except PricerError as error:
            if hub_fails(error):
                raise
            problems[name] = error
    if best := _find_best(reader, refs, found):
        found.append(best)
    return OwnCheckpoints(tuple(sort_checkpoints(found)), problems, has_manifest=bool(steps - lacking))


def _find_best(reader: RepoReader, refs: Refs, found: Sequence[Checkpoint]) -> Checkpoint | None:
    """The checkpoint of the tag `best`, if its own tag was moved or deleted by hand. None if it is among those found,
    or the commit has no checkpoint of pricer.
    """
    commit = refs.tags.get(BEST)
    if commit is None or not found:  # without any step, commits are read instead
        return None
    if any(checkpoint.commit == commit for checkpoint in found):
        return None
    try:
        best = _read_checkpoint(reader, None, commit)
    except PricerError as error:
        if hub_fails(error):
            raise
        return None
    return None if best is None or any(checkpoint.name == best.name for checkpoint in found) else best


def find_untagged(reader: RepoReader, commits: Sequence[RemoteCommit], head: str) -> tuple[Checkpoint, ...]:
    """The checkpoints of a repository without their tags: commits that have the title and the manifest of a step, and
    the head of `main`. Of two commits for one step, the newer one counts.
    """
    titled = {commit.title: commit.hash for commit in reversed(commits) if STEP_TAG.fullmatch(commit.title)}
    found: dict[str, Checkpoint] = {}
    for name, commit in [*titled.items(), (None, head)]:
        try:
            checkpoint = _read_checkpoint(reader, name, commit)
        except PricerError as error:
            if hub_fails(error):
                raise
            continue  # damaged, or another trainer with the same titles
        if checkpoint:
            found.setdefault(checkpoint.name, checkpoint)
    return tuple(sort_checkpoints(found.values()))


def is_record_of_a_run(reader: RepoReader, commits: Iterable[str]) -> bool:
    """Whether one of the commits has the config and the facts of a run of pricer."""
    record = ["config.yaml", "run.json"]
    return any(len(reader.files(commit, record)) == len(record) for commit in commits)


def _read_checkpoint(reader: RepoReader, name: str | None, commit: str) -> Checkpoint | None:
    """The checkpoint of a commit; None if the commit has no manifest. A CheckpointError if the manifest is damaged, or
    has another name than `name` (None: any).
    """
    content = reader.read(commit, MANIFEST, LARGEST_TEXT)
    if content is None:
        return None
    place = f"{reader.repo} at its tag {name}"
    try:
        checkpoint = parse_manifest(content)
    except ValueError as error:
        raise CheckpointError(f"{place} has no {MANIFEST} that can be read: {error}") from None
    if name is not None and checkpoint.name != name:
        raise CheckpointError(f"{place} holds {checkpoint.name}", "the tag was moved: put it back")
    return checkpoint.at(commit)
