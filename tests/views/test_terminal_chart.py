"""The curve of error by step: what is drawn, and where nothing is."""

import os
import pty
import subprocess
import sys
from dataclasses import replace
from unittest.mock import patch

import pytest

from pricer.core.evaluation import Evaluation
from pricer.views.terminal_evaluations import draw_errors
from tests.builders import a_run, a_spec, an_evaluation

CURVE = [an_evaluation(step, mae) for step, mae in ((100, 50.0), (200, 20.0), (300, 10.0), (400, 30.0))]
RIDGE = "tf-idf + ridge"


@pytest.fixture(autouse=True)
def terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal 80 columns wide."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "80")


def drawn(
    capsys: pytest.CaptureFixture[str],
    evaluations: list[Evaluation] = CURVE,
    chosen: int | None = None,
    is_terminal: bool = True,
) -> list[str]:
    with patch.object(sys.stdout, "isatty", return_value=is_terminal):
        draw_errors(evaluations, chosen)
    out, err = capsys.readouterr()
    assert err == ""
    return out.splitlines()


def test_the_best_is_marked_where_it_stands(capsys: pytest.CaptureFixture[str]) -> None:
    caption, *chart = drawn(capsys)

    assert caption == "MAE by step   ● step 300: $10.00"
    assert len(chart) == 10
    assert {len(row) for row in chart} == {80}
    # The labels begin where the curve does; $50 is its top and $10 its lowest row.
    assert [row[:4] for row in chart if row[3] == "┤"] == ["$50┤", "$40┤", "$30┤", "$20┤", "$10┤"]
    assert chart[-1].split() == ["100", "200", "300", "400"]
    (best,) = [row for row in chart if "●" in row]
    assert best.startswith("$10┤")
    # 300 stands two thirds of the way between the first and the last column of the curve.
    assert best.index("●") == 4 + round(2 / 3 * 75)


@pytest.mark.parametrize(
    ("unit", "decimals", "caption", "label"),
    [("kWh", 1, "● step 300: 10.00 kWh", "50 kWh┤"), ("€", -2, "● step 300: €10", "€50┤")],
)
def test_the_axis_has_the_unit(
    unit: str, decimals: int, caption: str, label: str, capsys: pytest.CaptureFixture[str]
) -> None:
    spec = a_spec(unit=unit, decimals=decimals)

    text = "\n".join(drawn(capsys, [replace(evaluation, spec=spec) for evaluation in CURVE]))

    assert caption in text
    assert label in text
    assert "$" not in text


def test_a_pick_by_another_metric_is_marked_as_such(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys, chosen=200)[0] == "MAE by step   ● step 200: $20.00"


@pytest.mark.parametrize(("mae", "is_near"), [(10.0, True), (-10.0, True), (-11.0, False), (70.0, True), (71.0, False)])
def test_the_baseline_is_a_line_where_it_is_near(mae: float, is_near: bool, capsys: pytest.CaptureFixture[str]) -> None:
    # The curve spans 40, of which half may come on top on either side.
    caption, *chart = drawn(capsys, [an_evaluation(None, mae, name=RIDGE), an_evaluation(None, 1e6), *CURVE])

    assert (f"┈ {RIDGE}: " in caption) == is_near
    assert any("┈┈┈" in row for row in chart) == is_near


@pytest.mark.parametrize(("columns", "width"), [(200, 100), (120, 100), (50, 50), (40, 40)])
def test_a_chart_is_as_wide_as_there_is_room(
    columns: int, width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    lines = drawn(capsys, [an_evaluation(None, 15.0, name=RIDGE), *CURVE])

    caption = ["● step 300: $10.00", f"┈ {RIDGE}: $15.00"]
    assert lines[:-10] == (["MAE by step", *caption] if width < 60 else ["   ".join(["MAE by step", *caption])])
    assert {len(row) for row in lines[-10:]} == {width}


def test_many_checkpoints_have_names_for_as_many_as_there_is_room(capsys: pytest.CaptureFixture[str]) -> None:
    chart = drawn(capsys, [an_evaluation(5_000 * n, 50.0 + n) for n in range(1, 41)])

    assert chart[-1].split() == ["5,000", "35,000", "65,000", "95,000", "125,000", "155,000", "185,000"]


def test_equal_errors_are_a_straight_line(capsys: pytest.CaptureFixture[str]) -> None:
    _, *chart = drawn(capsys, [an_evaluation(100, 5.0), an_evaluation(200, 5.0)])

    assert [row[:3] for row in chart if "●" in row] == ["$5┤"]


@pytest.mark.parametrize(
    ("name", "value"), [("TERM", "dumb"), ("TERM", "unknown"), ("TERM", ""), ("TERM", None), ("COLUMNS", "39")]
)
def test_a_terminal_that_cannot_show_it_gets_none(
    name: str, value: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    if value is None:
        monkeypatch.delenv(name)
    else:
        monkeypatch.setenv(name, value)

    assert drawn(capsys) == []


def test_off_a_terminal_there_is_none(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys, is_terminal=False) == []


def test_one_point_is_no_curve(capsys: pytest.CaptureFixture[str]) -> None:
    assert drawn(capsys, [an_evaluation(None, 4.0, name=RIDGE), an_evaluation(100, 5.0)]) == []


@pytest.mark.parametrize("plain", [True, False])
def test_colour_only_where_it_is_welcome(
    plain: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("NO_COLOR", "1" if plain else "")

    assert any("\x1b" in line for line in drawn(capsys)) != plain


def on_a_terminal(*arguments: str) -> str:
    """What the command shows on one of 80 columns."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "80", "PYTHONUTF8": "1"}
    with subprocess.Popen(
        [sys.executable, "-m", "pricer", *arguments], stdout=theirs, stderr=subprocess.DEVNULL, env=environment
    ):
        os.close(theirs)
        shown = b""
        try:
            while block := os.read(ours, 65_536):
                shown += block
        except OSError:  # the other end is closed
            pass
    os.close(ours)
    return shown.decode()


@pytest.mark.parametrize(("arguments", "is_shown"), [([], True), (["--json"], False)])
def test_pick_shows_it_on_a_terminal_and_never_in_json(arguments: list[str], is_shown: bool) -> None:
    a_run([100, 200, 300, 400], [an_evaluation(None, 12.0, name=RIDGE), *CURVE])

    shown = on_a_terminal("pick", *arguments)

    assert ("MAE by step   ● step 300: $10.00   ┈ tf-idf + ridge: $12.00" in shown) == is_shown
    assert ("●" in shown) == is_shown
