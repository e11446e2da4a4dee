"""Checkpoints: weights saved at a step; and the candidates that are ranked."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from pricer.core.prices import PriceFormat

BEST = "best"
"""The tag of the picked checkpoint."""
# Limits for a manifest that comes from a stranger.
_MAX_ANSWER_TOKENS, _MAX_WIDTH = 64, 99


@dataclass(frozen=True, slots=True)
class Answers:
    """How a checkpoint writes prices, and what its training data say about them. With it, the checkpoint can be asked
    for prices on a machine that does not have the data.

    `answer_tokens` is the maximum number of tokens in an answer, its end-of-text token included. `max_price` and
    `train_median` are the highest and the median training price. A field out of bounds is a ValueError.
    """

    price_format: PriceFormat
    answer_tokens: int
    max_price: float
    train_median: float

    def __post_init__(self) -> None:
        if not 2 <= self.answer_tokens <= _MAX_ANSWER_TOKENS:
            raise ValueError(f"answer_tokens is {str(self.answer_tokens)[:20]}")
        if self.price_format.width is not None and not 1 <= self.price_format.width <= _MAX_WIDTH:
            raise ValueError(f"price_format.width is {str(self.price_format.width)[:20]}")
        for name in ("max_price", "train_median"):
            price = getattr(self, name)
            if not 0 < price < math.inf:
                raise ValueError(f"{name} is {price}, not a price above zero")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One saved adapter, described by the manifest that is saved beside the weights.

    `step` counts optimizer steps, and `epoch` counts passes over the training items (3.5: half-way through the fourth).
    `base_revision` is a commit hash, or the content hash of a local base. A field is None if the checkpoint comes from
    another trainer that did not record it. `commit` and `folder` are its place on the Hub, and not part of its
    identity. Without `answers`, it can only be asked on a machine that has the training data.

    A negative step is a ValueError.
    """

    step: int
    epoch: float | None
    base: str
    base_revision: str | None
    prompt_fingerprint: str | None
    data_fingerprint: str | None
    adapter_sha256: str
    adapter_config_sha256: str
    answers: Answers | None
    commit: str | None = field(default=None, compare=False)
    folder: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if self.step < 0:
            raise ValueError(f"step is {self.step}")

    @property
    def id(self) -> str:
        """Forty hex digits that identify this checkpoint, as a commit hash identifies a commit."""
        return hashlib.sha256(json.dumps(self._manifest(), sort_keys=True).encode()).hexdigest()[:40]

    @property
    def name(self) -> str:
        """The tag and folder name: `step-005000`."""
        return tag_name(self.step)

    def at(self, commit: str, folder: str = "") -> "Checkpoint":
        """The same checkpoint, with its place on the Hub."""
        return replace(self, commit=commit, folder=folder)

    def path(self, name: str) -> str:
        """The path of one of its files in the repository."""
        return f"{self.folder}/{name}" if self.folder else name

    @property
    def loader_arguments(self) -> str:
        """Its place on the Hub, as arguments for `from_pretrained` that can be pasted."""
        folder = f", subfolder={json.dumps(self.folder)}" if self.folder else ""
        return f'revision="{self.commit}"{folder}'

    def to_json(self) -> dict[str, Any]:
        """The manifest as JSON values, with the id and, for a checkpoint on the Hub, its commit and folder."""
        place = {} if self.commit is None else {"commit": self.commit, "folder": self.folder}
        return {"id": self.id, **self._manifest(), **place}

    def _manifest(self) -> dict[str, Any]:
        manifest = asdict(self)
        for name in ("commit", "folder"):
            del manifest[name]
        return manifest


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is measured and ranked: a checkpoint or a baseline. `id` is the checkpoint's id. A baseline has only a
    name.
    """

    name: str
    id: str | None = None
    step: int | None = None
    epoch: float | None = None

    def __post_init__(self) -> None:
        if (self.id is None) != (self.step is None) or (self.is_baseline and self.epoch is not None):
            raise ValueError(f"{self.name[:100]!r} is neither a checkpoint nor a baseline")

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Candidate":
        """The candidate for a checkpoint."""
        return cls(checkpoint.name, checkpoint.id, checkpoint.step, checkpoint.epoch)

    @property
    def key(self) -> str:
        """The name that its evaluations are kept under: the id, or the name of a baseline without blanks."""
        return self.id or self.name.replace(" + ", "-").replace(" ", "-")

    @property
    def is_baseline(self) -> bool:
        """Whether it is a baseline."""
        return self.id is None

    @property
    def order(self) -> tuple[bool, int, str]:
        """The key that sorts candidates for display and breaks ties: first baselines by name, then checkpoints by
        step.
        """
        return not self.is_baseline, self.step or 0, self.name


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a checkpoint cannot be scored. The others are scored without it.

    `name` and `id` are those of the checkpoint. Without an `id`, `name` is the place of a record that cannot be read.
    `base_revision` is the base that the adapter fails on although its files are as they were saved: it would fail there
    again. None: its files are missing or damaged, and may be put back.
    """

    name: str
    reason: str
    id: str | None = None
    base_revision: str | None = None


def tag_name(step: int) -> str:
    """The name of the checkpoint saved at a step, padded so that names sort by step."""
    return f"step-{step:06d}"


class CheckpointStore(Protocol):
    """Where a run's checkpoints are kept."""

    @property
    def location(self) -> str:
        """The place of the store for messages: a folder, or the address of a repository."""

    @property
    def is_remote(self) -> bool:
        """Whether `fetch` downloads. A local store only verifies."""

    def checkpoints(self) -> list[Checkpoint]:
        """Every complete checkpoint, sorted by step."""

    def damaged(self) -> list[Failure]:
        """The records of checkpoints that cannot be read. The other methods ignore them."""

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Save the checkpoint in `folder` (adapter and manifest). Pushing the same checkpoint again has no effect."""

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with the adapter of a checkpoint, its sha256 verified against the manifest."""

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Set the tag `name` to this checkpoint, and move it if it exists. A CheckpointError if the store does not have
        the checkpoint.
        """

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint with the tag `name`, or None."""

    def publish_pick(
        self, checkpoint: Checkpoint, render: Callable[[str, bytes | None], Mapping[str, bytes] | None]
    ) -> str | None:
        """Put the picked checkpoint where loaders look by default, with pages about it, and return the name of the
        repository; None if there is no repository, or if it was left as it is.

        `render` gets that name and the present README.md (None: there is none). It returns the pages, by their paths,
        or None to leave the repository as it is. If everything is there already, nothing changes.
        """
