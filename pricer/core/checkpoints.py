"""What a checkpoint is: weights saved at a step, found at a revision, with what they were trained on."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Protocol


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved adapter and everything that says what it is: the manifest kept beside the weights.

    `step` counts optimizer steps, `epoch` passes over the training items (3.5: half-way through the fourth).
    `base_revision` is a commit hash, or the content hash of a local base. The hashes are those of
    `adapter_model.safetensors` and `adapter_config.json`, which holds the scale of the update. None: whoever trained it
    left no manifest that says so.

    `commit` and `folder` are where it lies on the Hub, None and empty elsewhere. They are no part of what it is: the
    same checkpoint in two places is equal, and has one revision.
    """

    step: int
    epoch: float | None
    base: str
    base_revision: str | None
    prompt_fingerprint: str | None
    data_fingerprint: str | None
    adapter_sha256: str
    adapter_config_sha256: str
    commit: str | None = field(default=None, compare=False)
    folder: str = field(default="", compare=False)

    @property
    def revision(self) -> str:
        """Forty hex digits that name this checkpoint and nothing else, as a commit hash does."""
        return hashlib.sha256(json.dumps(self._manifest(), sort_keys=True).encode()).hexdigest()[:40]

    @property
    def name(self) -> str:
        """The tag and folder name: `step-005000`."""
        return tag_name(self.step)

    def at(self, commit: str, folder: str = "") -> "Checkpoint":
        """The same checkpoint, found at that commit."""
        return replace(self, commit=commit, folder=folder)

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, the revision included for people to read, and where it lies if on the Hub."""
        place = {} if self.commit is None else {"commit": self.commit, "folder": self.folder}
        return {"revision": self.revision, **self._manifest(), **place}

    def _manifest(self) -> dict[str, Any]:
        return {f.name: getattr(self, f.name) for f in fields(self) if f.compare}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Checkpoint":
        """Read a manifest back. A missing, unknown or mistyped entry, or a wrong revision, is a ValueError."""
        values: dict[str, Any] = {f.name: record.get(f.name) for f in fields(cls) if f.compare}
        place = {f.name: record[f.name] for f in fields(cls) if not f.compare and f.name in record}
        if unknown := sorted(record.keys() - values.keys() - place.keys() - {"revision"}):
            raise ValueError(f"{', '.join(unknown)} is not part of a manifest")
        types: dict[str, type | tuple[type, ...]] = {"step": int, "epoch": (int, float)}
        for name, value in {**values, **place}.items():
            if value is None and name in record and name in _MAY_BE_UNKNOWN:
                continue
            if isinstance(value, bool) or not isinstance(value, types.get(name, str)):
                raise ValueError(f"{name} is {value!r}")
        if values["step"] < 0:
            raise ValueError(f"step is {values['step']}")
        checkpoint = cls(**values, **place)
        if record.get("revision", checkpoint.revision) != checkpoint.revision:
            raise ValueError(f"revision is {record['revision']!r}, its contents make it {checkpoint.revision}")
        return checkpoint


_MAY_BE_UNKNOWN = ("epoch", "base_revision", "prompt_fingerprint", "data_fingerprint")


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
