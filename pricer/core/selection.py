"""Selection: which checkpoint to use, by which rule, and by how much it won."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.errors import RunError

Rule = Literal["lowest"]


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen checkpoint. `ranking` has the best first; `margin` is how much better the first is than the second,
    in the metric's unit and never negative; None where there is only one.
    """

    step: int
    revision: str
    rule: Rule
    metric: str
    margin: float | None
    spec_fingerprint: str
    ranking: tuple[Evaluation, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the ranking as step, revision and the metric alone."""
        record = asdict(self)
        record["ranking"] = [
            {"step": e.step, "revision": e.revision, **asdict(e.metric(self.metric))} for e in self.ranking
        ]
        return record


def select(evaluations: Sequence[Evaluation], metric: str, rule: Rule = "lowest") -> Selection:
    """Choose the checkpoint that is best by `metric`; a tie goes to the earlier step.

    Refuses, with a RunError, what would not be honest: no evaluation of a checkpoint, evaluations under different
    specs (their numbers are not comparable), and the test split (the winner's number would be its own selection bias).
    """
    candidates = [e for e in evaluations if e.revision is not None]
    if not candidates:
        raise RunError("no checkpoint has been evaluated yet", "pricer eval --all-checkpoints")
    if len({e.spec.fingerprint for e in candidates}) > 1:
        raise RunError("these evaluations were made under different specs and cannot be ranked together")
    if candidates[0].spec.split is Split.TEST:
        raise RunError(
            "a checkpoint is not chosen on the test split: the number to publish would be part of the choice",
            "pricer eval --all-checkpoints --split val",
        )
    undefined = [e.name for e in candidates if e.metric(metric).value is None]
    if undefined:
        raise RunError(f"{metric} is undefined for {', '.join(undefined)}", "choose another --metric")
    ranking = tuple(sorted(candidates, key=lambda e: _rank(e, metric)))
    best = ranking[0]
    assert best.step is not None  # candidates are checkpoints
    assert best.revision is not None
    return Selection(
        step=best.step,
        revision=best.revision,
        rule=rule,
        metric=metric,
        margin=_rank(ranking[1], metric)[0] - _rank(best, metric)[0] if len(ranking) > 1 else None,
        spec_fingerprint=best.spec.fingerprint,
        ranking=ranking,
    )


def _rank(evaluation: Evaluation, metric: str) -> tuple[float, int]:
    measured = evaluation.metric(metric)
    assert measured.value is not None  # refused before
    assert evaluation.step is not None
    return (measured.value if measured.better == "lower" else -measured.value), evaluation.step
