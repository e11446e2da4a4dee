"""`pricer pick --confirm`: one number on the test split, and every look at it on record."""

import json
from dataclasses import asdict

import pytest

from pricer.commands.evaluate import evaluate_run
from pricer.commands.pick import Confirmed, Picked, confirm, pick
from pricer.core.items import Split
from pricer.errors import RunError
from pricer.stores.runs import Run, find_run
from pricer.views import terminal_pick
from tests.commands.conftest import Listener
from tests.commands.sessions import FakeScorer

OTHER = "step-000002"


@pytest.fixture
def picked(run: Run) -> Picked:
    """A pick among the checkpoints 2, 4 and 6, which is step 6."""
    evaluate_run(run, "all", Split.VAL, None, Listener())
    return pick(None, "mae")


def score_other(limit: int | None = None) -> None:
    evaluate_run(find_run(None), "2", Split.TEST, limit, Listener())


def shown(picked: Picked, confirmed: Confirmed, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """What is said of it: the answer, and the notes."""
    capsys.readouterr()
    terminal_pick.confirmation(picked, confirmed)
    said = capsys.readouterr()
    return said.out, said.err.splitlines()


def test_the_pick_is_scored_on_all_test_items_and_that_is_recorded(
    picked: Picked, capsys: pytest.CaptureFixture[str]
) -> None:
    listener = Listener()

    confirmed = confirm(picked, listener)

    found = confirmed.confirmation
    evaluation = next(
        e
        for e in picked.run.evaluations.all()
        if e.candidate.id == picked.selection.candidate.id and e.spec.split is Split.TEST
    )
    mae = evaluation.metric("mae")
    assert (found.candidate, found.spec_fingerprint) == (picked.selection.candidate, evaluation.spec.fingerprint)
    assert (found.metric, found.metric.n) == (mae, 8)
    assert (found.look, found.before, confirmed.is_new, confirmed.others) == (1, (), True, ())
    assert json.loads((picked.run.folder / "confirmation.json").read_text()) == {
        "confirmations": [json.loads(json.dumps(asdict(found)))]
    }
    assert listener.done[-1][1:] == (8, 8)
    assert mae.value is not None
    assert mae.interval is not None
    raw, comparison = picked.selection.chosen.metric("mae").value, picked.selection.comparison
    assert comparison is not None
    assert shown(picked, confirmed, capsys) == (
        f"confirmed: MAE ${mae.value:,.2f} ± {(mae.interval[1] - mae.interval[0]) / 2:,.2f} on 8 test items; "
        f"validation said ${raw:,.2f}, corrected ${comparison.corrected:,.2f}\n",
        [],
    )


def test_the_same_pick_is_shown_again_and_not_scored(
    picked: Picked, scorer: FakeScorer, capsys: pytest.CaptureFixture[str]
) -> None:
    first = confirm(picked, Listener())
    scorer.fail_at = len(scorer.asked)

    again = confirm(pick(None, "mae"), Listener())

    assert (again.confirmation, again.is_new) == (first.confirmation, False)
    assert picked.run.confirmations() == [first.confirmation]
    assert shown(picked, again, capsys)[1] == [
        "this number was there already and is shown again, which is no new look at the test split"
    ]


def test_another_metric_of_the_same_answers_is_no_new_look(picked: Picked) -> None:
    first = confirm(picked, Listener()).confirmation
    by_share = Picked(picked.run, pick(None, "rmsle").selection, ())
    assert by_share.selection.candidate == first.candidate

    second = confirm(by_share, Listener()).confirmation

    assert (second.metric.name, second.when, second.look) == ("rmsle", first.when, 1)
    assert picked.run.confirmations() == [first]


def test_a_look_by_eval_is_counted(picked: Picked, capsys: pytest.CaptureFixture[str]) -> None:
    score_other()
    score_other(limit=4)

    confirmed = confirm(picked, Listener())

    assert (confirmed.confirmation.look, confirmed.confirmation.before) == (3, (OTHER,))
    assert shown(picked, confirmed, capsys)[1] == [
        f"the test split of this run has been looked at before ({OTHER}): this number is the 3rd look, not an "
        "untouched one"
    ]


def test_a_number_that_eval_made_is_taken_over(picked: Picked) -> None:
    evaluate_run(find_run(None), "best", Split.TEST, None, Listener())

    confirmed = confirm(picked, Listener())

    assert (confirmed.is_new, confirmed.confirmation.look) == (False, 1)
    assert picked.run.confirmations() == [confirmed.confirmation]


def test_looks_at_others_are_said_of_a_number_that_was_there(
    picked: Picked, capsys: pytest.CaptureFixture[str]
) -> None:
    first = confirm(picked, Listener()).confirmation
    score_other()

    again = confirm(picked, Listener())

    assert (again.confirmation, again.others) == (first, (OTHER,))
    assert shown(picked, again, capsys)[1][1] == (
        f"the test split of this run has been looked at otherwise, too ({OTHER})"
    )


def test_an_interrupted_confirmation_goes_on_and_is_one_look(picked: Picked, scorer: FakeScorer) -> None:
    run = picked.run
    run.record(batch_tokens={"cpu": 300})  # batches of a few items
    score_other()
    scorer.fail_at = len(scorer.asked) + 1
    with pytest.raises(SystemError):
        confirm(picked, Listener())
    assert run.confirmations() == []
    scorer.fail_at = None

    confirmed = confirm(picked, Listener())

    asked = [item for name, item in scorer.predicted if name == picked.selection.candidate.name]
    assert len(asked) == len(set(asked)) == 12 + 8  # the validation and the test items, each once
    assert (confirmed.is_new, confirmed.confirmation.look) == (True, 2)


@pytest.mark.parametrize("text", ["[]", '{"confirmations": [{}]}', "{"])
def test_a_damaged_record_is_named_before_anything_is_scored(picked: Picked, scorer: FakeScorer, text: str) -> None:
    scorer.fail_at = len(scorer.asked)
    (picked.run.folder / "confirmation.json").write_text(text)

    with pytest.raises(RunError, match=r"confirmation.json is damaged") as raised:
        confirm(picked, Listener())

    assert raised.value.hint == "remove it, and confirm again"
