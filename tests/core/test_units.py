"""Units of prices: which there can be, how amounts are written, and which step, question and lead fit."""

import pytest

from pricer.core.metrics import choose_hit_error
from pricer.core.units import DOLLARS, PriceUnit, choose_decimals, choose_lead, choose_question


@pytest.mark.parametrize("symbol", ["$", "€", "US$", "R$", "₹", "kWh", "CHF", "€/kWh", "m²", "m2", "% vol.", "km/h"])
def test_these_can_be_a_unit(symbol: str) -> None:
    assert PriceUnit(symbol).symbol == symbol


@pytest.mark.parametrize(
    "symbol",
    # Empty or too long; beginning with a digit or a blank; what has a meaning in a prompt, a card, a chart or HTML.
    [
        "",
        "k" * 17,
        "2m",
        "/h",
        "-kWh",
        " kWh",
        "kWh ",
        "k  Wh",
        "$$",
        "k\nWh",
        "<b>",
        "`x`",
        "a|b",
        "a*b",
        "[x]",
        "{x}",
        "a\\b",
        "\x1b[m",
    ],
)
def test_these_cannot_be_a_unit(symbol: str) -> None:
    with pytest.raises(ValueError, match=r"is no unit: it has 1 to 16 letters"):
        PriceUnit(symbol)


def test_steps_have_at_most_six_decimals_or_zeros() -> None:
    for decimals in (7, -7):
        with pytest.raises(ValueError, match=f"decimals is {decimals}, not between -6 and 6"):
            PriceUnit("$", decimals)


@pytest.mark.parametrize(
    ("unit", "price", "short", "error", "signed"),
    [
        (DOLLARS, "$1,234.50", "$1,234", "−$1,234.50", "+$0.12"),
        (PriceUnit("$", 2), "$1,234.50", "$1,234.50", "−$1,234.500", "+$0.125"),
        (PriceUnit("$", 3), "$1,234.500", "$1,234.500", "−$1,234.5000", "+$0.1250"),
        (PriceUnit("€", -2), "€1,234", "€1,234", "−€1,234", "+€0"),
        (PriceUnit("US$"), "US$1,234.50", "US$1,234", "−US$1,234.50", "+US$0.12"),
        # An error is a mean, so it has a decimal more than prices.
        (PriceUnit("kWh"), "1,234 kWh", "1,234 kWh", "−1,234.50 kWh", "+0.12 kWh"),
        (PriceUnit("kWh", 1), "1,234.5 kWh", "1,234.5 kWh", "−1,234.50 kWh", "+0.12 kWh"),
        (PriceUnit("€/kWh", 3), "1,234.500 €/kWh", "1,234.500 €/kWh", "−1,234.5000 €/kWh", "+0.1250 €/kWh"),
    ],
)
def test_currency_signs_stand_before_the_number_and_other_units_after_it(
    unit: PriceUnit, price: str, short: str, error: str, signed: str
) -> None:
    assert (unit.price(1234.5), unit.short_price(1234.5)) == (price, short)
    assert (unit.error(-1234.5), unit.error(0.125, signed=True)) == (error, signed)


def test_two_amounts_share_a_unit() -> None:
    energy = PriceUnit("kWh", 1)

    assert (DOLLARS.price_range(10, 34), DOLLARS.short_range(10, 34)) == ("$10.00–34.00", "$10–34")
    assert (energy.price_range(10, 34), energy.error(3.5, 0.25)) == ("10.0–34.0 kWh", "3.50 ± 0.25 kWh")
    assert (DOLLARS.number("−$3.50"), energy.number("−3.50 kWh")) == ("−3.50", "−3.50")


def test_a_setting_is_written_with_the_decimals_that_it_needs() -> None:
    assert [DOLLARS.exact(amount) for amount in (999, 1234.5, 0.005, 0.1 + 0.2)] == [
        "$999",
        "$1,234.50",
        "$0.005",
        "$0.30",
    ]


def test_a_price_of_the_data_is_written_with_two_decimals_at_most_or_those_of_the_step() -> None:
    amounts = (318.3424301, 7.5, 999, 0.0012)  # the last one would be $0

    assert [DOLLARS.rounded(amount) for amount in amounts] == ["$318.34", "$7.50", "$999", "$0.0012"]
    assert PriceUnit("$", 4).rounded(0.123456) == "$0.1235"


@pytest.mark.parametrize(
    ("symbol", "prices", "decimals", "reason"),  # of the prices: the lowest, the lower quartile, the median
    [
        ("$", (9.0, 949.0, 1794.0), 0, "whole units are fine enough for these prices"),
        ("$", (1.0, 10.0, 30.0), 0, "whole units are fine enough for these prices"),
        # 0.5 of 9.9 is more than 5 %.
        (
            "$",
            (1.0, 9.9, 30.0),
            2,
            "whole units would change the lower quartile of prices, $9.90, by more than 5 %",
        ),
        (
            "kWh",
            (1.0, 9.9, 30.0),
            1,
            "whole units would change the lower quartile of prices, 9.9 kWh, by more than 5 %",
        ),
        (
            "$",
            (0.02, 0.12, 0.25),
            2,
            "whole units would change the lower quartile of prices, $0.12, by more than 5 %",
        ),
        (
            "$",
            (0.001, 0.02, 0.25),
            3,
            "whole units would change the lower quartile of prices, $0.020, by more than 5 %",
        ),
        # 0.5 of 8 cents is more than 5 %, too, but such prices are whole cents.
        ("$", (0.02, 0.08, 0.25), 2, "whole units would change the lower quartile of prices, $0.08, by more than 5 %"),
        # A few prices below a unit.
        ("$", (0.49, 20.0, 60.0), 2, "the lowest price, $0.49, would be written as 0 in whole units"),
        ("$", (0.0001, 20.0, 60.0), 0, "whole units are fine enough for these prices"),  # refused, see refuse_zeros
        ("€", (30_000.0, 130_000.0, 230_000.0), -2, "the median price is €230,000: about 4 digits are written"),
        ("€", (30_000.0, 130_000.0, 2.3e6), -3, "the median price is €2,300,000: about 4 digits are written"),
        ("¥", (100.0, 30_000.0, 100_000.0), 0, "whole units are fine enough for these prices"),
        # A step of 100 would change a quartile of 500 by up to 10 %, and write 4 as 0.
        ("€", (300.0, 500.0, 230_000.0), -1, "the median price is €230,000: about 4 digits are written"),
        ("€", (4.0, 130_000.0, 230_000.0), 0, "whole units are fine enough for these prices"),
    ],
)
def test_the_step_fits_the_prices(symbol: str, prices: tuple[float, float, float], decimals: int, reason: str) -> None:
    lowest, lower_quartile, median = prices

    found = choose_decimals("auto", symbol, lowest=lowest, lower_quartile=lower_quartile, median=median)

    assert found == (decimals, reason)


def test_decimals_that_are_set_stay() -> None:
    assert choose_decimals(1, "$", lowest=1e5, lower_quartile=2e5, median=3e5) == (1, "set in the config")


@pytest.mark.parametrize(
    ("unit", "question", "plain", "padded"),
    [
        (DOLLARS, "What does this cost to the nearest dollar?", "Price is $", "Price is $"),
        (PriceUnit("$", 2), "What does this cost to the nearest cent?", "Price is $", "Price in $0.01:"),
        (PriceUnit("€", -2), "What does this cost to the nearest €100?", "Price is €", "Price in €100:"),
        (PriceUnit("€"), "What does this cost to the nearest euro?", "Price is €", "Price is €"),
        (PriceUnit("US$"), "What does this cost to the nearest US$1?", "Price is US$", "Price is US$"),
        (PriceUnit("¥", -3), "What does this cost to the nearest ¥1,000?", "Price is ¥", "Price in ¥1,000:"),
        (PriceUnit("kWh"), "How many kWh is this, to the nearest 1?", "Value in kWh:", "Value in kWh:"),
        (PriceUnit("kWh", 1), "How many kWh is this, to the nearest 0.1?", "Value in kWh:", "Value in 0.1 kWh:"),
    ],
)
def test_question_and_lead_fit_the_unit_and_its_step(unit: PriceUnit, question: str, plain: str, padded: str) -> None:
    assert choose_question("auto", unit) == question
    assert choose_lead("auto", unit, is_padded=False) == plain
    assert choose_lead("auto", unit, is_padded=True) == padded


def test_what_the_config_says_comes_before_ready_made_prompts_and_these_before_the_unit() -> None:
    assert choose_question("How much?", DOLLARS, found="Cost?") == "How much?"
    assert choose_question("auto", DOLLARS, found="Cost?") == "Cost?"
    assert choose_lead("Costs ", DOLLARS, is_padded=True, found="It is ") == "Costs "
    assert choose_lead("auto", PriceUnit("$", 2), is_padded=True, found="It is ") == "It is "


@pytest.mark.parametrize(
    ("wanted", "unit", "median", "hit_error"),
    [
        ("auto", DOLLARS, 1794.0, 40.0),
        ("auto", DOLLARS, 39.0, None),
        ("auto", DOLLARS, 250_000.0, None),
        ("auto", PriceUnit("€"), 1794.0, None),
        (None, DOLLARS, 1794.0, None),
        (2.5, PriceUnit("kWh"), 1794.0, 2.5),
    ],
)
def test_forty_dollars_make_a_hit_only_where_they_say_something(
    wanted: float | None, unit: PriceUnit, median: float, hit_error: float | None
) -> None:
    assert choose_hit_error(wanted, unit, median)[0] == hit_error
