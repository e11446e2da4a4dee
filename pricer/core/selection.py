"""Selection: which checkpoint to use, among which evaluations, and how sure that is."""

from collections.abc import Collection, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.candidates import Candidate
from pricer.core.comparison import Comparison, compare_to_best
from pricer.core.evaluation import Evaluation
from pricer.core.halving import RaceRecord
from pricer.core.items import Split
from pricer.core.metrics import choosing_metrics
from pricer.core.scores import ScoreTable
from pricer.errors import RunError


@dataclass(frozen=True, slots=True)
class Selection:
    """The choice of the best checkpoint by `metric`: the first of `ranking`, which has the best first. `comparison` is
    None where nothing can be compared: with one checkpoint, one item, or without scores.
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
        """The fingerprint of the spec under which all were evaluated."""
        return self.chosen.spec.fingerprint

    @property
    def margin(self) -> float | None:
        """How much better the first is than the second, in the metric's unit and never negative; None if there is but
        one.
        """
        if len(self.ranking) < 2:
            return None
        return _rank(self.ranking[1], self.metric)[0] - _rank(self.ranking[0], self.metric)[0]

    @property
    def options(self) -> str:
        """The options with which `pricer pick` makes this choice again: ` --metric rmsle`, or nothing."""
        parts = [f" --metric {self.metric}"] if self.metric != "mae" else []
        parts += [" --candidates soup"] if any(e.candidate.is_soup for e in self.ranking) else []
        return "".join(parts)

    def to_json(self) -> dict[str, Any]:
        """As JSON values; of the ranking who was measured, and the metric alone."""
        return {
            "candidate": self.candidate.to_json(),
            "metric": self.metric,
            "margin": self.margin,
            "spec_fingerprint": self.spec_fingerprint,
            "ranking": [
                {"candidate": e.candidate.to_json(), "metric": asdict(e.metric(self.metric))} for e in self.ranking
            ],
            "comparison": self.comparison.to_json() if self.comparison else None,
        }


@dataclass(frozen=True, slots=True)
class PickRecord:
    """What is read back of a written Selection: the chosen checkpoint, the metric, the spec, and the comparison."""

    candidate: Candidate
    metric: str
    spec_fingerprint: str
    comparison: Comparison | None

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "PickRecord":
        """Read back what `Selection.to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        candidate = Candidate.from_json(record["candidate"])
        if candidate.is_baseline or not isinstance(record["spec_fingerprint"], str):
            raise TypeError(f"{str(record)[:100]} is no selection")
        if record["metric"] not in choosing_metrics():
            raise ValueError(f"no checkpoint is chosen by {record['metric']}")
        comparison = record["comparison"]
        return cls(
            candidate=candidate,
            metric=record["metric"],
            spec_fingerprint=record["spec_fingerprint"],
            comparison=None if comparison is None else Comparison.from_json(comparison),
        )


def select(evaluations: Sequence[Evaluation], metric: str, tables: Mapping[str, ScoreTable] | None = None) -> Selection:
    """Choose the checkpoint that is best by `metric`. A tie goes to the earlier step, and to what was trained before
    soups. `tables` are the scores behind the evaluations by checkpoint id, on the same items in the same order; without
    them nothing is compared.

    Refuses, with a RunError, what `ranked` refuses.
    """
    ranking = ranked(evaluations, metric)
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


def ranked(evaluations: Sequence[Evaluation], metric: str) -> tuple[Evaluation, ...]:
    """The evaluations of checkpoints and soups, the best by `metric` first; equal ones in the order of candidates.

    Refuses, with a RunError, what would not be honest: no evaluation of a checkpoint, evaluations under different
    specs (their numbers are not comparable), and the test split (the winner's number would be its own selection bias).
    """
    kept = [e for e in evaluations if not e.candidate.is_baseline]
    if not kept:
        raise RunError("no checkpoint has been evaluated yet", "pricer eval --all-checkpoints")
    if len({e.spec.fingerprint for e in kept}) > 1:
        raise RunError("these evaluations were made under different specs and cannot be ranked together")
    if kept[0].spec.split is Split.TEST:
        raise RunError(
            "a checkpoint is not chosen on the test split: the number to publish would be part of the choice",
            "pricer eval --all-checkpoints --split val",
        )
    undefined = [e.name for e in kept if e.metric(metric).value is None]
    if undefined:
        raise RunError(f"{metric} is undefined for {', '.join(undefined)}", "choose another --metric")
    return tuple(sorted(kept, key=lambda e: _rank(e, metric)))


def _rank(evaluation: Evaluation, metric: str) -> tuple[float, tuple[bool, bool, int, int, str]]:
    measured = evaluation.metric(metric)
    assert measured.value is not None  # refused before
    return (measured.value if measured.better == "lower" else -measured.value), evaluation.candidate.order


def comparable(
    evaluations: Sequence[Evaluation],
    kept: Collection[str],
    estimator: str = "auto",
    dropped: Mapping[str, Set[str]] | None = None,
) -> list[Evaluation]:
    """The evaluations to choose from: the first group of `by_preference`; none if there is no group. A RunError if it
    does not cover every checkpoint, for checkpoints measured under different specs cannot be ranked.
    """
    groups = by_preference(evaluations, kept, estimator, dropped)
    if not groups:
        return []
    if not _covered(groups[0], dropped) >= {e.candidate.id for own in groups for e in own}:
        found = "; ".join(
            f"{own[0].spec.limit or 'all'} items: steps {', '.join(str(e.candidate.step) for e in own)}"
            for own in groups
        )
        raise RunError(
            f"no one spec covers every evaluated checkpoint, and different specs are not comparable ({found})",
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

    `kept` are the ids of the checkpoints whose weights are kept: others cannot be chosen. The preferred spec covers the
    most checkpoints; of several such specs, it has the most items; of those, it is by `estimator` (`auto`: by any but
    greedy). Checkpoints that dropped out of a race were compared there, so they count as covered (`dropped`: their ids
    by the fingerprint of the race's spec).
    """
    by_spec: dict[str, list[Evaluation]] = {}
    for evaluation in evaluations:
        candidate = evaluation.candidate
        if (
            evaluation.spec.split is Split.VAL
            and evaluation.is_complete
            and candidate.id in kept
            and not candidate.is_soup
        ):
            by_spec.setdefault(evaluation.spec.fingerprint, []).append(evaluation)
    everyone = {e.candidate.id for own in by_spec.values() for e in own}

    def preference(own: Sequence[Evaluation]) -> tuple[int, int, bool]:
        used = own[0].spec.estimator
        is_preferred = used != "greedy" if estimator == "auto" else used == estimator
        return len(_covered(own, dropped) & everyone), own[0].metric("mae").n, is_preferred

    return sorted(by_spec.values(), key=preference, reverse=True)


def _covered(own: Sequence[Evaluation], dropped: Mapping[str, Set[str]] | None) -> Set[str | None]:
    return {e.candidate.id for e in own} | (dropped or {}).get(own[0].spec.fingerprint, frozenset())


def dropped_ids(race: RaceRecord | None) -> dict[str, Set[str]]:
    """The ids of the checkpoints that dropped out of a race, by the fingerprint of its spec."""
    return {race.spec_fingerprint: frozenset(one.id for one in race.dropped)} if race else {}
