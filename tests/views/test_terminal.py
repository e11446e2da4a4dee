"""What is shown: the line of training, and tables that fit."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pricer.commands.evaluate import Evaluated
from pricer.commands.predict import Predicted
from pricer.core.calibration import Calibration, CalibrationGroup, Correction
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import evaluate
from pricer.core.predictions import Prediction
from pricer.core.training import Progress
from pricer.core.units import DOLLARS
from pricer.stores.runs import Run
from pricer.views import terminal
from pricer.views.tables import Table
from pricer.views.terminal_evaluations import evaluated
from pricer.views.terminal_progress import Watcher, training_line
from pricer.views.terminal_tables import predicted
from tests.builders import SPEC, a_checkpoint, a_distribution, an_item, predictions_of

LOGGED = Progress(
    step=720,
    steps=2_500,
    epoch=2.304,
    loss=1.5,
    learning_rate=2.1e-3,
    grad_norm=0.4,
    tokens_per_second=5_214.4,
    memory_used=1_230_000_000,
    memory_total=24_000_000_000,
)


def test_the_live_line_has_everything_once_it_was_measured() -> None:
    line = training_line(LOGGED, LOGGED, loss=1.432, next_checkpoint=750, seconds_left=192.4)

    assert line == (
        "epoch 2.30 · step 720/2,500 · loss 1.432 · lr 2.1e-03 · 5,214 tokens/s · 1.2/24.0 GB · "
        "checkpoint at 750 · 3:12 left"
    )


def test_what_was_not_measured_yet_is_left_out() -> None:
    line = training_line(Progress(step=1, steps=2_500, epoch=0.0032), None, None, 250, None)

    assert line == "epoch 0.00 · step 1/2,500 · checkpoint at 250"


def test_hours_are_shown_as_such() -> None:
    assert training_line(LOGGED, None, None, 750, 2 * 3600 + 61).endswith("2:01:01 left")


@pytest.mark.parametrize("width", [80, 100, 120])
def test_a_table_cuts_no_cell_however_narrow_the_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    items = [an_item("a", 5_000.0), an_item("b", 3_000.0)]
    # Off by 1,000 and by 2,000: 1,500 ± 1.96 · 707.11 / √2 = 980.
    evaluation, _ = evaluate(Candidate.of(a_checkpoint(2_000)), SPEC, predictions_of(items, [4_000.0, 5_000.0]), items)

    evaluated(Evaluated(Run(Path("runs/a")), SPEC, 2, (evaluation,)), as_json=False)

    shown = capsys.readouterr()
    assert "$1,500.00 ± 979.98" in shown.out
    assert "no price" in shown.out
    assert "…" not in shown.out
    assert max(len(line) for line in shown.out.splitlines()) <= width
    assert ("no room for " in shown.err) == ("RMSLE" not in shown.out or "MAPE" not in shown.out)


def test_a_very_narrow_terminal_shortens_texts_and_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    row = ["−$13,201.00", "$16,446.00", "a desk of oak, 160 cm wide, with two drawers"]

    terminal.table("Worst items", Table(["error", "price", "item"], [row], text_last=True))
    terminal.table("Prices", Table(["checkpoint", *"abcd"], [["step-000050", *["$1,234,567.00"] * 4]]))

    shown = capsys.readouterr().out.splitlines()
    assert " −$13,201.00   $16,446.00   a desk of oak, 160 c… " in shown
    assert " step-000050" + "   $1,234,567.00" * 4 + " " in shown


def test_a_long_preparation_says_what_is_done_and_a_short_one_nothing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seconds = iter([0, 9.9, 10.1, 20, 25.2, 26, 26.5])
    monkeypatch.setattr("pricer.views.terminal_progress.time.monotonic", lambda: next(seconds))

    with Watcher() as watcher:
        for rows in (5_000, 10_000, 15_000, 20_000, 25_000):
            watcher.preparing("reading rows", f"{rows:,}")
        watcher.preparing("writing splits", "25,000 items")
        watcher.preparing("writing splits", "25,000 items")

    # Lines about the same thing are 15 seconds apart.
    assert capsys.readouterr().err.splitlines() == [
        "reading rows · 15,000",
        "reading rows · 25,000",
        "writing splits · 25,000 items",
    ]


@pytest.mark.parametrize(
    ("estimator", "prediction", "line"),
    [
        (
            "median",
            Prediction("a", "2500", 2500.0, a_distribution(no_price=0.912)),
            "no price: at least 91.2% of the probability is on answers that are none (greedy answer: '2500')",
        ),
        ("greedy", Prediction("a", "free", None, a_distribution()), "no price: it says 'free'"),
        ("median", Prediction("a", "free", None), "no price: it says 'free'"),
    ],
)
def test_an_answer_without_a_price_says_why(
    estimator: str, prediction: Prediction, line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    result = Predicted(Run(Path("runs/a")), a_checkpoint(), estimator, DOLLARS, [an_item()], [prediction], None)

    predicted(result, as_json=False)

    assert capsys.readouterr().out == f"{line}\n"


def a_calibration(*groups: tuple[str | None, float | None, float | None, int]) -> Calibration:
    """Corrections by a factor of 2 for groups with these categories, bounds and numbers of items."""
    return Calibration(1_990, 10, 0, tuple(CalibrationGroup(*one, (Correction(0.8, 2.0, 2.0),)) for one in groups))


@pytest.mark.parametrize(
    ("calibration", "line", "note"),
    [
        (None, "$100  80 %: $95 to $105", "the intervals are raw; to correct them: pricer eval --checkpoint 5 --run a"),
        (
            a_calibration((None, None, None, 1_990)),
            "$100  80 %: $47 to $211",  # (95 + 1) / 2 - 1 and (105 + 1) * 2 - 1
            "the interval is corrected on 1,990 validation items",
        ),
        (
            a_calibration((None, None, 99.0, 800), (None, 99.0, 250.0, 900), (None, 250.0, None, 290)),
            "$100  80 %: $47 to $211",
            "the interval is corrected on 900 validation items with estimates above $99 and of at most $250",
        ),
        (
            a_calibration(("brass\x1b", None, 120.0, 150), (None, None, None, 1_990)),
            "$100  80 %: $47 to $211",
            "the interval is corrected on 150 validation items of the category brass\\x1b with estimates of at most "
            "$120",
        ),
    ],
)
def test_a_price_has_the_best_interval_that_is_known_and_says_what_corrected_it(
    calibration: Calibration | None, line: str, note: str, capsys: pytest.CaptureFixture[str]
) -> None:
    distribution = a_distribution(quantiles=(90.0, 95.0, 100.0, 105.0, 110.0))
    prediction, item = Prediction("a", "0100", 100.0, distribution), replace(an_item(), category="brass\x1b")

    result = Predicted(Run(Path("runs/a")), a_checkpoint(), "median", DOLLARS, [item], [prediction], calibration)
    predicted(result, as_json=False)

    shown = capsys.readouterr()
    assert shown.out == f"{line}\n"
    assert shown.err == f"median of the model's distribution, step-000005 of a; {note}\n"


def test_texts_of_several_groups_are_corrected_by_group(capsys: pytest.CaptureFixture[str]) -> None:
    distribution = a_distribution(quantiles=(90.0, 95.0, 100.0, 105.0, 110.0))
    prediction, items = Prediction("a", "0100", 100.0, distribution), [replace(an_item(), category="lamp"), an_item()]
    calibration = a_calibration(("lamp", None, None, 150), (None, None, None, 1_990))
    result = Predicted(Run(Path("runs/a")), a_checkpoint(), "median", DOLLARS, items, [prediction] * 2, calibration)

    predicted(result, as_json=False)
    predicted(result, as_json=True)

    shown = capsys.readouterr()
    note = "the intervals are corrected on 1,990 validation items, by group (--json shows the groups)"
    assert shown.err == f"median of the model's distribution, step-000005 of a; {note}\n"
    groups = [json.loads(line)["corrected_by"] for line in shown.out.splitlines()[2:]]
    assert [(group["category"], group["n"]) for group in groups] == [("lamp", 150), (None, 1_990)]
