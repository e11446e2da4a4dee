"""A run's evaluations: predictions by batch, scores, metrics."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pricer.core.calibration import Calibration, CalibrationGroup, Correction
from pricer.core.cells import Shard
from pricer.core.checkpoints import Failure
from pricer.core.evaluation import EvalSpec
from pricer.core.predictions import Prediction
from pricer.core.regression import EmbeddingRegression
from pricer.errors import RunError
from pricer.stores.evaluations import EvaluationStore
from tests.builders import SPEC, a_distribution, a_spec, an_evaluation, some_scores

FOLDER = Path("run/evaluations")
BATCH = [Prediction("a", "227.00", 227.0, a_distribution()), Prediction("b", "café, no idea", None)]
OTHER = [Prediction("c", "5.00", 5.0)]


def a_store() -> EvaluationStore:
    return EvaluationStore(FOLDER)


def test_predictions_come_back_as_the_batches_they_were_saved_in() -> None:
    store = a_store()

    store.add_predictions("step-000005", SPEC, BATCH)
    store.add_predictions("step-000005", SPEC, OTHER)

    assert store.predictions("step-000005", SPEC) == [BATCH, OTHER]


def test_the_answers_of_shards_are_read_after_the_others_and_the_first_answer_of_an_item_counts() -> None:
    store = a_store()

    store.add_predictions("step-000005", SPEC, [Prediction("a", "1.00", 1.0), *OTHER], Shard(2, 8))
    store.add_predictions("step-000005", SPEC, [Prediction("c", "2.00", 2.0)], Shard(3, 8))
    store.add_predictions("step-000005", SPEC, BATCH)

    assert store.predictions("step-000005", SPEC) == [BATCH, OTHER]


def test_fetched_answers_count_last_and_are_sent_but_not_kept(tmp_path: Path) -> None:
    store, sent = a_store(), EvaluationStore(tmp_path / "worker")
    for shard, price in ((Shard(1, 2), 1.0), (Shard(2, 2), 2.0)):
        batch = [Prediction("a", "", price), Prediction(f"{price}", "", price)]
        store.add_predictions("step-000005", SPEC, batch, shard)
    fetched = FOLDER / f"step-000005-{SPEC.fingerprint}" / "predictions-1of2.jsonl"
    fetched = fetched.rename(tmp_path / "fetched.jsonl")

    store.add_fetched("step-000005", SPEC, fetched)

    batches = [[Prediction("a", "", 2.0), Prediction("2.0", "", 2.0)], [Prediction("1.0", "", 1.0)]]
    assert store.predictions("step-000005", SPEC) == batches
    sent.write_files("step-000005", SPEC, store.read_files("step-000005", SPEC))
    assert sent.predictions("step-000005", SPEC) == batches
    assert a_store().predictions("step-000005", SPEC) == batches[:1]


def test_predictions_that_are_set_replace_those_of_shards() -> None:
    store = a_store()
    store.add_predictions("step-000005", SPEC, OTHER, Shard(2, 8))

    store.set_predictions("step-000005", SPEC, [OTHER, BATCH])

    assert store.predictions("step-000005", SPEC) == [OTHER, BATCH]
    assert [path.name for path in FOLDER.glob("*/*")] == ["predictions.jsonl"]


def test_the_batch_size_that_was_set_first_stays() -> None:
    store = a_store()
    FOLDER.mkdir(parents=True)

    assert store.fix_batch_tokens(SPEC, 2048) == 2048
    assert store.fix_batch_tokens(SPEC, 512) == 2048
    assert store.fix_batch_tokens(a_spec(limit=2), 512) == 512
    assert store.batch_tokens(SPEC) == 2048


def test_what_shards_record_at_the_same_time_is_all_kept() -> None:
    FOLDER.mkdir(parents=True)
    specs = [a_spec(limit=number) for number in range(1, 41)]

    def record(spec: EvalSpec) -> None:
        store = a_store()
        store.fix_batch_tokens(spec, 512)
        store.add_failure(Failure("step-000005", "damaged", spec.fingerprint))

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(record, specs))

    assert {a_store().batch_tokens(spec) for spec in specs} == {512}
    assert {failure.id for failure in a_store().failures()} == {spec.fingerprint for spec in specs}


def test_a_merge_removes_the_locks_of_shards_that_have_ended() -> None:
    store = a_store()
    FOLDER.mkdir(parents=True)

    with store.lock(Shard(1, 2)), store.lock(Shard(2, 2)):
        assert {path.name for path in FOLDER.iterdir()} == {"shard-1of2.lock", "shard-2of2.lock"}
    with store.lock():
        assert list(FOLDER.iterdir()) == []


def test_predictions_of_another_name_or_spec_are_others() -> None:
    store = a_store()
    store.add_predictions("step-000005", SPEC, BATCH)

    assert store.predictions("step-000010", SPEC) == []
    assert store.predictions("step-000005", a_spec(limit=2)) == []


def test_a_batch_that_was_torn_by_a_kill_is_not_there() -> None:
    store = a_store()
    store.add_predictions("step-000005", SPEC, BATCH)
    (path,) = FOLDER.glob("*/predictions.jsonl")
    path.write_bytes(path.read_bytes() + b'{"batch": [{"item_id": "c"')

    assert store.predictions("step-000005", SPEC) == [BATCH]


@pytest.mark.parametrize("line", ["{", "{}", '{"batch": 5}', '{"batch": [{"id": 1}]}', '{"batch": ["a"]}', "[]"])
def test_damaged_predictions_are_named(line: str) -> None:
    store = a_store()
    folder = FOLDER / f"step-000005-{SPEC.fingerprint}"
    folder.mkdir(parents=True)
    (folder / "predictions.jsonl").write_text(f"{line}\n")

    with pytest.raises(RunError, match=f"^{folder}/predictions.jsonl is damaged: ") as raised:
        store.predictions("step-000005", SPEC)

    assert raised.value.hint == f"remove {folder}, and evaluate again"


def test_an_evaluation_comes_back_under_its_name_and_spec_alone() -> None:
    store, evaluation = a_store(), an_evaluation(5, 40.0)

    store.add("rev", evaluation, some_scores())

    assert store.find("rev", SPEC) == evaluation
    assert store.find("rev", a_spec(limit=2)) is None
    assert store.find("other", SPEC) is None


def test_scores_come_back_with_their_evaluation() -> None:
    store = a_store()
    store.add("rev", an_evaluation(5, 40.0), some_scores(40.0, n=3))

    scores = store.scores("rev", SPEC)

    assert scores is not None
    assert scores.abs_error.tolist() == [40.0, 40.0, 40.0]
    assert store.scores("other", SPEC) is None


def test_damaged_scores_are_named() -> None:
    store = a_store()
    store.add("rev", an_evaluation(5, 40.0), some_scores())
    (path,) = FOLDER.glob("*/scores.npz")
    path.write_bytes(b"junk")

    with pytest.raises(RunError, match=f"^{path} is damaged: ") as raised:
        store.scores("rev", SPEC)

    assert raised.value.hint == f"remove {path}, and evaluate again"


def test_all_evaluations_come_baselines_first_then_by_step() -> None:
    store = a_store()
    for evaluation in (an_evaluation(1000, 40.0), an_evaluation(None, 90.0), an_evaluation(200, 50.0)):
        store.add(evaluation.name, evaluation, some_scores())

    assert [evaluation.candidate.step for evaluation in store.all()] == [None, 200, 1000]


@pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"spec": {"split": "val"}}', "5"])
def test_a_damaged_evaluation_is_named(content: str) -> None:
    store = a_store()
    store.add("rev", an_evaluation(5, 40.0), some_scores())
    (path,) = FOLDER.glob("*/evaluation.json")
    path.write_text(content)

    for read in (store.all, lambda: store.find("rev", SPEC)):
        with pytest.raises(RunError, match=f"^{path} is damaged: ") as raised:
            read()
        assert raised.value.hint == f"remove {path.parent}, and evaluate again"


def test_a_regression_comes_back_to_the_last_bit_and_a_damaged_one_is_named() -> None:
    store, regression = a_store(), EmbeddingRegression((0.1, 1 / 3), 5e-324, 0.7, 11.3, 0.01)

    store.keep_regression(SPEC, regression)

    assert store.regression(SPEC, 2) == regression
    assert store.regression(a_spec(limit=7), 2) is None
    (path,) = FOLDER.glob("regression-*.json")
    with pytest.raises(RunError, match=f"^{path} is damaged: weights has 2 numbers instead of 3$"):
        store.regression(SPEC, 3)
    path.write_text('{"weights": [0.1, NaN]}')
    with pytest.raises(RunError, match=f"^{path} is damaged: ") as raised:
        store.regression(SPEC, 2)
    assert raised.value.hint == f"remove {path}, and evaluate again"


def test_what_corrects_intervals_is_kept_with_the_evaluation() -> None:
    store, evaluation = a_store(), an_evaluation(5, 50.0)
    group = CalibrationGroup("lamp", None, 99.0, 120, (Correction(0.8, 1.25, 2.0),))
    calibration = Calibration(120, 3, 0, (group,))

    store.add("step-000005", evaluation, some_scores(50.0, 50), calibration)

    assert store.calibration("step-000005", SPEC) == calibration
    assert store.calibration("step-000010", SPEC) is None
    store.add("step-000005", evaluation, some_scores(50.0, 50))
    assert store.calibration("step-000005", SPEC) is None


@pytest.mark.parametrize(
    ("right", "wrong", "problem"),
    [
        ('"low": 1.25', '"low": 0.0', "groups.0.corrections.0: 0.0 and 2.0 cannot be factors"),
        ('"high": 2.0', '"high": 1e308', "groups.0.corrections.0: 1.25 and 1e\\+308 cannot be factors"),
        ('"decimals": 0', '"decimals": 400', "decimals is 400, not between"),
        ('"n": 120', '"n": null', "n is None"),
    ],
)
def test_a_correction_that_is_impossible_is_named(right: str, wrong: str, problem: str) -> None:
    store = a_store()
    group = CalibrationGroup("lamp", None, 99.0, 120, (Correction(0.8, 1.25, 2.0),))
    store.add("step-000005", an_evaluation(5, 50.0), some_scores(50.0, 50), Calibration(120, 3, 0, (group,)))
    (path,) = FOLDER.glob("*/calibration.json")
    path.write_text(path.read_text().replace(right, wrong))

    with pytest.raises(RunError, match=f"^{path} is damaged: {problem}") as raised:
        store.calibration("step-000005", SPEC)

    assert raised.value.hint == f"remove {path}, and evaluate again"
