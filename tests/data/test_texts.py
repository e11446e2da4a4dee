"""Texts to be priced, from files and standard input."""

from pathlib import Path

import pytest

from pricer.config import DataConfig
from pricer.data.texts import parse_text, parse_texts, read_texts
from pricer.errors import DataError

CONFIG = DataConfig(description="text", title="name")


def a_file(name: str, data: str | bytes) -> Path:
    Path(name).write_bytes(data.encode() if isinstance(data, str) else data)
    return Path(name)


def test_a_text_file_has_a_text_in_each_line() -> None:
    items = read_texts(a_file("lamps.txt", '\ufeffA lamp\r\n\n  \n{"a": 1}'), CONFIG)

    assert [(item.id, item.description) for item in items] == [("1", "A lamp"), ("4", '{"a": 1}')]


def test_a_jsonl_file_has_objects_with_the_columns_of_the_run_or_strings() -> None:
    path = a_file("lamps.jsonl", '{"text": "Of brass", "name": "Lamp", "id": 7}\n"A \\"lamp\\""\n{"text": "Café"}\n')

    assert [(item.id, item.text) for item in read_texts(path, CONFIG)] == [
        ("7", "Lamp\nOf brass"),
        ("2", 'A "lamp"'),
        ("3", "Café"),
    ]


def test_standard_input_is_json_lines() -> None:
    assert [item.text for item in parse_texts(b'"A lamp"\n', CONFIG, "standard input", is_json=True)] == ["A lamp"]
    with pytest.raises(DataError, match=r"broken JSON: .* \(standard input, line 1\)"):
        parse_texts(b"A lamp\n", CONFIG, "standard input", is_json=True)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ('{"description": "A lamp"}', "text is empty"),
        ('{"text": " "}', "text is no text"),
        ('{"text": 3}', "text is no text"),
        ("[1]", r"a line is an object or a string, this is \[1\]"),
        ("{", "broken JSON"),
        ("[" * 100_000, "broken JSON"),
        (b"\xff", "not UTF-8: byte 0xff"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(line: str | bytes, problem: str) -> None:
    data = line.encode() if isinstance(line, str) else line

    with pytest.raises(DataError, match=problem) as raised:
        read_texts(a_file("lamps.jsonl", b'"A lamp"\n' + data), CONFIG)

    assert "(lamps.jsonl, line 2)" in raised.value.message


def test_nothing_to_price_is_an_error() -> None:
    with pytest.raises(DataError, match=r"nothing to price in lamps\.txt"):
        read_texts(a_file("lamps.txt", "\n"), CONFIG)
    with pytest.raises(DataError, match="nothing to price in standard input"):
        parse_texts(b"", CONFIG, "standard input", is_json=True)
    with pytest.raises(DataError, match="the text is empty"):
        parse_text(" ")
    with pytest.raises(DataError, match=r"there is no file gone\.txt"):
        read_texts(Path("gone.txt"), CONFIG)
