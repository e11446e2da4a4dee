"""Score the checkpoints of a session: all of them on all items, or in a race."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.watcher import ScoringProgress
from pricer.core.cells import Segment
from pricer.core.checkpoints import Candidate, Checkpoint, tag_name
from pricer.core.evaluation import Evaluation, score_predictions
from pricer.core.halving import Dropout, RaceRecord, drop_worst, plan_rounds

Fill = Callable[[EvaluationSession, Sequence[Checkpoint | None], Segment], None]
"""Answers cells of a session before they are scored here, and saves them. It gets candidates and a segment of the
items; the items before the segment are answered. What it leaves is answered in this process. It may raise Unfinished.
"""


def combine_fills(*fills: Fill | None) -> Fill | None:
    """A Fill that calls several, one after the other. None if all are None."""
    found = [fill for fill in fills if fill]

    def fill_all(session: EvaluationSession, candidates: Sequence[Checkpoint | None], segment: Segment) -> None:
        for fill in found:
            fill(session, candidates, segment)

    return fill_all if found else None


class Unfinished(Exception):  # noqa: N818  # it says what is so
    """Raised by a Fill that answers only a part of the cells: nothing can be scored yet."""


@dataclass(frozen=True, slots=True)
class _Race:
    """The end of a race. `segments` are its rounds. The winner is not answered on the items in `rest`.
    `share_of_work` is that of a RaceRecord.
    """

    winner: Checkpoint
    dropped: tuple[Dropout, ...]
    segments: tuple[Segment, ...]
    rest: Segment
    share_of_work: float
    progress: ScoringProgress


def score_checkpoints(
    session: EvaluationSession,
    checkpoints: Sequence[Checkpoint],
    progress: ScoringProgress | None = None,
    segment: Segment | None = None,
) -> list[Evaluation]:
    """The Evaluation of each checkpoint that can be scored: read if it exists, otherwise made. `progress` continues its
    count; None starts a new count. With a `segment`, the items before it are answered.
    """
    known = {checkpoint.id: session.find(checkpoint.id) for checkpoint in checkpoints}
    progress = progress or ScoringProgress(session.watcher, [*known.values()].count(None) * len(session.items))
    evaluated = [name for name, evaluation in known.items() if evaluation]
    evaluations = []
    for checkpoint, predictions in session.predict(checkpoints, progress, segment or session.whole, evaluated):
        evaluation = known[checkpoint.id] or session.finish(checkpoint.id, Candidate.of(checkpoint), predictions or ())
        session.watcher.scored(evaluation)
        evaluations.append(evaluation)
    return evaluations


def race_checkpoints(
    session: EvaluationSession, checkpoints: Sequence[Checkpoint], fill: Fill | None = None
) -> list[Evaluation]:
    """Race the checkpoints for the lowest mean absolute error, score the winner on all items, and write race.json.

    Returns the winner's Evaluation, and the Evaluations that other checkpoints had before the race. A checkpoint that
    drops out keeps its predictions and gets no Evaluation. Decisions depend only on the saved predictions, so an
    interrupted race continues with the same decisions. If a checkpoint cannot be scored, the race begins again without
    it, with the predictions that are saved. Empty if no checkpoint can be scored.
    """
    race = find_winner(session, checkpoints, fill)
    if race is None:
        return []
    if fill and session.find(race.winner.id) is None:
        fill(session, [race.winner], race.rest)
    evaluated = [one for one in checkpoints if one == race.winner or session.find(one.id)]
    evaluations = score_checkpoints(session, evaluated, race.progress, race.rest)
    if race.winner.id in session.errors:
        return race_checkpoints(session, checkpoints, fill)
    for checkpoint in checkpoints:
        if checkpoint not in evaluated:
            session.gather(checkpoint.id, race.segments)
    budget = session.run.config().eval.race_budget
    record = RaceRecord(session.spec.fingerprint, budget, race.winner.id, race.dropped, race.share_of_work)
    session.run.write_race(record)
    return evaluations


def find_winner(session: EvaluationSession, checkpoints: Sequence[Checkpoint], fill: Fill | None) -> _Race | None:
    """Race the checkpoints without those that cannot be scored, until one is left; None if there is none."""
    left = [checkpoint for checkpoint in checkpoints if checkpoint.id not in session.errors]
    if not left:
        return None
    n, spec = len(session.items), session.spec
    rounds = plan_rounds(len(left), n, session.run.config().eval.race_budget)
    rest = Segment(rounds[-1].stop if rounds else 0, n)
    total = sum(one.predictions for one in rounds) + n - rest.start
    share_of_work = total / (len(left) * n)
    progress, dropped = ScoringProgress(session.watcher, total), list[Dropout]()
    segments = tuple(Segment(one.start, one.stop) for one in rounds)
    for one, segment in zip(rounds, segments, strict=True):
        if fill:
            fill(session, left, segment)
        errors = {}
        for checkpoint, predictions in session.predict(left, progress, segment):
            table = score_predictions(predictions or (), session.items[: one.stop], spec.fallback, spec.estimator)
            errors[checkpoint.id] = table.abs_error
        if len(errors) < len(left):
            return find_winner(session, checkpoints, fill)
        worst = drop_worst(left, errors, one.survivors)
        for each in worst:
            leader, margin = tag_name(each.leader), spec.price_unit.error(each.margin)
            session.watcher.note(f"{each.name}  out after {each.n:,} items, {margin} worse than {leader}")
        dropped += worst
        left = [checkpoint for checkpoint in left if checkpoint.id not in {each.id for each in worst}]
    (winner,) = left
    return _Race(winner, tuple(dropped), segments, rest, share_of_work, progress)
