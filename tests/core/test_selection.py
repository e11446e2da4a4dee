"""Which checkpoint is chosen, and when none is."""

import json

import numpy as np
import pytest

from pricer.core.items import Split
from pricer.core.metrics import Metric
from pricer.core.scores import Scores
from pricer.core.selection import select
from pricer.errors import RunError
from tests.builders import SPEC, a_checkpoint, a_spec, an_evaluation

# Of 100 items of $100 each: errors of 0 to 198, and what checkpoints add to them, ± $10 in turn.
ITEMS, SWING = 2.0 * np.arange(100), 10 * (-1.0) ** np.arange(100)
ADDED = {100: 30.0 + 0 * SWING, 200: 1.0 + SWING, 300: 0 * SWING}
EVALUATIONS = [an_evaluation(step, 99.0 + added.mean(), n=100) for step, added in ADDED.items()]
SCORES = {
    a_checkpoint(step).id: Scores(np.full(100, 100.0), 100 + ITEMS + 20 + added, np.ones(100, dtype=np.bool_))
    for step, added in ADDED.items()
}


def test_the_lowest_error_wins() -> None:
    selection = select([an_evaluation(100, 50.0), an_evaluation(200, 40.0), an_evaluation(300, 43.5)], "mae")

    assert (selection.step, selection.revision) == (200, a_checkpoint(200).id)
    assert [evaluation.step for evaluation in selection.ranking] == [200, 300, 100]
    assert selection.margin == 3.5  # 43.5 − 40
    assert (selection.rule, selection.metric, selection.spec_fingerprint) == ("lowest", "mae", SPEC.fingerprint)


def test_the_highest_wins_where_higher_is_better() -> None:
    selection = select([an_evaluation(100, 50.0, hit_rate=0.75), an_evaluation(200, 40.0, hit_rate=0.5)], "hit_rate")

    assert selection.step == 100
    assert [evaluation.step for evaluation in selection.ranking] == [100, 200]
    assert selection.margin == 0.25  # 0.75 − 0.5


def test_a_tie_goes_to_the_earlier_step_in_any_order() -> None:
    tied = [an_evaluation(300, 40.0), an_evaluation(100, 41.0), an_evaluation(200, 40.0)]

    for evaluations in (tied, tied[::-1]):
        selection = select(evaluations, "mae")
        assert (selection.step, selection.margin) == (200, 0.0)
        assert [evaluation.step for evaluation in selection.ranking] == [200, 300, 100]


def test_a_tie_where_higher_is_better_goes_to_the_earlier_step_too() -> None:
    assert select([an_evaluation(200, 40.0), an_evaluation(100, 50.0)], "hit_rate").step == 100


def test_a_single_checkpoint_wins_by_no_margin() -> None:
    selection = select([an_evaluation(100, 50.0)], "mae")

    assert (selection.step, selection.margin) == (100, None)


def test_a_baseline_is_never_chosen_however_good_it_is() -> None:
    selection = select([an_evaluation(None, 1.0), an_evaluation(100, 50.0)], "mae")

    assert selection.step == 100
    assert [evaluation.name for evaluation in selection.ranking] == ["step-000100"]


def test_without_evaluations_nothing_is_chosen() -> None:
    for evaluations in ([], [an_evaluation(None, 1.0)]):
        with pytest.raises(RunError, match="no checkpoint has been evaluated yet") as raised:
            select(evaluations, "mae")
        assert raised.value.hint == "pricer eval --all-checkpoints"


def test_mixed_specs_are_refused() -> None:
    mixed = [an_evaluation(100, 50.0), an_evaluation(200, 40.0, spec=a_spec(limit=10))]

    with pytest.raises(RunError, match="under different specs and cannot be ranked together"):
        select(mixed, "mae")


def test_a_baseline_under_another_spec_does_not_stand_in_the_way() -> None:
    evaluations = [an_evaluation(None, 1.0, spec=a_spec(limit=10)), an_evaluation(100, 50.0)]

    assert select(evaluations, "mae").step == 100


def test_the_test_split_is_refused() -> None:
    with pytest.raises(RunError, match="a checkpoint is not chosen on the test split") as raised:
        select([an_evaluation(100, 50.0, spec=a_spec(split=Split.TEST))], "mae")

    assert raised.value.hint == "pricer eval --all-checkpoints --split val"


def test_an_undefined_metric_is_refused_by_name() -> None:
    undefined = an_evaluation(200, 40.0, metrics=(Metric("r2", None, None, 50, "higher"),))
    defined = an_evaluation(100, 50.0, metrics=(Metric("r2", 0.5, None, 50, "higher"),))

    with pytest.raises(RunError, match="r2 is undefined for step-000200") as raised:
        select([defined, undefined], "r2")

    assert raised.value.hint == "choose another --metric"


def test_a_selection_is_written_with_its_ranking() -> None:
    selection = select([an_evaluation(100, 50.0), an_evaluation(200, 40.0)], "mae")

    record = json.loads(json.dumps(selection.to_json(), allow_nan=False))

    assert record == {
        "step": 200,
        "revision": a_checkpoint(200).id,
        "rule": "lowest",
        "metric": "mae",
        "margin": 10.0,
        "spec_fingerprint": SPEC.fingerprint,
        "evidence": None,
        "ranking": [
            {
                "step": 200,
                "revision": a_checkpoint(200).id,
                "name": "mae",
                "value": 40.0,
                "interval": [39.0, 41.0],
                "n": 50,
                "better": "lower",
            },
            {
                "step": 100,
                "revision": a_checkpoint(100).id,
                "name": "mae",
                "value": 50.0,
                "interval": [49.0, 51.0],
                "n": 50,
                "better": "lower",
            },
        ],
    }


def test_the_scores_say_how_sure_the_choice_is() -> None:
    selection = select(EVALUATIONS[::-1], "mae", scores=SCORES)

    assert (selection.step, selection.margin, selection.chosen) == (300, 1.0, EVALUATIONS[2])
    evidence = selection.evidence
    assert evidence is not None
    assert [one.step for one in evidence.standings] == [100, 200, 300]
    # $30 on every item; $1 of which the standard error is 10/√100 = 1; the best itself.
    assert [one.indistinguishable for one in evidence.standings] == [False, True, True]
    assert [round(one.behind, 6) for one in evidence.standings] == [30.0, 1.0, 0.0]
    assert evidence.standings[0].interval == pytest.approx((30.0, 30.0))
    assert evidence.corrected > 119.0  # 99 + 20, and the optimism


@pytest.mark.parametrize(("rule", "step"), [("lowest", 300), ("earliest", 200), ("one-se", 200)])
def test_a_rule_may_take_an_earlier_one(rule: str, step: int) -> None:
    # The standard error of the best is 2 · 100/√12/√100 = 5.8: within it are $0 and $1, and not $30.
    selection = select(EVALUATIONS, "mae", rule, SCORES)  # type: ignore[arg-type]

    assert (selection.step, selection.revision, selection.rule) == (step, a_checkpoint(step).id, rule)
    assert selection.chosen.step == step
    assert selection.ranking[0].step == 300


def test_without_scores_there_is_no_evidence_and_one_rule() -> None:
    assert select(EVALUATIONS, "mae").evidence is None

    with pytest.raises(RunError, match="there are too few scores to choose by earliest") as raised:
        select(EVALUATIONS, "mae", "earliest")
    assert raised.value.hint == "--rule lowest"


@pytest.mark.parametrize("rule", ["lowest", "earliest", "one-se"])
def test_a_single_checkpoint_is_chosen_by_every_rule(rule: str) -> None:
    selection = select(EVALUATIONS[:1], "mae", rule, SCORES)  # type: ignore[arg-type]

    assert (selection.step, selection.evidence) == (100, None)


def test_the_evidence_is_written_beside_the_ranking() -> None:
    record = json.loads(json.dumps(select(EVALUATIONS, "mae", scores=SCORES).to_json(), allow_nan=False))

    evidence = record["evidence"]
    assert evidence["standings"][2] == {
        "step": 300,
        "behind": 0.0,
        "interval": None,
        "indistinguishable": True,
        "p_best": pytest.approx(0.84, abs=0.02),  # Φ(1)
    }
    assert (evidence["resamples"], evidence["seed"]) == (10_000, 0)
    assert evidence["corrected_interval"][0] < evidence["corrected"] < evidence["corrected_interval"][1]
    assert evidence["more_items"] == pytest.approx(284, rel=0.06)  # 100 · (1.96² − 1)
    assert evidence["standard_error"] == pytest.approx(5.77, rel=0.03)
