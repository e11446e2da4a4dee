"""Prices as text and back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.prices import (
    PriceFormat,
    choose_estimator,
    choose_price_format,
    explain_greedy,
    format_price,
    parse_price,
    width_for,
)
from pricer.errors import ConfigError

PLAIN = PriceFormat("plain")
PADDED = PriceFormat("padded", 4)

# Completion -> price. It goes on after "Price is $".
PLAIN_PRICES = {
    # as it is taught
    "227.00": 227.0,
    " 227.00": 227.0,
    "227": 227.0,
    "0.00": 0.0,
    "227.00\n\nWhat does this cost": 227.0,
    "227.00</s>": 227.0,
    # with a currency, a sentence, punctuation
    "$99": 99.0,
    "$ 99": 99.0,
    "US$99": 99.0,
    "USD 99": 99.0,
    "€99": 99.0,
    "99€": 99.0,
    "99 USD": 99.0,
    "99.": 99.0,
    "99,": 99.0,
    "99!": 99.0,
    "(99)": 99.0,
    "'99'": 99.0,
    "~99": 99.0,
    "99.-": 99.0,
    "about 99 dollars, I think": 99.0,
    "Price is $227.00": 227.0,
    # thousands and decimals in either notation
    "1,299": 1299.0,
    "1.299": 1299.0,
    "1,299.00": 1299.0,
    "1.299,00": 1299.0,
    "1,299,000.5": 1299000.5,
    "1.299.000,50": 1299000.5,
    "1.299.000": 1299000.0,
    "costs 1,299.99.": 1299.99,
    "12,99": 12.99,
    "0,99": 0.99,
    "12.5": 12.5,
    # other numbers around it
    "12-pack for $99": 99.0,
    "12-pack 99": 99.0,
    "3 x $4": 4.0,
    "99.00 100% cotton": 99.0,
    "64GB, 99": 99.0,
    # the first of two; a dash between spaces is punctuation, not a range
    "$5 - $10": 5.0,
    "99 – a bargain": 99.0,
    "99 or 120": 99.0,
    "999999999999.99": 999999999999.99,
}

NO_PLAIN_PRICE = [
    "",
    " ",
    "$",
    "none",
    "free",
    "N/A",
    "</s>",
    "½",
    # negative, with every kind of minus
    "-12",
    "−12",
    "–12",
    "$-12",
    "-$12",
    "−$12",
    "+12",
    # ranges and fractions
    "5-10",
    "$5-$10",
    "5–10",
    "5−10",
    "1/2",
    "99/100",
    "$99/month",
    # percent
    "50%",
    "50 %",
    "99.5%",
    "1,299.5%",
    # part of a word or of another number
    "B2",
    "4GB",
    "0x10",
    "1e5",
    "1_000",
    "12²",
    "12-pack",
    ".99",
    "$.99",
    # other digits
    "٩٩",
    "12٣",
    "１２",
    # marks that contradict each other
    "1.2.3",
    "1,2,3",
    "1,299,00",
    "1.299.00",
    "12,34,567",
    "1.000,000.00",
    "100,00.00",
    "1234,567",
    "0,123",
    "0.999",
    "012,345",
    "1'299",
    "CHF 1'299.-",
    # babble
    "1" * 16,
    "7" * 400,
    "1,000" * 80,
]

PADDED_PRICES = {
    "0227": 227.0,
    " 0227": 227.0,
    "\n0227": 227.0,
    "0000": 0.0,
    "9999": 9999.0,
    "0227\n\nWhat": 227.0,
    "0227</s>": 227.0,
    "0227 dollars": 227.0,
    "0227.": 227.0,
    "0227,": 227.0,
}

NO_PADDED_PRICE = [
    "",
    "227",  # too short: the model stopped early
    "02",
    "02270",  # too long
    "0" * 400,
    "$0227",  # it must start with the digits
    "about 0227",
    "-0227",
    "−0227",
    "0227-0300",
    "0227–",
    "0227%",
    "0227/2",
    "0227a",
    "0227²",
    "0227.00",  # another format
    "0227,5",
    "0,227",
    "٠٢٢٧",
]


@pytest.mark.parametrize(("completion", "price"), PLAIN_PRICES.items())
def test_a_plain_price_is_read(completion: str, price: float) -> None:
    assert parse_price(completion, PLAIN) == price


@pytest.mark.parametrize("completion", NO_PLAIN_PRICE)
def test_a_completion_without_a_plain_price_is_none(completion: str) -> None:
    assert parse_price(completion, PLAIN) is None


@pytest.mark.parametrize(("completion", "price"), PADDED_PRICES.items())
def test_a_padded_price_is_read(completion: str, price: float) -> None:
    assert parse_price(completion, PADDED) == price


@pytest.mark.parametrize("completion", NO_PADDED_PRICE)
def test_a_completion_without_a_padded_price_is_none(completion: str) -> None:
    assert parse_price(completion, PADDED) is None


@pytest.mark.parametrize(
    ("price", "plain", "padded"),
    [
        (227, "227.00", "0227"),
        (227.49, "227.00", "0227"),
        (0.5, "0.00", "0000"),  # halves go to the even dollar
        (1.5, "2.00", "0002"),
        (2.5, "2.00", "0002"),
        (999.49, "999.00", "0999"),
        (9999.49, "9999.00", "9999"),
    ],
)
def test_a_price_is_written_in_whole_dollars(price: float, plain: str, padded: str) -> None:
    assert (format_price(price, PLAIN), format_price(price, PADDED)) == (plain, padded)


@pytest.mark.parametrize("price", [9999.5, 10_000, 1e9])
def test_a_price_with_more_digits_than_the_width_is_refused(price: float) -> None:
    with pytest.raises(ValueError, match="has more than 4 digits"):
        format_price(price, PADDED)


@pytest.mark.parametrize(
    ("prices", "width"), [([5.0], 1), ([9.4], 1), ([9.6], 2), ([3.0, 999.49], 3), ([999.6, 2.0], 4)]
)
def test_the_width_fits_the_dearest_price_once_it_is_rounded(prices: list[float], width: int) -> None:
    assert width_for(prices) == width


def test_a_format_says_a_width_exactly_when_it_is_padded() -> None:
    for style, width in (("padded", None), ("plain", 4)):
        with pytest.raises(ValueError, match="a padded price needs a width, a plain one has none"):
            PriceFormat(style, width)  # type: ignore[arg-type]


@given(st.integers(0, 10**12 - 1))
def test_a_plain_price_reads_back_as_it_was_written(dollars: int) -> None:
    assert parse_price(format_price(dollars, PLAIN), PLAIN) == dollars


@given(st.integers(1, 12).flatmap(lambda width: st.tuples(st.just(width), st.integers(0, 10**width - 1))))
def test_a_padded_price_of_any_width_reads_back_as_it_was_written(case: tuple[int, int]) -> None:
    width, dollars = case
    style = PriceFormat("padded", width)

    written = format_price(dollars, style)

    assert len(written) == width
    assert parse_price(written, style) == dollars


@given(st.floats(0.5, 999_999), st.floats(0.5, 999_999))
def test_padded_prices_sort_as_text_as_they_do_as_numbers(one: float, other: float) -> None:
    style = PriceFormat("padded", 7)

    lower, higher = (format_price(price, style) for price in sorted((one, other)))

    assert lower <= higher


@given(st.text(alphabet="0123456789.,$-–−/% '\n%aé٣²"))
def test_any_completion_reads_as_none_or_as_a_price_that_is_not_negative(completion: str) -> None:
    for style in (PLAIN, PADDED):
        price = parse_price(completion, style)
        assert price is None or price >= 0


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
