"""`pricer eval`: each checkpoint is scored once, interruptions change nothing, strangers are refused."""

import json
from pathlib import Path

import numpy as np
import pytest

from pricer.commands import pick
from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.commands.parts.scoring import score_checkpoints
from pricer.commands.parts.session import Scorer
from pricer.core.evaluation import Evaluation
from pricer.core.items import Item, Split
from pricer.errors import CheckpointError, RunError
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run, find_run
from tests.builders import a_run
from tests.commands.conftest import Listener
from tests.commands.sessions import SPEC, FakeScorer, a_session
from tests.loopback_hub import Repo

ITEMS = [Item(f"item{n}", f"Lamp {n}", 10.0 * (n + 1)) for n in range(5)]
# Two prompts of two tokens fit a batch of four.
PROMPTS = [TokenizedPrompt(item.id, np.array([1, 2], dtype=np.int32), cut=False) for item in ITEMS]
BATCHES = [["item0", "item1"], ["item2", "item3"], ["item4"]]


def a_scorer(fail_at: int | None = None) -> FakeScorer:
    """Predicts $20 for everything, and no price for item3."""
    return FakeScorer(lambda _, item: None if item == "item3" else 20.0, fail_at)


def scored(
    run: Run, checkpoints: int, scorer: Scorer | None = None, listener: Listener | None = None
) -> list[Evaluation]:
    """The evaluations of the first so many checkpoints; without a scorer, every prediction must be saved."""
    session = a_session(run, ITEMS, PROMPTS, 4, scorer, listener or Listener())
    return score_checkpoints(session, run.store.checkpoints()[:checkpoints])


def test_the_train_median_is_imputed_for_a_prediction_without_a_price(run: Run) -> None:
    (evaluation,) = scored(run, 1, a_scorer())

    # |20-10| + |20-20| + |20-30| + |30-40| + |20-50| = 60, over 5 items.
    assert evaluation.metric("mae").value == 12.0
    assert evaluation.metric("no_price").value == 0.2
    # 10, 20 and 30 are within $40 however relative; so is 50; item3 has no price and is never a hit.
    assert evaluation.metric("hit_rate").value == 0.8


def test_the_base_is_loaded_once_and_the_adapter_changes_per_checkpoint(run: Run) -> None:
    scorer = a_scorer()

    scored(run, 3, scorer)

    assert scorer.adapters == ["step-000002", "step-000004", "step-000006"]


def test_progress_counts_predictions_over_all_checkpoints(run: Run) -> None:
    listener = Listener()

    scored(run, 2, a_scorer(), listener)

    # Batches of 2, 2 and 1, for two checkpoints.
    first = [("step-000002", done, 10) for done in (2, 4, 5)]
    assert listener.done == first + [("step-000004", done, 10) for done in (7, 9, 10)]


def test_an_evaluation_that_exists_is_not_made_again(run: Run) -> None:
    first = scored(run, 3, a_scorer())

    assert scored(run, 3) == first


def test_of_a_repository_nothing_is_fetched_for_an_evaluation_that_exists(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = scored(run, 3, a_scorer())
    for path in run.folder.glob("evaluations/*/predictions.jsonl"):
        path.unlink()
    monkeypatch.setattr(run.store, "is_remote", True)
    monkeypatch.setattr(run.store, "fetch", None)

    assert scored(run, 3) == first


def test_scores_that_were_removed_are_made_again_from_the_saved_predictions(run: Run) -> None:
    first = scored(run, 1, a_scorer())
    (path,) = run.folder.glob("evaluations/*/scores.npz")
    before = path.read_bytes()
    path.unlink()

    assert scored(run, 1) == first
    assert path.read_bytes() == before


@pytest.mark.parametrize("fail_at", [0, 1, 2])
def test_an_interrupted_evaluation_continues_with_the_next_batch(run: Run, fail_at: int) -> None:
    second = a_scorer()
    with pytest.raises(SystemError):
        scored(run, 1, a_scorer(fail_at))

    (evaluation,) = scored(run, 1, second)

    assert [ids for _, ids in second.asked] == BATCHES[fail_at:]
    assert evaluation.metric("mae").value == 12.0
    saved = run.evaluations.predictions(run.store.checkpoints()[0].id, SPEC)
    assert [[prediction.item_id for prediction in batch] for batch in saved] == BATCHES


def test_a_torn_batch_is_predicted_again_whole(run: Run) -> None:
    second = a_scorer()
    with pytest.raises(SystemError):
        scored(run, 1, a_scorer(2))
    (path,) = (run.folder / "evaluations").glob("*/predictions.jsonl")
    path.write_bytes(path.read_bytes()[:-20])

    scored(run, 1, second)

    assert [ids for _, ids in second.asked] == BATCHES[1:]


def test_a_changed_adapter_is_left_out_even_if_it_was_scored_before(trained: Path) -> None:
    run, listener = Run(trained), Listener()
    first = scored(run, 3, a_scorer())
    path = trained / "checkpoints" / "step-000004" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")

    assert scored(run, 3, listener=listener) == [first[0], first[2]]
    (note,) = listener.notes
    assert note.startswith("step-000004 cannot be scored: step-000004 is not what its manifest says")


class Impatient(Listener):
    """Interrupts scoring once there are so many predictions."""

    def __init__(self, predictions: int) -> None:
        super().__init__()
        self._predictions = predictions

    def scoring(self, name: str, done: int, total: int) -> None:
        if done >= self._predictions:
            raise KeyboardInterrupt


class TestGoingOnWithTheSameBatches:
    """Scoring was interrupted in the second of three checkpoints, 12 items each, in batches of a few items."""

    def interrupt(self, run: Run) -> list[list[list[str]]]:
        run.record(batch_tokens={"cpu": 300})
        with pytest.raises(KeyboardInterrupt):
            evaluate_run(run, "all", Split.VAL, None, Impatient(13))
        return self.batches(run)

    def batches(self, run: Run) -> list[list[list[str]]]:
        """The item ids of the saved batches, for each checkpoint."""
        spec = next(evaluation.spec for evaluation in run.evaluations.all() if evaluation.candidate.step)
        saved = [run.evaluations.predictions(checkpoint.id, spec) for checkpoint in run.store.checkpoints()]
        return [[[prediction.item_id for prediction in batch] for batch in batches] for batches in saved]

    def go_on(self, run: Run, begun: list[list[list[str]]]) -> Listener:
        first, second, third = begun
        assert len(first) > 1
        assert (second, third) == (first[:1], [])
        listener = Listener()

        evaluate_run(run, "all", Split.VAL, None, listener)

        assert self.batches(run) == [first, first, first]
        return listener

    def test_whatever_was_found_on_the_device_since(self, run: Run) -> None:
        begun = self.interrupt(run)
        run.record(batch_tokens={"cpu": 8192})

        self.go_on(run, begun)

    def test_whatever_the_config_says_since_with_a_note(self, run: Run) -> None:
        begun = self.interrupt(run)
        path = run.folder / "config.yaml"
        path.write_text(path.read_text().replace("batch_tokens: auto", "batch_tokens: 8192"))

        listener = self.go_on(run, begun)

        assert "this evaluation has begun with batches of up to 300 tokens and keeps them" in listener.notes

    @pytest.mark.usefixtures("scorer")
    def test_after_its_repository_was_opened_again(self, pushed: Repo) -> None:
        begun = self.interrupt(open_hub_run("ann/prices", GivenConfig(None, ()), lambda _: None))

        self.go_on(open_hub_run("ann/prices", GivenConfig(None, ()), lambda _: None), begun)

    def test_a_damaged_record_of_the_batches_is_named(self, run: Run) -> None:
        self.interrupt(run)
        (run.folder / "evaluations" / "batches.json").write_text('{"a": 0}')

        with pytest.raises(RunError, match=r"batches\.json is damaged: not every spec has a number of tokens"):
            evaluate_run(run, "all", Split.VAL, None, Listener())


def test_real_checkpoints_beside_their_baselines_and_then_the_best_on_test(trained: Path) -> None:
    listener = Listener()
    result = evaluate_run(find_run(None), "all", Split.VAL, None, listener)

    known = ["train median", "tf-idf + ridge", "base embeddings + ridge", "untuned base"]
    names = [*known, "step-000002", "step-000004", "step-000006"]
    assert [e.name for e in result.evaluations] == [e.name for e in listener.evaluations] == names
    assert {e.metric("mae").n for e in result.evaluations} == {12}
    assert len({e.spec.fingerprint for e in result.evaluations}) == 1

    # More than a Python with torch in it takes, and less than this machine has.
    assert 100e6 < Run(trained).facts()["peak_memory_eval"] < 100e9
    picked = pick.pick(None, "mae")
    best = min(result.evaluations[4:], key=lambda e: e.metric("mae").value or 0.0)
    assert picked.selection.candidate.id == best.candidate.id
    assert json.loads((trained / "selection.json").read_text())["candidate"]["id"] == best.candidate.id

    # The embeddings of the training items, and the regression on them, were for all splits.
    assert listener.prepared[-1] == ("embedding training items", "48 of 48")
    on_test = Listener()
    final = evaluate_run(find_run(None), "best", Split.TEST, None, on_test)
    assert "embedding training items" not in dict(on_test.prepared)
    assert [e.name for e in final.evaluations] == [*known, best.name]
    assert final.n == 8
    # What was seen of the test split does not count for picking.
    assert pick.pick(None, "mae").selection == picked.selection


def test_a_limit_beyond_the_split_is_the_whole_split(run: Run) -> None:
    whole = evaluate_run(run, "last", Split.VAL, None, Listener())
    limited = evaluate_run(run, "last", Split.VAL, 500, Listener())

    assert limited.spec == whole.spec


@pytest.mark.usefixtures("in_memory")
def test_a_run_without_a_checkpoint_cannot_be_evaluated() -> None:
    with pytest.raises(CheckpointError, match="the run quickstart has no checkpoint yet"):
        evaluate_run(a_run(), "all", Split.VAL, None, Listener())


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("question: What does this cost", "question: How much does this cost", "prompt"),
        ("train_limit: 48", "train_limit: 47", "data"),
    ],
)
def test_a_checkpoint_trained_on_something_else_is_refused(run: Run, old: str, new: str, what: str) -> None:
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(CheckpointError, match=rf"step 2 \(.{{7}}\) was trained with {what} "):
        evaluate_run(run, "all", Split.VAL, None, Listener())


def test_a_base_that_has_changed_since_training_is_refused(run: Run) -> None:
    path = run.folder / "config.yaml"
    revision = run.config().model.revision
    path.write_text(path.read_text().replace(str(revision), "f" * 40))

    with pytest.raises(Exception, match="the base builtin:base is at"):
        evaluate_run(run, "all", Split.VAL, None, Listener())
