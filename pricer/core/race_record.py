"""What is kept of a race: who dropped out, when, why, and how much work it took."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pricer.core.checkpoints import tag_name


@dataclass(frozen=True, slots=True)
class Dropout:
    """A checkpoint that left a race after `n` items, with a mean absolute error `margin` dollars above that of the
    `leader`, a step. It was `beaten` where `at_least`, how much worse it is in truth at the race's error rate, is above
    0; else `cut` to keep within the budget. `at_least` is None under 100 items.
    """

    step: int
    revision: str
    n: int
    leader: int
    margin: float
    at_least: float | None
    why: Literal["beaten", "cut"]

    @property
    def name(self) -> str:
        """The name of the checkpoint."""
        return tag_name(self.step)


@dataclass(frozen=True, slots=True)
class RaceRecord:
    """A race under one EvalSpec over so many `items`.

    `stops` are the items after which it was decided who goes on, those of earlier races under the spec among them:
    batches were made up to there. `winner` is a revision, None as long as the winner is not scored on all items;
    `dropped` has those who went first first. `share_of_work` is what was scored for it, the winner's last items
    included, as a share of every candidate on every item.
    """

    spec_fingerprint: str
    alpha: float
    budget: float | None
    items: int
    stops: tuple[int, ...]
    winner: str | None
    dropped: tuple[Dropout, ...]
    share_of_work: float

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "RaceRecord":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        dropped = tuple(Dropout(**one) for one in record["dropped"])
        return cls(**{**record, "stops": tuple(record["stops"]), "dropped": dropped})
