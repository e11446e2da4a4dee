"""`pricer pick --confirm`: one number on the test split, and every look at it on record."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from pricer.commands.evaluate import evaluate_run
from pricer.commands.pick import Confirmed, Picked, confirm, pick
from pricer.core.items import Split
from pricer.errors import RunError
from pricer.ml.predict import CheckpointPredictor
from pricer.stores.runs import Run, find_run
from pricer.views import terminal_evaluations
from tests.commands.conftest import Listener

pytestmark = pytest.mark.usefixtures("trained")


@pytest.fixture
def picked(trained: Path) -> Picked:
    """A pick among the checkpoints 2, 4 and 6 of a trained run."""
    evaluate_run(find_run(None), "all", Split.VAL, None, Listener())
    return pick(None, "mae")


def shown(picked: Picked, confirmed: Confirmed, capsys: pytest.CaptureFixture[str]) -> tuple[str, list[str]]:
    """What is said of it: the answer, and the notes."""
    capsys.readouterr()
    terminal_evaluations.confirmation(picked, confirmed)
    said = capsys.readouterr()
    return said.out, said.err.splitlines()


def other_step(picked: Picked) -> int:
    return next(step for step in (2, 4, 6) if step != picked.selection.candidate.step)


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
    picked: Picked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first = confirm(picked, Listener())
    monkeypatch.setattr(CheckpointPredictor, "predict", None)

    again = confirm(pick(None, "mae"), Listener())

    assert (again.confirmation, again.is_new) == (first.confirmation, False)
    assert picked.run.confirmations() == [first.confirmation]
    assert shown(picked, again, capsys)[1] == [
        "this number was there already and is shown again, which is no new look at the test split"
    ]


def test_another_metric_of_the_same_answers_is_no_new_look(picked: Picked) -> None:
    first = confirm(picked, Listener()).confirmation
    by_share = Picked(picked.run, pick(None, "mape").selection, ())
    if by_share.selection.candidate.id != first.candidate.id:
        pytest.skip("the metrics chose different checkpoints")

    second = confirm(by_share, Listener()).confirmation

    assert (second.metric.name, second.when, second.look) == ("mape", first.when, 1)
    assert picked.run.confirmations() == [first]


def test_a_look_by_eval_is_counted(picked: Picked, capsys: pytest.CaptureFixture[str]) -> None:
    other = other_step(picked)
    evaluate_run(find_run(None), str(other), Split.TEST, None, Listener())
    evaluate_run(find_run(None), str(other), Split.TEST, 4, Listener())

    confirmed = confirm(picked, Listener())

    assert (confirmed.confirmation.look, confirmed.confirmation.before) == (3, (f"step-{other:06d}",))
    assert shown(picked, confirmed, capsys)[1] == [
        f"the test split of this run has been looked at before (step-{other:06d}): this number is the 3rd look, "
        "not an untouched one"
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
    other = other_step(picked)
    evaluate_run(find_run(None), str(other), Split.TEST, None, Listener())

    again = confirm(picked, Listener())

    assert (again.confirmation, again.others) == (first, (f"step-{other:06d}",))
    assert shown(picked, again, capsys)[1][1] == (
        f"the test split of this run has been looked at otherwise, too (step-{other:06d})"
    )


def test_an_interrupted_confirmation_goes_on_and_is_one_look(picked: Picked, monkeypatch: pytest.MonkeyPatch) -> None:
    run, picked_id = picked.run, picked.selection.candidate.id or ""
    run.record(batch_tokens={"cpu": 300})  # batches of a few items
    spec = evaluate_run(find_run(None), str(other_step(picked)), Split.TEST, None, Listener()).spec
    real = CheckpointPredictor.predict
    calls = iter([False])

    def once(self: CheckpointPredictor, prompts: list[object]) -> object:
        if next(calls, True):
            raise KeyboardInterrupt
        return real(self, prompts)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(CheckpointPredictor, "predict", once)
        with pytest.raises(KeyboardInterrupt):
            confirm(picked, Listener())
    saved = run.evaluations.predictions(picked_id, spec)
    assert len(saved) == 1
    assert run.confirmations() == []

    confirmed = confirm(picked, Listener())

    assert run.evaluations.predictions(picked_id, spec)[0] == saved[0]
    assert (confirmed.is_new, confirmed.confirmation.look) == (True, 2)


def test_a_damaged_record_is_named_before_anything_is_scored(picked: Picked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.commands.evaluate.evaluate_run", None)
    path = picked.run.folder / "confirmation.json"
    for text in ("[]", '{"confirmations": [{}]}', "{"):
        path.write_text(text)

        with pytest.raises(RunError, match=r"confirmation.json is damaged") as raised:
            confirm(picked, Listener())

        assert raised.value.hint == "remove it, and confirm again"


def test_a_new_run_takes_over_no_confirmation(trained: Path) -> None:
    run = Run(trained)
    (run.folder / "confirmation.json").write_text('{"confirmations": []}')

    run.clear()

    assert not (run.folder / "confirmation.json").exists()
