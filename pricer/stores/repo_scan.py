"""Finds the checkpoints in a Hub repository: pricer's own, or those of another trainer."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, PricerError
from pricer.stores.adapter_places import read_head
from pricer.stores.cached_repo import RepoReader
from pricer.stores.hub import Hub, Refs
from pricer.stores.other_checkpoints import find_other_checkpoints
from pricer.stores.own_checkpoints import STEP_TAG, find_tagged, find_untagged, is_record_of_a_run
from pricer.stores.repo_content import explain_content, explain_other_kind


@dataclass(frozen=True, slots=True)
class RepoScan:
    """The content of a repository. `tags` maps names to commit hashes. `has_manifests`: pricer pushed the checkpoints.
    `notes` are messages for the user. `untagged` has pricer's checkpoints if none of them has a tag.
    """

    checkpoints: tuple[Checkpoint, ...]
    tags: Mapping[str, str]
    has_manifests: bool
    notes: tuple[str, ...] = ()
    untagged: tuple[Checkpoint, ...] = ()

    @property
    def found(self) -> tuple[Checkpoint, ...]:
        """All checkpoints, tagged or not."""
        return (*self.checkpoints, *self.untagged)


def scan_repo(reader: RepoReader, known: Iterable[Checkpoint] = ()) -> RepoScan:
    """Find the checkpoints of a repository, sorted by step. Checkpoints in `known` with the same commit are not read
    again.

    Each checkpoint from pricer has a tag `step-…` and a manifest. A tag that is damaged or was moved by hand is left
    out, with a note. A repository without such tags comes from another trainer. Then the step is in the title of a
    commit, or in the name of a folder, a tag or a branch; prompt and data stay unknown. One adapter without a step is
    one checkpoint.

    A run of pricer that has pushed no checkpoint yet has none here. Any other repository without a checkpoint is a
    CheckpointError that says what it holds.
    """
    refs, known = _read_refs(reader), tuple(known)
    own = find_tagged(reader, refs, known)
    found = RepoScan(own.steps, refs.tags, has_manifests=True, notes=_left_out(own.problems))
    if own.steps:
        return found
    if (main := refs.branches.get("main")) is None:
        raise CheckpointError(f"{reader.repo} has no branch main")
    commits = reader.commits()
    if untagged := find_untagged(reader, commits, main):
        lost = f"{reader.repo} has no tag step-… that can be used: its commits with such a title are read instead"
        return replace(found, notes=(*found.notes, lost), untagged=untagged)
    if own.has_manifest:
        raise next(problem for name, problem in own.problems.items() if STEP_TAG.fullmatch(name))
    if is_record_of_a_run(reader, [main, *([refs.branches["state"]] if "state" in refs.branches else [])]):
        return found
    head = read_head(reader, main)
    others = find_other_checkpoints(reader, refs, head, commits, known=known)
    if not others.checkpoints:
        raise explain_content(reader, refs, head, others.problems)
    # A step tag without a manifest comes from another trainer, too.
    return replace(found, checkpoints=others.checkpoints, has_manifests=False, notes=tuple(others.notes))


def _left_out(problems: Mapping[str, PricerError]) -> tuple[str, ...]:
    """The notes about tags that are left out."""
    hints = {name: f" ({problem.hint})" if problem.hint else "" for name, problem in problems.items()}
    return tuple(f"{problem.message}: left out{hints[name]}" for name, problem in problems.items())


def _read_refs(reader: RepoReader) -> Refs:
    try:
        return reader.refs()
    except HubError as error:
        if isinstance(reader, Hub) and not error.transient and (kind := reader.find_other_kind()):
            raise explain_other_kind(reader.repo, kind) from None
        raise
