"""Finds the checkpoints in a Hub repository: pricer's own, or those of another trainer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.stores.adapter_places import read_head
from pricer.stores.cached_repo import RepoReader
from pricer.stores.hub import Hub, Refs
from pricer.stores.other_checkpoints import find_other_checkpoints
from pricer.stores.own_checkpoints import find_tagged, find_untagged, is_record_of_a_run, left_out
from pricer.stores.repo_content import explain_content, explain_other_kind


@dataclass(frozen=True, slots=True)
class RepoScan:
    """The content of a repository. `tags` maps names to commit hashes. `has_manifests`: pricer pushed the checkpoints.
    `notes` are messages for the user. `soups` are the soups that were picked. `untagged` has pricer's checkpoints if
    none of them has a tag.
    """

    checkpoints: tuple[Checkpoint, ...]
    tags: Mapping[str, str]
    has_manifests: bool
    notes: tuple[str, ...] = ()
    soups: tuple[Checkpoint, ...] = ()
    untagged: tuple[Checkpoint, ...] = ()

    @property
    def found(self) -> tuple[Checkpoint, ...]:
        """All checkpoints, tagged or not, and soups."""
        return (*self.checkpoints, *self.untagged, *self.soups)


def scan_repo(reader: RepoReader, known: Iterable[Checkpoint] = ()) -> RepoScan:
    """Find the checkpoints of a repository, sorted by step. Checkpoints in `known` with the same commit are not read
    again.

    Each checkpoint from pricer has a tag `step-…` and a manifest. A tag that is damaged or was moved by hand is left
    out, with a note. A repository without such tags comes from another trainer. Then the step is in the title of a
    commit, or in the name of a folder, a tag or a branch; prompt and data stay unknown. One adapter without a step is
    one checkpoint. In both cases, a soup has a tag `soup-…`.

    A run of pricer that has pushed no checkpoint yet has none here. Any other repository without a checkpoint is a
    CheckpointError that says what it holds.
    """
    refs = _read_refs(reader)
    own = find_tagged(reader, refs, known)
    notes = tuple(left_out(problem) for problem in own.problems)
    if own.steps:
        return RepoScan(own.steps, refs.tags, has_manifests=True, notes=notes, soups=own.soups)
    head = refs.branches.get("main")
    if head is None:
        raise CheckpointError(f"{reader.repo} has no branch main")
    commits = reader.commits()
    if untagged := find_untagged(reader, commits, head):
        lost = f"{reader.repo} has no tag step-… that can be used: its commits with such a title are read instead"
        return RepoScan((), refs.tags, has_manifests=True, notes=(*notes, lost), soups=own.soups, untagged=untagged)
    if own.problems and own.has_manifest:
        raise own.problems[0]
    if is_record_of_a_run(reader, [head, *([refs.branches["state"]] if "state" in refs.branches else [])]):
        return RepoScan((), refs.tags, has_manifests=True, notes=notes, soups=own.soups)
    head_files = read_head(reader, head)
    found = find_other_checkpoints(reader, refs, head_files, commits)
    if not found.checkpoints:
        raise explain_content(reader, refs, head_files, found.problems)
    return RepoScan(found.checkpoints, refs.tags, has_manifests=False, notes=tuple(found.notes), soups=own.soups)


def _read_refs(reader: RepoReader) -> Refs:
    try:
        return reader.refs()
    except HubError as error:
        if isinstance(reader, Hub) and not error.transient and (kind := reader.find_other_kind()):
            raise explain_other_kind(reader.repo, kind) from None
        raise
