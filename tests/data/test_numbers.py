"""Prices as people write them."""

import math
from typing import Any

import pytest

from pricer.data.numbers import NO_PRICE, NOT_A_NUMBER, NOT_ABOVE_ZERO, RANGE, Price, read_price


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("12.5", 12.5), (" 12.50 ", 12.5), ("5.", 5), (".5", 0.5), ("$1,299.00", 1299), ("1,299", 1299),
        ("1 299.50", 1299.5), ("1\u00a0299", 1299), ("1\u202f299", 1299), ("CHF 1'299.50", 1299.5),
        ("US$ 12.50", 12.5), ("USD 12.50", 12.5), ("12.50 EUR", 12.5), ("£12", 12), ("Rs. 500", 500), ("500 kr", 500),
        ("₹1,29,999", 129999),
        ("12.-", 12), ("1,234,567.89", 1234567.89), ("1e5", 100000), ("1.5E+3", 1500), ("１２.５", 12.5),
        ("0.01", 0.01),
    ],
)  # fmt: skip
def test_a_price_with_a_decimal_point_is_read(text: str, price: float) -> None:
    found = read_price(text)

    assert isinstance(found, Price)
    assert found.value == pytest.approx(price, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "price"),
    [
        ("1.299,00 €", 1299), ("€ 1.299", 1299), ("12,5", 12.5), ("1 299,50", 1299.5), ("12,- €", 12), ("12,-- €", 12),
        ("1.234.567,89", 1234567.89), ("99", 99), (",5", 0.5), ("1'299,50 CHF", 1299.5),
    ],
)  # fmt: skip
def test_a_price_with_a_decimal_comma_is_read(text: str, price: float) -> None:
    found = read_price(text, ",")

    assert isinstance(found, Price)
    assert found.value == pytest.approx(price, rel=1e-12)


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (None, NO_PRICE), ("", NO_PRICE), ("  ", NO_PRICE), (math.nan, NO_PRICE), ("NaN", NO_PRICE), ("N/A", NO_PRICE),
        ("-", NO_PRICE), ("null", NO_PRICE),
        ("call for price", NOT_A_NUMBER), ("POA", NOT_A_NUMBER), ("free", NOT_A_NUMBER), ("three", NOT_A_NUMBER),
        ("12,99", NOT_A_NUMBER), ("1.299.000", NOT_A_NUMBER), ("1,29", NOT_A_NUMBER), ("12 kg", NOT_A_NUMBER),
        ("1_000", NOT_A_NUMBER), ("99¢", NOT_A_NUMBER), ("1.2k", NOT_A_NUMBER), ("$", NOT_A_NUMBER),
        (".", NOT_A_NUMBER), ("5)", NOT_A_NUMBER), ("(5", NOT_A_NUMBER),
        ("5 5", NOT_A_NUMBER), ("€5 $5", NOT_A_NUMBER), ("inf", NOT_A_NUMBER), (math.inf, NOT_A_NUMBER),
        (10**400, NOT_A_NUMBER), ("1e999", NOT_A_NUMBER), ("9" * 400, NOT_A_NUMBER), (True, NOT_A_NUMBER),
        ([3], NOT_A_NUMBER), ({"usd": 3}, NOT_A_NUMBER), ("0x10", NOT_A_NUMBER),
        ("$5 - $10", RANGE), ("5–10", RANGE), ("5 to 10 USD", RANGE), ("$5-10", RANGE), ("from $5", RANGE),
        ("$5+", RANGE),
        ("10/12", RANGE), ("up to 500", RANGE), ("ab 5 €", RANGE), ("$1,299.00 - $1,499.00", RANGE),
        (0, NOT_ABOVE_ZERO), ("0", NOT_ABOVE_ZERO), ("$0.00", NOT_ABOVE_ZERO), (-1.5, NOT_ABOVE_ZERO),
        ("-5", NOT_ABOVE_ZERO), ("-$5", NOT_ABOVE_ZERO), ("$-5", NOT_ABOVE_ZERO), ("−5", NOT_ABOVE_ZERO),
        ("($5.00)", NOT_ABOVE_ZERO), ("1e-999", NOT_ABOVE_ZERO), (1e-400, NOT_ABOVE_ZERO),
    ],
)  # fmt: skip
def test_what_is_no_price_has_a_reason(value: Any, reason: str) -> None:
    assert read_price(value) == reason


@pytest.mark.parametrize(
    ("text", "mark", "is_ambiguous"),
    [
        ("1.299", ".", True), ("$12.500", ".", True), ("0.125", ".", False), ("1.29", ".", False),
        ("1299.125", ".", False),
        ("1,299", ".", False), ("1,299", ",", True), ("1.299", ",", False),
    ],
)  # fmt: skip
def test_a_mark_that_could_group_thousands_is_noticed(text: str, mark: str, is_ambiguous: bool) -> None:
    found = read_price(text, mark)

    assert isinstance(found, Price)
    assert found.is_ambiguous is is_ambiguous


def test_the_currency_beside_a_number_is_kept() -> None:
    assert read_price("€ 5") == Price(5.0, "€")
    assert read_price("5 USD") == Price(5.0, "USD")
    assert read_price("5") == Price(5.0)


def test_a_unit_may_stand_beside_a_number() -> None:
    assert read_price("12.5 kWh", unit="kWh") == Price(12.5, "kWh")
    assert read_price("12.5 kWh") == NOT_A_NUMBER


def test_a_long_cell_is_no_price_and_takes_no_time() -> None:
    assert read_price("1 " * 5_000_000) == NOT_A_NUMBER
    assert read_price("1," * 49 + "x") == NOT_A_NUMBER
