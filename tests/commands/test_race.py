"""`pricer eval --race`: what is scored and what is not, that an interrupted race continues as the same, and a pick."""

import json
from pathlib import Path

import numpy as np
import pytest
import typer.testing

from pricer.cli import app
from pricer.commands.parts.scoring import race_checkpoints, score_checkpoints
from pricer.commands.parts.session import EvaluationSession
from pricer.commands.pick import pick
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.halving import RaceRecord
from pricer.core.items import Item, Split
from pricer.errors import RunError
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run
from tests.builders import an_evaluation, some_scores
from tests.commands.conftest import Listener
from tests.commands.sessions import SPEC, FakeScorer, a_session
from tests.loopback_hub import LoopbackHub, Repo

ITEMS = [Item(f"item{n}", f"Lamp {n}", 100.0) for n in range(400)]
# One to three tokens, so that a batch of twelve holds four to twelve prompts, and none is in the order of the items.
PROMPTS = [TokenizedPrompt(item.id, np.ones(n % 3 + 1, dtype=np.int32), cut=False) for n, item in enumerate(ITEMS)]
# Dollars above the price, on average: the second checkpoint is the best, the first by far the worst.
ABOVE = {"step-000002": 60, "step-000004": 10, "step-000006": 30}


def a_scorer(fail_at: int | None = None) -> FakeScorer:
    """Is wrong by what ABOVE says of the adapter, one dollar more or less in turn."""
    return FakeScorer(lambda adapter, item: 100.0 + ABOVE[adapter] + (-1) ** int(item.removeprefix("item")), fail_at)


def in_session(
    run: Run, scorer: FakeScorer | None, listener: Listener | None = None, items: int = 400
) -> EvaluationSession:
    return a_session(run, ITEMS[:items], PROMPTS[:items], 12, scorer, listener or Listener())


def race(run: Run, scorer: FakeScorer | None = None, listener: Listener | None = None) -> list[Evaluation]:
    """Race all checkpoints; without a scorer, every prediction must be saved."""
    return race_checkpoints(in_session(run, scorer, listener), run.store.checkpoints())


def score(run: Run, scorer: FakeScorer, checkpoints: int = 3) -> list[Evaluation]:
    """Score the first so many checkpoints in full."""
    return score_checkpoints(in_session(run, scorer), run.store.checkpoints()[:checkpoints])


def the_record(run: Run) -> RaceRecord:
    record = run.race()
    assert record is not None
    return record


def test_a_race_scores_its_budget_and_the_rest_of_the_winner(run: Run) -> None:
    scorer, listener = a_scorer(), Listener()

    (winner,) = race(run, scorer, listener)

    # 30 % of 3 × 400 are 360 predictions in two rounds of equal cost: 3 × 60, then 2 × 90. With the 250 that the winner
    # lacks then they are 610 of 1,200.
    count = {name: len([one for one, _ in scorer.predicted if one == name]) for name in ABOVE}
    assert count == {"step-000002": 60, "step-000004": 400, "step-000006": 150}
    assert len(set(scorer.predicted)) == len(scorer.predicted) == 610
    record = the_record(run)
    assert record.share_of_work == pytest.approx(610 / 1200)
    # One dollar more or less in turn cancels out over 60 and 150 items.
    assert [(o.step, o.n, o.leader, round(o.margin, 6)) for o in record.dropped] == [
        (2, 60, 4, 50.0),
        (6, 150, 4, 20.0),
    ]
    assert (winner.name, winner.metric("mae").value, winner.metric("mae").n) == ("step-000004", 10.0, 400)
    assert record.winner == winner.candidate.id
    assert listener.notes == [
        "step-000002  out after 60 items, $50.00 worse than step-000004",
        "step-000006  out after 150 items, $20.00 worse than step-000004",
    ]


def test_a_dropped_checkpoint_has_predictions_but_no_evaluation(run: Run) -> None:
    race(run, a_scorer())

    assert [e.name for e in run.evaluations.all()] == ["step-000004"]
    assert len(list((run.folder / "evaluations").glob("*/predictions.jsonl"))) == 3


@pytest.mark.parametrize("fail_at", [0, 30, 90])
def test_an_interrupted_race_continues_as_the_same_and_asks_nothing_twice(run: Run, fail_at: int) -> None:
    whole = a_scorer()
    finished = race(run, whole)
    record = the_record(run)
    for path in (run.folder / "evaluations").glob("*/*.json*"):
        path.unlink()
    (run.folder / "race.json").unlink()
    assert len(whole.asked) > fail_at

    first, second = a_scorer(fail_at), a_scorer()
    with pytest.raises(SystemError):
        race(run, first)
    assert run.evaluations.all() == []
    assert run.race() is None

    assert race(run, second) == finished
    assert first.asked + second.asked == whole.asked
    assert the_record(run) == record


def test_a_race_that_is_over_is_shown_again_and_nothing_is_loaded(run: Run) -> None:
    finished, record = race(run, a_scorer()), the_record(run)

    assert race(run) == finished
    assert the_record(run) == record


def test_after_a_race_a_full_evaluation_asks_only_what_is_missing(run: Run) -> None:
    first, second = a_scorer(), a_scorer()
    race(run, first)

    evaluations = score(run, second)

    assert len(second.predicted) == 1200 - 610
    assert not set(first.predicted) & set(second.predicted)
    assert [e.metric("mae").value for e in evaluations] == [60.0, 10.0, 30.0]


@pytest.mark.parametrize("fail_at", [5, 70])
def test_a_full_evaluation_continues_where_a_race_was_interrupted(run: Run, fail_at: int) -> None:
    first, second = a_scorer(fail_at), a_scorer()
    with pytest.raises(SystemError):
        race(run, first)

    score(run, second)

    assert len(first.predicted) + len(second.predicted) == len(set(first.predicted + second.predicted)) == 1200


def test_a_race_takes_what_a_full_evaluation_has_asked(run: Run) -> None:
    first, second = a_scorer(fail_at=30), a_scorer()
    with pytest.raises(SystemError):
        score(run, first)

    race(run, second)

    assert not set(first.predicted) & set(second.predicted)
    assert [o.step for o in the_record(run).dropped] == [2, 6]


def test_a_loser_that_was_scored_in_full_before_keeps_its_evaluation(run: Run) -> None:
    score(run, a_scorer(), checkpoints=1)

    assert [e.name for e in race(run, a_scorer())] == ["step-000002", "step-000004"]


def test_one_checkpoint_wins_its_race_and_is_scored_on_everything(run: Run) -> None:
    (winner,) = race_checkpoints(in_session(run, a_scorer()), run.store.checkpoints()[:1])

    record = the_record(run)
    assert (winner.name, record.dropped, record.share_of_work) == ("step-000002", (), 1.0)


def test_a_budget_under_one_item_each_is_an_error(run: Run) -> None:
    with pytest.raises(RunError) as raised:
        race_checkpoints(in_session(run, a_scorer(), items=2), run.store.checkpoints())

    assert raised.value.message == (
        "these checkpoints cannot race: a budget of 0.3 of 6 predictions does not give each checkpoint one item"
    )
    assert raised.value.hint == "pricer eval --all-checkpoints"


def test_progress_never_goes_back(run: Run) -> None:
    listener = Listener()

    race(run, a_scorer(), listener)

    done = [count for _, count, _ in listener.done]
    assert done == sorted(done)
    assert all(count <= total for _, count, total in listener.done)
    # 360 predictions within the budget, then the other 250 of the winner: known from the beginning.
    assert (done[-1], listener.done[0][2], listener.done[-1][2]) == (610, 610, 610)


def test_a_damaged_record_is_named(run: Run) -> None:
    (run.folder / "race.json").write_text("{}")

    with pytest.raises(RunError, match=r"race\.json is damaged"):
        run.race()


class TestPick:
    def test_the_winner_is_picked_and_the_dropped_are_named(self, run: Run) -> None:
        race(run, a_scorer())

        picked = pick(None, "mae")

        assert (picked.selection.candidate.step, picked.dropped, picked.unscored) == (4, (2, 6), ())
        assert [e.candidate.step for e in picked.selection.ranking] == [4]

    def test_a_race_counts_before_fewer_items_on_which_all_were_scored(self, run: Run) -> None:
        race(run, a_scorer())
        small = EvalSpec(
            "data", Split.VAL, 50, "prompt", "base", "1" * 40, "nf4/float32", "greedy", 30.0, "$", 0, 40.0, 0.2
        )
        for checkpoint in run.store.checkpoints():
            evaluation = an_evaluation(checkpoint.step, 1.0, spec=small, name=checkpoint.name, id=checkpoint.id)
            run.evaluations.add(checkpoint.id, evaluation, some_scores())

        picked = pick(None, "mae")

        assert (picked.selection.candidate.step, picked.selection.spec_fingerprint) == (4, SPEC.fingerprint)
        assert picked.dropped == (2, 6)

    def test_a_race_that_is_not_over_decides_nothing(self, run: Run) -> None:
        with pytest.raises(SystemError):
            race(run, a_scorer(fail_at=60))

        with pytest.raises(RunError, match="no checkpoint has been evaluated yet"):
            pick(None, "mae")


@pytest.mark.usefixtures("scorer")
def test_a_repository_races_each_adapter_fetched_once_and_the_card_counts_the_dropped(
    pushed: Repo, hub: LoopbackHub
) -> None:
    runner = typer.testing.CliRunner()
    arguments = ["eval", "--repo", "ann/prices", "--all-checkpoints", "--race"]

    raced = runner.invoke(app, [*arguments, "--json"])
    assert raced.exit_code == 0, raced.stderr
    seen = len(hub.requests)
    again = runner.invoke(app, [*arguments, "--json"])
    assert runner.invoke(app, ["pick", "--repo", "ann/prices"]).exit_code == 0

    assert json.loads(again.stdout) == json.loads(raced.stdout)
    assert not [r.path for r in hub.requests[seen:] if "adapter_model.safetensors" in r.path and r.method == "GET"]
    assert "it won a race. The other 2 dropped out" in " ".join(pushed.files()["README.md"].decode().split())


def test_real_checkpoints_race_and_the_winner_is_picked(trained: Path) -> None:
    runner = typer.testing.CliRunner()

    raced = runner.invoke(app, ["eval", "--all-checkpoints", "--race", "--json"])

    assert raced.exit_code == 0, raced.stderr
    shown = json.loads(raced.stdout)
    assert shown["race"] == json.loads((trained / "race.json").read_text())
    # 30 % of 3 × 12 are 10 predictions: 3 × 1 and 2 × 3; the winner's other 8 make it 17 of 36.
    assert shown["race"]["share_of_work"] == pytest.approx(17 / 36)
    assert [e["candidate"]["name"] for e in shown["evaluations"]][:2] == ["train median", "tf-idf + ridge"]
    (winner,) = shown["evaluations"][4:]
    assert winner["candidate"]["id"] == shown["race"]["winner"]

    table = runner.invoke(app, ["eval", "--all-checkpoints", "--race"]).stdout.split("Race within ")[1]
    assert table.splitlines()[0].strip() == "30 % of the work"
    assert table.splitlines()[-1] == "53 % of the work saved"

    picked = runner.invoke(app, ["pick"])
    assert picked.exit_code == 0
    out = ", ".join(str(step) for step in (2, 4, 6) if step != winner["candidate"]["step"])
    assert f"dropped in a race (by mae), so not in the ranking: steps {out}" in picked.stderr
