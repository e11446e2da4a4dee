"""Embeddings of the base: the same in every batch, and worth something to a regression."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from pricer.commands.parts.setup import Setup
from pricer.ml.base import load_base
from pricer.ml.baselines import fit_on_embeddings
from pricer.ml.predict import embed_prompts
from pricer.ml.tokens import TokenizedPrompt


@pytest.fixture(scope="module")
def model(setup: Setup) -> Any:
    return load_base(setup.base.folder, setup.precision)


@pytest.fixture(scope="module")
def prompts(setup: Setup) -> list[TokenizedPrompt]:
    return setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:40]])


def test_an_embedding_is_the_last_hidden_state_at_the_last_token(model: Any, prompts: list[TokenizedPrompt]) -> None:
    embeddings = embed_prompts(model, prompts, batch_tokens=4096)

    assert embeddings.shape == (40, 160)  # the embedded base is 160 wide
    assert embeddings.dtype == np.float32
    for prompt, embedding in zip(prompts[:5], embeddings, strict=False):  # alone and without padding
        with torch.inference_mode():
            output = model(input_ids=torch.tensor(prompt.ids, dtype=torch.long)[None], output_hidden_states=True)
        np.testing.assert_allclose(embedding, output.hidden_states[-1][0, -1].numpy(), atol=1e-4)


def test_the_batch_does_not_change_an_embedding(model: Any, prompts: list[TokenizedPrompt]) -> None:
    assert len({len(prompt.ids) for prompt in prompts}) > 3  # so there is padding

    together = embed_prompts(model, prompts, batch_tokens=100_000)
    alone = embed_prompts(model, prompts, batch_tokens=1)
    again = embed_prompts(model, prompts, batch_tokens=100_000)

    np.testing.assert_allclose(together, alone, atol=1e-4)
    assert np.array_equal(together, again)


def test_a_price_whose_logarithm_is_linear_in_the_embedding_is_found() -> None:
    # ln(price + 1) = 5 + x₁ + 2 x₂, without noise: the least penalty wins, and shrinks by 0.1 in 200 rows.
    train, new = np.random.default_rng(0).normal(size=(200, 2)).astype(np.float32), np.array([[0.5, -0.5]], np.float32)
    prices = np.expm1(5 + train @ np.array([1.0, 2.0]))

    (price,) = fit_on_embeddings(train, prices.tolist()).prices(new)

    assert math.isclose(price, math.expm1(5 + 0.5 - 1.0), rel_tol=0.01)  # 89.0


def test_no_price_is_outside_of_what_training_has() -> None:
    train = np.arange(10, dtype=np.float32)[:, None]

    regression = fit_on_embeddings(train, [10.0 * 2**i for i in range(10)])
    prices = regression.prices(np.array([[-1e6], [1e6]], np.float32))

    assert [round(price, 6) for price in prices] == [10.0, 5120.0]  # 10 × 2⁹
