"""`pricer predict`: each text gets its price, in the order of the texts."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.commands.parts.setup import prepare, prepare_to_ask
from pricer.commands.predict import Predicted, predict, predict_items
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.core.prices import PriceFormat
from pricer.data.texts import parse_text
from pricer.errors import CheckpointError, PricerError, RunError
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run, find_run
from tests.builders import a_saved_checkpoint
from tests.commands.conftest import Listener
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import Repo


class Counter(FakeScorer):
    """Answers with the number of tokens it was asked."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        return [Prediction(p.item_id, "", float(len(p.ids))) for p in prompts]


def priced(run: Run, which: str | None, *texts: str, listener: Listener | None = None) -> Predicted:
    return predict(run, which, lambda _: [parse_text(text) for text in texts], listener or Listener())


def test_answers_keep_the_order_of_the_texts_even_where_ids_repeat(run: Run) -> None:
    setup = prepare_to_ask(run.config(), run.store.checkpoints()[0])
    items = [Item("same", "A lamp " * count, 1.0) for count in (3, 9, 1)]

    scorer = Counter(lambda adapter, item: None)
    answers = predict_items(scorer, setup, items, lambda answers: None)

    lengths = [prediction.price for prediction in answers]
    assert lengths[1] == max(lengths, key=lambda length: length or 0)
    assert lengths[2] == min(lengths, key=lambda length: length or 0)


def test_an_item_gets_the_price_that_its_evaluation_saved(trained: Path) -> None:
    run = Run(trained)
    evaluated = evaluate_run(find_run(None), "last", Split.VAL, 4, Listener())
    saved = run.evaluations.predictions(str(evaluated.evaluations[-1].candidate.id), evaluated.spec)[0][0]
    item = next(item for item in prepare(run.config()).items.val if item.id == saved.item_id)

    found = predict(run, "last", lambda _: [item], Listener())

    assert found.estimator == evaluated.spec.estimator == "median"
    assert found.predictions[0].completion == saved.completion
    assert found.predictions[0].distribution is not None
    assert saved.distribution is not None
    assert found.predictions[0].distribution.quantiles == saved.distribution.quantiles
    # The answers to the four validation items correct the intervals: four are enough for 80 %, and too few for 95 %.
    group = found.corrected_by(item, found.predictions[0])
    assert group is not None
    assert (group.n, [correction.level for correction in group.corrections]) == (4, [0.8])


def test_the_data_are_not_needed(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def gone(_: object) -> None:
        raise AssertionError("the data were read")

    monkeypatch.setattr("pricer.commands.parts.setup.load_items", gone)

    assert len((found := priced(run, "last", "A lamp")).predictions) == 1
    assert found.calibration is None


def test_a_damaged_correction_is_found_before_a_text_is_priced(run: Run, scorer: FakeScorer) -> None:
    folder = run.folder / "evaluations" / "damaged"
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text("{")

    with pytest.raises(RunError, match="is damaged"):
        priced(run, "last", "A lamp")

    assert scorer.asked == []


def test_a_checkpoint_with_answers_of_another_prompt_is_refused(run: Run) -> None:
    (first, *_), folder = run.store.checkpoints(), Path("changed")
    assert first.answers is not None
    wider = replace(first.answers, price_format=PriceFormat("padded", 5))
    changed = {name: getattr(first, name) for name in ("base", "base_revision", "prompt_fingerprint")}
    run.store.push(a_saved_checkpoint(folder, 8, b"8", **changed, answers=wider)[0], 8)

    with pytest.raises(CheckpointError, match=r"step 8 \(.{7}\) was trained with prompt "):
        priced(run, "8", "A lamp")


def test_without_a_pick_the_last_checkpoint_answers_and_says_so(run: Run) -> None:
    listener = Listener()

    found = priced(run, None, "A lamp", listener=listener)

    assert found.checkpoint.step == 6
    assert "no best checkpoint of quickstart has been picked yet: this is the last one, step-000006" in listener.notes


def test_the_pick_answers_once_there_is_one(run: Run) -> None:
    run.store.tag(run.store.checkpoints()[0], "best")

    assert priced(run, None, "A lamp").checkpoint.step == 2
    assert priced(run, "4", "A lamp").checkpoint.step == 4


def test_a_checkpoint_trained_with_another_prompt_is_refused(run: Run) -> None:
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("question: What does this", "question: How much does this"))

    with pytest.raises(CheckpointError, match="was trained with prompt"):
        priced(run, "last", "A lamp")


@pytest.mark.usefixtures("scorer")
def test_a_checkpoint_on_the_hub_answers(pushed: Repo) -> None:
    run = open_hub_run("ann/prices", GivenConfig(None, ()), lambda _: None)

    assert priced(run, "last", "A lamp").checkpoint.step == 6


def test_texts_are_checked_before_a_checkpoint_is_looked_for(run: Run) -> None:
    with pytest.raises(PricerError, match="the text is empty"):
        priced(run, "no such step", " ")
