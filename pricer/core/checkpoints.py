"""What a checkpoint is: weights saved at a step, with a record of what they were trained on; and averages of them."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
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
    """One saved adapter with the manifest that is kept beside the weights.

    `step` counts optimizer steps, `epoch` passes over the training items (3.5: half-way through the fourth).
    `base_revision` is a commit hash, or the content hash of a local base. There is a hash for
    `adapter_model.safetensors` and one for `adapter_config.json`, which holds the scale of the update. None: another
    trainer made it, and did not record this.

    `commit` and `folder` say where it lies on the Hub; None and empty elsewhere. They are not part of its identity: the
    same checkpoint in two places is equal, and has one id.

    A soup is the average of several checkpoints, its `members`, sorted by step; `step` and `epoch` are its last
    member's. A trained checkpoint has no members.
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
        """Forty hex digits that identify this checkpoint, as a commit hash identifies a commit."""
        return hashlib.sha256(json.dumps(self._manifest(), sort_keys=True).encode()).hexdigest()[:40]

    @property
    def name(self) -> str:
        """The tag and folder name: `step-005000`, or for a soup `soup-004500-005000`."""
        return soup_name(self.member_steps) if self.members else tag_name(self.step)

    @property
    def member_steps(self) -> tuple[int, ...]:
        """The steps of a soup's members; empty for a trained checkpoint."""
        return tuple(member.step for member in self.members)

    def at(self, commit: str, folder: str = "") -> "Checkpoint":
        """The same checkpoint at that commit."""
        return replace(self, commit=commit, folder=folder)

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, with the id for people to read and, on the Hub, where it lies."""
        place = {} if self.commit is None else {"commit": self.commit, "folder": self.folder}
        return {"id": self.id, **self._manifest(), **place}

    def _manifest(self) -> dict[str, Any]:
        manifest = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        del manifest["members"]
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
_MAX_MEMBERS = 8


def _members(record: Mapping[str, Any]) -> tuple[Member, ...]:
    """The members in a manifest, none if it names none; a ValueError unless they are checkpoints sorted by step."""
    if "members" not in record:
        return ()
    try:
        members = tuple(Member(**member) for member in record["members"])
    except TypeError:
        members = ()
    steps = [member.step for member in members]
    typed = all(type(m.step) is int and m.step >= 0 and isinstance(m.id, str) for m in members)
    if not typed or not 2 <= len(steps) <= _MAX_MEMBERS or steps != sorted(set(steps)):
        raise ValueError(f"members are {str(record['members'])[:100]}")
    return members


def windows_around(checkpoints: Sequence[Checkpoint], checkpoint_id: str) -> list[tuple[Checkpoint, ...]]:
    """Each window of two or three neighbours by step that contains the checkpoint of that id, the smaller first: at
    most two of two, and three of three.
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
    """The name of the checkpoint saved at a step, padded so that names sort by step."""
    return f"step-{step:06d}"


class CheckpointStore(Protocol):
    """Where a run's checkpoints are kept."""

    @property
    def location(self) -> str:
        """Where that is, as a user is told: a folder, or the address of a repository."""

    @property
    def is_remote(self) -> bool:
        """Whether it is reached over a network. Then fetch only what is needed: it is downloaded. Where it is False,
        fetching costs nothing but the verification.
        """

    def checkpoints(self) -> list[Checkpoint]:
        """Every complete checkpoint, sorted by step."""

    def soups(self) -> list[Checkpoint]:
        """Every soup, sorted by its last step, the smaller first."""

    def new_soup(self, steps: Sequence[int]) -> AbstractContextManager[Path]:
        """A folder for the average of the checkpoints at these steps: adapter and manifest. It is kept when the block
        ends well, and replaces an older one.
        """

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Keep the checkpoint in `folder` (adapter and manifest). Pushing the same one again changes nothing."""

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with the adapter of a checkpoint or soup, its sha256 verified against the manifest."""

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Let `name` mean this checkpoint or soup, whatever it meant before; a CheckpointError if it is not kept."""

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint or soup that `name` means, or None."""

    def publish_card(self, render: Callable[[str], str], message: str) -> str | None:
        """Publish a model card, and return the name of its repository. `render` gives its text for that name. None:
        there is no repository, and `render` was not called.
        """
