"""What a checkpoint is: weights saved at a step, found at a revision, with what they were trained on; and averages."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Member:
    """A checkpoint that is part of an average."""

    step: int
    id: str


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved adapter and everything that says what it is: the manifest kept beside the weights.

    `step` counts optimizer steps, `epoch` passes over the training items (3.5: half-way through the fourth).
    `base_revision` is a commit hash, or the content hash of a local base. The hashes are those of
    `adapter_model.safetensors` and `adapter_config.json`, which holds the scale of the update. None: whoever trained it
    left no manifest that says so.

    `commit` and `folder` are where it lies on the Hub, None and empty elsewhere. They are no part of what it is: the
    same checkpoint in two places is equal, and has one id.

    A soup is the average of several checkpoints, its `members` by step; `step` and `epoch` are those of the last one.
    What was trained has no members.
    """

    step: int
    epoch: float | None
    base: str
    base_revision: str | None
    prompt_fingerprint: str | None
    data_fingerprint: str | None
    adapter_sha256: str
    adapter_config_sha256: str
    members: tuple[Member, ...] = ()
    commit: str | None = field(default=None, compare=False)
    folder: str = field(default="", compare=False)

    @property
    def id(self) -> str:
        """Forty hex digits that name this checkpoint and nothing else, as a commit hash does."""
        return hashlib.sha256(json.dumps(self._manifest(), sort_keys=True).encode()).hexdigest()[:40]

    @property
    def name(self) -> str:
        """The tag and folder name: `step-005000`, or of a soup `soup-004500-005000`."""
        return soup_name(self.member_steps) if self.members else tag_name(self.step)

    @property
    def member_steps(self) -> tuple[int, ...]:
        """The steps that a soup is the average of; empty of what was trained."""
        return tuple(member.step for member in self.members)

    def at(self, commit: str, folder: str = "") -> "Checkpoint":
        """The same checkpoint, found at that commit."""
        return replace(self, commit=commit, folder=folder)

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, the id included for people to read, and where it lies if on the Hub."""
        place = {} if self.commit is None else {"commit": self.commit, "folder": self.folder}
        return {"id": self.id, **self._manifest(), **place}

    def _manifest(self) -> dict[str, Any]:
        manifest = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        del manifest["members"]  # what was trained keeps the manifest and the id that it had before there were soups
        return manifest | ({"members": [asdict(member) for member in self.members]} if self.members else {})

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Checkpoint":
        """Read a manifest back. A missing, unknown or mistyped entry, or a wrong id, is a ValueError."""
        values: dict[str, Any] = {f.name: record.get(f.name) for f in fields(cls) if f.compare}
        values["members"] = _members(record)
        place = {f.name: record[f.name] for f in fields(cls) if not f.compare and f.name in record}
        if unknown := sorted(record.keys() - values.keys() - place.keys() - {"id"}):
            raise ValueError(f"{', '.join(unknown)} is not part of a manifest")
        types: dict[str, type | tuple[type, ...]] = {"step": int, "epoch": (int, float), "members": tuple}
        for name, value in {**values, **place}.items():
            if value is None and name in record and name in _MAY_BE_UNKNOWN:
                continue
            if isinstance(value, bool) or not isinstance(value, types.get(name, str)):
                raise ValueError(f"{name} is {value!r}")
        if values["step"] < 0:
            raise ValueError(f"step is {values['step']}")
        if values["members"] and values["members"][-1].step != values["step"]:
            raise ValueError(f"step is {values['step']}, its last member's {values['members'][-1].step}")
        checkpoint = cls(**values, **place)
        if record.get("id", checkpoint.id) != checkpoint.id:
            raise ValueError(f"id is {record['id']!r}, its contents make it {checkpoint.id}")
        return checkpoint


_MAY_BE_UNKNOWN = ("epoch", "base_revision", "prompt_fingerprint", "data_fingerprint")


SOUP_SIZES = (2, 3)
"""How many neighbours are averaged."""
_MOST_MEMBERS = 8


def _members(record: Mapping[str, Any]) -> tuple[Member, ...]:
    """The members of a manifest; a ValueError unless they are some checkpoints by step."""
    if "members" not in record:
        return ()
    try:
        members = tuple(Member(**member) for member in record["members"])
    except TypeError:
        members = ()
    steps = [member.step for member in members]
    typed = all(type(m.step) is int and m.step >= 0 and isinstance(m.id, str) for m in members)
    if not typed or not 2 <= len(steps) <= _MOST_MEMBERS or steps != sorted(set(steps)):
        raise ValueError(f"members are {str(record['members'])[:100]}")
    return members


def windows_around(checkpoints: Sequence[Checkpoint], checkpoint_id: str) -> list[tuple[Checkpoint, ...]]:
    """The runs of two and of three neighbours by step that the checkpoint of that id is in, the shorter first: at
    most two and three.
    """
    ordered = sorted(checkpoints, key=lambda checkpoint: checkpoint.step)
    at = next(index for index, checkpoint in enumerate(ordered) if checkpoint.id == checkpoint_id)
    return [
        tuple(ordered[start : start + size])
        for size in SOUP_SIZES
        for start in range(max(0, at - size + 1), at + 1)
        if start + size <= len(ordered)
    ]


def soup_name(steps: Sequence[int]) -> str:
    """The name of the average of the checkpoints at these steps."""
    return "-".join(["soup", *(f"{step:06d}" for step in steps)])


def tag_name(step: int) -> str:
    """The name of the checkpoint saved at a step, wide enough to sort by name."""
    return f"step-{step:06d}"


class CheckpointStore(Protocol):
    """Where checkpoints are kept."""

    def checkpoints(self) -> list[Checkpoint]:
        """Every whole checkpoint, oldest step first."""

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Keep the checkpoint in `folder` (adapter and manifest). Pushing the same one again changes nothing."""

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with the adapter, its sha256 verified against the manifest."""

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Let `name` mean this checkpoint, whatever it meant before."""
