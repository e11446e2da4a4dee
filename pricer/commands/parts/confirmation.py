"""`pricer pick --confirm`: the pick's number on the test split, and how often that split was looked at."""

from dataclasses import dataclass

from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.watcher import Watcher
from pricer.commands.pick import Picked, publish
from pricer.core.items import Split
from pricer.core.selection import Confirmation, looks_besides
from pricer.errors import HubError
from pricer.stores.runs import now


@dataclass(frozen=True, slots=True)
class Confirmed:
    """What `pricer pick --confirm` returns.

    `is_new`: the number was not there before. `others` are the checkpoints of the run that were measured on the test
    split otherwise, before or after. `problem`: the Hub did not take the model card with the number in it; the number
    stands.
    """

    confirmation: Confirmation
    is_new: bool
    others: tuple[str, ...]
    problem: HubError | None = None


def confirm(picked: Picked, watcher: Watcher) -> Confirmed:
    """Score a pick once on all test items, going on where that was interrupted, and write confirmation.json. A number
    that was there before is read, and is no new look at the split.
    """
    run, selection = picked.run, picked.selection
    picked_id = selection.candidate.id
    assert picked_id is not None  # no baseline is picked
    evaluations, recorded = run.evaluations.all(), run.confirmations()
    # By its id: the tag `best` may move while this scores.
    scored = evaluate_run(run, picked_id, Split.TEST, None, watcher)
    evaluation = scored.evaluations[-1]
    spec = evaluation.spec.fingerprint
    is_new = all((e.candidate.id, e.spec.fingerprint) != (picked_id, spec) for e in evaluations)
    others = looks_besides(evaluations, picked_id, spec, recorded)
    known = next((one for one in recorded if one.is_of(picked_id, spec)), None)
    if known:
        confirmation = Confirmation.of(evaluation, selection.metric, known.when, known.look, known.before)
    else:
        confirmation = Confirmation.of(evaluation, selection.metric, now(), len(others) + 1, others)
        run.add_confirmation(confirmation)
    problem = picked.problem
    if is_new and problem is None:
        try:
            publish(run, selection, len(picked.dropped), scored.breakdown.coverage if scored.breakdown else ())
        except HubError as error:
            problem = error
    return Confirmed(confirmation, is_new, tuple(dict.fromkeys(others)), problem)
