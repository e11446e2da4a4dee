"""`pricer eval`: each checkpoint is scored once, interruptions change nothing, strangers are refused."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pricer.commands import evaluate, pick
from pricer.commands.evaluate import run_eval, score_checkpoints
from pricer.commands.parts.predictions import Questions
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.errors import CheckpointError, RunError
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run, find_run
from tests.builders import some_scores
from tests.commands.conftest import Listener

ITEMS = [Item(f"item{n}", f"Lamp {n}", 10.0 * (n + 1)) for n in range(5)]
SPEC = EvalSpec("data", Split.VAL, None, "prompt", "base", "1" * 40, "nf4/float32", "greedy", 30.0)
# Two prompts of two tokens fit a batch of four.
PROMPTS = [TokenizedPrompt(item.id, np.array([1, 2], dtype=np.int32), cut=False) for item in ITEMS]
QUESTIONS = Questions(SPEC, ITEMS, PROMPTS, batch_tokens=4)


class FakeScorer:
    """Answers $20 to everything, item3 not at all; fails at the batch it is told to."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.adapters: list[str] = []
        self.asked: list[list[str]] = []
        self._fail_at = fail_at

    def use(self, adapter: Path) -> None:
        self.adapters.append(adapter.name)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        if len(self.asked) == self._fail_at:
            raise SystemError("killed")
        self.asked.append([prompt.item_id for prompt in prompts])
        return [
            Prediction(p.item_id, "none" if p.item_id == "item3" else "0020", None if p.item_id == "item3" else 20.0)
            for p in prompts
        ]


def test_an_answer_without_a_price_is_charged_as_the_train_median(trained: Path) -> None:
    run = Run(trained)

    (evaluation, *_) = score_checkpoints(run, run.store.checkpoints()[:1], QUESTIONS, FakeScorer, Listener())

    # |20-10| + |20-20| + |20-30| + |30-40| + |20-50| = 60, over 5 items.
    assert evaluation.metric("mae").value == 12.0
    assert evaluation.metric("no_price").value == 0.2
    # 10, 20 and 30 are within $40 however relative; so is 50; item3 is silent and never a hit.
    assert evaluation.metric("hit_rate").value == 0.8


def test_the_base_is_loaded_once_and_the_adapter_changes_per_checkpoint(trained: Path) -> None:
    run = Run(trained)
    scorers: list[FakeScorer] = []

    def load() -> FakeScorer:
        scorers.append(FakeScorer())
        return scorers[-1]

    list(score_checkpoints(run, run.store.checkpoints(), QUESTIONS, load, Listener()))

    assert [scorer.adapters for scorer in scorers] == [["step-000002", "step-000004", "step-000006"]]


def test_progress_counts_answers_over_all_checkpoints(trained: Path) -> None:
    run, listener = Run(trained), Listener()

    list(score_checkpoints(run, run.store.checkpoints()[:2], QUESTIONS, FakeScorer, listener))

    # Batches of 2, 2 and 1, for two checkpoints.
    first = [("step-000002", done, 10) for done in (2, 4, 5)]
    assert listener.done == first + [("step-000004", done, 10) for done in (7, 9, 10)]


def test_an_evaluation_that_exists_is_not_made_again(trained: Path) -> None:
    run = Run(trained)
    first = list(score_checkpoints(run, run.store.checkpoints(), QUESTIONS, FakeScorer, Listener()))

    def load() -> FakeScorer:
        raise AssertionError("nothing is left to score")

    assert list(score_checkpoints(run, run.store.checkpoints(), QUESTIONS, load, Listener())) == first


def test_an_evaluation_without_a_metric_of_today_is_made_again_from_the_saved_predictions(trained: Path) -> None:
    run = Run(trained)
    chosen = run.store.checkpoints()[:1]
    (whole,) = score_checkpoints(run, chosen, QUESTIONS, FakeScorer, Listener())
    run.evaluations.add(chosen[0].id, replace(whole, metrics=whole.metrics[:3]), some_scores())

    def load() -> FakeScorer:
        raise AssertionError("every answer is saved")

    assert list(score_checkpoints(run, chosen, QUESTIONS, load, Listener())) == [whole]


def test_an_evaluation_without_its_scores_is_made_again_from_the_saved_predictions(trained: Path) -> None:
    run = Run(trained)
    chosen = run.store.checkpoints()[:1]
    (whole,) = score_checkpoints(run, chosen, QUESTIONS, FakeScorer, Listener())
    (path,) = run.folder.glob("evaluations/*/scores.npz")
    before = path.read_bytes()
    path.unlink()

    def load() -> FakeScorer:
        raise AssertionError("every answer is saved")

    assert list(score_checkpoints(run, chosen, QUESTIONS, load, Listener())) == [whole]
    assert path.read_bytes() == before


@pytest.mark.parametrize("fail_at", [0, 1, 2])
def test_an_interrupted_evaluation_goes_on_with_the_next_batch(trained: Path, fail_at: int) -> None:
    run = Run(trained)
    chosen = run.store.checkpoints()[:1]
    with pytest.raises(SystemError):
        list(score_checkpoints(run, chosen, QUESTIONS, lambda: FakeScorer(fail_at), Listener()))
    second = FakeScorer()

    (evaluation,) = score_checkpoints(run, chosen, QUESTIONS, lambda: second, Listener())

    batches = [["item0", "item1"], ["item2", "item3"], ["item4"]]
    assert second.asked == batches[fail_at:]
    assert evaluation.metric("mae").value == 12.0
    saved = [[p.item_id for p in batch] for batch in run.evaluations.predictions(chosen[0].id, SPEC)]
    assert saved == batches


def test_a_torn_batch_is_asked_again_whole(trained: Path) -> None:
    run = Run(trained)
    chosen = run.store.checkpoints()[:1]
    with pytest.raises(SystemError):
        list(score_checkpoints(run, chosen, QUESTIONS, lambda: FakeScorer(2), Listener()))
    (path,) = (trained / "evaluations").glob("*/predictions.jsonl")
    path.write_bytes(path.read_bytes()[:-20])
    second = FakeScorer()

    list(score_checkpoints(run, chosen, QUESTIONS, lambda: second, Listener()))

    assert second.asked == [["item2", "item3"], ["item4"]]


def test_another_token_budget_begins_the_checkpoint_again(trained: Path) -> None:
    run = Run(trained)
    chosen = run.store.checkpoints()[:1]
    with pytest.raises(SystemError):
        list(score_checkpoints(run, chosen, QUESTIONS, lambda: FakeScorer(1), Listener()))
    second = FakeScorer()

    list(score_checkpoints(run, chosen, Questions(SPEC, ITEMS, PROMPTS, 100), lambda: second, Listener()))

    assert second.asked == [[item.id for item in ITEMS]]


def test_a_changed_adapter_is_refused_even_if_it_was_scored_before(trained: Path) -> None:
    run = Run(trained)
    list(score_checkpoints(run, run.store.checkpoints(), QUESTIONS, FakeScorer, Listener()))
    path = trained / "checkpoints" / "step-000004" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")

    with pytest.raises(CheckpointError, match="step-000004 is not what its manifest says"):
        list(score_checkpoints(run, run.store.checkpoints(), QUESTIONS, FakeScorer, Listener()))


def test_real_checkpoints_beside_their_baselines_and_then_the_best_on_test(trained: Path) -> None:
    listener = Listener()
    result = run_eval(None, "all", Split.VAL, None, listener)

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

    final = run_eval(None, "best", Split.TEST, None, Listener())
    assert [e.name for e in final.evaluations] == [*known, best.name]
    assert final.n == 8
    # What was seen of the test split does not count for picking.
    assert pick.pick(None, "mae").selection == picked.selection


def test_a_limit_beyond_the_split_is_the_whole_split(trained: Path) -> None:
    whole = run_eval(None, "last", Split.VAL, None, Listener())
    limited = run_eval(None, "last", Split.VAL, 500, Listener())

    assert limited.spec == whole.spec


@pytest.mark.parametrize(
    ("which", "steps"),
    [("all", [2, 4, 6]), ("last", [6]), ("4", [4]), ("step-000004", [4])],
)
def test_checkpoints_are_named_by_step_or_place(trained: Path, which: str, steps: list[int]) -> None:
    assert [c.step for c in evaluate.choose(Run(trained), which)] == steps


def test_a_checkpoint_is_named_by_the_start_of_its_revision(trained: Path) -> None:
    run = Run(trained)
    checkpoint = run.store.checkpoints()[1]

    assert evaluate.choose(run, checkpoint.id[:8]) == [checkpoint]


def test_a_checkpoint_that_is_not_there_is_an_error_with_those_that_are(trained: Path) -> None:
    with pytest.raises(CheckpointError) as caught:
        evaluate.choose(Run(trained), "5")

    assert caught.value.message == "5 names no checkpoint of quickstart"
    assert caught.value.hint == "a step (2, 4, 6), a revision, best or last"


def test_best_before_a_pick_is_an_error(trained: Path) -> None:
    with pytest.raises(CheckpointError, match="no best checkpoint of quickstart has been picked yet"):
        evaluate.choose(Run(trained), "best")


def test_a_run_without_a_checkpoint_cannot_be_evaluated(trained: Path) -> None:
    (trained / "checkpoints.jsonl").unlink()

    with pytest.raises(CheckpointError, match="the run quickstart has no checkpoint yet"):
        run_eval(None, "all", Split.VAL, None, Listener())


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [
        ("question: What does this cost", "question: How much does this cost", "prompt"),
        ("train_limit: 48", "train_limit: 47", "data"),
    ],
)
def test_a_checkpoint_trained_on_something_else_is_refused(trained: Path, old: str, new: str, what: str) -> None:
    path = trained / "config.yaml"
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(CheckpointError, match=rf"step 2 \(.{{7}}\) was trained with {what} "):
        run_eval(None, "all", Split.VAL, None, Listener())


def test_a_base_that_has_changed_since_training_is_refused(trained: Path) -> None:
    path = trained / "config.yaml"
    revision = find_run(None).config().model.revision
    path.write_text(path.read_text().replace(str(revision), "f" * 40))

    with pytest.raises(Exception, match="the base builtin:base is at"):
        run_eval(None, "all", Split.VAL, None, Listener())


def test_pick_before_an_evaluation_is_an_error(trained: Path) -> None:
    with pytest.raises(RunError, match="no checkpoint has been evaluated yet"):
        pick.pick(None, "mae")


def test_pick_on_the_test_split_alone_is_refused(trained: Path) -> None:
    run_eval(None, "last", Split.TEST, None, Listener())

    with pytest.raises(RunError, match="a checkpoint is not chosen on the test split"):
        pick.pick(None, "mae")
