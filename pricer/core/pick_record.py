"""What is kept of a pick: the chosen checkpoint, by which metric, among which evaluations, and how sure it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pricer.core.comparison import Evidence
from pricer.core.metrics import METRICS


@dataclass(frozen=True, slots=True)
class PickRecord:
    """The checkpoint that was chosen by `metric` among the evaluations under one spec. `evidence` is None where none
    was kept: by an earlier version, of a single checkpoint, or by a hand that left something else there.
    """

    step: int
    revision: str
    metric: str
    spec_fingerprint: str
    evidence: Evidence | None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "PickRecord":
        """Read back a selection; KeyError, TypeError or ValueError where it is none. What else was kept with it, the
        rule, the margin, the ranking, and what other versions add, is left out.
        """
        own = {name: record[name] for name in ("step", "revision", "metric", "spec_fingerprint")}
        if not isinstance(own["step"], int) or not all(isinstance(own[n], str) for n in own if n != "step"):
            raise TypeError(f"{own} is no selection")
        if own["metric"] not in METRICS:
            raise ValueError(f"there is no metric {own['metric']}")
        return cls(**own, evidence=_evidence(record.get("evidence")))


def _evidence(record: Any) -> Evidence | None:
    """The choice stands without it."""
    try:
        return Evidence.from_json(record)
    except (KeyError, TypeError, ValueError):
        return None
