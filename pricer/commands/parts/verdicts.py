"""The verdicts on a run, from its records. Without torch, model and data."""

from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any

import numpy as np

from pricer.commands.parts.checkpoints import load_scores
from pricer.core.checkpoints import Candidate
from pricer.core.comparison import Comparison, Lead, measure_lead
from pricer.core.data_summary import DataSummary
from pricer.core.evaluation import Evaluation
from pricer.core.held_out import HeldOutCheck
from pricer.core.intervals import CoverageReport
from pricer.core.items import Split
from pricer.core.selection import Confirmation, dropped_ids, find_test_evaluation, other_test_looks, select
from pricer.core.verdicts import (
    CutVerdict,
    LookVerdict,
    Verdict,
    judge_baselines,
    judge_curve,
    judge_intervals,
    judge_looks,
)
from pricer.stores.runs import Run


def judge_choice(
    run: Run,
    chosen: Evaluation,
    metric: str,
    comparison: Comparison | None,
    scored: Sequence[Evaluation],
    test: Evaluation | None,
    coverage: Sequence[CoverageReport] | None = None,
) -> tuple[Verdict, ...]:
    """The verdicts on the checkpoint that was `chosen` by `metric` from the evaluations that were `scored` on the same
    validation items. `test` is its evaluation on test items; None: the verdicts are about the validation items.
    `coverage` is measured on the test items; None: it is the one that was recorded when the pick was confirmed.

    Items that may have been trained on say nothing of the curve, of intervals, and of the number to publish.
    """
    dropped = find_dropped(run, chosen, [e.candidate for e in scored])
    last = max(e.candidate.step or 0 for e in scored)
    not_scored = dropped | {failure.id for failure in run.evaluations.failures()}
    later = sum(c.step > last and c.id not in not_scored for c in run.store.checkpoints())
    curve = judge_curve(chosen, metric, comparison, scored=len(scored), later=later, dropped=len(dropped))
    if coverage is None:
        coverage = [held for one in _confirmations_of(run, test)[-1:] for held in one.coverage]
    is_held_out = _is_held_out(run)
    return _in_order(
        judge_baselines(
            test or chosen,
            _median_price(run, test or chosen),
            load_leads(run, test or chosen),
            # A race also chose, by the checkpoints that were not compared.
            comparison=comparison if metric == "mae" and not dropped else None,
            was_chosen=test is None and len(scored) + len(dropped) > 1,
            is_held_out=is_held_out,
        ),
        curve if is_held_out else None,
        _judge_cut(run, test or chosen),
        judge_intervals(Split.TEST, coverage) if test and is_held_out else None,
        _judge_looks(run, chosen, test) if is_held_out else None,
    )


def judge_scored(
    run: Run,
    which: str,
    evaluations: Sequence[Evaluation],
    coverage: Sequence[CoverageReport],
    *,
    is_held_out: bool | None = None,
) -> tuple[Verdict, ...]:
    """The verdicts after `pricer eval`, which evaluated the checkpoints that `which` names. See `judge_evaluation` for
    `coverage` and `is_held_out`.

    With validation items, and all checkpoints, they are about the checkpoint with the lowest mean absolute error. Test
    items and other data choose nothing: then they are about the picked checkpoint, and empty if there is none. A
    RunError if a record of the run is damaged, or if the scores cannot be compared.
    """
    scored = [e for e in evaluations if not e.candidate.is_baseline]
    if which == "all" and scored[0].spec.split is Split.VAL:
        selection = select(scored, "mae", load_scores(run, scored))
        test = find_test_evaluation(selection.chosen, run.evaluations.all())
        return judge_choice(run, selection.chosen, "mae", selection.comparison, scored, test)
    pick = run.selection()
    named = scored if len(scored) == 1 else [e for e in scored if pick and e.candidate.id == pick.candidate.id]
    return judge_evaluation(run, named[0], coverage, is_held_out=is_held_out) if named else ()


def judge_evaluation(
    run: Run, shown: Evaluation, coverage: Sequence[CoverageReport], *, is_held_out: bool | None = None
) -> tuple[Verdict, ...]:
    """The verdicts on one checkpoint from one evaluation of it, which need not be on validation items. `coverage` is
    measured on its items. `is_held_out`: whether these are known to be held out; None: as run.json says.
    """
    pick = run.selection()
    if pick and (pick.candidate.id, pick.spec_fingerprint) != (shown.candidate.id, shown.spec.fingerprint):
        pick = None  # these items did not choose this checkpoint
    dropped = find_dropped(run, shown, [one.candidate for one in pick.ranking]) if pick else frozenset()
    is_held_out = _is_held_out(run) if is_held_out is None else is_held_out
    return _in_order(
        judge_baselines(
            shown,
            _median_price(run, shown),
            load_leads(run, shown),
            comparison=pick.comparison if pick and pick.metric == "mae" and not dropped else None,
            was_chosen=pick is not None and len(pick.ranking) + len(dropped) > 1,
            is_held_out=is_held_out,
        ),
        _judge_cut(run, shown),
        judge_intervals(shown.spec.split, coverage) if shown.spec.split is not Split.VAL and is_held_out else None,
        _judge_looks(run, shown, shown) if shown.spec.split is Split.TEST and is_held_out else None,
    )


def load_leads(run: Run, shown: Evaluation) -> list[Lead]:
    """The lead of a checkpoint over each baseline that was scored on the same items, if the scores of both are kept."""
    scores, found = run.evaluations.scores(shown.candidate.key, shown.spec), []
    for baseline in run.evaluations.all():
        if scores is None or not baseline.candidate.is_baseline or baseline.spec != shown.spec:
            continue
        others = run.evaluations.scores(baseline.candidate.key, baseline.spec)
        if others is not None and (lead := measure_lead(scores, others, baseline.name)):
            found.append(lead)
    return found


def find_dropped(run: Run, shown: Evaluation, scored: Iterable[Candidate]) -> Set[str]:
    """The ids of the checkpoints that dropped out of a race on the items of `shown`, without those that were `scored`
    since.
    """
    return dropped_ids(run.race()).get(shown.spec.fingerprint, frozenset()) - {one.id for one in scored}


def _in_order(*verdicts: Verdict | None) -> tuple[Verdict, ...]:
    return tuple(verdict for verdict in verdicts if verdict)


def _median_price(run: Run, shown: Evaluation) -> float:
    """The median of the true prices; the median training price if the scores are gone."""
    scores = run.evaluations.scores(shown.candidate.key, shown.spec)
    return shown.spec.fallback if scores is None else float(np.median(scores.price))


def _is_held_out(run: Run) -> bool:
    check = HeldOutCheck.from_fact(run.facts().get("held_out"))
    return check is None or check.known


def _judge_cut(run: Run, shown: Evaluation) -> CutVerdict | None:
    """None if no description is cut as far as known, and few rows were left out."""
    facts = run.facts()
    train, scored = (_share(facts.get(f"cut_{which}")) for which in (Split.TRAIN, shown.spec.split))
    left_out, rows = _count_left_out(facts)
    max_length = run.config().prompt.max_length
    verdict = CutVerdict(None if max_length == "auto" else max_length, shown.spec.split, train, scored, left_out, rows)
    return verdict if verdict.is_cut or verdict.lacks_rows else None


def _share(fact: Any) -> float | None:
    """A share that run.json has. It may come from a repository, so any other value is ignored."""
    return float(fact) if type(fact) in (float, int) and 0 <= fact <= 1 else None


def _count_left_out(facts: Mapping[str, Any]) -> tuple[int, int]:
    """The rows of the source that were left out, and all of its rows; 0 and 0 if unknown."""
    try:
        summary = DataSummary.from_record(facts["data"])
        left_out, rows = int(sum(summary.rejected.values()) + sum(summary.dropped.values())), int(summary.rows)
    except (AttributeError, KeyError, OverflowError, TypeError, ValueError):
        return 0, 0
    return (left_out, rows) if 0 <= left_out <= rows else (0, 0)


def _judge_looks(run: Run, chosen: Evaluation, test: Evaluation | None) -> LookVerdict:
    """A confirmation recorded the looks before it. Without one, every other look may have been before."""
    if recorded := _confirmations_of(run, test):
        return judge_looks(is_scored=True, before=recorded[-1].look - 1, others=recorded[-1].before)
    spec = test.spec.fingerprint if test else ""
    others = other_test_looks(run.evaluations.all(), chosen.candidate.id, spec, run.confirmations())
    return judge_looks(is_scored=test is not None, before=len(others), others=others)


def _confirmations_of(run: Run, test: Evaluation | None) -> list[Confirmation]:
    return [one for one in run.confirmations() if test and one.is_of(test.candidate.id, test.spec.fingerprint)]
