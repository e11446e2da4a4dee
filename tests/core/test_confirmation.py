"""What counts as a look at the test split."""

import json
from dataclasses import replace

from pricer.core.confirmation import Confirmation, looks_besides
from pricer.core.items import Split
from tests.builders import a_checkpoint, a_spec, an_evaluation

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

    assert looks_besides(evaluations, FIRST, TEST.fingerprint) == ["step-000100", "step-000200"]
    assert looks_besides(evaluations[:2], FIRST, TEST.fingerprint) == []


def test_a_look_that_was_confirmed_stays_one_without_its_evaluation() -> None:
    earlier = Confirmation.of(an_evaluation(200, 50.0, spec=TEST), "mae", "now", 1, ())

    assert looks_besides([], FIRST, TEST.fingerprint, [earlier]) == ["step-000200"]
    assert looks_besides([], earlier.candidate.id, TEST.fingerprint, [earlier]) == []


def test_a_confirmation_is_read_back_as_it_was() -> None:
    evaluation = an_evaluation(100, 40.0, spec=TEST)

    found = Confirmation.of(evaluation, "mae", "2026-01-02", 3, ["step-000200", "step-000200", "step-000300"])

    assert (found.candidate, found.metric, found.look) == (evaluation.candidate, evaluation.metric("mae"), 3)
    assert found.before == ("step-000200", "step-000300")
    assert Confirmation.from_json(json.loads(json.dumps(found.to_json()))) == found
    undefined = replace(found, metric=replace(found.metric, value=None, interval=None))
    assert Confirmation.from_json(json.loads(json.dumps(undefined.to_json()))) == undefined
