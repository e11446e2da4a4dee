"""Confirmations: a chosen checkpoint's number on the test split, and who was measured there beside it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.evaluation import Evaluation
from pricer.core.items import Split


@dataclass(frozen=True, slots=True)
class Confirmation:
    """What the checkpoint of that name and revision measured on `n` test items under the spec of that fingerprint.

    `when` is UTC. `look` counts the measurements of the run's checkpoints on the test split up to this one: only the
    first is of a split that nobody had looked at. `before` names the checkpoints that were measured there earlier.
    """

    when: str
    name: str
    step: int
    revision: str
    spec_fingerprint: str
    metric: str
    value: float | None
    interval: tuple[float, float] | None
    n: int
    look: int
    before: tuple[str, ...]

    @classmethod
    def of(cls, evaluation: Evaluation, metric: str, when: str, look: int, before: Iterable[str]) -> "Confirmation":
        """The confirmation by a checkpoint's evaluation on the test split."""
        assert evaluation.step is not None  # of a checkpoint
        assert evaluation.revision is not None
        measured = evaluation.metric(metric)
        return cls(
            when=when,
            name=evaluation.name,
            step=evaluation.step,
            revision=evaluation.revision,
            spec_fingerprint=evaluation.spec.fingerprint,
            metric=metric,
            value=measured.value,
            interval=measured.interval,
            n=measured.n,
            look=look,
            before=tuple(dict.fromkeys(before)),
        )

    def is_of(self, revision: str, spec_fingerprint: str) -> bool:
        """Whether it is that checkpoint's, under that spec."""
        return (self.revision, self.spec_fingerprint) == (revision, spec_fingerprint)

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Confirmation":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        interval = tuple(record["interval"]) if record["interval"] else None
        return cls(**{**record, "interval": interval, "before": tuple(record["before"])})


def looks_besides(
    evaluations: Iterable[Evaluation], revision: str, spec_fingerprint: str, confirmations: Iterable[Confirmation] = ()
) -> list[str]:
    """The name of the checkpoint for each measurement on the test split but the one of that revision under that spec:
    those that there are evaluations of, and those that were confirmed and whose evaluations are gone. Baselines are
    none: nothing is chosen by them.
    """
    looks = {
        (e.revision, e.spec.fingerprint): e.name
        for e in evaluations
        if e.spec.split is Split.TEST and e.revision is not None
    }
    looks |= {(one.revision, one.spec_fingerprint): one.name for one in confirmations}
    return [name for look, name in looks.items() if look != (revision, spec_fingerprint)]
