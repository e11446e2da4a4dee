"""What is kept of a pick: the chosen checkpoint, by which metric, among which evaluations."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class PickRecord:
    """The checkpoint that was chosen by `metric` among the evaluations under one spec. `more` is what else was kept
    with the choice, by name: the rule, the margin, the ranking, and what other versions add.
    """

    step: int
    revision: str
    metric: str
    spec_fingerprint: str
    more: Mapping[str, Any]

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "PickRecord":
        """Read back a selection; KeyError, TypeError or ValueError where it is none."""
        own = {name: record[name] for name in ("step", "revision", "metric", "spec_fingerprint")}
        if not isinstance(own["step"], int) or not all(isinstance(own[n], str) for n in own if n != "step"):
            raise TypeError(f"{own} is no selection")
        return cls(**own, more={name: value for name, value in record.items() if name not in own})
