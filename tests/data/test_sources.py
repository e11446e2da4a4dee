"""Sources: which files they have, and every way in which a file can be wrong."""

import gzip
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pricer.config import DataConfig
from pricer.core.items import Split, name_split
from pricer.data.rows import Row, list_columns, shorten
from pricer.data.source_files import file_kind
from pricer.data.sources import open_source
from pricer.errors import ConfigError, DataError, PricerError

HEAD = "description,price\n"
LAMP = '{"description": "A lamp", "price": 12}\n'
QUOTES = 'write a quote inside a quoted cell twice (""), and close every quote that opens a cell'
JSON = "a JSON file has an object in each line, or is one array of objects"
DAMAGED = "truncated, damaged, or not"
UTF8 = "data.encoding: windows-1252, or save the file as UTF-8"


def write(name: str, content: str | bytes) -> str:
    Path(name).parent.mkdir(exist_ok=True)
    Path(name).write_bytes(content.encode() if isinstance(content, str) else content)
    return name


def read(source: str, **settings: Any) -> list[Row]:
    return list(open_source(DataConfig(source=source, **settings)).rows())


def values(source: str, **settings: Any) -> list[Any]:
    """The cells of every row; its problem where it has one."""
    return [row.problem or tuple(row.values.values()) for row in read(source, **settings)]


def error(source: str, **settings: Any) -> tuple[str, str]:
    with pytest.raises(PricerError) as raised:
        read(source, **settings)
    assert "\n" not in raised.value.message
    return raised.value.message, raised.value.hint


def packed(text: str) -> bytes:
    return gzip.compress(text.encode())


def short(value: object) -> str:
    """The id of a parameter: the same in every process, whatever a compressor writes."""
    return value[:40] if isinstance(value, str) else type(value).__name__


def parquet(**columns: Any) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return bytes(sink.getvalue())


class TestWhatIsRead:
    @pytest.mark.parametrize(
        ("name", "content", "expected"),
        [
            ("a.csv", HEAD + "A lamp,12\n", [("A lamp", "12")]),
            ("A.CSV", HEAD + "A lamp,12", [("A lamp", "12")]),
            ("bom.csv", "\ufeff" + HEAD + "A lamp,12\n", [("A lamp", "12")]),
            ("cr.csv", "description,price\rA lamp,12\rA hat,3\r", [("A lamp", "12"), ("A hat", "3")]),
            ("crlf.csv", 'description,price\r\n"A\r\nlamp",12\r\n', [("A\r\nlamp", "12")]),
            ("quotes.csv", HEAD + '"A ""lamp"", red",12\n24" tv,3\n', [('A "lamp", red', "12"), ('24" tv', "3")]),
            ("lines.csv", HEAD + '"Nice, red\nsmall, light",12\n', [("Nice, red\nsmall, light", "12")]),
            ("blank.csv", "\n" + HEAD + "\nA lamp,12\n\n", [("A lamp", "12")]),
            ("nul.csv", HEAD + "A\0lamp,12\n", [("A\0lamp", "12")]),
            ("semicolon.csv", "description;price\nA lamp, red;12\n", [("A lamp, red", "12")]),
            ("pipe.csv", "description|price\nA lamp, red|12\n", [("A lamp, red", "12")]),
            ("tabs.csv", "description\tprice\nA lamp, red\t12\n", [("A lamp, red", "12")]),
            ("a.tsv", "description\tprice\nA lamp\t12\n", [("A lamp", "12")]),
            ("sep.csv", "sep=;\ndescription;price\nA lamp;12\n", [("A lamp", "12")]),
            ("space.csv", 'description, price\n"A lamp, red", 12\n', [("A lamp, red", "12")]),
            ("index.csv", ",description,price\n0,A lamp,12\n", [("A lamp", "12")]),
            ("spare.csv", HEAD + "A lamp,12,,\n", [("A lamp", "12")]),
            ("texts.csv", HEAD + "None,12\nN/A,nan\n", [("None", "12"), ("N/A", "nan")]),
            ("a.jsonl", LAMP + "\n" + LAMP, [("A lamp", 12), ("A lamp", 12)]),
            ("a.ndjson", "\ufeff" + LAMP, [("A lamp", 12)]),
            ("lines.json", LAMP + LAMP, [("A lamp", 12), ("A lamp", 12)]),
            ("array.json", f"[\n{LAMP},\n{LAMP}]\n", [("A lamp", 12), ("A lamp", 12)]),
            ("nan.jsonl", '{"price": NaN, "x": Infinity}\n', [(None, float("inf"))]),
            ("half.jsonl", '{"x": "caf\\u00e9 \\ud83d!", "y": "\\uD83D\\ude00"}\n', [("café �!", "😀")]),
            ("mixed.jsonl", '{"price": 1}\n{"price": "2 €"}\n{"price": null}\n', [(1,), ("2 €",), (None,)]),
            ("a.csv.gz", packed(HEAD + "A lamp,12\n"), [("A lamp", "12")]),
            ("two.csv.gz", packed(HEAD + "A lamp,12\n") + packed("A hat,3\n"), [("A lamp", "12"), ("A hat", "3")]),
            ("A.JSONL.GZ", packed(LAMP), [("A lamp", 12)]),
            ("a.jsonl.zst", pa.compress(LAMP.encode(), codec="zstd", asbytes=True), [("A lamp", 12)]),
            ("a.parquet", parquet(description=["A lamp"], price=[12]), [("A lamp", 12)]),
        ],
        ids=short,
    )  # fmt: skip
    def test_a_file_is_read_right(self, name: str, content: str | bytes, expected: list[Any]) -> None:
        assert values(write(name, content)) == expected

    def test_ten_million_characters_are_one_cell(self) -> None:
        long = "x" * 10_000_000

        assert values(write("a.csv", f"{HEAD}{long},12\n")) == [(long, "12")]
        assert values(write("a.jsonl", json.dumps({"description": long}))) == [(long,)]
        assert values(write("a.json", json.dumps([{"description": long}, 1]))) == [
            (long,),
            "a row is a JSON object, this is 1",
        ]

    def test_other_encodings_are_read_by_name(self) -> None:
        for encoding in ("utf-16", "utf-16-le", "windows-1252"):
            source = write("a.csv", f"{HEAD}café,12\n".encode(encoding))

            assert values(source, encoding=encoding) == [("café", "12")]

    def test_a_delimiter_that_is_named_is_not_looked_for(self) -> None:
        assert values(write("a.csv", "description,x~price\na;b~12\n"), delimiter="~") == [("a;b", "12")]

    def test_the_line_of_a_row_is_the_line_on_which_it_starts(self) -> None:
        source = write("a.csv", 'sep=,\ndescription,price\n"A\nlong\nlamp",12\n\nA hat,3,4\nA cup,5\n')

        assert [(row.line, row.problem) for row in read(source)] == [
            (3, None),
            (7, "3 cells under 2 columns"),
            (8, None),
        ]
        array = write("a.json", '[\n {"price": 1},\n {"price":\n 2}, {"price": 3}]')
        assert [(row.line, row.values["price"]) for row in read(array)] == [(2, 1), (3, 2), (4, 3)]

    def test_an_array_is_read_piece_by_piece(self) -> None:
        rows = [{"description": "x" * (number % 1000), "price": number} for number in range(5000)]
        source = write("a.json", json.dumps(rows, indent=1))

        found = read(source)

        assert [row.values for row in found] == rows
        # A row is 4 lines: brace, description, price, brace. The array begins on line 1.
        assert [row.line for row in found] == [2 + 4 * number for number in range(5000)]

    def test_every_type_of_a_parquet_file_becomes_a_plain_value(self) -> None:
        chat = [{"role": "user", "content": "hi"}]
        table = pa.table(
            {
                "dictionary": pa.array(["a"]).dictionary_encode(),
                "large": pa.array(["a"], pa.large_string()),
                "view": pa.array(["a"], pa.string_view()),
                "decimal": pa.array(["12.99"]).cast(pa.decimal128(10, 2)),
                "half": pa.array([1.5], pa.float16()),
                "nan": [float("nan")],
                "date": pa.array([19000], pa.date32()),  # days after 1970
                "time": pa.array([1_000_000_001], pa.timestamp("ns", tz="UTC")),
                "bytes": [b"caf\xc3\xa9"],
                "chat": [chat],
                "map": pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int8())),
                "null": pa.nulls(1),
                "true": [True],
            }
        )
        pq.write_table(table, "a.parquet")

        (row,) = read("a.parquet")

        assert row.values == {
            "dictionary": "a",
            "large": "a",
            "view": "a",
            "decimal": 12.99,
            "half": 1.5,
            "nan": None,
            "date": "2022-01-08",
            "time": "1970-01-01T00:00:01+00:00",
            "bytes": "café",
            "chat": chat,
            "map": [["a", 1]],
            "null": None,
            "true": True,
        }


class TestRowsThatCannotBeRead:
    @pytest.mark.parametrize(
        ("name", "line", "problem"),
        [
            ("a.csv", "A hat", "1 cell under 2 columns"),
            ("a.csv", "A hat, red,12", "3 cells under 2 columns"),
            ("a.jsonl", '{"price":', "broken JSON: Expecting value"),
            ("a.jsonl", "[1, 2]", "a row is a JSON object, this is [1, 2]"),
            ("a.jsonl", "12", "a row is a JSON object, this is 12"),
            ("a.jsonl", '{"price": 1, "price": 2}', "price is given twice"),
            ("a.jsonl", '{"x": ' + "[" * 100_000, "broken JSON: nested too deeply"),
            ("a.jsonl", '{"price": ' + "1" * 5000 + "}", "broken JSON: a number has too many digits"),
            ("a.jsonl", "{'price': 1}", "broken JSON: Expecting property name enclosed in double quotes"),
            ("a.json", '{"price": 1, "price": 2}', "price is given twice"),
        ],
        ids=short,
    )
    def test_a_row_has_its_problem_its_line_and_its_text(self, name: str, line: str, problem: str) -> None:
        start = {"a.csv": f"{HEAD}A lamp,12\n", "a.jsonl": f"{LAMP}{LAMP}", "a.json": f"[{LAMP},{LAMP},"}[name]
        end = {"a.csv": "A cup,3\n", "a.jsonl": LAMP, "a.json": f",{LAMP}]"}[name]

        rows = read(write(name, f"{start}{line}\n{end}"))

        bad = next(row for row in rows if row.problem)
        assert (bad.problem, bad.line, bad.values) == (problem, 3, {})
        assert bad.raw == shorten(line)
        assert rows[-1].problem is None

    def test_text_of_a_parquet_file_that_is_not_utf8_spoils_its_row_alone(self) -> None:
        offsets, letters = pa.py_buffer(b"\0\0\0\0\1\0\0\0\2\0\0\0\3\0\0\0"), pa.py_buffer(b"a\xffb")
        pq.write_table(pa.table({"x": pa.Array.from_buffers(pa.string(), 3, [None, offsets, letters])}), "a.parquet")

        good, bad, other = read("a.parquet")

        assert (good.values, other.values, other.line) == ({"x": "a"}, {"x": "b"}, 3)
        assert bad.problem is not None
        assert bad.problem.startswith("cannot be read: 'utf-8' codec can't decode byte 0xff")


class TestFilesThatCannotBeRead:
    @pytest.mark.parametrize(
        ("name", "content", "message", "hint"),
        [
            ("a.csv", "", "a.csv is empty", ""),
            ("a.csv", "\n\n", "a.csv is empty", ""),
            ("a.csv", HEAD, "a.csv has a header and no rows", ""),
            ("a.jsonl", "", "a.jsonl has no rows", ""),
            ("a.json", "[]", "a.json has no rows", ""),
            ("a.parquet", parquet(price=pa.array([], pa.int8())), "a.parquet has no rows", ""),
            ("a.csv", "price,x,price\n1,2,3\n", "a.csv has two columns named price", "rename one of them"),
            (
                "a.csv", '"A lamp,\nred",12.50\nA hat,3\n',
                "a.csv seems to have no header: its first row is A lamp, red, 12.50",
                "add a first line that names the columns: description,price",
            ),
            ("a.csv", f'{HEAD}A hat,3\n"24 inch tv,100\n"Round mat",20\n',
             "a quote in this row is in the wrong place (a.csv, line 3)", QUOTES),
            ("a.csv", f'{HEAD}"24" tv",100\n', "a quote in this row is in the wrong place (a.csv, line 2)", QUOTES),
            ("a.csv", f'{HEAD}A hat,3\n"24 inch tv,100\nA hat,3\nFits 24",20\nA cup,4\n',
             "a quote in this row is in the wrong place (a.csv, line 3)", QUOTES),
            ("a.csv", f'{HEAD}A hat,3\n"24 inch tv,100\nA cup,4\n',
             "a quote that opens in this row is never closed (a.csv, line 3)", QUOTES),
            ("a.csv", f"{HEAD}A hat,3\ncaf\xe9,4\n".encode("cp1252"), "not UTF-8: byte 0xe9 (a.csv, line 3)", UTF8),
            ("a.jsonl", LAMP.encode() + b'{"price": "\xff"}', "not UTF-8: byte 0xff (a.jsonl, line 2)", UTF8),
            ("a.csv", (HEAD + "A hat,3\n").encode("utf-16"), "a.csv is UTF-16, not UTF-8: byte 0xff (a.csv, line 1)",
             "data.encoding: utf-16"),
            ("a.csv", (HEAD + "A hat,3\n").encode("utf-16-le"), "a.csv is not UTF-8: its header has NUL bytes",
             "data.encoding: utf-16-le"),
            ("a.csv", (HEAD + "A hat,3\n").encode("utf-16-be"), "a.csv is not UTF-8: its header has NUL bytes",
             "data.encoding: utf-16-be"),
            ("a.csv", (HEAD + "A hat,3\n").encode("utf-32"), "a.csv is UTF-32, not UTF-8: byte 0xff (a.csv, line 1)",
             "data.encoding: utf-32"),
            ("a.jsonl", "hello\nyou\n", "broken JSON: Expecting value (a.jsonl, line 1)", JSON),
            ("a.json", '{\n"price": 1}', "broken JSON: Expecting property name enclosed in double quotes "
             "(a.json, line 1)", JSON),
            ("a.json", f"[{LAMP},{LAMP}", "broken JSON: the array is not closed (a.json, line 3)", JSON),
            ("a.json", f"[{LAMP}{LAMP}]", "broken JSON: ] expected, { found (a.json, line 2)", JSON),
            ("a.json", f'[{LAMP},{{"x": 1\n"y": 2}}, {LAMP}]', "broken JSON: Expecting ',' delimiter (a.json, line 3)",
             JSON),
            ("a.json", f"[{LAMP}] 1", "broken JSON: there is more after the end of the array (a.json, line 2)", JSON),
            ("a.json", "[" * 100_000, "broken JSON: nested too deeply (a.json, line 1)", JSON),
            ("a.csv.gz", HEAD, f"a.csv.gz is {DAMAGED} compressed as its name says: zlib inflate failed: incorrect "
             "header check", "download or compress it again"),
            ("a.csv.gz", packed(HEAD + "A lamp,12\n" * 999)[:-9], f"a.csv.gz is {DAMAGED} compressed as its name says: "
             "Truncated compressed stream", "download or compress it again"),
            ("a.jsonl.zst", pa.compress(os.urandom(9999), codec="zstd", asbytes=True)[:-99],
             f"a.jsonl.zst is {DAMAGED} compressed as its name says: Truncated compressed stream",
             "download or compress it again"),
            ("a.csv.gz", packed(HEAD + ("A" * 99_990 + ",12\n") * 400),
             "a.csv.gz unpacks to more than 200 times its size, which no text does",
             "if it is sound, unpack it and give the unpacked file"),
            ("a.parquet", "A lamp", f"a.parquet is {DAMAGED} Parquet: Parquet file size is 6 bytes, smaller than the "
             "minimum file footer (8 bytes)", "write or download it again"),
            ("a.parquet", parquet(price=[1])[:-9], f"a.parquet is {DAMAGED} Parquet: Parquet magic bytes not found in "
             "footer. Either the file is corrupted or this is not a parquet file.", "write or download it again"),
            ("a.xlsx", "PK", "a.xlsx is not a .csv, .tsv, .jsonl, .json or .parquet file",
             "save it as .csv; .gz or .zst may follow"),
        ],
        ids=short,
    )  # fmt: skip
    def test_an_error_is_one_line_with_file_line_and_hint(
        self, name: str, content: str | bytes, message: str, hint: str
    ) -> None:
        assert error(write(name, content)) == (message, hint)

    def test_a_damaged_page_of_a_parquet_file_is_an_error(self) -> None:
        sound = parquet(description=["A lamp", "A hat"], price=[1, 2])
        write("a.parquet", sound[:4] + b"\0" * 60 + sound[64:])

        assert error("a.parquet")[0].startswith(f"a.parquet is {DAMAGED} Parquet: ")

    def test_a_parquet_file_of_absurd_size_is_refused_before_it_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pricer.data.parquet_rows._MAX_UNPACKED", 2**20)
        table = pa.table({"description": ["x" * 10_000] * 1000})  # 10 MB that are packed into a few KB
        pq.write_table(table, "a.parquet", compression="zstd", use_dictionary=False)

        message, _ = error("a.parquet")

        size = Path("a.parquet").stat().st_size
        assert message == f"a.parquet is damaged: its {size:,} bytes cannot hold the sizes that it states"

    @pytest.mark.parametrize(("name", "content"), [("a.csv", HEAD + "x" * 101 + ",1"), ("a.jsonl", '"' + "x" * 101)])
    def test_a_line_beyond_the_maximum_is_an_error(
        self, name: str, content: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.data.text_files.MAX_CHARACTERS", 100)
        line = 1 if name == "a.jsonl" else 2

        assert error(write(name, content)) == (f"a line is longer than 100 characters ({name}, line {line})", "")

    def test_a_cell_beyond_the_maximum_is_an_error(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr("pricer.data.csv_rows.MAX_CHARACTERS", 100)
        text = "words\n" * 20

        message, hint = error(write("a.csv", f'{HEAD}A hat,3\n"{text}",12\n'))

        assert message == "a cell is longer than 100 characters, or a quote is not closed (a.csv, line 3)"
        assert hint == QUOTES

    def test_settings_that_cannot_be_used_are_errors_of_the_config(self) -> None:
        source = write("a.csv", HEAD + "A lamp,12\n")

        for settings, problem in (
            ({"encoding": "klingon"}, "data.encoding is 'klingon': there is no such encoding"),
            ({"encoding": "base64"}, "data.encoding is 'base64': there is no such encoding"),
            ({"delimiter": '"'}, "data.delimiter is '\"', which cannot separate cells"),
        ):
            with pytest.raises(ConfigError) as raised:
                read(source, **settings)
            assert raised.value.problems == [problem]

    def test_a_wrong_encoding_by_name_is_an_error_too(self) -> None:
        source = write("a.csv", f"{HEAD}caf\xe9,4\n".encode("cp1252"))

        assert error(source, encoding="ascii") == ("not ASCII: byte 0xe9 (a.csv, line 2)", "save the file as UTF-8")
        assert error(source, encoding="utf-16")[0].startswith("a.csv is not UTF-16: ")


class TestWhichFiles:
    def test_a_folder_has_its_files_with_the_splits_of_their_names(self) -> None:
        for name in ("train-00000-of-00002.csv", "train-00001-of-00002.csv", "valid.csv", "my_test.csv", "more.csv"):
            write(f"items/{name}", HEAD + "A lamp,12\n")
        write("items/README.md", "# Items")
        write("items/.hidden.csv", "")

        source = open_source(DataConfig(source="items"))

        assert {file.name: file.split for file in source.files} == {
            "items/more.csv": None,
            "items/my_test.csv": Split.TEST,
            "items/train-00000-of-00002.csv": Split.TRAIN,
            "items/train-00001-of-00002.csv": Split.TRAIN,
            "items/valid.csv": Split.VAL,
        }
        assert [row.file for row in source.rows()] == [0, 1, 2, 3, 4]
        assert source.columns == ("description", "price")
        assert source.revision is None

    @pytest.mark.parametrize(
        ("name", "split"),
        [
            ("train.csv", Split.TRAIN),
            ("Validation.csv", Split.VAL),
            ("items-dev-2.jsonl.gz", Split.VAL),
            ("val.csv", Split.VAL),
            ("test-00000-of-00003.parquet", Split.TEST),
            ("eval_set.csv", Split.TEST),
            ("latest.csv", None),
            ("training-and-test.csv", None),
            ("items.test.csv", None),
        ],
        ids=short,
    )
    def test_a_name_says_a_split_by_one_whole_word(self, name: str, split: Split | None) -> None:
        assert name_split(name) is split

    def test_a_pattern_finds_files_and_a_name_with_brackets_is_a_file(self) -> None:
        for name in ("items/a/one.csv", "items/b/two.csv", "items[1].csv"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            write(name, HEAD + "A lamp,12\n")

        found = open_source(DataConfig(source="items/**/*.csv")).files

        assert [file.name for file in found] == ["items/a/one.csv", "items/b/two.csv"]
        assert values("items[1].csv") == [("A lamp", "12")]

    def test_folders_give_files_their_splits_where_names_do_not(self) -> None:
        for name in ("train/a.csv", "test/a.csv", "test/val.csv"):
            write(name, HEAD + "A lamp,12\n")

        files = open_source(DataConfig(source="*/*.csv")).files

        assert [(file.name, file.split) for file in files] == [
            ("test/a.csv", Split.TEST),
            ("test/val.csv", Split.VAL),
            ("train/a.csv", Split.TRAIN),
        ]
        (alone,) = open_source(DataConfig(source="train/*.csv")).files
        assert alone.split is None

    def test_a_link_that_leads_back_repeats_no_file(self) -> None:
        write("items/a.csv", HEAD + "A lamp,12\n")
        Path("items/again").symlink_to(".")

        assert [file.name for file in open_source(DataConfig(source="items/**/*.csv")).files] == ["items/a.csv"]

    def test_a_file_cannot_hold_both_validation_and_test_items(self) -> None:
        for name in ("a.csv", "held.csv"):
            write(name, HEAD + "A lamp,12\n")

        message, _ = error("a.csv", val_source="held.csv", test_source="./held.csv")

        assert message == f"{Path('held.csv').resolve()} is in data.val_source and in data.test_source"

    def test_a_single_file_has_no_split_by_its_name(self) -> None:
        (file,) = open_source(DataConfig(source=write("crash-test.csv", HEAD + "A lamp,12\n"))).files

        assert file.split is None

    def test_held_out_items_can_have_files_of_their_own(self) -> None:
        for name in ("items/a.csv", "items/b.csv", "items/held.csv"):
            write(name, HEAD + "A lamp,12\n")

        files = open_source(DataConfig(source="items", test_source="items/held.csv", val_source="items/b.csv")).files

        assert [(file.name, file.split) for file in files] == [
            ("items/a.csv", None),
            ("items/b.csv", Split.VAL),
            ("items/held.csv", Split.TEST),
        ]

    @pytest.mark.parametrize(
        ("source", "settings", "message", "hint"),
        [
            ("gone.csv", {}, "there is no file or folder gone.csv", "data.source is relative to the folder you start "
             "pricer in; a Hub data set is USER/NAME"),
            ("gone/gone.csv", {}, "there is no file or folder gone/gone.csv", "data.source is relative to the folder "
             "you start pricer in; a Hub data set is USER/NAME"),
            ("squad", {}, "there is no file or folder squad", "data.source is relative to the folder you start pricer "
             "in; a Hub data set is USER/NAME"),
            ("builtin:gold", {}, "there is no embedded data set builtin:gold", "data.source: builtin:computers"),
            ("builtin:../assets/computers", {}, "there is no embedded data set builtin:../assets/computers",
             "data.source: builtin:computers"),
            ("x/*.csv", {}, "no .csv, .tsv, .jsonl, .json or .parquet file matches x/*.csv",
             "a pattern in quotes, for example 'items/*.csv'"),
            ("none", {}, "none holds no .csv, .tsv, .jsonl, .json or .parquet file", "name the file inside it"),
            ("deep", {}, "deep holds no .csv, .tsv, .jsonl, .json or .parquet file", "data.source: 'deep/*/*.csv'"),
            ("mixed", {}, "mixed has files of several kinds: mixed/a.csv and mixed/b.jsonl", "a pattern: mixed/*.csv"),
            ("unlike", {}, "unlike/test.csv has no column price, unlike unlike/train.csv; it has description, cost",
             "all files of a source need the same columns"),
            ("held", {}, "held has no file to train on: by their names, all hold validation or test items",
             "data.keep_splits: false splits all items anew"),
            ("unlike", {"test_source": "held"}, "test items are both in unlike/test.csv and in data.test_source, held",
             "data.test_source: null, or another pattern as data.source"),
            ("odd", {}, "odd/test.csv is a folder, a broken link or a device, not a file", "rename or remove it"),
            ("odd/*", {}, "odd/test.csv is a folder, a broken link or a device, not a file", "rename or remove it"),
            ("unlike", {"val_source": "user/name"}, "there is no file or folder user/name",
             "data.val_source names local files"),
        ],
        ids=short,
    )  # fmt: skip
    def test_what_is_not_there_or_does_not_fit_is_named(
        self, source: str, settings: dict[str, str], message: str, hint: str
    ) -> None:
        for name in ("mixed/a.csv", "unlike/train.csv", "held/test.csv", "deep/a/b.csv", "odd/train.csv"):
            Path(name).parent.mkdir(parents=True, exist_ok=True)
            write(name, HEAD + "A lamp,12\n")
        write("unlike/test.csv", "description,cost\nA lamp,12\n")
        write("mixed/b.jsonl", LAMP)
        write("none/notes.md", "# Notes")
        Path("odd/test.csv").symlink_to("gone.csv")

        assert error(source, **settings) == (message, hint)

    def test_a_file_kind_is_in_the_last_suffix_but_for_packing(self) -> None:
        kinds = [file_kind(name) for name in ("a.csv.gz", "a.csv.zip", "a.gz", "a.parquet.gz", "a.JSON", "csv")]

        assert kinds == ["csv", None, None, None, "json", None]

    def test_the_embedded_data_set_is_a_source(self) -> None:
        source = open_source(DataConfig())

        assert source.columns == ("description", "price")
        assert sum(1 for _ in source.rows()) == 6259


class TestContent:
    def test_the_content_and_the_splits_decide_and_not_names_or_time_stamps(self) -> None:
        write("a/train.csv", HEAD + "A lamp,12\n")
        write("a/test.csv", HEAD + "A hat,3\n")
        write("b/train-2.csv", HEAD + "A lamp,12\n")
        write("b/test-2.csv", HEAD + "A hat,3\n")
        write("c/train.csv", HEAD + "A hat,3\n")
        write("c/test.csv", HEAD + "A lamp,12\n")
        first, renamed, swapped = (open_source(DataConfig(source=folder)).fingerprint for folder in "abc")
        stamp = Path("a/train.csv").stat()
        write("a/train.csv", HEAD + "A lamp,99\n")
        os.utime("a/train.csv", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))

        assert first == renamed
        assert len({first, swapped, open_source(DataConfig(source="a")).fingerprint}) == 3

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            (lambda: write("a.csv", HEAD + "A lamp,99\n"), "a.csv changed while it was read"),
            (lambda: Path("a.csv").unlink(), "there is no file a.csv any more"),
        ],
        ids=short,
    )
    def test_a_file_that_changes_between_two_passes_is_an_error(
        self, change: Callable[[], object], message: str
    ) -> None:
        source = open_source(DataConfig(source=write("a.csv", HEAD + "A lamp,12\n")))
        assert len(list(source.rows())) == len(list(source.rows())) == 1
        change()

        with pytest.raises(DataError) as raised:
            list(source.rows())

        assert raised.value.message == message


def test_long_names_and_lists_are_shortened_for_messages() -> None:
    assert list_columns(["a\nb", "x" * 50]) == f"a b, {'x' * 39}…"
    assert list_columns([str(number) for number in range(22)]).endswith("18, 19, and 2 more")
    assert list_columns([]) == "no columns"
