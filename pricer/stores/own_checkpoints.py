"""Finds pricer's own checkpoints in a repository: each has a manifest, and a tag or a commit with its name."""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, PricerError
from pricer.stores.cached_repo import RepoReader
from pricer.stores.checkpoints import MANIFEST, parse_manifest, sort_checkpoints
from pricer.stores.hub import Refs, RemoteCommit
from pricer.stores.hub_checkpoints import LARGEST_TEXT

STEP_TAG = re.compile(r"step-[0-9]{6,12}")
"""The tag of a checkpoint, and the title of its commit."""
SOUP_TAG = re.compile(r"soup(-[0-9]{6,12}){2,8}")
"""The tag of a soup that was picked."""


@dataclass(frozen=True, slots=True)
class OwnCheckpoints:
    """Checkpoints and soups by their tags. `problems` has an error for each tag that cannot be used. `has_manifest`:
    pricer pushed at least one of the tagged commits.
    """

    steps: tuple[Checkpoint, ...]
    soups: tuple[Checkpoint, ...]
    problems: tuple[PricerError, ...]
    has_manifest: bool


def find_tagged(reader: RepoReader, refs: Refs, known: Iterable[Checkpoint]) -> OwnCheckpoints:
    """The checkpoints and soups that tags name. Those in `known` with the same commit are not read again."""
    by_place = {(checkpoint.name, checkpoint.commit): checkpoint for checkpoint in known}
    found: list[Checkpoint] = []
    problems: list[PricerError] = []
    has_manifest = False
    for name, commit in refs.tags.items():
        if not (STEP_TAG.fullmatch(name) or SOUP_TAG.fullmatch(name)):
            continue
        try:
            checkpoint = by_place.get((name, commit)) or _read_checkpoint(reader, name, commit)
        except PricerError as error:
            if isinstance(error, HubError) and (error.transient or error.refused):
                raise  # it says nothing about this tag
            problems.append(error)
            has_manifest = True
        else:
            has_manifest = has_manifest or checkpoint is not None
            found += [checkpoint] if checkpoint else []
            problems += [] if checkpoint else [CheckpointError(f"{reader.repo} at its tag {name} has no {MANIFEST}")]
    ordered = sort_checkpoints(found)
    steps, soups = ([c for c in ordered if bool(c.members) is is_soup] for is_soup in (False, True))
    return OwnCheckpoints(tuple(steps), tuple(soups), tuple(problems), has_manifest)


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
            if isinstance(error, HubError) and (error.transient or error.refused):
                raise
            continue  # damaged, or another trainer with the same titles
        if checkpoint and not checkpoint.members:
            found.setdefault(checkpoint.name, checkpoint)
    return tuple(sort_checkpoints(found.values()))


def is_record_of_a_run(reader: RepoReader, commits: Iterable[str]) -> bool:
    """Whether one of the commits has the config and the facts of a run of pricer."""
    record = ["config.yaml", "run.json"]
    return any(len(reader.files(commit, record)) == len(record) for commit in commits)


def left_out(problem: PricerError) -> str:
    """The note about a tag that is left out."""
    return f"{problem.message}: left out" + (f" ({problem.hint})" if problem.hint else "")


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
