"""`pricer eval --race`: checkpoints are scored on some items, the better half of them on more, until one is left."""

from collections.abc import Sequence

from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.watcher import ScoringProgress
from pricer.core.candidates import Candidate
from pricer.core.checkpoints import Checkpoint, tag_name
from pricer.core.evaluation import Evaluation
from pricer.core.halving import Dropout, RaceRecord, drop_worst, plan_rounds
from pricer.core.predictions import Prediction
from pricer.core.scores import score_predictions
from pricer.errors import RunError


def race_checkpoints(session: EvaluationSession, checkpoints: Sequence[Checkpoint]) -> list[Evaluation]:
    """Race the checkpoints for the lowest mean absolute error, score the winner on all items, and write race.json.

    Returns the winner's Evaluation and those that other checkpoints had before. A checkpoint that drops out keeps its
    predictions and gets no Evaluation. Decisions depend on the predictions alone, which are saved, so an interrupted
    race goes on with the same decisions.
    """
    n, budget, spec = len(session.items), session.run.config().eval.race_budget, session.spec
    try:
        rounds = plan_rounds(len(checkpoints), n, budget)
    except ValueError as error:
        raise RunError(f"these checkpoints cannot race: {error}", "pricer eval --all-checkpoints") from None
    compared = rounds[-1].stop if rounds else 0
    total = sum(one.predictions for one in rounds) + n - compared
    progress = ScoringProgress(session.watcher, total)
    predictions: dict[str, list[Prediction]] = {checkpoint.id: [] for checkpoint in checkpoints}
    errors: dict[str, list[float]] = {checkpoint.id: [] for checkpoint in checkpoints}
    left, dropped = list(checkpoints), list[Dropout]()
    for one in rounds:
        part = slice(one.start, one.stop)
        for checkpoint, predict in session.predictors(left, progress, part):
            new = predict()
            predictions[checkpoint.id] += new
            table = score_predictions(new, session.items[part], spec.fallback, spec.estimator)
            errors[checkpoint.id] += table.abs_error.tolist()
        worst = drop_worst(left, errors, one.survivors)
        for each in worst:
            session.watcher.note(
                f"{each.name}  out after {each.n:,} items, ${each.margin:,.2f} worse than {tag_name(each.leader)}"
            )
        dropped += worst
        left = [checkpoint for checkpoint in left if checkpoint.id not in {each.id for each in worst}]
    (winner,) = left
    evaluations = {checkpoint.id: session.find(checkpoint.id) for checkpoint in checkpoints}
    if evaluations[winner.id] is None:
        for _, predict in session.predictors([winner], progress, slice(compared, None)):
            whole = predictions[winner.id] + predict()
            evaluations[winner.id] = session.finish(winner.id, Candidate.of(winner), whole)
    found = [evaluation for evaluation in evaluations.values() if evaluation]
    for evaluation in found:
        session.watcher.scored(evaluation)
    share_of_work = total / (len(checkpoints) * n)
    session.run.write_race(RaceRecord(spec.fingerprint, budget, n, winner.id, tuple(dropped), share_of_work))
    return found
