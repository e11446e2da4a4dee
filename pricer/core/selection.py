"""Selection: which checkpoint to use, by which rule, by how much it won, and how sure that is."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.comparison import Evidence, Rule, chosen_by, weigh
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.scores import Scores
from pricer.errors import RunError


@dataclass(frozen=True, slots=True)
class Selection:
    """The chosen checkpoint. `ranking` has the best first, which the rule `lowest` chooses; `margin` is how much better
    the first is than the second, in the metric's unit and never negative; None where there is only one. `evidence` is
    None where there is none: of one checkpoint, of one item, or without scores. `members` are the steps of a soup, of
    which `step` is the last; empty where what was trained is chosen.
    """

    step: int
    revision: str
    rule: Rule
    metric: str
    margin: float | None
    spec_fingerprint: str
    ranking: tuple[Evaluation, ...]
    evidence: Evidence | None = None
    members: tuple[int, ...] = ()

    @property
    def chosen(self) -> Evaluation:
        """The evaluation of the chosen checkpoint."""
        return next(e for e in self.ranking if e.revision == self.revision)

    @property
    def options(self) -> str:
        """What `pricer pick` has to be given to choose like this again: ` --metric rmsle`, or nothing."""
        parts = [f"--metric {self.metric}"] if self.metric != "mae" else []
        if self.rule != "lowest":
            parts.append(f"--rule {self.rule}")
        if any(e.members for e in self.ranking):
            parts.append("--candidates soup")
        return "".join(f" {part}" for part in parts)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; the ranking as step, revision and the metric alone. Only a soup has members."""
        record = asdict(self)
        record["ranking"] = [
            {"step": e.step, "members": e.members, "revision": e.revision, **asdict(e.metric(self.metric))}
            for e in self.ranking
        ]
        standings = record["evidence"]["standings"] if record["evidence"] else ()
        for one in (record, *record["ranking"], *standings):
            if not one["members"]:
                del one["members"]
        return record


def select(
    evaluations: Sequence[Evaluation], metric: str, rule: Rule = "lowest", scores: Mapping[str, Scores] | None = None
) -> Selection:
    """Choose a checkpoint by `metric` and `rule`: the best (`lowest`, as errors are; a tie goes to the earlier step),
    the `earliest` that cannot be told apart from it, or the earliest within one standard error of it (`one-se`). Soups
    come after all that was trained, in a tie too, and among themselves by their last step.
    `scores`, by revision, are those of the evaluations, on the same items in the same order; without them there is no
    evidence, and no rule but `lowest`.

    Refuses, with a RunError, what `ranked` refuses.
    """
    ranking = ranked(evaluations, metric)
    best, chosen = ranking[0], ranking[0]
    evidence = _evidence(ranking, metric, rule, scores) if scores else None
    if evidence:
        standing = chosen_by(rule, evidence.standings, evidence.standard_error)
        chosen = next(e for e in ranking if (e.step, e.members) == (standing.step, standing.members))
    elif rule != "lowest" and len(ranking) > 1:
        raise RunError(f"there are too few scores to choose by {rule}", "--rule lowest")
    assert chosen.step is not None  # ranked are checkpoints
    assert chosen.revision is not None
    return Selection(
        step=chosen.step,
        revision=chosen.revision,
        rule=rule,
        metric=metric,
        margin=_rank(ranking[1], metric)[0] - _rank(best, metric)[0] if len(ranking) > 1 else None,
        spec_fingerprint=best.spec.fingerprint,
        ranking=ranking,
        evidence=evidence,
        members=chosen.members,
    )


def ranked(evaluations: Sequence[Evaluation], metric: str) -> tuple[Evaluation, ...]:
    """The evaluations of checkpoints, the best by `metric` first; of equal ones the earlier step, and soups
    after all others.

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
    return tuple(sorted(candidates, key=lambda e: _rank(e, metric)))


def _evidence(ranking: Sequence[Evaluation], metric: str, rule: Rule, scores: Mapping[str, Scores]) -> Evidence | None:
    by_step = sorted(ranking, key=_order)
    return weigh(
        steps=[e.step or 0 for e in by_step],
        scores=[scores[e.revision or ""] for e in by_step],
        metric=metric,
        better=ranking[0].metric(metric).better,
        best=by_step.index(ranking[0]),
        rule=rule,
        members=[e.members for e in by_step],
    )


def _rank(evaluation: Evaluation, metric: str) -> tuple[float, tuple[bool, int, int]]:
    measured = evaluation.metric(metric)
    assert measured.value is not None  # refused before
    return (measured.value if measured.better == "lower" else -measured.value), _order(evaluation)


def _order(evaluation: Evaluation) -> tuple[bool, int, int]:
    """The earliest first; soups last, of those with the same last step the smaller first."""
    assert evaluation.step is not None  # of a checkpoint
    return bool(evaluation.members), evaluation.step, len(evaluation.members)
