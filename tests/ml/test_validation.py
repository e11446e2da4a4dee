"""Validation while training."""

import pytest

from pricer.commands.parts.setup import Setup
from pricer.core.items import Item
from pricer.core.prices import PriceFormat
from pricer.ml.validation import build_validation_set, fits_format


@pytest.mark.parametrize(("price", "fits"), [(99.0, True), (99.6, False), (100.0, False)])
def test_a_price_fits_the_padded_width_once_it_is_rounded(price: float, fits: bool) -> None:
    assert fits_format(Item("a", "A lamp", price), PriceFormat("padded", 2)) is fits
    assert fits_format(Item("a", "A lamp", price), PriceFormat("plain"))


def test_a_validation_item_dearer_than_the_padded_width_has_no_loss_but_a_price_error(setup: Setup) -> None:
    items = [Item("a", "A lamp", 9999.0), Item("b", "A palace", 10_000.0)]  # four digits, as the training items need

    validation_set = build_validation_set(items, setup.template, setup.encoder, fallback=1.0)

    assert [prompt.item_id for prompt in validation_set.prompts] == ["a", "b"]
    assert [example.prompt.item_id for example in validation_set.examples] == ["a"]
