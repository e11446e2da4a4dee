"""Items that cannot be used: every bad row and broken file is named, with its line."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.stores.item_files import LAMP, csv, error, jsonl, parquet


class TestBadRows:
    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ({"description": "x"}, "price is missing"),
            ({"description": "x", "price": None}, "price is missing"),
            ({"description": "x", "price": ""}, "price is missing"),
            ({"description": "x", "price": -1.5}, "price is -1.5, not above zero"),
            ({"description": "x", "price": 0}, "price is 0.0, not above zero"),
            ({"description": "x", "price": float("nan")}, "price is nan, not above zero"),
            ({"description": "x", "price": float("inf")}, "price is inf, not above zero"),
            ({"description": "x", "price": 10**400}, "price is inf, not above zero"),
            ({"description": "x", "price": "$5"}, "price is '$5', not a number"),
            ({"description": "x", "price": "1,299"}, "price is '1,299', not a number"),
            ({"description": "x", "price": True}, "price is True, not a number"),
            ({"description": "x", "price": [3]}, "price is [3], not a number"),
            ({"description": "x", "price": {"usd": 3}}, "price is {'usd': 3}, not a number"),
            ({"description": "", "price": 3}, "description is empty"),
            ({"description": " \n", "price": 3}, "description is empty"),
            ({"description": None, "price": 3}, "description is empty"),
            ({"price": 3}, "description is empty"),
            ({"description": 5, "price": 3}, "description is 5, not text"),
            ({"description": ["x"], "price": 3}, "description is ['x'], not text"),
        ],
    )
    def test_a_bad_jsonl_row_is_named_with_its_line(self, row: Any, problem: str) -> None:
        found = error(jsonl(LAMP, row, LAMP))

        assert found.message == f"{problem} (items.jsonl, line 2)"
        assert found.hint == "mend or remove these rows: pricer drops none by itself"

    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            ("x", "price is missing"),
            ("x,", "price is missing"),
            ("x,-1", "price is '-1', not above zero"),
            ("x,0", "price is '0', not above zero"),
            ("x,NaN", "price is 'NaN', not above zero"),
            ("x,inf", "price is 'inf', not above zero"),
            ("x,True", "price is 'True', not a number"),
            ("x,N/A", "price is 'N/A', not a number"),
            ("x,$5", "price is '$5', not a number"),
            ('x,"1,299"', "price is '1,299', not a number"),
            (",3", "description is empty"),
            ("  ,3", "description is empty"),
        ],
    )
    def test_a_bad_csv_row_is_named_with_its_line(self, line: str, problem: str) -> None:
        # Among good rows, and where all rows are like it: the types that libraries guess differ.
        assert error(csv("A lamp,12.5", line)).message == f"{problem} (items.csv, line 3)"
        assert error(csv(line)).message == f"{problem} (items.csv, line 2)"

    @pytest.mark.parametrize(
        ("descriptions", "its_prices", "problem"),
        [
            (["x", "x"], [3.0, None], "price is missing"),
            (["x", "x"], [3.0, float("nan")], "price is nan, not above zero"),
            (["x", "x"], [3.0, -1.5], "price is -1.5, not above zero"),
            (["x", "x"], [3, 0], "price is 0, not above zero"),
            (["x", "x"], ["3", "three"], "price is 'three', not a number"),
            (["x", ""], [3.0, 3.0], "description is empty"),
            (["x", None], [3.0, 3.0], "description is empty"),
        ],
    )
    def test_a_bad_parquet_row_is_named_with_its_number(
        self, descriptions: list[Any], its_prices: list[Any], problem: str
    ) -> None:
        assert error(parquet(descriptions, its_prices)).message == f"{problem} (items.parquet, row 2)"

    def test_a_column_of_truth_values_holds_no_prices(self) -> None:
        assert error(parquet(["x"], [True])).message == "price is True, not a number (items.parquet, row 1)"
        assert error(jsonl({"description": "x", "price": True})).message == (
            "price is True, not a number (items.jsonl, line 1)"
        )

    def test_all_bad_rows_are_named_up_to_ten(self) -> None:
        bad = {"description": "x", "price": 0}

        lines = error(jsonl(LAMP, *[bad] * 12)).message.splitlines()

        assert lines[0] == "price is 0.0, not above zero (items.jsonl, line 2)"
        assert lines[9] == "price is 0.0, not above zero (items.jsonl, line 11)"
        assert lines[10:] == ["and 2 more rows like these"]

    def test_two_csv_columns_of_one_name_are_refused(self) -> None:
        Path("items.csv").write_text("description,price,price\nA lamp,1,2\n")

        assert error("items.csv").message == "items.csv has two columns named price"

    def test_a_jsonl_line_is_counted_with_the_blank_ones_before_it(self) -> None:
        Path("items.jsonl").write_text('\n{"description": "x", "price": 3}\n\n \n{"description": "x", "price": -3}\n')

        assert error("items.jsonl").message == "price is -3, not above zero (items.jsonl, line 5)"

    def test_a_csv_line_is_counted_with_the_newlines_in_quotes_before_it(self) -> None:
        source = csv('"two', 'lines",3', "", '"x', "", 'y",-1', "z,-2")

        assert error(source).message.splitlines() == [
            "price is '-1', not above zero (items.csv, line 5)",
            "price is '-2', not above zero (items.csv, line 8)",
        ]

    def test_a_bad_row_far_down_a_csv_is_named_too(self) -> None:
        source = csv(*(f"item {i},3" for i in range(10_001)), "last,three")

        assert error(source).message == "price is 'three', not a number (items.csv, line 10003)"


class TestUnreadableFiles:
    @pytest.mark.parametrize(
        ("line", "problem"),
        [
            (b'{"description": "caf\xe9", "price": 3}', "not UTF-8: byte 0xe9 at column 21"),
            (b'{"description": "x", "price": }', "broken JSON: Expecting value"),
            (b'{"description": "x", "price": 3', "broken JSON: Expecting ',' delimiter"),
            (b'["x", 3]', 'a row is a JSON object, this is ["x", 3]'),
            (b"5", "a row is a JSON object, this is 5"),
        ],
    )
    def test_a_broken_jsonl_line_is_named(self, line: bytes, problem: str) -> None:
        Path("items.jsonl").write_bytes(json.dumps(LAMP).encode() + b"\n\n" + line + b"\n")

        found = error("items.jsonl")

        assert found.message == f"{problem} (items.jsonl, line 3)"
        assert found.hint == "mend or remove the line"

    def test_a_csv_that_is_not_utf8_is_named_by_line(self) -> None:
        Path("items.csv").write_bytes(b"description,price\nA lamp,3\ncaf\xe9,3\n")

        assert error("items.csv").message == "not UTF-8: byte 0xe9 at column 4 (items.csv, line 3)"

    @pytest.mark.parametrize("lines", [["Lamp, red,3", "Bed, blue,4"], ["A lamp,3,used"]])
    def test_a_csv_row_with_more_cells_than_columns_is_refused(self, lines: list[str]) -> None:
        # pandas would take the first cell for an index and " red" for the description.
        found = error(csv(*lines))

        assert found.message == "a row of 3 cells under 2 columns (items.csv, line 2)"
        assert found.hint == "put text with a comma in it in double quotes"

    def test_a_later_csv_row_with_more_cells_is_refused_too(self) -> None:
        assert "Expected 2 fields in line 3, saw 3" in error(csv("A lamp,3", "Lamp, red,3")).message

    @pytest.mark.parametrize("name", ["items.jsonl", "items.csv", "items.parquet"])
    def test_an_empty_file_says_so(self, name: str) -> None:
        Path(name).touch()

        assert error(name).message == f"{name} is empty"

    def test_a_file_without_rows_says_so(self) -> None:
        Path("items.jsonl").write_text("\n\n")

        for source in ("items.jsonl", csv(), parquet([], [])):
            assert error(source).message == f"{source} has no rows"

    def test_a_file_that_is_not_what_its_name_says_is_named(self) -> None:
        Path("items.parquet").write_text("not a Parquet file")

        assert error("items.parquet").message.startswith("items.parquet cannot be read: ")

    def test_what_is_wrong_is_said_once(self, capfd: pytest.CaptureFixture[str]) -> None:
        Path("items.jsonl").write_text("{\n")

        error("items.jsonl")

        assert capfd.readouterr() == ("", "")

    def test_a_missing_column_is_named_with_those_that_are_there(self) -> None:
        found = error(jsonl(LAMP), price="usd", title="name")

        assert found.message == "items.jsonl has no column usd, name; it has description, price"
        assert found.hint == "name the columns in the config: data.description, data.price"
