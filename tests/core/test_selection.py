"""The choice of a checkpoint, and its confirmation on the test split."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from pricer.core.checkpoints import Candidate
from pricer.core.halving import Dropout, RaceRecord
from pricer.core.items import Split
from pricer.core.metrics import Metric
from pricer.core.selection import (
    Confirmation,
    Selection,
    by_preference,
    dropped_ids,
    find_comparable,
    other_test_looks,
    select,
)
from pricer.errors import RunError
from tests.builders import SPEC, a_checkpoint, a_score_table, a_spec, an_evaluation

# Of 100 items of $100 each: errors of 0 to 198, and what checkpoints add to them, ± $10 in turn.
ITEMS, SWING = 2.0 * np.arange(100), 10 * (-1.0) ** np.arange(100)
ADDED = {100: 30.0 + 0 * SWING, 200: 1.0 + SWING, 300: 0 * SWING}
EVALUATIONS = [an_evaluation(step, 99.0 + added.mean(), n=100) for step, added in ADDED.items()]
TABLES = {a_checkpoint(step).id: a_score_table(100 + ITEMS + 20 + added) for step, added in ADDED.items()}


def steps(selection: Selection) -> list[int | None]:
    return [evaluation.candidate.step for evaluation in selection.ranking]


def test_the_lowest_error_wins() -> None:
    selection = select([an_evaluation(100, 50.0), an_evaluation(200, 40.0), an_evaluation(300, 43.5)], "mae")

    assert selection.candidate == Candidate.of(a_checkpoint(200))
    assert steps(selection) == [200, 300, 100]
    assert selection.margin == 3.5  # 43.5 − 40
    assert (selection.metric, selection.spec_fingerprint, selection.comparison) == ("mae", SPEC.fingerprint, None)


def test_the_highest_wins_where_higher_is_better() -> None:
    selection = select([an_evaluation(100, 50.0, hit_rate=0.75), an_evaluation(200, 40.0, hit_rate=0.5)], "hit_rate")

    assert steps(selection) == [100, 200]
    assert selection.margin == 0.25  # 0.75 − 0.5


def test_a_tie_goes_to_the_earlier_step_in_any_order() -> None:
    tied = [an_evaluation(300, 40.0), an_evaluation(100, 41.0), an_evaluation(200, 40.0)]

    for evaluations in (tied, tied[::-1]):
        selection = select(evaluations, "mae")
        assert (steps(selection), selection.margin) == ([200, 300, 100], 0.0)


def test_a_single_checkpoint_wins_by_no_margin_and_is_compared_to_nothing() -> None:
    selection = select(EVALUATIONS[:1], "mae", TABLES)

    assert (steps(selection), selection.margin, selection.comparison) == ([100], None, None)


def test_a_baseline_is_never_chosen_however_good_it_is() -> None:
    selection = select([an_evaluation(None, 1.0), an_evaluation(100, 50.0)], "mae")

    assert steps(selection) == [100]


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

    assert steps(select(evaluations, "mae")) == [100]


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

    record = json.loads(json.dumps(asdict(selection.record), allow_nan=False))

    assert record == {
        "candidate": {"name": "step-000200", "id": a_checkpoint(200).id, "step": 200, "epoch": 20.0},
        "metric": "mae",
        "margin": 10.0,
        "spec_fingerprint": SPEC.fingerprint,
        "comparison": None,
        "ranking": [
            {
                "candidate": {
                    "name": name,
                    "id": a_checkpoint(step).id,
                    "step": step,
                    "epoch": step / 10,
                },
                "metric": {"name": "mae", "value": mae, "interval": [mae - 1, mae + 1], "n": 50, "better": "lower"},
            }
            for name, step, mae in (("step-000200", 200, 40.0), ("step-000100", 100, 50.0))
        ],
    }


def test_the_scores_say_how_sure_the_choice_is() -> None:
    selection = select(EVALUATIONS[::-1], "mae", TABLES)

    assert (selection.margin, selection.chosen) == (1.0, EVALUATIONS[2])
    comparison = selection.comparison
    assert comparison is not None
    assert [one.candidate.step for one in comparison.differences] == [100, 200, 300]
    # $30 on every item; $1 of which the standard error is 10/√100 = 1; the best itself.
    assert [one.may_be_best for one in comparison.differences] == [False, True, True]
    assert [round(one.worse_by, 6) for one in comparison.differences] == [30.0, 1.0, -1.0]
    assert comparison.corrected > 119.0  # 99 + 20, and the optimism


def test_the_comparison_is_written_beside_the_ranking() -> None:
    selection = select(EVALUATIONS, "mae", TABLES)
    record = json.loads(json.dumps(asdict(selection.record), allow_nan=False))

    comparison = record["comparison"]
    assert comparison["differences"][2] == {
        "candidate": asdict(Candidate.of(a_checkpoint(300))),
        "worse_by": -1.0,
        "interval": [pytest.approx(-2.96, abs=0.1), pytest.approx(0.96, abs=0.1)],  # −1 ± 1.96
        "is_best": True,
        "may_be_best": True,
        "p_best": pytest.approx(0.84, abs=0.02),  # Φ(1)
    }
    assert (comparison["resamples"], comparison["seed"]) == (10_000, 0)
    assert comparison["corrected_interval"][0] < comparison["corrected"] < comparison["corrected_interval"][1]
    assert comparison["more_items"] == pytest.approx(171, rel=0.06)  # 100 · (1.645² − 1)


class TestWhatIsCompared:
    """Of several specs, the one under which checkpoints are compared."""

    KEPT = frozenset(a_checkpoint(step).id for step in (100, 200, 300))

    def test_is_under_the_spec_that_covers_every_checkpoint(self) -> None:
        few = [an_evaluation(step, 40.0, a_spec(limit=10), n=10) for step in (100, 200, 300)]
        many = [an_evaluation(step, 40.0) for step in (100, 200)]

        assert find_comparable([*many, *few], self.KEPT) == few

    def test_has_the_most_items_and_then_the_estimator_of_the_run(self) -> None:
        few = [an_evaluation(100, 40.0, a_spec(limit=10), n=10)]
        greedy, median = [an_evaluation(100, 40.0)], [an_evaluation(100, 40.0, a_spec(estimator="median"))]

        assert find_comparable([*few, *greedy, *median], self.KEPT) == median
        assert find_comparable([*few, *greedy, *median], self.KEPT, "greedy") == greedy

    def test_leaves_out_baselines_the_test_split_and_weights_that_are_gone(self) -> None:
        own = [an_evaluation(100, 40.0)]
        others = [an_evaluation(None, 9.0), an_evaluation(400, 9.0), an_evaluation(200, 9.0, a_spec(split=Split.TEST))]

        assert find_comparable([*own, *others], self.KEPT) == own
        assert find_comparable(others, self.KEPT) == []

    def test_is_refused_where_no_spec_covers_them_all_and_the_fullest_is_preferred(self) -> None:
        one = [an_evaluation(300, 40.0)]
        two = [an_evaluation(step, 40.0, a_spec(limit=10), n=10) for step in (100, 200)]

        assert by_preference([*one, *two], self.KEPT) == [two, one]
        with pytest.raises(RunError, match=r"\(10 items: steps 100, 200; all items: steps 300\)") as raised:
            find_comparable([*one, *two], self.KEPT)
        assert raised.value.hint == "pricer eval --all-checkpoints"

    def test_covers_those_that_dropped_out_of_a_finished_race(self) -> None:
        few = [an_evaluation(step, 40.0, a_spec(limit=10), n=10) for step in (100, 200)]
        many = [an_evaluation(200, 40.0)]
        out = Dropout(100, a_checkpoint(100).id, n=20, leader=200, margin=1.0)
        race = RaceRecord(SPEC.fingerprint, 0.3, a_checkpoint(200).id, (out,), 0.7)

        assert find_comparable([*few, *many], self.KEPT, dropped=dropped_ids(race)) == many
        assert find_comparable([*few, *many], self.KEPT, dropped=dropped_ids(None)) == few


TEST = a_spec(split=Split.TEST)
PART = a_spec(split=Split.TEST, limit=10)
FIRST = a_checkpoint(100).id


def test_only_checkpoints_on_the_test_split_are_looks_and_the_measurement_itself_is_none() -> None:
    evaluations = [
        an_evaluation(None, 90.0, spec=TEST),
        an_evaluation(100, 40.0, spec=TEST),
        an_evaluation(100, 41.0, spec=PART),
        an_evaluation(200, 50.0, spec=TEST),
        an_evaluation(300, 50.0),
    ]

    assert other_test_looks(evaluations, FIRST, TEST.fingerprint) == ["step-000100", "step-000200"]
    assert other_test_looks(evaluations[:2], FIRST, TEST.fingerprint) == []


def test_a_look_that_was_confirmed_stays_one_without_its_evaluation() -> None:
    measured = an_evaluation(200, 50.0, spec=TEST)
    earlier = Confirmation("now", measured.candidate, TEST.fingerprint, measured.metric("mae"), 1, ())

    assert other_test_looks([], FIRST, TEST.fingerprint, [earlier]) == ["step-000200"]
    assert other_test_looks([], earlier.candidate.id, TEST.fingerprint, [earlier]) == []
