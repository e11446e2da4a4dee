"""Which checkpoint is chosen, and when none is."""

import json

import pytest

from pricer.core.items import Split
from pricer.core.metrics import Metric
from pricer.core.selection import select
from pricer.errors import RunError
from tests.builders import SPEC, a_checkpoint, a_spec, an_evaluation


def test_the_lowest_error_wins() -> None:
    selection = select([an_evaluation(100, 50.0), an_evaluation(200, 40.0), an_evaluation(300, 43.5)], "mae")

    assert (selection.step, selection.revision) == (200, a_checkpoint(200).revision)
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
        "revision": a_checkpoint(200).revision,
        "rule": "lowest",
        "metric": "mae",
        "margin": 10.0,
        "spec_fingerprint": SPEC.fingerprint,
        "ranking": [
            {
                "step": 200,
                "revision": a_checkpoint(200).revision,
                "name": "mae",
                "value": 40.0,
                "interval": [39.0, 41.0],
                "n": 50,
                "better": "lower",
            },
            {
                "step": 100,
                "revision": a_checkpoint(100).revision,
                "name": "mae",
                "value": 50.0,
                "interval": [49.0, 51.0],
                "n": 50,
                "better": "lower",
            },
        ],
    }
