"""Prediction: greedy, and the same whatever is in the batch."""

import math
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pricer.commands.parts.setup import Setup
from pricer.core.predictions import Prediction
from pricer.ml.base import load_base
from pricer.ml.out_of_memory import BatchSplitter, OutOfMemoryError
from pricer.ml.predict import Predictor
from pricer.ml.tokens import TokenizedPrompt


@pytest.fixture
def predictor(setup: Setup, model: Any) -> Predictor:
    return Predictor(model, setup.tokenizer, setup.template.price_format, setup.encoder.answer_length)


def test_a_batch_of_twelve_answers_as_twelve_batches_of_one(setup: Setup, predictor: Predictor) -> None:
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:12]])
    assert len({len(prompt.ids) for prompt in prompts}) > 3  # so there is padding

    together = predictor.predict(prompts)
    alone = [predictor.predict([prompt])[0] for prompt in prompts]

    assert together == alone
    assert sum(p.price is not None for p in together) > 8  # the embedded base writes prices


def test_a_sampling_default_of_the_model_is_not_followed(setup: Setup, predictor: Predictor) -> None:
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:8]])
    greedy = predictor.predict(prompts)
    generation = predictor.model.generation_config
    generation.do_sample, generation.temperature = True, 5.0

    try:
        again = predictor.predict(prompts)
    finally:
        generation.do_sample, generation.temperature = False, 1.0

    assert again == greedy


def test_a_repetition_penalty_of_the_base_is_not_followed(setup: Setup, predictor: Predictor, tmp_path: Path) -> None:
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:8]])
    folder = tmp_path / "base"
    shutil.copytree(setup.base.folder, folder)
    (folder / "generation_config.json").write_text('{"repetition_penalty": 20.0, "no_repeat_ngram_size": 1}')

    plain, penalised = (
        Predictor(
            load_base(base, setup.precision), setup.tokenizer, setup.template.price_format, setup.encoder.answer_length
        ).predict(prompts)
        for base in (setup.base.folder, folder)
    )

    assert penalised == plain


def test_the_loss_is_the_mean_over_completion_tokens_alone(setup: Setup, predictor: Predictor) -> None:
    examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.val[:6]])
    total, count = 0.0, 0
    for example in examples:  # one at a time, no padding, all logits
        ids = torch.tensor(example.ids, dtype=torch.long)[None]
        with torch.inference_mode():
            log_probs = predictor.model(input_ids=ids).logits[0].log_softmax(-1)
        for position in range(example.start, len(example.ids)):
            total -= float(log_probs[position - 1, int(example.ids[position])])
            count += 1
    assert count == 6 * 5  # four digits and the end of text each

    assert math.isclose(predictor.loss(examples, batch_tokens=200), total / count, rel_tol=1e-5)


class Cramped:
    """A decoder on a machine that has room for so many prompts at once."""

    def __init__(self, room: int, error: RuntimeError) -> None:
        self.sizes: list[int] = []
        self._room = room
        self._error = error

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        self.sizes.append(len(prompts))
        if len(prompts) > self._room:
            raise self._error
        return [Prediction(prompt.item_id, "1", 1.0) for prompt in prompts]


OUT_OF_MEMORY = {
    "torch's own": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "outside of its allocator": torch.AcceleratorError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "on the CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you"),
}


def five_prompts() -> list[TokenizedPrompt]:
    return [TokenizedPrompt(key, np.array([1]), cut=False) for key in "abcde"]


def splitter() -> BatchSplitter:
    return BatchSplitter("answer about", lambda prompt: prompt.item_id)


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_a_batch_that_does_not_fit_is_answered_in_halves(error: RuntimeError) -> None:
    decoder = Cramped(2, error)

    answers = splitter().run(decoder.predict, five_prompts())

    assert [answer.item_id for answer in answers] == list("abcde")
    # 5 do not fit; of its halves 2 do and 3 do not, whose halves 1 and 2 do.
    assert decoder.sizes == [5, 2, 3, 1, 2]


def test_the_size_that_fitted_is_kept_for_the_batches_after() -> None:
    decoder, batches = Cramped(2, OUT_OF_MEMORY["cuBLAS"]), splitter()

    for _ in range(2):
        batches.run(decoder.predict, five_prompts())

    # The second time it is known that 3 do not fit: nothing is tried in vain.
    assert decoder.sizes == [5, 2, 3, 1, 2, 2, 1, 2]


def test_one_prompt_that_does_not_fit_is_named() -> None:
    with pytest.raises(OutOfMemoryError, match=r"^there is no memory left to answer about a by itself$"):
        splitter().run(Cramped(0, OUT_OF_MEMORY["torch's own"]).predict, five_prompts())


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    decoder = Cramped(0, RuntimeError("shapes do not match"))

    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        splitter().run(decoder.predict, five_prompts())


def test_a_lack_of_memory_that_no_smaller_batch_helps_against_leaves_the_batches_after_as_they_were() -> None:
    batches = splitter()
    with pytest.raises(OutOfMemoryError):
        batches.run(Cramped(0, OUT_OF_MEMORY["torch's own"]).predict, five_prompts())
    recovered = Cramped(5, OUT_OF_MEMORY["torch's own"])

    batches.run(recovered.predict, five_prompts())

    assert recovered.sizes == [5]
