"""Descriptions made of several columns."""

from pathlib import Path
from typing import Any

import pytest

from pricer.config import DataConfig
from pricer.data.attributes import describe, read_description, write_cell
from pricer.data.preparation import load_items


def test_columns_become_names_and_values_in_their_order_without_the_empty_ones() -> None:
    row = {"brand": " Audi ", "price": "9000", "year": 2017, "owner": "", "seats": None, "colour": "N/A", " km ": 1.5}

    assert describe(row, ["year", "brand", "owner", "seats", "colour", " km "]) == "year: 2017, brand: Audi, km: 1.5"


def test_a_description_is_one_column_as_it_is_or_several_as_a_text() -> None:
    assert read_description({"a": 7, "b": "x"}, "a") == 7
    assert read_description({"a": 7, "b": "x"}, ["a"]) == "a: 7"
    assert read_description({}, "a") is None
    assert read_description({}, ["a", "b"]) == ""


@pytest.mark.parametrize(
    ("value", "written"),
    [
        (2017.0, "2017"), ("2017.0", "2017"), ("-3.00", "-3"), ("1.50", "1.50"), (0.1, "0.1"), (float("nan"), ""),
        (1e300, str(int(1e300))), (True, "yes"), (False, "no"),
        ("NaN", ""), ("None", "None"), ("two\n lines\t", "two lines"), (["a", None, 2.0], "a, , 2"),
    ],
)  # fmt: skip
def test_a_cell_is_written_on_one_line(value: Any, written: str) -> None:
    assert write_cell(value) == written


def test_a_table_without_a_text_becomes_items() -> None:
    Path("cars.csv").write_text("brand,year,price\n" + "".join(f"B{n},20{n:02},{n + 1}\n" for n in range(40)))

    items = load_items(DataConfig(source="cars.csv", description=["brand", "year"]))

    assert {item.description for item in items.train} <= {f"brand: B{n}, year: 20{n:02}" for n in range(40)}
    assert len(items.train) > 20
