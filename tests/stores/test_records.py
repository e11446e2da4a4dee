"""Records: what is written reads back as it was, and anything else is refused with its key."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.comparison import Comparison
from pricer.core.evaluation import Evaluation
from pricer.core.intervals import report_coverage
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.core.selection import Confirmation, PickRecord, Selection
from pricer.stores.checkpoints import parse_manifest
from pricer.stores.records import parse_record, read_records
from tests.builders import a_checkpoint, a_comparison, a_difference, a_distribution, a_spec, an_evaluation

EVALUATION = an_evaluation(5, 40.0)
COVERAGE = report_coverage(0.8, [(1.0, 3.0), None], None, [2.0, 5.0])
CONFIRMATION = Confirmation(
    "2026-01-02", EVALUATION.candidate, EVALUATION.spec.fingerprint, EVALUATION.metric("mae"), 2, ("a",), (COVERAGE,)
)
COMPARISON = a_comparison(
    a_difference(5, -1.5, (-4.0, 1.0), 0.9, is_best=True), a_difference(10, 1.5, (-1.0, 4.0), 0.1)
)
PICK = Selection("mae", (EVALUATION, an_evaluation(10, 41.5)), COMPARISON).record
PREDICTION = Prediction("a", "0022", 22.0, a_distribution())


@pytest.mark.parametrize(
    "record",
    [
        EVALUATION,
        an_evaluation(None, None, a_spec(limit=2, split=Split.TEST)),  # a baseline, whose MAE is undefined
        replace(EVALUATION, estimators=EVALUATION.metrics[:1]),
        COMPARISON,
        replace(COMPARISON, more_items=None),
        PICK,
        replace(PICK, comparison=None, margin=None),
        CONFIRMATION,
        PREDICTION,
        Prediction("a", "no 😀", None),
    ],
)
def test_a_record_reads_back_as_it_was_written(record: Any) -> None:
    assert parse_record(type(record), json.dumps(asdict(record), allow_nan=False)) == record


@pytest.mark.parametrize(
    ("record", "change", "message"),
    [
        (EVALUATION, {"spec": None}, "spec is None: Input should be an object"),
        (EVALUATION, {"metrics": [{"name": "mae"}]}, "metrics.0.value is missing"),
        (EVALUATION, {"candidate": {}}, "candidate.name is missing"),
        (EVALUATION, {"spec": {**asdict(a_spec()), "split": "validation"}}, "spec.split is 'validation': "),
        (EVALUATION, {"auto_map": {}}, "auto_map is unknown"),
        (EVALUATION, {"\x1b[2J": 1}, r"'\x1b[2J' is unknown"),
        (PREDICTION, {"price": "22"}, "price is '22': "),
        (PREDICTION, {"price": True}, "price is True: "),
        (PREDICTION, {"price": float("nan")}, "price is nan: "),
        (PREDICTION, {"price": float("inf")}, "price is inf: "),
        (PREDICTION, {"distribution": {**asdict(a_distribution()), "quantiles": [1.0]}}, "distribution: 1 quantiles"),
        (COMPARISON, {"more_items": True}, "more_items is True: "),
        (COMPARISON, {"resamples": 1.5}, "resamples is 1.5: "),
        (COMPARISON, {"corrected": 10**400}, "corrected is 1000"),
        (COMPARISON, {"corrected_interval": [1.0]}, "corrected_interval.1 is missing"),
        (COMPARISON, {"differences": []}, "these differences are not of one best candidate and others"),
        (PICK, {"candidate": asdict(Candidate("constant"))}, "constant is a baseline"),
        (PICK, {"metric": "no_price"}, "no checkpoint is chosen by no_price"),
        (PICK.candidate, {"step": None}, "'step-000005' is neither a checkpoint nor a baseline"),
        (PICK.candidate, {"id": None}, "'step-000005' is neither a checkpoint nor a baseline"),
        (CONFIRMATION, {"look": None}, "look is None: "),
    ],
)
def test_what_is_no_such_record_is_refused_with_its_key(record: Any, change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # its text is compared below
        parse_record(type(record), json.dumps({**asdict(record), **change}))

    assert str(raised.value).startswith(message)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", [Checkpoint, Evaluation, PickRecord, Comparison])
@pytest.mark.parametrize("text", ["", "{", "[]", "5", "[" * 100_000])
def test_what_is_no_object_is_refused(kind: type[Any], text: str) -> None:
    with pytest.raises(ValueError, match=r"\A[^\n]{1,200}\Z"):
        parse_record(kind, text)


def test_a_broken_line_is_named() -> None:
    Path("log.jsonl").write_text(json.dumps(asdict(PREDICTION)) + "\n{}\n")

    with pytest.raises(ValueError, match=r"^item_id is missing \(log.jsonl, line 2\)$"):
        list(read_records(Prediction, Path("log.jsonl")))


class TestManifests:
    """A checkpoint's manifest, which has its id in it."""

    @pytest.mark.parametrize(
        "checkpoint",
        [
            a_checkpoint(epoch=0.1 + 0.2),
            a_checkpoint(epoch=None, base_revision=None, prompt_fingerprint=None, data_fingerprint=None),
        ],
    )
    def test_it_reads_back_as_it_was_written(self, checkpoint: Checkpoint) -> None:
        assert parse_manifest(json.dumps(checkpoint.to_json())) == checkpoint

    def test_the_id_may_be_left_out_and_the_place_is_kept(self) -> None:
        record = a_checkpoint().at("c" * 40, "checkpoint-5").to_json()
        del record["id"]

        found = parse_manifest(json.dumps(record))

        assert (found, found.commit, found.folder) == (a_checkpoint(), "c" * 40, "checkpoint-5")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"step": "5"}, "step is '5'"),
            ({"step": 5.0}, "step is 5.0"),
            ({"step": -5}, "step is -5"),
            ({"step": 6}, f"id is '{a_checkpoint(5).id}', its contents make it {a_checkpoint(6, epoch=0.5).id}"),
            ({"epoch": "half"}, "epoch is 'half'"),
            ({"base": None}, "base is None"),
            ({"commit": ["c"]}, r"commit is \['c'\]"),
            ({"folder": None}, "folder is None"),
        ],
    )
    def test_a_wrong_entry_is_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}"):
            parse_manifest(json.dumps({**a_checkpoint(5).to_json(), **change}))
