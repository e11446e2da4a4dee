"""What `auto` stands for in price format and estimator, and what cannot be had."""

import pytest

from pricer.core.price_format import choose_estimator, choose_price_format, explain_greedy
from pricer.core.prices import PriceFormat
from pricer.errors import ConfigError


@pytest.mark.parametrize(
    ("wanted", "has_distribution", "settled"),
    [
        ("auto", True, "median"),
        ("auto", False, "greedy"),
        ("greedy", True, "greedy"),
        ("greedy", False, "greedy"),
        ("mean", True, "mean"),
    ],
)
def test_auto_is_the_median_where_there_is_a_distribution(wanted: str, has_distribution: bool, settled: str) -> None:
    assert choose_estimator(wanted, has_distribution=has_distribution) == settled


def test_an_estimator_without_a_distribution_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        choose_estimator("mode", has_distribution=False)

    assert caught.value.problems == [
        "eval.estimator is mode, but no distribution can be computed from this tokenizer's price tokens"
    ]
    assert caught.value.hint == "data.max_price: 99999, or prompt.price_format: padded, or eval.estimator: greedy"


def test_the_width_of_padded_prices_is_that_of_the_dearest_unless_it_is_set() -> None:
    assert choose_price_format("auto", None, auto="padded", max_price=1299.0) == PriceFormat("padded", 4)
    assert choose_price_format("padded", 6, auto="plain", max_price=1299.0) == PriceFormat("padded", 6)
    assert choose_price_format("auto", None, auto="plain", max_price=1299.0) == PriceFormat("plain")


def test_a_width_that_is_too_narrow_or_belongs_to_plain_prices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^prompt\.price_width is 3, the dearest training item costs 1299$"):
        choose_price_format("padded", 3, auto="plain", max_price=1299.0)
    with pytest.raises(ConfigError, match=r"^prompt\.price_width is 4, but a plain price has no width$"):
        choose_price_format("auto", 4, auto="plain", max_price=1299.0)


def test_a_tokenizer_that_cannot_write_numbers_has_no_remedy() -> None:
    assert explain_greedy(None, 1299.0, can_pad=False) == (
        "this tokenizer gives different prices the same tokens: the median cannot be computed, answers are greedy"
    )
