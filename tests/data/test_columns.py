"""Which column of a table is what: golden tables of names and cells."""

import math
import random
from collections.abc import Mapping
from typing import Any

import pytest

from pricer.data.column_facts import find_decimal_mark, look_at, read_amount
from pricer.data.column_names import name_words
from pricer.data.columns import Given, Question, Recognised, recognise_columns

WORDS = ["lamp", "oak", "steel", "table", "wide", "small", "round", "blue", "chair", "desk", "shelf", "frame"]
COUNT = 60


def text(words: int) -> list[str]:
    """Texts of so many words, each another."""
    chosen = random.Random(words)
    return [" ".join(chosen.choices(WORDS, k=words - 1)) + f" {place}x" for place in range(COUNT)]


NUMBERS = random.Random(0)
PRICES = [NUMBERS.randrange(1_000, 90_000) / 100 for _ in range(COUNT)]
SIZES = [NUMBERS.randrange(20, 400) for _ in range(COUNT)]
YEARS = [NUMBERS.randrange(1990, 2024) for _ in range(COUNT)]
BRANDS = [NUMBERS.choice(["Audi", "BMW", "VW", "Opel"]) for _ in range(COUNT)]
COUNTS = list(range(COUNT))


def recognise(table: Mapping[str, Any], **given: Any) -> Recognised:
    rows = [dict(zip(table, cells, strict=True)) for cells in zip(*table.values(), strict=True)]
    return recognise_columns(list(table), rows, Given(**given))


@pytest.mark.parametrize(
    ("price", "description", "title", "category"),
    [
        ("price", "description", "title", "category"),
        ("Preis", "Beschreibung", "Produktname", "Kategorie"),
        ("prix", "texte", "nom", "catégorie"),
        ("Precio", "Descripción", "Título", "categoria"),
        ("価格", "説明", "商品名", "カテゴリ"),
        ("가격", "설명", "제목", "분류"),
        ("цена", "описание", "название", "категория"),
        ("SalePrice", "product_description", "productName", "main_category"),
        ("wage", "job_details", "headline", "department"),
        ("Verkaufspreis (EUR)", "Beschreibungstext", "Artikelbezeichnung", "kategorie"),
    ],
)
def test_names_in_several_languages(price: str, description: str, title: str, category: str) -> None:
    table = {"id": COUNTS, title: text(4), description: text(30), category: BRANDS, price: PRICES}

    found = recognise(table)

    assert (found.price, found.description, found.title, found.category) == (price, (description,), title, category)
    assert found.left_out == {"id": "an identifier"}
    assert found.question is None


def test_a_table_without_a_text_is_described_by_its_attributes() -> None:
    found = recognise({"rownames": COUNTS, "make": BRANDS, "year": YEARS, "km": SIZES, "Price": PRICES})

    assert found.description == ("make", "year", "km")
    assert (found.price, found.title, found.category) == ("Price", None, "make")
    assert found.left_out == {"rownames": "an identifier"}


def test_a_title_alone_is_the_description_and_beside_attributes_one_of_them() -> None:
    assert recognise({"name": text(4), "price": PRICES}).description == ("name",)
    assert recognise({"name": text(4), "price": PRICES}).title is None
    assert recognise({"name": text(4), "year": YEARS, "price": PRICES}).description == ("name", "year")


def test_columns_beside_a_text_are_named_as_unused() -> None:
    found = recognise({"description": text(20), "year": YEARS, "price": PRICES})

    assert (found.description, found.unused) == (("description",), ("year",))


def test_what_gives_the_price_away_is_left_out_with_the_reason() -> None:
    table = {
        "address": text(3),
        "square_feet": SIZES,
        "year": YEARS,
        "list_price": [price * (1 + 0.01 * (place % 40)) for place, price in enumerate(PRICES)],
        "SoldPct": [round(100 / (1 + 0.01 * (place % 40)), 2) for place in COUNTS],
        "log_value": [price**0.5 for price in PRICES],
        "CostPerSqFt": [round(price / size, 4) for price, size in zip(PRICES, SIZES, strict=True)],
        "sale_price": PRICES,
    }

    found = recognise(table)

    assert found.price == "sale_price"
    assert found.description == ("address", "square_feet", "year")
    assert found.left_out == {
        "list_price": "another price",
        "SoldPct": "gives the price together with list_price",
        "log_value": "moves with the price",
        "CostPerSqFt": "gives the price together with square_feet",
    }


def test_what_says_nothing_about_an_item_is_left_out_with_the_reason() -> None:
    table = {
        "km": SIZES,
        "uuid": [f"{place:032x}" for place in COUNTS],
        "photo": [f"https://example.org/{place}.jpg" for place in COUNTS],
        "site": [f"https://example.org/{brand}" for brand in BRANDS],
        "country": ["DE"] * COUNT,
        "note": [""] * COUNT,
        "seller": [{"name": "Ann"}] * COUNT,
        "price": PRICES,
    }

    assert recognise(table).left_out == {
        "uuid": "an identifier",
        "photo": "an identifier",
        "site": "holds links",
        "country": "the same in every row",
        "note": "empty",
        "seller": "holds objects",
    }


def test_the_first_rows_alone_do_not_show_that_a_column_never_varies() -> None:
    rows = [{"region": "north", "km": size, "price": price} for size, price in zip(SIZES, PRICES, strict=True)]

    found = recognise_columns(["region", "km", "price"], rows, Given(), are_all=False)

    assert found.description == ("region", "km")


def test_a_column_that_says_the_split_is_no_attribute() -> None:
    table = {"km": SIZES, "split": ["train"] * 50 + ["validation", "test"] * 5, "price": PRICES}

    assert recognise(table).split_column == "split"
    assert recognise(table).description == ("km",)
    assert recognise({**table, "split": BRANDS}).split_column is None
    assert recognise({**table, "split": ["train", "holdout"] * 30}).split_column is None


@pytest.mark.parametrize(
    ("table", "question"),
    [
        ({"mpg": SIZES, "weight": YEARS}, Question("price", "which column is the price?", ("mpg", "weight"))),
        (
            {"loan_amount": PRICES, "annual_income": SIZES, "weight": YEARS},
            Question("price", "which column is the price?", ("loan_amount", "annual_income")),
        ),
        ({"name": text(4)}, Question("price", "no column has numbers above zero", ())),
        ({"price": ["call"] * COUNT}, Question("price", "no column has numbers above zero", ())),
        (
            {"a": text(20), "b": text(22), "price": PRICES},
            Question("description", "which column describes the product?", ("b", "a")),
        ),
        (
            {"a": text(20), "price": [f"{size}.500" for size in SIZES]},
            Question(
                "decimal_mark",
                "is 1.299 in the column price a thousand two hundred and ninety-nine (,) or one point three (.)?",
                (",", "."),
            ),
        ),
    ],
)
def test_what_is_unsure_becomes_a_question(table: Mapping[str, Any], question: Question) -> None:
    assert recognise(table).question == question


def test_what_is_given_is_not_asked_for() -> None:
    table = {"mpg": SIZES, "weight": YEARS, "a": text(20), "b": text(22), "list_price": PRICES}

    found = recognise(table, price="mpg", description=("a", "list_price"), title="b", category="weight")

    assert found == Recognised(("a", "list_price"), "mpg", "b", "weight")


def test_a_given_price_must_be_a_number() -> None:
    found = recognise({"a": text(20), "price": PRICES}, price="a")

    assert found.question == Question("price", "a is a number above zero in only 0% of its cells", ())


@pytest.mark.parametrize(
    ("cells", "mark"),
    [
        (["1,299.00", "5"], "."), (["12.99", "7.5"], "."), (["1.299,00 €"], ","), (["12,99", "1.299"], ","),
        (["1.299", "2.000"], None), (["1,299", "2,000"], "."), (["0.125"], "."), (["1'299.50"], "."),
        ([12.5, 7], "."), ([], "."), (["12", "n/a"], "."), (["EUR 1.299,-"], None),
    ],
)  # fmt: skip
def test_the_decimal_mark_is_found_from_prices_that_have_both_marks_or_few_decimals(
    cells: list[Any], mark: str | None
) -> None:
    assert find_decimal_mark(cells) == mark


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("$1,299.00", 1299.0), ("1 299.50 USD", 1299.5), ("€ 5", 5.0), ("-3", -3.0), (7, 7.0), ("12 pack", None),
        ("5 - 9", None), ("", None), (None, None), (True, None), (float("inf"), None), ("1.2.3", None), ("٣", None),
    ],
)  # fmt: skip
def test_a_number_may_have_a_currency_beside_it(cell: Any, number: float | None) -> None:
    assert read_amount(cell, ".") == pytest.approx(math.nan if number is None else number, nan_ok=True)


@pytest.mark.parametrize(
    ("name", "cells", "unit"),
    [
        ("price", ["$5", "$6"], "$"), ("price", ["5 €", "6 €"], "€"), ("price", ["EUR 5", "6"], "€"),
        ("price_usd", [5, 6], "$"), ("Preis (€)", ["5"], "€"), ("price", ["5", "6"], None), ("GBP", [1], "£"),
        ("price", ["kWh 5"], None), ("europe", [1], None),
    ],
)  # fmt: skip
def test_the_unit_stands_beside_the_prices_or_in_the_name(name: str, cells: list[Any], unit: str | None) -> None:
    assert look_at(name, cells, ".").currency == unit


def test_a_name_is_taken_apart_at_capitals_and_marks() -> None:
    assert name_words("SalePrice_EUR2") == ["sale", "price", "eur", "2"]
    assert name_words("Größe") == ["große".casefold()]
    assert name_words("GRLivArea") == ["gr", "liv", "area"]
    assert name_words("カテゴリ") == name_words("カテコリ")
