"""Candidates: what is ranked and compared, be it a trained checkpoint, a soup, or a baseline."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.checkpoints import Checkpoint


@dataclass(frozen=True, slots=True)
class Candidate:
    """Who was measured. A baseline has a name and nothing else.

    `id` is the checkpoint's id. A soup is the average of the checkpoints at the steps `members`; its `step` and `epoch`
    are those of the last one. What was trained has no members.
    """

    name: str
    id: str | None = None
    step: int | None = None
    epoch: float | None = None
    members: tuple[int, ...] = ()

    @classmethod
    def of(cls, checkpoint: Checkpoint) -> "Candidate":
        """The candidate that a checkpoint or a soup is."""
        return cls(checkpoint.name, checkpoint.id, checkpoint.step, checkpoint.epoch, checkpoint.member_steps)

    @property
    def is_baseline(self) -> bool:
        """Whether nothing was trained for it."""
        return self.id is None

    @property
    def is_soup(self) -> bool:
        """Whether it is an average of checkpoints."""
        return bool(self.members)

    @property
    def order(self) -> tuple[bool, bool, int, int, str]:
        """The order in which candidates are shown and ties are broken: baselines by name, checkpoints by step, then
        soups by their last step, of equal ones the smaller soup first.
        """
        return not self.is_baseline, self.is_soup, self.step or 0, len(self.members), self.name

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Candidate":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        name, key, step, epoch = (record[field] for field in ("name", "id", "step", "epoch"))
        members = tuple(record["members"])
        is_typed = isinstance(name, str) and type(epoch) in (float, int, type(None))
        is_trained = isinstance(key, str) and type(step) is int and all(type(member) is int for member in members)
        is_baseline = (key, step, epoch, members) == (None, None, None, ())
        if not (is_typed and (is_trained or is_baseline)):
            raise TypeError(f"{str(record)[:100]} is neither a checkpoint nor a baseline")
        return cls(name, key, step, epoch, members)
