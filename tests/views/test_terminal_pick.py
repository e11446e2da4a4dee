"""What `pricer pick` shows."""

import json
from pathlib import Path

import pytest

from pricer.commands.pick import Picked
from pricer.core.comparison import Evidence, Rule, Standing
from pricer.core.selection import select
from pricer.stores.runs import Run
from pricer.views.terminal_pick import next_step, picked
from tests.builders import a_checkpoint, an_evaluation

STANDINGS = (
    Standing(100, 10.0, (4.0, 16.0), False, 0.0),
    Standing(200, 3.5, (-0.5, 7.5), True, 0.125),
    Standing(300, 0.0, None, True, 0.875),
)


def a_pick(rule: Rule = "lowest", metric: str = "mae", more_items: int | None = 1_234) -> Picked:
    evaluations = [an_evaluation(100, 50.0), an_evaluation(200, 43.5), an_evaluation(300, 40.0)]
    selection = select(evaluations, metric)
    step = 300 if rule == "lowest" else 200
    found = {"corrected": 41.25, "corrected_interval": (36.0, 48.5), "more_items": more_items}
    changes = {
        "step": step,
        "revision": a_checkpoint(step).id,
        "rule": rule,
        "evidence": Evidence(STANDINGS, 5.0, resamples=10_000, seed=0, **found),  # type: ignore[arg-type]
    }
    fields = {name: getattr(selection, name) for name in selection.__slots__}
    return Picked(Run(Path("runs/a")), type(selection)(**{**fields, **changes}), (500,), dropped=(400,))


def shown(result: Picked, capsys: pytest.CaptureFixture[str]) -> list[str]:
    picked(result, as_json=False)
    return capsys.readouterr().out.splitlines()


def test_the_pick_is_shown_with_what_it_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(a_pick(), capsys)

    rows = [" ".join(line.split()) for line in lines]
    assert "Paired by item: 95 % intervals, 10,000 resamples" in rows
    assert rows[rows.index("step-000300 – 87.5%") :][:3] == [
        "step-000300 – 87.5%",
        "step-000200 $3.50 (−0.50 to 7.50) no 12.5%",
        "step-000100 $10.00 (4.00 to 16.00) yes 0.0%",
    ]
    assert lines[-3:] == [
        f"best: step 300 ({a_checkpoint(300).id[:7]}), $3.50 better than the runner-up",
        "1 of the 2 others cannot be told apart from the best; the runner-up could be on about 1,234 more items",
        "mae of step 300: $40.00 on the items that chose it; corrected for the choice $41.25 (95 %: $36.00 to $48.50)",
    ]


def test_another_rule_says_how_far_behind_the_best_its_choice_is(capsys: pytest.CaptureFixture[str]) -> None:
    best, alike, _ = shown(a_pick("earliest", more_items=None), capsys)[-3:]

    assert best == (
        f"best: step 200 ({a_checkpoint(200).id[:7]}), the earliest that cannot be told apart from the best, "
        "step 300, and $3.50 behind it"
    )
    assert alike == "1 of the 2 others cannot be told apart from the best"


@pytest.mark.parametrize(
    ("metric", "row"),
    [
        ("rmsle", "step-000200 3.5000 (−0.5000 to 7.5000) no 12.5%"),
        ("hit_rate", "step-000200 350.00 points (−50.00 to 750.00) no 12.5%"),
    ],
)
def test_differences_are_in_the_unit_of_the_metric(metric: str, row: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert row in [" ".join(line.split()) for line in shown(a_pick(metric=metric), capsys)]


def test_as_json_nothing_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    picked(a_pick(), as_json=True)

    record = json.loads(capsys.readouterr().out)
    assert (record["run"], record["step"], record["rule"]) == ("a", 300, "lowest")
    assert (record["dropped"], record["unscored"]) == ([400], [500])
    assert record["evidence"]["standings"][1]["p_best"] == 0.125
    assert [entry["step"] for entry in record["ranking"]] == [300, 200, 100]


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_is_cut_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    table = "\n".join(shown(a_pick(), capsys)[:-3])

    assert "…" not in table
    assert "(−0.50 to 7.50)" in table


@pytest.mark.parametrize(
    ("rule", "metric", "command"),
    [
        ("lowest", "mae", "pricer pick --confirm --run a"),
        ("earliest", "rmsle", "pricer pick --confirm --metric rmsle --rule earliest --run a"),
    ],
)
def test_what_to_do_next_confirms_this_very_pick(
    rule: Rule, metric: str, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    next_step(a_pick(rule, metric))

    assert capsys.readouterr().err == f"next, for the number to publish: {command}\n"
