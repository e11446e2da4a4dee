"""Texts to be priced, from files and standard input."""

import io
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pricer.config import DataConfig
from pricer.data.texts import parse_text, parse_texts, read_input, read_texts
from pricer.errors import DataError

CONFIG = DataConfig(description="text", title="name", delimiter=";")


def a_file(name: str, data: str | bytes) -> Path:
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(name)


def read(name: str, data: str | bytes, config: DataConfig = CONFIG) -> list[tuple[str, str]]:
    return [(item.id, item.text) for item in read_texts(a_file(name, data), config)]


def error(name: str, data: str | bytes) -> tuple[str, str]:
    with pytest.raises(DataError) as raised:
        read(name, data)
    assert "\n" not in raised.value.message
    return raised.value.message, raised.value.hint


def test_a_text_file_has_a_text_in_each_line() -> None:
    assert read("lamps.txt", '\ufeffA lamp\r\n\n  \n{"a": 1}') == [("1", "A lamp"), ("4", '{"a": 1}')]
    assert error("lamps.txt", b"A lamp\n\xff\n")[0] == "not UTF-8: byte 0xff (lamps.txt, line 2)"


@pytest.mark.parametrize("name", ["lamps.jsonl", "lamps.JSONL", "lamps.json", "lamps.ndjson"])
def test_json_has_objects_with_the_columns_of_the_run_or_strings(name: str) -> None:
    lines = '{"text": "Of brass", "name": "Lamp", "id": 7}\n"A \\"lamp\\""\n{"text": "Café"}\n'

    assert read(name, lines) == [("7", "Lamp\nOf brass"), ("2", 'A "lamp"'), ("3", "Café")]


def test_a_category_is_read_as_the_run_reads_its_own() -> None:
    config = CONFIG.model_copy(update={"category": "kind"})
    rows = (
        '{"text": "A", "kind": "<b>Lamps</b> "}\n{"text": "B", "kind": 7.0}\n{"text": "C", "kind": null}\n{"text": "D"}'
    )

    items = parse_texts(rows.encode(), config, "standard input")

    assert [item.category for item in items] == ["Lamps", "7", None, None]


def test_a_json_file_may_be_an_array() -> None:
    assert read("lamps.json", json.dumps(["A lamp", {"text": "A hat"}])) == [("1", "A lamp"), ("2", "A hat")]


@pytest.mark.parametrize(
    ("name", "delimiter"), [("lamps.csv", ","), ("LAMPS.CSV", ";"), ("lamps.tsv", "\t"), ("lamps.txt.csv", "|")]
)
def test_a_table_is_read_by_the_columns_of_the_run(name: str, delimiter: str) -> None:
    rows = [["price", "text", "name"], ["3", '"Of\nbrass"', "Lamp"], ["", "A hat", ""]]

    lines = "".join(delimiter.join(row) + "\n" for row in rows)

    assert read(name, lines) == [("1", "Lamp\nOf\nbrass"), ("2", "A hat")]


def test_a_parquet_file_is_read_by_columns_and_keeps_ids() -> None:
    pq.write_table(pa.table({"text": ["A lamp", "A hat"], "name": [None, "Hat"], "id": ["a", None]}), "lamps.parquet")

    assert [(item.id, item.text) for item in read_texts(Path("lamps.parquet"), CONFIG)] == [
        ("a", "A lamp"),
        ("2", "Hat\nA hat"),
    ]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("lamps.csv", "name,price\nA lamp,3\n", "lamps.csv has no column text; it has name, price"),
        ("lamps.csv", "a,price\nA lamp,3\n", "lamps.csv has no column text and no column name; it has a, price"),
        ("lamps.csv", "name,text\nA lamp\n", "1 cell under 2 columns (lamps.csv, line 2)"),
        ("lamps.csv", 'name,text\nA,"B"C\n', "a quote in this row is in the wrong place (lamps.csv, line 2)"),
        ("lamps.csv", "name,text\nA, \n", "text is no text (lamps.csv, line 2)"),
        ("lamps.jsonl", '{"description": "A lamp"}', "there is no text, only description (lamps.jsonl, line 1)"),
        ("lamps.jsonl", '"A lamp"\n{"text": " "}', "text is no text (lamps.jsonl, line 2)"),
        ("lamps.jsonl", '"A lamp"\n{"text": 3}', "text is no text (lamps.jsonl, line 2)"),
        ("lamps.jsonl", '"A lamp"\n{"text": NaN}', "text is empty (lamps.jsonl, line 2)"),
        ("lamps.jsonl", '"A lamp"\n[1]', "a line is an object or a string, this is [1] (lamps.jsonl, line 2)"),
        ("lamps.jsonl", '"A lamp"\n{', "broken JSON: Expecting property name enclosed in double quotes "
         "(lamps.jsonl, line 2)"),
        ("lamps.jsonl", '"A lamp"\n' + "[" * 100_000, "broken JSON: nested too deeply (lamps.jsonl, line 2)"),
        ("lamps.jsonl", b'"A lamp"\n"\xff"', "not UTF-8: byte 0xff (lamps.jsonl, line 2)"),
        ("lamps.txt", "\n", "nothing to price in lamps.txt"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(name: str, data: str | bytes, message: str) -> None:
    assert error(name, data)[0] == message


def test_a_file_that_is_missing_or_a_folder_is_an_error() -> None:
    Path("folder").mkdir()

    with pytest.raises(DataError, match=r"^there is no file gone\.txt$"):
        read_texts(Path("gone.txt"), CONFIG)
    with pytest.raises(DataError, match=r"^folder cannot be read: Is a directory$"):
        read_texts(Path("folder"), CONFIG)


def test_standard_input_is_json_lines() -> None:
    assert [item.text for item in read_input(None, None, io.BytesIO(b'"A lamp"\n'), CONFIG)] == ["A lamp"]
    with pytest.raises(DataError, match=r"^broken JSON: Expecting value \(standard input, line 1\)$"):
        parse_texts(b"A lamp\n", CONFIG, "standard input")
    with pytest.raises(DataError, match=r"^not UTF-8: byte 0xff \(standard input, line 2\)$"):
        parse_texts(b'"A lamp"\n\xff', CONFIG, "standard input")
    with pytest.raises(DataError, match=r"^nothing to price in standard input$"):
        parse_texts(b"", CONFIG, "standard input")


def test_half_a_character_is_replaced() -> None:
    assert read("lamps.jsonl", '{"text": "caf\\u00e9 \\ud83d lone"}') == [("1", "café � lone")]
    assert [item.text for item in parse_texts(b'"\\ud83d"', CONFIG, "standard input")] == ["�"]
    assert parse_text("A lamp \udcff").text == "A lamp �"  # an argument that is not UTF-8


def test_an_empty_text_is_an_error() -> None:
    with pytest.raises(DataError, match="the text is empty"):
        parse_text(" ")


def test_a_description_of_several_columns_is_read_as_in_training() -> None:
    config = DataConfig(description=["brand", "year"], title=None)

    assert read("cars.csv", "year,brand\n2017,Audi\n", config) == [("1", "brand: Audi, year: 2017")]
    assert read("cars.jsonl", '{"brand": "Audi"}\n"An Audi"', config) == [("1", "brand: Audi"), ("2", "An Audi")]
    with pytest.raises(DataError, match=r"^cars\.csv has no column year; it has brand$"):
        read("cars.csv", "brand\nAudi\n", config)


def test_many_missing_columns_are_one_short_line() -> None:
    names = [f"feature {number}" for number in range(120)]
    config = DataConfig(source="cars.csv", description=names)

    with pytest.raises(DataError) as caught:
        read("cars.csv", "brand\nAudi\n", config)

    missing = "no column feature 0 and no column feature 1 and 118 more"
    assert caught.value.message == f"cars.csv has {missing}; it has brand"
