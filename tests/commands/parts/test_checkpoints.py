"""Which checkpoint is meant, and the breakdown of its evaluation from predictions with known intervals."""

from dataclasses import replace
from pathlib import Path

import pytest

from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.checkpoints import choose_checkpoints, saved_breakdown
from pricer.core.breakdowns import Breakdown, GroupCoverage
from pricer.core.calibration import CalibrationGroup, Correction, calibrate
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import EvalSpec, evaluate
from pricer.core.intervals import Coverage
from pricer.core.items import Item, Split
from pricer.core.predictions import Distribution, Prediction
from pricer.core.units import DOLLARS
from pricer.errors import CheckpointError
from pricer.stores.runs import Run
from pricer.views import terminal_evaluations
from tests.builders import a_checkpoint, a_spec, an_item
from tests.commands.conftest import Listener

CHECKPOINT = a_checkpoint(5)
# 40 items of $100 to $139 each, for which the model predicts $100 give or take $5 (80 %) or $10 (95 %).
VAL = [an_item(f"v{i}", 100.0 + i) for i in range(40)]
TEST = [an_item(f"t{i}", 100.0 + i) for i in range(40)]


def predict(item: Item, no_price: bool = False) -> Prediction:
    quantiles = (90.0, 95.0, 100.0, 105.0, 110.0)
    return Prediction(
        item.id, "100", 100.0, Distribution(quantiles, 100.0, True, 100.0, 0.0, 0.9 if no_price else 0.0, 0.0)
    )


def scored(run: Run, spec: EvalSpec, items: list[Item], predictions: list[Prediction]) -> Breakdown:
    run.evaluations.add_predictions(CHECKPOINT.id, spec, predictions)
    evaluation, table = evaluate(Candidate.of(CHECKPOINT), spec, predictions, items)
    calibration = calibrate(predictions, items) if spec.split is Split.VAL else None
    run.evaluations.add(CHECKPOINT.id, evaluation, table, calibration)
    return saved_breakdown(run, CHECKPOINT.id, spec, items)


def taken_apart(split: Split, *, val: bool = True, test: list[Prediction] | None = None) -> Breakdown:
    run, spec = Run(Path("runs/a")), a_spec(estimator="median", split=split)
    if val:
        found = scored(run, replace(spec, split=Split.VAL), VAL, [predict(item) for item in VAL])
    return scored(run, spec, TEST, test or [predict(item) for item in TEST]) if split is Split.TEST else found


def test_intervals_on_test_items_are_corrected_with_validation_items() -> None:
    found = taken_apart(Split.TEST)

    eighty = found.coverage[0]
    assert found.calibrated_on == 40
    # One group has all items, because they are fewer than 200.
    (by,) = found.corrected_by
    assert (by.group.category, by.group.above, by.group.up_to, by.group.n, by.n) == (None, None, None, 40, 40)
    # Raw, $95 to $105 holds the prices 100 … 105: 6 of 40.
    assert eighty.raw.share == 6 / 40
    # The 33rd of 40 scores, ⌈41 · 0.8⌉ = 33, is that of $132: (132 + 1) / (105 + 1). The interval then ends at $132,
    # and holds 33 of the 40 test items, which are the same prices.
    assert by.group.corrections[0] == Correction(0.8, 133 / 106, 133 / 106)
    assert eighty.conformal is not None
    assert eighty.conformal.share == 33 / 40


def test_intervals_on_validation_items_are_shown_as_they_are() -> None:
    found = taken_apart(Split.VAL)

    assert found.calibrated_on is None
    assert [report.conformal for report in found.coverage] == [None, None]
    assert found.coverage[0].raw.share == 6 / 40


def test_without_an_evaluation_of_validation_items_nothing_is_corrected() -> None:
    found = taken_apart(Split.TEST, val=False)

    assert found.calibrated_on is None
    assert found.coverage[0].conformal is None


def test_without_distributions_there_are_no_intervals() -> None:
    bare = [Prediction(item.id, "100", 100.0) for item in TEST]

    found = taken_apart(Split.TEST, test=bare)

    assert (found.coverage, found.abstention) == ((), ())
    # Errors of $0 to $39: 19.5 in the mean, all of them too cheap.
    assert (found.overall.mae, found.overall.bias) == (19.5, -19.5)


def test_the_most_certain_items_have_their_own_error() -> None:
    unsure = [predict(item, no_price=index >= 20) for index, item in enumerate(TEST)]

    found = taken_apart(Split.TEST, test=unsure)

    by_share = {point.share: point.mae for point in found.abstention}
    # Half of them have a price, with errors of $0 to $19; for the others $100 is imputed, with errors of $20 to $39.
    assert (by_share[0.5], by_share[1.0]) == (9.5, 19.5)
    assert found.overall.no_price == 20


def test_the_tables_say_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "140")

    terminal_evaluations.show_breakdown("step-000005", taken_apart(Split.TEST), DOLLARS)

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert "step-000005: error by price" in lines
    assert "step-000005: intervals, corrected on 40 validation items" in lines
    assert any(line.startswith("80% 82.5% (") for line in lines)
    assert any(line.startswith("bias −$19.50 ± ") for line in lines)
    assert "−$39.00 $139.00 $100.00 A lamp" in lines
    assert not any("by the group" in line for line in lines)  # all items have the same correction


def test_coverage_is_said_for_each_group_that_has_a_correction_of_its_own(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    held = (Coverage(0.75, (0.53, 0.89), 9.0, 9.0), Coverage(1.0, (0.84, 1.0), 9.0, 9.0))
    bands = [("\x1b[31mlamp", None, None), (None, None, 99.0), (None, 99.0, 150.0), (None, 150.0, None)]
    groups = tuple(GroupCoverage(CalibrationGroup(*band, 123, ()), 20, held) for band in bands)

    breakdown = replace(taken_apart(Split.TEST), corrected_by=groups)
    terminal_evaluations.show_breakdown("step-000005", breakdown, DOLLARS)

    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    first = lines.index("step-000005: intervals by the group that corrected them") + 4
    rest = "123 20 75.0% (53.0 to 89.0) 100.0% (84.0 to 100.0)"
    names = ["\\x1b[31mlamp: any", "up to $99", "$99–150", "above $150"]
    assert lines[first : first + 4] == [f"{name} {rest}" for name in names]


def test_a_description_cannot_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    hostile = [replace(item, description="\x1b[31mred\x07") for item in TEST]
    run, spec = Run(Path("runs/a")), a_spec(estimator="median", split=Split.TEST)

    breakdown = scored(run, spec, hostile, [predict(item) for item in hostile])
    terminal_evaluations.show_breakdown("step-000005", breakdown, DOLLARS)

    assert "\x1b" not in capsys.readouterr().out


def test_one_checkpoint_comes_with_its_breakdown_and_all_without(run: Run) -> None:
    one = evaluate_run(run, "last", Split.VAL, None, Listener())

    assert one.breakdown is not None
    assert one.breakdown.overall.n == 12
    assert evaluate_run(run, "all", Split.VAL, None, Listener()).breakdown is None


@pytest.mark.parametrize(
    ("which", "steps"),
    [("all", [2, 4, 6]), ("last", [6]), ("4", [4]), ("step-000004", [4])],
)
def test_checkpoints_are_named_by_step_or_place(run: Run, which: str, steps: list[int]) -> None:
    assert [c.step for c in choose_checkpoints(run, which)] == steps


def test_a_checkpoint_is_named_by_the_start_of_its_id(run: Run) -> None:
    checkpoint = run.store.checkpoints()[1]

    assert choose_checkpoints(run, checkpoint.id[:8]) == [checkpoint]


def test_a_checkpoint_that_is_not_there_is_an_error_with_those_that_are(run: Run) -> None:
    with pytest.raises(CheckpointError) as caught:
        choose_checkpoints(run, "5")

    assert caught.value.message == "5 names no checkpoint of quickstart"
    assert caught.value.hint == "a step (2, 4, 6), an id, best or last"


def test_best_before_a_pick_is_an_error(run: Run) -> None:
    with pytest.raises(CheckpointError, match="no best checkpoint of quickstart has been picked yet"):
        choose_checkpoints(run, "best")
