"""What `pricer pick` shows."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from pricer.commands.pick import Picked
from pricer.core.selection import Selection, select
from pricer.stores.files import write_json
from pricer.stores.runs import Run
from pricer.views.terminal_pick import next_step, picked
from tests.builders import a_checkpoint, a_comparison, a_difference, an_evaluation

DIFFERENCES = (
    a_difference(100, 10.0, (4.0, 16.0), 0.0),
    a_difference(200, 3.5, (-0.5, 7.5), 0.125),
    a_difference(300, -3.5, (-7.5, 0.5), 0.875, is_best=True),
)


def a_pick(metric: str = "mae") -> Picked:
    evaluations = [an_evaluation(100, 50.0), an_evaluation(200, 43.5), an_evaluation(300, 40.0)]
    ranking = select(evaluations, "mae").ranking
    return Picked(Run(Path("runs/a")), Selection(metric, ranking, a_comparison(*DIFFERENCES)), (500,), dropped=(400,))


def shown(result: Picked, capsys: pytest.CaptureFixture[str]) -> list[str]:
    picked(result, as_json=False)
    return capsys.readouterr().out.splitlines()


def test_the_pick_is_shown_with_what_it_is_worth(capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(a_pick(), capsys)

    rows = [" ".join(line.split()) for line in lines]
    assert "Paired by item: simultaneous 95 % intervals, 10,000 resamples" in rows
    assert rows[rows.index("step-000300 −$3.50 (−7.50 to 0.50) yes 87.5%") :][1:3] == [
        "step-000200 $3.50 (−0.50 to 7.50) yes 12.5%",
        "step-000100 $10.00 (4.00 to 16.00) no 0.0%",
    ]
    assert lines[-3:] == [
        f"best: step 300 ({a_checkpoint(300).id[:7]}), $3.50 better than the runner-up",
        "2 of 3 checkpoints may be the truly best (95 % confidence); the chosen one is worse than it by at most $0.50; "
        "about 1,234 more items would rule out the runner-up",
        "mae of step 300: $40.00 on the items that chose it; corrected for the choice $41.25 (95 %: 36.00 to 48.50)",
    ]


@pytest.mark.parametrize(
    ("place", "line"),
    [
        (("c0ffee", ""), 'to load the pick: PeftModel.from_pretrained(base, "them/prices", revision="c0ffee")'),
        (
            ("c0ffee", 'a "quoted" folder'),
            'to load the pick: PeftModel.from_pretrained(base, "them/prices", revision="c0ffee", '
            'subfolder="a \\"quoted\\" folder")',
        ),
    ],
)
def test_a_pick_that_only_its_owner_may_tag_is_loaded_by_its_commit(
    place: tuple[str, str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    write_json(Path("runs/a/run.json"), {"repo": "them/prices", "started": "2026"})

    picked(replace(a_pick(), untagged=a_checkpoint(300).at(*place)), as_json=False)

    assert capsys.readouterr().err.splitlines()[-2:] == [
        "no tag best: this account may not change them/prices",
        line,
    ]


def test_as_json_nothing_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    picked(a_pick(), as_json=True)

    record = json.loads(capsys.readouterr().out)
    assert (record["run"], record["candidate"]["step"]) == ("a", 300)
    assert (record["dropped"], record["unscored"]) == ([400], [500])
    assert record["comparison"]["differences"][1]["p_best"] == 0.125
    assert [entry["candidate"]["step"] for entry in record["ranking"]] == [300, 200, 100]


@pytest.mark.parametrize("width", [80, 120])
def test_no_cell_is_cut_on_a_narrow_terminal(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))

    table = "\n".join(shown(a_pick(), capsys)[:-3])

    assert "…" not in table
    assert "(−0.50 to 7.50)" in table


@pytest.mark.parametrize(
    ("metric", "command"),
    [("mae", "pricer pick --confirm --run a"), ("rmsle", "pricer pick --confirm --metric rmsle --run a")],
)
def test_what_to_do_next_confirms_this_very_pick(metric: str, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    next_step(a_pick(metric))

    assert capsys.readouterr().err == f"next, for the number to publish: {command}\n"
