"""`pricer eval --race`: checkpoints are scored on some items, the better half of them on more, until one is left."""

from collections.abc import Sequence

from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.checkpoints import Candidate, Checkpoint, tag_name
from pricer.core.evaluation import Evaluation, score_predictions
from pricer.core.halving import Dropout, RaceRecord, Round, drop_worst, plan_rounds
from pricer.core.predictions import Prediction
from pricer.errors import RunError


def race_checkpoints(
    session: EvaluationSession, checkpoints: Sequence[Checkpoint], watcher: Watcher
) -> list[Evaluation]:
    """Race the checkpoints for the lowest mean absolute error, score the winner on all items, and write race.json.

    Returns the winner's Evaluation and those that others had before. A checkpoint that drops out keeps its answers and
    gets no Evaluation. Decisions depend on the answers alone, which are saved, so an interrupted race continues with
    the same decisions.
    """
    n = len(session.items)
    budget = session.run.config().eval.race_budget
    rounds = _plan(len(checkpoints), n, budget)
    compared = rounds[-1].stop if rounds else 0
    answers = sum(one.answers for one in rounds) + n - compared
    progress = ScoringProgress(watcher, answers)
    predictions: dict[str, list[Prediction]] = {checkpoint.id: [] for checkpoint in checkpoints}
    errors: dict[str, list[float]] = {checkpoint.id: [] for checkpoint in checkpoints}
    left, dropped = list(checkpoints), list[Dropout]()
    for one in rounds:
        part = slice(one.start, one.stop)
        for checkpoint, scorer in session.with_scorers(left, part):
            new = session.answer(checkpoint, scorer, progress, part)
            predictions[checkpoint.id] += new
            table = score_predictions(new, session.items[part], session.spec.fallback, session.spec.estimator)
            errors[checkpoint.id] += table.abs_error.tolist()
        out = drop_worst(left, errors, one.survivors)
        for each in out:
            leader = tag_name(each.leader)
            watcher.note(f"{each.name}  out after {each.n:,} items, ${each.margin:,.2f} behind {leader}")
        dropped += out
        left = [checkpoint for checkpoint in left if checkpoint.id not in {each.id for each in out}]
    (winner,) = left
    evaluations = {checkpoint.id: session.find(checkpoint.id) for checkpoint in checkpoints}
    if evaluations[winner.id] is None:
        rest = slice(compared, None)
        for checkpoint, scorer in session.with_scorers(left, rest):
            whole = predictions[winner.id] + session.answer(checkpoint, scorer, progress, rest)
            evaluations[winner.id] = session.finish(winner.id, Candidate.of(winner), whole)
    found = [evaluation for evaluation in evaluations.values() if evaluation]
    for evaluation in found:
        watcher.scored(evaluation)
    session.run.write_race(
        RaceRecord(
            spec_fingerprint=session.spec.fingerprint,
            budget=budget,
            items=n,
            winner=winner.id,
            dropped=tuple(dropped),
            share_of_work=answers / (len(checkpoints) * n),
        )
    )
    return found


def _plan(checkpoints: int, items: int, budget: float) -> list[Round]:
    try:
        return plan_rounds(checkpoints, items, budget)
    except ValueError as error:
        raise RunError(f"these checkpoints cannot race: {error}", "pricer eval --all-checkpoints") from None
