"""Confirmations: a chosen checkpoint's number on the test split, and who was measured there beside it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.candidates import Candidate
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.metrics import Metric


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the candidate measured on the test split under the spec of that fingerprint.

    `when` is UTC. `look` counts the measurements of the run's checkpoints on the test split up to this one: only the
    first is of a split that nobody had looked at. `before` names the checkpoints that were measured there earlier.
    """

    when: str
    candidate: Candidate
    spec_fingerprint: str
    metric: Metric
    look: int
    before: tuple[str, ...]

    @classmethod
    def of(cls, evaluation: Evaluation, metric: str, when: str, look: int, before: Iterable[str]) -> "Confirmation":
        """The confirmation by a checkpoint's evaluation on the test split."""
        return cls(
            when=when,
            candidate=evaluation.candidate,
            spec_fingerprint=evaluation.spec.fingerprint,
            metric=evaluation.metric(metric),
            look=look,
            before=tuple(dict.fromkeys(before)),
        )

    def is_of(self, checkpoint_id: str | None, spec_fingerprint: str) -> bool:
        """Whether it measured that checkpoint under that spec."""
        return (self.candidate.id, self.spec_fingerprint) == (checkpoint_id, spec_fingerprint)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Confirmation":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        candidate, metric = Candidate.from_json(record["candidate"]), Metric.from_json(record["metric"])
        return cls(**{**record, "candidate": candidate, "metric": metric, "before": tuple(record["before"])})


def looks_besides(
    evaluations: Iterable[Evaluation],
    checkpoint_id: str | None,
    spec_fingerprint: str,
    confirmations: Iterable[Confirmation] = (),
) -> list[str]:
    """The checkpoint's name for each measurement on the test split, except the one of `checkpoint_id` under that spec.

    Confirmed measurements whose evaluations are gone count as well. Baselines do not: nothing is chosen by them.
    """
    looks = {
        (e.candidate.id, e.spec.fingerprint): e.name
        for e in evaluations
        if e.spec.split is Split.TEST and not e.candidate.is_baseline
    }
    looks |= {(one.candidate.id, one.spec_fingerprint): one.candidate.name for one in confirmations}
    return [name for look, name in looks.items() if look != (checkpoint_id, spec_fingerprint)]
