"""Finds where another trainer left its adapters in a repository: in folders, under tags, branches and commits."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pricer.errors import CheckpointError
from pricer.stores.cached_repo import RepoReader
from pricer.stores.checkpoints import ADAPTER
from pricer.stores.files import parse_json
from pricer.stores.hub import Refs, RemoteCommit, RemoteFile

# Commit titles of the Trainer with `hub_strategy="every_save"`; _EPOCH is for `save_strategy="epoch"`.
_TITLE = re.compile(r"\bstep[ _-]?([0-9]{1,12})\b", re.IGNORECASE)
_EPOCH = re.compile(r"\bepoch[ _-]?([0-9]{1,12})\b", re.IGNORECASE)
# Common names of a folder, a tag or a branch for a step (`checkpoint-500`, `global_step_500`), or for an epoch.
_STEP_NAME = re.compile(r"(?:.*[^a-z])?(?:step|checkpoint|ckpt)[-_]?([0-9]{1,12})", re.IGNORECASE)
_EPOCH_NAME = re.compile(r"(?:.*[^a-z])?epoch[-_]?([0-9]{1,12})", re.IGNORECASE)
# Each commit takes a few requests, and the Hub answers 1,000 in five minutes.
_MAX_COMMITS = 1000
# The file in which the Trainer counts steps. With `hub_strategy="checkpoint"` it is in the folder last-checkpoint.
_STATE = "trainer_state.json"
# Maximum size of that file in bytes. It has an entry for each step that was logged.
_LARGEST_STATE = 64_000_000


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a step's adapter: a commit, and a folder in it. `label` describes the place in messages. If the
    repository counts epochs (`is_epoch`), the epoch replaces the step.
    """

    step: int
    commit: str
    folder: str
    label: str
    is_epoch: bool = False

    def path(self, name: str) -> str:
        """The path of a file of this place in the repository."""
        return f"{self.folder}/{name}" if self.folder else name


@dataclass(frozen=True, slots=True)
class Head:
    """The newest commit of `main`, with its files by their paths."""

    commit: str
    files: Mapping[str, RemoteFile]

    def folders(self) -> list[str]:
        """The folders that hold an adapter, sorted; the empty name stands for the top of the repository."""
        return sorted(path.rpartition("/")[0] for path in self.files if path.rpartition("/")[2] == ADAPTER)

    def hold_the_same(self, folder: str, other: str) -> bool:
        """Whether two folders hold the same adapter."""
        one, two = (self.files.get(f"{name}/{ADAPTER}" if name else ADAPTER) for name in (folder, other))
        return one is not None and two is not None and (one.sha256, one.blob) == (two.sha256, two.blob)


def read_head(reader: RepoReader, commit: str) -> Head:
    """The head of `main`, without files whose paths lead out of the repository, which no client of the Hub makes."""
    files = reader.all_files(commit)
    return Head(commit, {path: file for path, file in files.items() if not {"", ".", ".."} & set(path.split("/"))})


def find_places(
    reader: RepoReader, refs: Refs, head: Head, commits: Sequence[RemoteCommit]
) -> tuple[list[Place], list[str]]:
    """The places that name a step, the most reliable first; and a note about folders that are left out."""
    if len(commits) > _MAX_COMMITS:
        raise CheckpointError(
            f"{reader.repo} has {len(commits):,} commits: more than {_MAX_COMMITS:,} are not looked through"
        )
    places, notes = _find_in_folders(head)
    places += [
        Place(int(match[1]), commit, "", f"{kind} {name}")
        for kind, names in (("tag", refs.tags), ("branch", refs.branches))
        for name, commit in names.items()
        if name != "main" and (match := _STEP_NAME.fullmatch(name))
    ]
    places += _find_in_titles(commits, _TITLE) or ([] if places else _find_in_titles(commits, _EPOCH))
    return places, notes


def find_single_place(reader: RepoReader, head: Head) -> tuple[Place | None, list[str]]:
    """The place of the one adapter on `main`, None if there is none or it is not clear which one; and notes. An adapter
    at the top of the repository is the one, else an adapter in the only folder that holds one.
    """
    folders = head.folders()
    if not folders or ("" not in folders and len(folders) > 1):
        return None, []
    folder = folders[0]
    step, source = read_step(reader, head, folder)
    label = f"folder {folder}" if folder else "main"
    notes = [f"{reader.repo} names no step: the adapter in {label} is scored as step {step or 0:,}{source}"]
    if others := [other for other in folders[1:] if not head.hold_the_same(folder, other)]:
        notes.append(f"adapters in folders that name no step, {others[0]} for one ({len(others)}): left out")
    return Place(step or 0, head.commit, folder, label), notes


def read_step(reader: RepoReader, head: Head, folder: str) -> tuple[int | None, str]:
    """The step of the adapter in a folder, or None; and the file that says so: the trainer's own state beside the
    adapter, or beside the same one in another folder.
    """
    for place in dict.fromkeys((folder, *head.folders())):
        path = f"{place}/{_STATE}" if place else _STATE
        file = head.files.get(path)
        if file and file.size <= _LARGEST_STATE and head.hold_the_same(folder, place):
            step = (parse_json(reader.read(head.commit, path, _LARGEST_STATE) or b"") or {}).get("global_step")
            if isinstance(step, int) and not isinstance(step, bool) and 0 <= step < 10**12:
                return step, f", by its {path}"
    return None, ""


def _find_in_folders(head: Head) -> tuple[list[Place], list[str]]:
    """The places of adapters in folders that name a step or an epoch. The folders of one training differ in that name
    alone. Those at the top of the repository count before those in other folders.
    """
    trainings: dict[str, list[Place]] = {}
    for folder in head.folders():
        parts = folder.split("/")
        for index, part in enumerate(parts):
            epoch = _EPOCH_NAME.fullmatch(part)
            if match := _STEP_NAME.fullmatch(part) or epoch:
                training = "/".join([*parts[:index], "*", *parts[index + 1 :]])
                place = Place(int(match[1]), head.commit, folder, f"folder {folder}", match is epoch)
                trainings.setdefault(training, []).append(place)
                break
    if not trainings:
        return [], []
    if "*" not in trainings and len(trainings) > 1:
        return [], [f"folders of several trainings ({', '.join(sorted(trainings)[:5])}): left out"]
    chosen = trainings.pop("*", None) or trainings.pop(next(iter(trainings)))
    if others := [place.folder for places in trainings.values() for place in places]:
        return chosen, [f"adapters in folders of other trainings, {others[0]} for one ({len(others)}): left out"]
    return chosen, []


def _find_in_titles(commits: Iterable[RemoteCommit], pattern: re.Pattern[str]) -> list[Place]:
    return [
        Place(int(match[1]), commit.hash, "", f"commit {commit.hash[:7]} ({commit.title})", pattern is _EPOCH)
        for commit in commits
        if (match := pattern.search(commit.title))
    ]
