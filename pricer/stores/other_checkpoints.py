"""Describes the checkpoints of another trainer: an adapter and its configuration each, without a manifest."""

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from pricer.core.adapter_config import read_adapter_settings
from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, PricerError
from pricer.stores.adapter_places import Head, Place, find_places, find_single_place, read_step
from pricer.stores.cached_repo import RepoReader
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, sort_checkpoints
from pricer.stores.files import sha256_of
from pricer.stores.hub import LARGEST_TEXT, Refs, RemoteCommit, RemoteFile
from pricer.stores.hub_downloads import LARGEST_ADAPTER
from pricer.stores.hub_errors import hub_fails


@dataclass(slots=True)
class OtherCheckpoints:
    """What was found so far: the checkpoint of each step with the label of its place; messages for the user; the
    reasons why adapters cannot be used; the sha256 of adapters that were set aside, because they cannot be used or
    another one has their step; and checkpoints of an earlier look, by their places.
    """

    found: dict[int, tuple[Checkpoint, str]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    set_aside: set[str] = field(default_factory=set)
    known: dict[tuple[int, str | None, str], Checkpoint] = field(default_factory=dict)

    @property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """The checkpoints, sorted by step."""
        return tuple(sort_checkpoints(checkpoint for checkpoint, _ in self.found.values()))


def find_other_checkpoints(
    reader: RepoReader,
    refs: Refs,
    head: Head,
    commits: Sequence[RemoteCommit],
    *,
    known: Iterable[Checkpoint] = (),
) -> OtherCheckpoints:
    """The checkpoints of a repository without pricer's manifests. `commits` are those of `main`. Those in
    `known` at the same place are not read again. If no place names a step, one adapter on `main` is one checkpoint.
    """
    result = OtherCheckpoints()
    result.known = {(one.step, one.commit, one.folder): one for one in known}
    places, notes = find_places(reader, refs, head, commits)
    _describe(reader, places, result)
    if not result.found:
        single, notes_on_single = find_single_place(reader, head)
        if single and _digest(reader, single.commit, head.files[single.path(ADAPTER)]) not in result.set_aside:
            _describe(reader, [single], result)
        notes += notes_on_single if result.found else []
    else:
        _describe_main(reader, head, result)
    result.notes += notes
    if any(checkpoint.epoch is not None for checkpoint in result.checkpoints):
        result.notes.append(f"{reader.repo} counts epochs, not steps: step 2 stands for its epoch 2")
    _drop_repeated(result)
    return result


def _describe(reader: RepoReader, places: Iterable[Place], result: OtherCheckpoints) -> None:
    """Add the checkpoints of these places. Of two places for one step, the first counts."""
    for place in places:
        taken = result.found.get(place.step)
        if taken is None and (known := result.known.get((place.step, place.commit, place.folder))):
            result.found[place.step] = known, place.label
            continue
        adapter = reader.files(place.commit, [place.path(ADAPTER)]).get(place.path(ADAPTER))
        if taken and adapter:
            if taken[0].adapter_sha256 != (digest := _digest(reader, place.commit, adapter)):
                result.set_aside.add(digest)
                other = f"{taken[1]}, which is scored as step {place.step:,}"
                result.notes.append(f"{place.label} holds another adapter than {other}")
            continue
        try:
            result.found[place.step] = _read_checkpoint(reader, place, adapter), place.label
        except PricerError as problem:
            if hub_fails(problem):
                raise
            result.set_aside |= {_digest(reader, place.commit, adapter)} if adapter else set()
            result.problems.append(problem.message)
            result.notes.append(f"{problem.message}: left out")


def _describe_main(reader: RepoReader, head: Head, result: OtherCheckpoints) -> None:
    """Add the adapter at the top of `main` if no step has the same adapter and the trainer's state names a new step."""
    if (main := head.files.get(ADAPTER)) is None:
        return
    named = {checkpoint.adapter_sha256 for checkpoint in result.checkpoints} | result.set_aside
    if _digest(reader, head.commit, main) in named:
        return
    step, source = read_step(reader, head, "")
    if step is None or step in result.found:
        why = "nothing names its step" if step is None else f"it has step {step:,}, too{source}"
        result.notes.append(f"main holds an adapter that differs from those of all steps, and {why}: left out")
        return
    before = len(result.found)
    _describe(reader, [Place(step, head.commit, "", "main")], result)
    if len(result.found) > before:
        result.notes.append(f"the adapter in main is scored as step {step:,}{source}")


def _read_checkpoint(reader: RepoReader, place: Place, adapter: RemoteFile | None) -> Checkpoint:
    if adapter is None:
        raise CheckpointError(f"{place.label} has no {ADAPTER}")
    config = reader.read(place.commit, place.path(ADAPTER_CONFIG), LARGEST_TEXT)
    if config is None:
        raise CheckpointError(f"{place.label} has no {ADAPTER_CONFIG}")
    try:
        settings = read_adapter_settings(json.loads(config))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{ADAPTER_CONFIG} of {reader.repo}, {place.label}: {error}") from None
    return Checkpoint(
        step=place.step,
        epoch=float(place.step) if place.is_epoch else None,
        base=settings.base or "",
        base_revision=None,
        prompt_fingerprint=None,
        data_fingerprint=None,
        adapter_sha256=_digest(reader, place.commit, adapter),
        adapter_config_sha256=hashlib.sha256(config).hexdigest(),
        answers=None,
        commit=place.commit,
        folder=place.folder,
    )


def _digest(reader: RepoReader, commit: str, adapter: RemoteFile) -> str:
    """The sha256 of an adapter. The Hub states none for a small file that was pushed without LFS."""
    return adapter.sha256 or sha256_of(reader.download(commit, adapter, LARGEST_ADAPTER))


def _drop_repeated(result: OtherCheckpoints) -> None:
    """Keep each adapter once, with a note for each one that several steps have. The last of these steps is kept: a slow
    push for an earlier step may read files of a later step, but never the reverse.
    """
    by_adapter: dict[str, list[int]] = {}
    for step in sorted(result.found):
        by_adapter.setdefault(result.found[step][0].adapter_sha256, []).append(step)
    for digest, steps in by_adapter.items():
        if len(steps) > 1:
            result.notes.append(
                f"steps {', '.join(f'{step:,}' for step in steps)} hold the same adapter (sha256 {digest[:12]}…): "
                f"it is scored once, as step {steps[-1]:,}"
            )
        for step in steps[:-1]:
            del result.found[step]
