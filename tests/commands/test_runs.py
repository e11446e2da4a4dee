"""`pricer runs`: what each run is and how far, whatever state its folder is in."""

import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from subprocess import PIPE, Popen

import pytest
import typer.testing

from pricer.cli import app
from pricer.commands.pick import pick
from pricer.commands.runs import Overview, overviews
from pricer.config import HubConfig, RunConfig, TrainConfig
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.errors import RunError
from pricer.stores.files import append_lines, is_locked, locked, write_json
from pricer.stores.runs import Run, create_run
from pricer.views.terminal_tables import RUN_COLUMNS
from tests import builders
from tests.builders import a_checkpoint, a_spec, an_evaluation

# 100 items in batches of 16 are 7 batches, so 4 steps of two each; 2.5 epochs are 10 steps.
CONFIG = RunConfig(train=TrainConfig(epochs=2.5, batch_size=32))


def a_run(name: str, steps: list[int], evaluations: Sequence[Evaluation] = ()) -> Run:
    return builders.a_run(steps, evaluations, name=name, config=CONFIG, items={"train": 100, "val": 50, "test": 50})


def test_an_interrupted_run_says_how_far_it_is_and_what_was_measured() -> None:
    baseline, on_test = an_evaluation(None, 1.0), an_evaluation(4, 2.0, spec=a_spec(split=Split.TEST))
    run = a_run("mine", [4, 6], [baseline, on_test, an_evaluation(4, 50.0)])
    run.log({"step": 6, "loss": 1.0})
    run.log({"step": 7, "loss": 1.0})

    (one,) = overviews()

    assert one == Overview(
        name="mine",
        state="interrupted",
        step=7,
        steps=10,
        checkpoints=2,
        scored=1,
        best=an_evaluation(4, 50.0),
        started=run.facts()["started"],
    )


def test_a_finished_run_with_a_pick() -> None:
    run = a_run("mine", [4, 8, 10], [an_evaluation(step, mae) for step, mae in ((4, 50.0), (8, 40.0), (10, 45.0))])
    run.finish()
    pick("mine", "hit_rate")

    (one,) = overviews()

    # All have the same hit rate: the earliest is picked. The lowest error is that of another.
    assert (one.state, one.step, one.steps, one.scored) == ("finished", 10, 10, 3)
    assert one.picked == Candidate.of(a_checkpoint(4))
    assert one.best == an_evaluation(8, 40.0)


def test_evaluations_under_specs_that_cannot_be_compared_have_no_best() -> None:
    a_run("mine", [4, 8], [an_evaluation(4, 50.0), an_evaluation(8, 1.0, spec=a_spec(limit=10), n=10)])

    (one,) = overviews()

    assert (one.scored, one.best) == (2, None)


def test_the_newest_is_first_and_a_damaged_one_is_a_line_that_says_so() -> None:
    old, new, torn = (a_run(name, [4]) for name in ("old", "new", "torn"))
    old.record(started="2024-05-01T10:00:00.000000+00:00")
    (torn.folder / "checkpoints" / "tags.json").write_text('"nonsense"\n', encoding="utf-8")
    write_json(Path("runs/zero/run.json"), {"finished": None})

    found = overviews()

    assert [(one.name, one.state) for one in found] == [
        ("new", "interrupted"),
        ("old", "interrupted"),
        ("zero", "damaged"),
        ("torn", "damaged"),
    ]
    assert new.facts()["started"] == found[0].started
    assert [one.problem for one in found] == [
        None,
        None,
        "runs/zero/run.json cannot be read",
        "runs/torn/checkpoints/tags.json is not JSON",
    ]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("run.json", '{"started": "2024", "items": 3, "repo": 7}'),
        ("evaluations/a/evaluation.json", "[" * 100_000),
        ("evaluations/a/evaluation.json", '{"name": 1}'),
        ("race.json", "[]"),
        ("checkpoints/tags.json", '{"best": ["a"]}'),
        ("config.yaml", "trian: {}"),
        ("metrics.jsonl", '{"step": "many"}\n'),
        ("checkpoints.jsonl", "\0"),
    ],
)
def test_no_damage_hides_the_other_runs(name: str, content: str) -> None:
    a_run("whole", [4], [an_evaluation(4, 50.0)])
    path = a_run("hurt", [4], [an_evaluation(4, 50.0)]).folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content, encoding="utf-8")

    assert {one.name for one in overviews()} == {"whole", "hurt"}


def test_no_runs_are_an_error_with_what_to_do() -> None:
    with pytest.raises(RunError, match="there is no run here yet") as raised:
        overviews()

    assert raised.value.hint == "pricer train"


def test_a_run_of_a_repository_is_counted_without_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.stores.hub._api", lambda: pytest.fail("asked the Hub"))
    run = create_run(RunConfig(hub=HubConfig(repo="ann/prices")), "any", "ann--prices", {"repo": "ann/prices"})
    run.record(from_hub=True)
    log = [a_checkpoint(step).at("c" * 40).to_json() for step in (5, 10)]
    append_lines(run.folder / "checkpoints.jsonl", log)

    (one,) = overviews()

    assert (one.state, one.repo, one.step, one.steps, one.checkpoints) == ("from hub", "ann/prices", 10, None, 2)


@pytest.fixture
def training() -> Iterator[Popen[str]]:
    """Another process that is training the run `mine`."""
    code = (
        "import pathlib, sys; from pricer.stores.runs import Run\n"
        "with Run(pathlib.Path('runs/mine')).lock(): print('held', flush=True); sys.stdin.read()"
    )
    a_run("mine", [4])
    with Popen([sys.executable, "-c", code], stdin=PIPE, stdout=PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_run_that_another_process_trains(training: Popen[str]) -> None:
    assert [one.state for one in overviews()] == ["training"]

    training.kill()
    training.wait()
    assert [one.state for one in overviews()] == ["interrupted"]


def test_looking_never_stands_in_the_way_of_a_training(tmp_path: Path) -> None:
    code = f"""
import pathlib
from pricer.stores.files import is_locked
print("looking", flush=True)
while True:
    is_locked(pathlib.Path({str(tmp_path)!r}))
"""
    with Popen([sys.executable, "-c", code], stdout=PIPE, text=True) as looking:
        assert looking.stdout is not None
        assert looking.stdout.readline() == "looking\n"
        for _ in range(30):
            with locked(tmp_path, BlockingIOError()):
                assert is_locked(tmp_path)
        looking.kill()


def show(*arguments: str) -> tuple[str, str]:
    result = typer.testing.CliRunner().invoke(app, ["runs", *arguments])
    assert result.exit_code == 0
    return result.stdout, result.stderr


def test_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    run = a_run("mine", [4, 10], [an_evaluation(4, 50.0), an_evaluation(10, 40.0)])
    run.record(started="2024", finished="2024")
    pick("mine", "mae")
    write_json(Path("runs/hurt/run.json"), {})

    out, err = show()

    rows = [line.split() for line in out.splitlines()]
    assert " ".join(RUN_COLUMNS).split() in rows
    assert ["mine", "finished", "10/10", "2", "2", "10", "$40.00", "±", "1.00", "50", "greedy", "10", "2024"] in rows
    assert ["hurt", "damaged"] in rows
    assert err == "hurt is damaged: runs/hurt/run.json cannot be read\n"


def test_a_narrow_table_keeps_what_matters_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    a_run("mine", [4], [an_evaluation(4, 50.0)])

    out, err = show()

    rows = [line.split() for line in out.splitlines()]
    assert ["mine", "interrupted", "4/10", "$50.00", "±", "1.00"] in rows
    assert err == "no room for checkpoints, scored, best, n, by, started in 60 columns\n"


def test_everything_as_json() -> None:
    best = an_evaluation(4, 50.0)
    run = a_run("mine", [4], [best])

    out, _ = show("--json")

    assert json.loads(out) == {
        "runs": [
            {
                "name": "mine",
                "state": "interrupted",
                "repo": None,
                "step": 4,
                "steps": 10,
                "checkpoints": 1,
                "scored": 1,
                "failed": 0,
                "picked": None,
                "started": run.facts()["started"],
                "problem": None,
                "best": json.loads(json.dumps(asdict(best))),
            }
        ]
    }
