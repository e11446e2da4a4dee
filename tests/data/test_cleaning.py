"""One row at a time: what is kept, what is rejected, what a rule drops."""

import math
from typing import Any

import pytest

from pricer.config import DataConfig
from pricer.data.cleaning import Cleaned, Drop, clean, find_price
from pricer.data.layouts import Cells, Rejection


def cleaned(description: Any = "A lamp", price: Any = 5, **settings: Any) -> Cleaned | Rejection | Drop:
    return clean(Cells(description, price), DataConfig(**settings), "price")


@pytest.mark.parametrize(
    ("description", "reason", "problem"),
    [
        ("", "no description", "description is empty"),
        (" \n", "no description", "description is empty"),
        (None, "no description", "description is empty"),
        ("<p></p>", "no description", "description is '<p></p>', which has no text"),
        (5, "description is not text", "description is 5, not text"),
        (["x"], "description is not text", "description is ['x'], not text"),
    ],
)
def test_a_row_without_a_description_is_rejected(description: Any, reason: str, problem: str) -> None:
    assert cleaned(description) == Rejection(reason, problem)


@pytest.mark.parametrize(
    ("price", "reason", "problem"),
    [
        (None, "no price", "price is missing"),
        ("", "no price", "price is missing"),
        ("N/A", "no price", "price is 'N/A', no price"),
        (math.nan, "no price", "price is nan, no price"),
        (-1.5, "price not above zero", "price is -1.5, not above zero"),
        ("0", "price not above zero", "price is '0', not above zero"),
        ("$5 - $10", "price is a range", "price is '$5 - $10', a range"),
        ("call for price", "price is not a number", "price is 'call for price', not a number"),
        (True, "price is not a number", "price is True, not a number"),
        ([3], "price is not a number", "price is [3], not a number"),
        ("x" * 500, "price is not a number", f"price is '{'x' * 79}…, not a number"),
        ([10**5000], "price is not a number", "price is a number of thousands of digits, not a number"),
    ],
)
def test_a_row_without_a_price_is_rejected(price: Any, reason: str, problem: str) -> None:
    assert cleaned(price=price) == Rejection(reason, problem)


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"min_price": 5.01}, "below min_price"),
        ({"max_price": 4.99}, "above max_price"),
        ({"min_characters": 7}, "too short"),
        ({"max_characters": 5}, "too long"),
    ],
)
def test_a_rule_drops_what_is_beyond_its_limit(settings: dict[str, Any], reason: str) -> None:
    assert cleaned("A lamp", 5, **settings) == Drop(reason)


def test_limits_are_kept_themselves() -> None:
    limits = {"min_price": 5, "max_price": 5, "min_characters": 6, "max_characters": 6}

    assert isinstance(cleaned("A lamp", 5, **limits), Cleaned)


def test_the_length_counts_the_title() -> None:
    cells = Cells("A lamp", 5, title="Lamp")  # 4 + a line break + 6 = 11

    assert isinstance(clean(cells, DataConfig(min_characters=11), "price"), Cleaned)
    assert clean(cells, DataConfig(min_characters=12), "price") == Drop("too short")


@pytest.mark.parametrize("value", ["", None, math.nan, "nan", "N/A", " "])
def test_an_empty_title_or_category_is_none(value: Any) -> None:
    found = clean(Cells("A lamp", 5, title=value, category=value), DataConfig(), "price")

    assert isinstance(found, Cleaned)
    assert (found.title, found.category) == (None, None)


@pytest.mark.parametrize("description", ["NA", "None", "null", "nan", "12345", "True", "007"])
def test_a_description_that_looks_like_something_else_is_kept(description: str) -> None:
    found = cleaned(description)

    assert isinstance(found, Cleaned)
    assert (found.description, found.had_markup) == (description, False)


def test_markup_is_removed_where_it_is_asked_for() -> None:
    text = "A <b>lamp</b>"

    assert [
        one.description for one in (cleaned(text), cleaned(text, strip_markup=False)) if isinstance(one, Cleaned)
    ] == [
        "A lamp",
        text,
    ]


def test_half_a_character_pair_is_replaced_and_two_halves_are_joined() -> None:
    found = [cleaned(text) for text in ("lamp \ud83d", "lamp \ud83d\ude00")]

    assert [one.description for one in found if isinstance(one, Cleaned)] == ["lamp \ufffd", "lamp \U0001f600"]


@pytest.mark.parametrize(
    ("text", "price", "shows", "ends"),
    [
        ("A lamp, $227.50 only", 227.5, True, False),
        ("A lamp for 227 USD in brass", 227.4, True, False),
        ("A lamp. Price: 1,299.00 with shade", 1299, True, False),
        ("How much?\n\nA lamp\n\nPrice is $228.00", 227.5, True, True),  # 227.5 is rounded to 228
        ("A lamp 227.50.", 227.5, True, True),
        ("A lamp of 227 mm in brass", 227, False, False),
        ("A lamp, listed in 1994, red", 1994, False, False),
        ("A lamp, $22 off", 227, False, False),
        ("A lamp, $1227 list", 227, False, False),
        ("A lamp", 5, False, False),
    ],
)
def test_a_price_in_a_description_is_found(text: str, price: float, shows: bool, ends: bool) -> None:
    assert find_price(text, price, DataConfig()) == (shows, ends)


def test_a_description_that_shows_its_price_is_dropped_where_that_is_asked_for() -> None:
    assert cleaned("A lamp for $5", 5, price_in_description="drop") == Drop("price in description")
    assert isinstance(cleaned("A lamp for $5", 5), Cleaned)


def test_the_unit_may_stand_beside_a_price() -> None:
    found = cleaned(price="12.5 kWh", unit="kWh")

    assert isinstance(found, Cleaned)
    assert found.price.value == 12.5
    assert isinstance(cleaned(price="12.5 kWh"), Rejection)
