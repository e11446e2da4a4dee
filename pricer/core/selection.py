"""Selection: which checkpoint is chosen, how certain the choice is, and its confirmation on the test split."""

from collections.abc import Collection, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace

from pricer.core.breakdowns import NearCopies
from pricer.core.checkpoints import Candidate
from pricer.core.comparison import Comparison, compare_to_best
from pricer.core.evaluation import Evaluation, ScoreTable
from pricer.core.halving import RaceRecord
from pricer.core.intervals import CoverageReport
from pricer.core.items import Split
from pricer.core.metrics import Metric, choosing_metrics
from pricer.errors import RunError


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice of the best checkpoint by `metric`, which is the first in `ranking`. `comparison` is None if there is
    only one checkpoint, only one item, or no scores.
    """

    metric: str
    ranking: tuple[Evaluation, ...]
    comparison: Comparison | None = None

    @property
    def chosen(self) -> Evaluation:
        """The evaluation of the chosen checkpoint."""
        return self.ranking[0]

    @property
    def candidate(self) -> Candidate:
        """The chosen checkpoint."""
        return self.chosen.candidate

    @property
    def spec_fingerprint(self) -> str:
        """The fingerprint of the spec of all evaluations."""
        return self.chosen.spec.fingerprint

    @property
    def margin(self) -> float | None:
        """How much better the first is than the second, in the metric's unit. None if there is no second."""
        if len(self.ranking) < 2:
            return None
        return _rank(self.ranking[1], self.metric)[0] - _rank(self.ranking[0], self.metric)[0]

    @property
    def options(self) -> str:
        """The option that makes `pricer pick` repeat this choice, such as ` --metric rmsle`. Empty for the default."""
        return "" if self.metric == "mae" else f" --metric {self.metric}"

    @property
    def record(self) -> "PickRecord":
        """The choice as it is saved."""
        ranking = tuple(Ranked(e.candidate, e.metric(self.metric)) for e in self.ranking)
        return PickRecord(self.candidate, self.metric, self.margin, self.spec_fingerprint, ranking, self.comparison)


@dataclass(frozen=True, slots=True)
class Ranked:
    """One candidate of a ranking, with the metric that ranks it."""

    candidate: Candidate
    metric: Metric


@dataclass(frozen=True, slots=True)
class PickRecord:
    """A Selection as it is saved, with the candidate and the metric of each evaluation. Raises a ValueError if its
    fields cannot come from a Selection.
    """

    candidate: Candidate
    metric: str
    margin: float | None
    spec_fingerprint: str
    ranking: tuple[Ranked, ...]
    comparison: Comparison | None

    def __post_init__(self) -> None:
        if self.candidate.is_baseline:
            raise ValueError(f"{self.candidate.name} is a baseline")
        if self.metric not in choosing_metrics():
            raise ValueError(f"no checkpoint is chosen by {self.metric}")


def select(evaluations: Sequence[Evaluation], metric: str, tables: Mapping[str, ScoreTable] | None = None) -> Selection:
    """Choose the checkpoint that is best by `metric`. `tables` has the scores of each evaluation, by checkpoint id;
    without it, there is no comparison. Ties and errors are those of `rank_evaluations`.
    """
    ranking = rank_evaluations(evaluations, metric)
    if not tables:
        return Selection(metric, ranking)
    in_order = sorted(ranking, key=lambda e: e.candidate.order)
    comparison = compare_to_best(
        candidates=[e.candidate for e in in_order],
        tables=[tables[e.candidate.id or ""] for e in in_order],
        metric=metric,
        best=in_order.index(ranking[0]),
    )
    return Selection(metric, ranking, comparison)


def rank_evaluations(evaluations: Sequence[Evaluation], metric: str) -> tuple[Evaluation, ...]:
    """The evaluations of checkpoints, the best by `metric` first. Ties are in the order of candidates.

    Raises a RunError if there are none, if specs differ, or if the metric is undefined. Without validation items it is
    a RunError too: choosing on the test split would bias the winner's number.
    """
    kept = [e for e in evaluations if not e.candidate.is_baseline]
    if not kept:
        raise RunError("no checkpoint has been evaluated yet", "pricer eval --all-checkpoints")
    if (splits := {e.spec.split for e in kept}).isdisjoint({Split.VAL}):
        problem = "a checkpoint is not chosen on the test split: the number to publish would be part of the choice"
        if Split.TEST not in splits:
            problem = "a checkpoint is chosen on the run's own validation items, and not on other data"
        raise RunError(problem, "pricer eval --all-checkpoints --split val")
    if len({e.spec.fingerprint for e in kept}) > 1:
        raise RunError("these evaluations were made under different specs and cannot be ranked together")
    undefined = [e.name for e in kept if e.metric(metric).value is None]
    if undefined:
        raise RunError(f"{metric} is undefined for {', '.join(undefined)}", "choose another --metric")
    return tuple(sorted(kept, key=lambda e: _rank(e, metric)))


def _rank(evaluation: Evaluation, metric: str) -> tuple[float, tuple[bool, int, str]]:
    measured = evaluation.metric(metric)
    assert measured.value is not None  # `rank_evaluations` has refused None
    return (measured.value if measured.better == "lower" else -measured.value), evaluation.candidate.order


def find_comparable(
    evaluations: Sequence[Evaluation],
    kept: Collection[str],
    estimator: str = "auto",
    dropped: Mapping[str, Set[str]] | None = None,
) -> list[Evaluation]:
    """The evaluations to choose from: the first group of `by_preference`, empty if there is no group. A RunError if the
    group does not cover every evaluated checkpoint.
    """
    groups = by_preference(evaluations, kept, estimator, dropped)
    if not groups:
        return []
    if not _covered(groups[0], dropped) >= {e.candidate.id for group in groups for e in group}:
        steps = "; ".join(
            f"{group[0].spec.limit or 'all'} items: steps {', '.join(str(e.candidate.step) for e in group)}"
            for group in groups
        )
        raise RunError(
            f"no one spec covers every evaluated checkpoint, and different specs are not comparable ({steps})",
            "pricer eval --all-checkpoints",
        )
    return groups[0]


def by_preference(
    evaluations: Sequence[Evaluation],
    kept: Collection[str],
    estimator: str = "auto",
    dropped: Mapping[str, Set[str]] | None = None,
) -> list[list[Evaluation]]:
    """The complete validation evaluations of trained checkpoints, grouped by spec, the preferred spec first.

    Only checkpoints whose ids are in `kept` count, because the weights of others are deleted. Specs are ordered by the
    number of covered checkpoints, then by the number of items, then by whether they use `estimator` (`auto`: any
    estimator except greedy). A checkpoint that dropped out of a race counts as covered, because the race compared it.
    `dropped` has the ids of these checkpoints by the fingerprint of the race's spec.
    """
    by_spec: dict[str, list[Evaluation]] = {}
    for e in evaluations:
        if e.candidate.id in kept and e.spec.split is Split.VAL and e.is_complete:
            by_spec.setdefault(e.spec.fingerprint, []).append(e)
    evaluated = {e.candidate.id for group in by_spec.values() for e in group}

    def preference(group: Sequence[Evaluation]) -> tuple[int, int, bool]:
        used = group[0].spec.estimator
        is_preferred = used != "greedy" if estimator == "auto" else used == estimator
        return len(_covered(group, dropped) & evaluated), group[0].metric("mae").n, is_preferred

    return sorted(by_spec.values(), key=preference, reverse=True)


def _covered(group: Sequence[Evaluation], dropped: Mapping[str, Set[str]] | None) -> Set[str | None]:
    """The ids of the checkpoints that a group of evaluations under one spec covers."""
    return {e.candidate.id for e in group} | (dropped or {}).get(group[0].spec.fingerprint, frozenset())


def dropped_ids(race: RaceRecord | None) -> dict[str, Set[str]]:
    """The ids of the checkpoints that dropped out of a race, by the fingerprint of its spec."""
    return {race.spec_fingerprint: frozenset(one.id for one in race.dropped)} if race else {}


@dataclass(frozen=True, slots=True)
class Confirmation:
    """The metric of a chosen candidate on the test split, measured at `when` (UTC).

    `look` is the number of this measurement among all measurements of the run's checkpoints on the test split. Only the
    first one is on an unseen split. `before` names the checkpoints that were measured earlier. `coverage` is how often
    the intervals held there; empty without intervals. `near_copies` says what the test items with a near-copy among the
    training items change; None if there are none.
    """

    when: str
    candidate: Candidate
    spec_fingerprint: str
    metric: Metric
    look: int
    before: tuple[str, ...]
    coverage: tuple[CoverageReport, ...] = ()
    near_copies: NearCopies | None = None

    def is_of(self, checkpoint_id: str | None, spec_fingerprint: str) -> bool:
        """Whether it measured that checkpoint under that spec."""
        return (self.candidate.id, self.spec_fingerprint) == (checkpoint_id, spec_fingerprint)


def other_test_looks(
    evaluations: Iterable[Evaluation],
    checkpoint_id: str | None,
    spec_fingerprint: str,
    confirmations: Iterable[Confirmation] = (),
) -> list[str]:
    """The checkpoint's name for each measurement on the test split, except the measurement of `checkpoint_id` under
    that spec.

    Confirmed measurements count even if their evaluations were deleted. Baselines do not count.
    """
    looks = {
        (e.candidate.id, e.spec.fingerprint): e.name
        for e in evaluations
        if e.spec.split is Split.TEST and not e.candidate.is_baseline
    }
    looks |= {(one.candidate.id, one.spec_fingerprint): one.candidate.name for one in confirmations}
    return [name for look, name in looks.items() if look != (checkpoint_id, spec_fingerprint)]


def find_test_evaluation(chosen: Evaluation, evaluations: Iterable[Evaluation]) -> Evaluation | None:
    """The evaluation of the chosen checkpoint on the test split, otherwise under the same spec. Of several, it is the
    one with the most items. None if there is none.
    """
    alike = [
        e
        for e in evaluations
        if e.candidate.id == chosen.candidate.id
        and e.spec.split is Split.TEST
        and replace(e.spec, split=chosen.spec.split, limit=chosen.spec.limit) == chosen.spec
    ]
    return max(alike, key=lambda e: e.metric("mae").n, default=None)
