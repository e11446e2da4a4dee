"""`pricer eval --shard`: shards in any order, killed and repeated, are merged into the undisturbed evaluation."""

import json
import random
import shutil
import zlib
from collections.abc import Mapping
from pathlib import Path

import pytest
import typer.testing

from pricer.cli import app
from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.baselines import BASELINES
from pricer.commands.parts.jobs import Job, plan_split
from pricer.commands.parts.session import UNTUNED
from pricer.commands.shard import Answered, answer_shard
from pricer.core.cells import Shard
from pricer.core.items import Split
from pricer.errors import RunError
from pricer.stores.runs import Run
from tests.commands.conftest import Listener
from tests.commands.sessions import FakeScorer

# Dollars by adapter; the untuned base is "". Each item adds less than one, so no two answers are alike.
PRICES = {"": 900.0, "step-000002": 500.0, "step-000004": 100.0, "step-000006": 300.0}


def price(adapter: str, item: str) -> float:
    return PRICES[adapter] + zlib.crc32(item.encode()) % 1024 / 1024


@pytest.fixture
def sharded(run: Run, monkeypatch: pytest.MonkeyPatch) -> Run:
    """A run with three checkpoints and 12 validation items in batches of a few."""
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("batch_tokens: auto", "batch_tokens: 100"))
    names = ("train median", UNTUNED)
    monkeypatch.setattr("pricer.commands.parts.baselines.BASELINES", {name: BASELINES[name] for name in names})
    return run


def load(monkeypatch: pytest.MonkeyPatch, fail_at: int | None = None) -> FakeScorer:
    """The scorer that the next command loads."""
    scorer = FakeScorer(price, fail_at)
    monkeypatch.setattr("pricer.commands.parts.opening.load_scorer", lambda *_: scorer)
    return scorer


def files_of(run: Run) -> Mapping[str, bytes]:
    """Every file of a run's evaluations."""
    folder = run.folder / "evaluations"
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def evaluate_undisturbed(run: Run, *, race: bool = False) -> Mapping[str, bytes]:
    """The files of an evaluation in one process. They are removed."""
    evaluate_run(run, "all", Split.VAL, None, Listener(), race=race)
    files = files_of(run)
    shutil.rmtree(run.folder / "evaluations")
    return files


def plan(run: Run) -> Job:
    return plan_split(run, "all", Split.VAL, None, Listener())


def answer(job: Job, number: int, of: int) -> Answered:
    return answer_shard(job, Shard(number, of), Listener())


def tear_newest_line(run: Run, shard: Shard, cut: int) -> None:
    """Cut off the end of the file that a shard has written last, as a kill in the middle of a write does."""
    paths = sorted(
        run.folder.glob(f"evaluations/*/predictions-{shard.label}.jsonl"), key=lambda p: p.stat().st_mtime_ns
    )
    if paths:
        paths[-1].write_bytes(paths[-1].read_bytes()[:-cut])


@pytest.mark.parametrize("seed", range(6))
def test_shards_in_any_order_killed_and_repeated_are_the_undisturbed_evaluation(
    sharded: Run, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    whole = load(monkeypatch)
    undisturbed = evaluate_undisturbed(sharded)
    job, dice, asked = plan(sharded), random.Random(seed), 0
    shards = [Shard(number, 8) for number in range(1, 9)]
    waiting = [*shards, dice.choice(shards)]
    dice.shuffle(waiting)
    while waiting:
        shard = waiting.pop(0)
        scorer = load(monkeypatch, fail_at=dice.choice([0, 1, 2, None]))
        try:
            answer_shard(job, shard, Listener())
        except SystemError:
            waiting.insert(dice.randint(0, len(waiting)), shard)
            if dice.random() < 0.5:
                tear_newest_line(sharded, shard, dice.randint(1, 60))
        asked += len(scorer.asked)
    last = load(monkeypatch)

    evaluate_run(sharded, "all", Split.VAL, None, Listener())

    assert last.asked == []
    assert files_of(sharded) == undisturbed
    assert asked >= len(whole.asked) > 20


def test_a_shard_answers_its_cells_once_and_says_what_is_missing(sharded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    scorer, job = load(monkeypatch), plan(sharded)

    first, again, second = answer(job, 1, 2), answer(job, 1, 2), answer(job, 2, 2)

    cells = first.cells + second.cells
    assert (first.answered, first.missing) == (first.cells, second.cells)
    assert (again.cells, again.answered, again.missing) == (first.cells, 0, second.cells)
    assert (second.answered, second.missing) == (second.cells, 0)
    assert len(scorer.asked) == cells
    assert first.merge == "pricer eval --run quickstart --all-checkpoints"
    # The base comes first, and each shard uses only the adapters of its own cells.
    assert scorer.adapters == ["step-000002", "step-000004", "step-000006"]


def test_the_merge_answers_what_no_shard_has_answered(sharded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = load(monkeypatch)
    undisturbed = evaluate_undisturbed(sharded)
    shards, job = load(monkeypatch), plan(sharded)
    answer(job, 2, 3)
    merge = load(monkeypatch)

    evaluate_run(sharded, "all", Split.VAL, None, Listener())

    assert files_of(sharded) == undisturbed
    assert len(shards.asked) + len(merge.asked) == len(whole.asked)
    assert sorted(shards.asked + merge.asked) == sorted(whole.asked)


def test_shards_of_another_number_continue_with_the_same_cells(sharded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch)
    undisturbed = evaluate_undisturbed(sharded)
    scorer, job = load(monkeypatch), plan(sharded)
    for shard in (Shard(1, 3), Shard(3, 3), Shard(1, 2), Shard(2, 2)):
        answer_shard(job, shard, Listener())
    asked = len(scorer.predicted)

    evaluate_run(sharded, "all", Split.VAL, None, Listener())

    assert asked == len(set(scorer.predicted)) == len(scorer.predicted) == 4 * 12
    assert files_of(sharded) == undisturbed


def test_an_item_that_two_shards_answered_has_the_first_answer(sharded: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    load(monkeypatch)
    undisturbed = evaluate_undisturbed(sharded)
    job = plan(sharded)
    load(monkeypatch)
    answer(job, 1, 1)
    for path in (sharded.folder / "evaluations").glob("*/predictions-1of1.jsonl"):
        path.with_name("predictions-1of2.jsonl").write_bytes(path.read_bytes())  # as where no lock has stopped it

    evaluate_run(sharded, "all", Split.VAL, None, Listener())

    assert files_of(sharded) == undisturbed


def test_the_same_shard_cannot_be_answered_twice_at_the_same_time(
    sharded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(monkeypatch)
    job = plan(sharded)
    with sharded.evaluations.lock(Shard(3, 8)):
        answer(job, 4, 8)
        with pytest.raises(RunError, match=r"^another process is answering shard 3/8 of quickstart$"):
            answer(job, 3, 8)
        with pytest.raises(RunError, match=r"^another process is scoring quickstart$"):
            evaluate_run(sharded, "all", Split.VAL, None, Listener())
    with sharded.evaluations.lock(), pytest.raises(RunError, match=r"^another process is scoring quickstart$"):
        answer(job, 3, 8)


def test_a_checkpoint_that_cannot_be_scored_is_named_by_each_shard_that_meets_it(
    sharded: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, job = load(monkeypatch), plan(sharded)
    scorer.bad.add("step-000004")

    results = [answer(job, number, 2) for number in (1, 2, 1)]

    named = [[failure.name for failure in result.failed] for result in results]
    assert "step-000004" in [*named[0], *named[1]]
    assert named[2] == ["step-000004"]
    assert results[1].missing == 0  # what is left cannot be answered


@pytest.mark.parametrize("seed", range(3))
def test_a_race_in_shards_is_the_undisturbed_race(sharded: Run, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    whole = load(monkeypatch)
    undisturbed = evaluate_undisturbed(sharded, race=True)
    record = sharded.race()
    (sharded.folder / "race.json").unlink()
    job, dice, shards = plan(sharded), random.Random(seed), [Shard(number, 4) for number in range(1, 5)]
    sweeps, predicted = list[list[Answered]](), list[tuple[str, str]]()
    for _ in range(3):
        dice.shuffle(shards)
        sweeps.append([])
        for shard in shards:
            scorer = load(monkeypatch)
            sweeps[-1].append(answer_shard(job, shard, Listener(), race=True))
            predicted += scorer.predicted
    last = load(monkeypatch)

    evaluate_run(sharded, "all", Split.VAL, None, Listener(), race=True)

    assert last.asked == []
    assert sorted(predicted) == sorted(whole.predicted)
    assert (files_of(sharded), sharded.race()) == (undisturbed, record)
    # Three checkpoints race in two rounds; the third time, the winner is answered on the other items.
    assert [[one.is_round for one in sweep][:3] for sweep in sweeps] == [[True] * 3, [True] * 3, [False] * 3]
    assert [sweep[-1].missing for sweep in sweeps][-1] == 0
    assert sweeps[0][0].merge == "pricer eval --run quickstart --all-checkpoints --race"


def test_real_shards_from_the_command_line_are_the_undisturbed_evaluation(trained: Path) -> None:
    runner, every = typer.testing.CliRunner(), ["eval", "--all-checkpoints"]
    path = trained / "config.yaml"
    path.write_text(path.read_text().replace("batch_tokens: auto", "batch_tokens: 100"))
    assert runner.invoke(app, every).exit_code == 0
    undisturbed = files_of(Run(trained))
    shutil.rmtree(trained / "evaluations")

    answered = [json.loads(runner.invoke(app, [*every, "--shard", f"{n}/3", "--json"]).stdout) for n in (3, 1, 2)]
    assert list((trained / "evaluations").glob("*/evaluation.json")) == []
    merged = runner.invoke(app, every)

    assert merged.exit_code == 0, merged.stderr
    assert [one["shard"] for one in answered] == ["3/3", "1/3", "2/3"]
    assert answered[-1]["missing"] == 0
    assert files_of(Run(trained)) == undisturbed
