"""The batch size of a run's evaluations: measured once per device, and kept."""

import numpy as np
import pytest

from pricer.commands.parts.batch_size import settle_batch_tokens
from pricer.commands.parts.setup import prepare
from pricer.config import EvalConfig
from pricer.ml.batches import BatchPredictor
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

PROMPTS = [TokenizedPrompt(str(n), np.zeros(64, dtype=np.int32), cut=False) for n in range(1000)]


def no_predictor() -> BatchPredictor:
    raise AssertionError("nothing is loaded for it")


def test_what_was_found_stays_with_the_run(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = list[str]()
    setup = prepare(run.config())
    monkeypatch.setattr("pricer.commands.parts.batch_size.find_batch_tokens", lambda *_: 4096)

    first = settle_batch_tokens(run, setup, PROMPTS, 3, no_predictor, notes.append)
    monkeypatch.setattr("pricer.commands.parts.batch_size.find_batch_tokens", lambda *_: 512)
    again = settle_batch_tokens(run, setup, PROMPTS, 3, no_predictor, notes.append)

    assert (first, again) == (4096, 4096)
    assert run.facts()["batch_tokens"] == {"cpu": 4096}
    assert notes == ["batches of up to 4,096 tokens"]


def test_without_anything_to_answer_nothing_is_tried_or_kept(run: Run) -> None:
    assert settle_batch_tokens(run, prepare(run.config()), PROMPTS, 0, no_predictor, print) == 2048
    assert "batch_tokens" not in run.facts()


def test_a_config_may_say_it(run: Run) -> None:
    config = run.config().model_copy(update={"eval": EvalConfig(batch_tokens=640)})

    assert settle_batch_tokens(run, prepare(config), PROMPTS, 3, no_predictor, print) == 640
