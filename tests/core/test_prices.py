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
    format_steps,
    parse_price,
    refuse_zeros,
    width_for,
)
from pricer.core.units import DOLLARS, PriceUnit
from pricer.errors import ConfigError

PLAIN = PriceFormat("plain")
PADDED = PriceFormat("padded", 4)

# Completion -> price. It goes on after "Price is $".
PLAIN_PRICES = {
    # as it is taught
    **dict.fromkeys(["227.00", " 227.00", "227", "227.00\n\nWhat does this cost", "227.00</s>"], 227.0),
    "0.00": 0.0,
    # with a currency, a sentence, punctuation
    **dict.fromkeys(["$99", "$ 99", "US$99", "USD 99", "€99", "99€", "99 USD", "about 99 dollars, I think"], 99.0),
    **dict.fromkeys(["99.", "99,", "99!", "(99)", "'99'", "~99", "99.-"], 99.0),
    "Price is $227.00": 227.0,
    # thousands and decimals in either notation
    **dict.fromkeys(["1,299", "1.299", "1,299.00", "1.299,00"], 1299.0),
    **dict.fromkeys(["1,299,000.5", "1.299.000,50"], 1299000.5),
    "1.299.000": 1299000.0,
    "costs 1,299.99.": 1299.99,
    "12,99": 12.99,
    "0,99": 0.99,
    "12.5": 12.5,
    "999999999999.99": 999999999999.99,
    # other numbers around it
    **dict.fromkeys(["12-pack for $99", "12-pack 99", "99.00 100% cotton", "64GB, 99"], 99.0),
    "3 x $4": 4.0,
    # the first of two; a dash between spaces is punctuation, not a range
    "$5 - $10": 5.0,
    **dict.fromkeys(["99 – a bargain", "99 or 120"], 99.0),
}

NO_PLAIN_PRICE = [
    *("", " ", "$", "none", "free", "N/A", "</s>", "½"),
    # negative, with every kind of minus
    *("-12", "−12", "–12", "$-12", "-$12", "−$12", "+12"),
    # ranges and fractions
    *("5-10", "$5-$10", "5–10", "5−10", "1/2", "99/100", "$99/month"),
    # percent
    *("50%", "50 %", "99.5%", "1,299.5%"),
    # part of a word or of another number
    *("B2", "4GB", "0x10", "1e5", "1_000", "12²", "12-pack", ".99", "$.99"),
    # other digits
    *("٩٩", "12٣", "１２"),
    # marks that contradict each other
    *("1.2.3", "1,2,3", "1,299,00", "1.299.00", "12,34,567", "1.000,000.00", "100,00.00", "1234,567"),
    *("0,123", "0.999", "012,345", "1'299", "CHF 1'299.-"),
    # babble
    *("1" * 16, "7" * 400, "1,000" * 80),
]

PADDED_PRICES = {
    **dict.fromkeys(["0227", " 0227", "\n0227", "0227\n\nWhat", "0227</s>", "0227 dollars", "0227.", "0227,"], 227.0),
    "0000": 0.0,
    "9999": 9999.0,
    # without the zeros that were taught
    **dict.fromkeys(["227", " 227", "227\n", "227 dollars", "227."], 227.0),
    "9": 9.0,
}

NO_PADDED_PRICE = [
    # too short, as the model stopped early, or too long
    *("", "0", "02", "022", "02270", "22700", "0" * 400),
    # it must start with the digits
    *("$0227", "about 0227", "-0227", "−0227"),
    *("0227-0300", "0227–", "0227%", "0227/2", "0227a", "0227²"),
    # another format, other digits
    *("0227.00", "0227,5", "0,227", "٠٢٢٧"),
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


@pytest.mark.parametrize("decimals", [-1, 2])
def test_fewer_digits_are_no_price_if_they_are_no_whole_units(decimals: int) -> None:
    style = PriceFormat("padded", 4, decimals)

    assert parse_price("227", style) is None
    assert parse_price("0227", style) == 227 / 10**decimals


@pytest.mark.parametrize(
    ("price", "plain", "padded"),
    [
        (227, "227.00", "0227"),
        (227.49, "227.00", "0227"),
        (1.5, "2.00", "0002"),  # halves go to the even dollar
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


# Decimals -> price, and how it is written in dollars, in kWh, and padded to six digits.
WRITTEN = {
    -3: (1_234_000.0, "1234000", "1234000", "001234"),
    -2: (1_234_000.0, "1234000", "1234000", "012340"),
    -1: (1_234_560.0, "1234560", "1234560", "123456"),
    0: (1_234.0, "1234.00", "1234", "001234"),
    1: (1_234.5, "1234.50", "1234.5", "012345"),
    2: (1_234.05, "1234.05", "1234.05", "123405"),
    3: (12.005, "12.005", "12.005", "012005"),
}


@pytest.mark.parametrize(("decimals", "row"), WRITTEN.items())
def test_a_price_is_written_with_the_decimals_of_its_step(decimals: int, row: tuple[float, str, str, str]) -> None:
    price, dollars, energy, padded = row
    formats = [
        (PriceFormat("plain", None, decimals), dollars),
        (PriceFormat("plain", None, decimals, "kWh"), energy),
        (PriceFormat("padded", 6, decimals), padded),
    ]

    for price_format, written in formats:
        assert format_price(price, price_format) == written
        assert parse_price(written, price_format) == price


@pytest.mark.parametrize(
    ("decimals", "price", "plain", "padded"),
    [
        (-3, 1_499.0, "1000", "0001"),
        (-3, 2_500.0, "2000", "0002"),  # halves go to the even step
        (-2, 250_049.99, "250000", "2500"),
        (2, 0.125, "0.12", "0012"),
        (2, 0.29, "0.29", "0029"),  # 0.29 × 100 is 28.999999999999996
        (2, 9.999, "10.00", "1000"),
        (3, 0.0006, "0.001", "0001"),
    ],
)
def test_a_price_is_rounded_to_whole_steps(decimals: int, price: float, plain: str, padded: str) -> None:
    assert format_price(price, PriceFormat("plain", None, decimals)) == plain
    assert format_price(price, PriceFormat("padded", 4, decimals)) == padded


@pytest.mark.parametrize(
    ("completion", "price_format", "price"),
    [
        ("1.299", PriceFormat("plain", None, 2), 1299.0),
        ("1.299", PriceFormat("plain", None, 3), 1.299),
        ("1,299", PriceFormat("plain", None, 3), 1299.0),
        ("1,299.125", PriceFormat("plain", None, 3), 1299.125),
        ("1.25", PriceFormat("plain", None, 3), 1.25),
        ("12.5kWh", PriceFormat("plain", None, 1, "kWh"), 12.5),
        ("3 people use 12.5 kWh.", PriceFormat("plain", None, 1, "kWh"), 12.5),
        ("12.5 kWhs", PriceFormat("plain", None, 1, "kWh"), 12.5),  # a number without a known unit
        ("12.5 kWh/day", PriceFormat("plain", None, 1, "kWh"), 12.5),
        ("2 for €99", PriceFormat("plain", None, 0, "€"), 99.0),
        ("$5, or €99", PriceFormat("plain", None, 0, "€"), 99.0),
        ("€5, or $99", PLAIN, 99.0),
        ("9.5%", PriceFormat("plain", None, 1, "%"), 9.5),
        ("9.5%", PLAIN, None),
        ("-€12", PriceFormat("plain", None, 0, "€"), None),
        ("01299", PriceFormat("padded", 5, 2), 12.99),
        ("12.99", PriceFormat("padded", 5, 2), None),
        ("2500", PriceFormat("padded", 4, -2), 250_000.0),
    ],
)
def test_an_answer_is_read_in_the_unit_of_the_run(
    completion: str, price_format: PriceFormat, price: float | None
) -> None:
    assert parse_price(completion, price_format) == price


STEPS = st.integers(0, 10**9 - 1)
UNITS = st.tuples(st.integers(-3, 3), st.sampled_from(["$", "€", "kWh", "€/kWh", "%"]))


@given(st.integers(0, 10**12 - 1))
def test_a_plain_price_reads_back_as_it_was_written(dollars: int) -> None:
    assert parse_price(format_steps(dollars, PLAIN), PLAIN) == dollars


@given(STEPS, UNITS)
def test_a_plain_price_in_any_unit_reads_back_as_it_was_written(steps: int, unit: tuple[int, str]) -> None:
    price_format = PriceFormat("plain", None, *unit)

    price = parse_price(format_steps(steps, price_format), price_format)

    assert price == price_format.price_unit.from_steps(steps)
    assert not steps or price_format.price_unit.to_steps(price) == steps


@given(
    st.integers(1, 12).flatmap(lambda width: st.tuples(st.just(width), st.integers(0, 10**width - 1))),
    st.integers(-3, 3),
)
def test_a_padded_price_of_any_width_reads_back_as_it_was_written(case: tuple[int, int], decimals: int) -> None:
    width, steps = case
    style = PriceFormat("padded", width, decimals)

    written = format_steps(steps, style)

    assert len(written) == width
    assert parse_price(written, style) == style.price_unit.from_steps(steps)


@pytest.mark.parametrize("price", [0.0, -1.0, float("nan"), float("inf"), float("-inf")])
def test_what_is_not_above_zero_cannot_be_written(price: float) -> None:
    for refused in (
        lambda: format_price(price, PLAIN),
        lambda: width_for([price]),
        lambda: refuse_zeros([price], DOLLARS),
    ):
        with pytest.raises(ValueError, match="is not above zero"):
            refused()


@pytest.mark.parametrize(("price", "decimals"), [(0.5, 0), (0.004, 2), (499.0, -3)])
def test_a_price_above_zero_is_never_written_as_zero(price: float, decimals: int) -> None:
    with pytest.raises(ValueError, match=f"would be written as 0 with {decimals} decimals"):
        format_price(price, PriceFormat("plain", None, decimals))


@pytest.mark.parametrize(
    ("prices", "unit", "problem", "hint"),
    [
        (
            [0.12, 0.49, 20.0],
            DOLLARS,
            "2 of 3 training prices would be written as 0, the lowest of them $0.12 (data.decimals is 0)",
            "data.decimals: 2, or data.min_price: 0.51 leaves them out",
        ),
        (
            [0.2, 30.0],
            PriceUnit("kWh", 0),
            "1 of 2 training prices would be written as 0, the lowest of them 0.20 kWh (data.decimals is 0)",
            "data.decimals: 1, or data.min_price: 0.51 leaves them out",
        ),
        (
            [20.0, 250_000.0],
            PriceUnit("€", -3),
            "1 of 2 training prices would be written as 0, the lowest of them €20 (data.decimals is -3)",
            "data.decimals: -1, or data.min_price: 510 leaves them out",
        ),
        (
            [1e-9, 5.0],
            PriceUnit("$", 2),
            "1 of 2 training prices would be written as 0, the lowest of them $1e-09 (data.decimals is 2)",
            "data.min_price: 0.0051 leaves them out",
        ),
    ],
)
def test_prices_that_would_be_written_as_zero_are_refused_with_their_number(
    prices: list[float], unit: PriceUnit, problem: str, hint: str
) -> None:
    with pytest.raises(ConfigError) as caught:
        refuse_zeros(prices, unit)

    assert (caught.value.problems, caught.value.hint) == ([problem], hint)
    refuse_zeros(prices[-1:], unit)


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
    assert choose_estimator(wanted, DOLLARS, has_distribution=has_distribution) == settled


def test_an_estimator_without_a_distribution_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        choose_estimator("mode", DOLLARS, has_distribution=False)

    assert caught.value.problems == [
        "eval.estimator is mode, but no distribution can be computed from this tokenizer's price tokens"
    ]
    assert caught.value.hint == "data.max_price: 99999, or prompt.price_format: padded, or eval.estimator: greedy"


def test_the_width_of_padded_prices_is_that_of_the_dearest_unless_it_is_set() -> None:
    assert choose_price_format("auto", None, auto="padded", max_price=1299.0, unit=DOLLARS) == PriceFormat("padded", 4)
    assert choose_price_format("padded", 6, auto="plain", max_price=1299.0, unit=DOLLARS) == PriceFormat("padded", 6)
    assert choose_price_format("auto", None, auto="plain", max_price=1299.0, unit=DOLLARS) == PriceFormat("plain")


def test_a_width_that_is_too_narrow_or_belongs_to_plain_prices_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"^prompt\.price_width is 3, the dearest training item costs 1299$"):
        choose_price_format("padded", 3, auto="plain", max_price=1299.0, unit=DOLLARS)
    with pytest.raises(ConfigError, match=r"^prompt\.price_width is 4, but a plain price has no width$"):
        choose_price_format("auto", 4, auto="plain", max_price=1299.0, unit=DOLLARS)


def test_the_format_of_another_unit_counts_digits_in_steps() -> None:
    cents, thousands = PriceUnit("€", 2), PriceUnit("€", -3)

    assert choose_price_format("auto", None, auto="padded", max_price=1299.0, unit=cents) == PriceFormat(
        "padded", 6, 2, "€"
    )
    assert choose_price_format("auto", None, auto="padded", max_price=1_299_000.0, unit=thousands) == PriceFormat(
        "padded", 4, -3, "€"
    )
    with pytest.raises(ConfigError, match=r"^prompt\.price_width is 4, .* costs 1299, 6 digits with data\.decimals 2$"):
        choose_price_format("padded", 4, auto="plain", max_price=1299.0, unit=cents)
    with pytest.raises(ConfigError) as caught:
        choose_estimator("mode", cents, has_distribution=False)
    assert caught.value.hint == "data.max_price: 999.99, or prompt.price_format: padded, or eval.estimator: greedy"


def test_a_tokenizer_that_cannot_write_numbers_has_no_remedy() -> None:
    assert explain_greedy(None, 1299.0, DOLLARS, can_pad=False) == (
        "this tokenizer gives different prices the same tokens: the median cannot be computed, answers are greedy"
    )
