"""Validation while training."""

import math
from typing import Any

import pytest
import torch

from pricer.commands.parts.setup import Setup
from pricer.core.items import Item
from pricer.core.prices import PriceFormat
from pricer.core.ranks import Ranks
from pricer.core.training import Validation
from pricer.ml.processes import Processes
from pricer.ml.validation import fits_format, prepare_validation, total_loss


@pytest.mark.parametrize(("price", "fits"), [(99.0, True), (99.6, False), (100.0, False)])
def test_a_price_fits_the_padded_width_once_it_is_rounded(price: float, fits: bool) -> None:
    assert fits_format(Item("a", "A lamp", price), PriceFormat("padded", 2)) is fits
    assert fits_format(Item("a", "A lamp", price), PriceFormat("plain"))


def test_a_validation_item_dearer_than_the_padded_width_has_no_loss_but_a_price_error(setup: Setup, model: Any) -> None:
    lamp, palace = Item("a", "A lamp", 9999.0), Item("b", "A palace", 10_000.0)  # the training items need four digits

    def validation(*items: Item) -> Validation:
        return prepare_validation(
            model,
            setup.tokenizer,
            items,
            setup.template,
            setup.encoder,
            fallback=1.0,
            batch_tokens=64,
            processes=Processes(Ranks()),
        )()

    both = validation(lamp, palace)

    assert both.loss == pytest.approx(validation(lamp).loss)
    assert (both.n, validation(palace).loss) == (2, None)
    # Each has its own error.
    assert both.mae == pytest.approx((validation(lamp).mae + validation(palace).mae) / 2)


def test_the_loss_is_the_mean_over_completion_tokens_alone(setup: Setup, model: Any) -> None:
    examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.val[:6]])
    total, count = 0.0, 0
    for example in examples:  # one at a time, no padding, all logits
        ids = torch.tensor(example.ids, dtype=torch.long)[None]
        with torch.inference_mode():
            log_probs = model(input_ids=ids).logits[0].log_softmax(-1)
        for position in range(example.start, len(example.ids)):
            total -= float(log_probs[position - 1, int(example.ids[position])])
            count += 1
    assert count == 6 * 5  # four digits and the end of text each

    loss, tokens = total_loss(model, examples, batch_tokens=200)
    assert tokens == count
    assert math.isclose(loss, total, rel_tol=1e-5)
