"""`pricer init`: from a file to a config that trains."""

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pricer.commands.init import Initialised, Options, init
from pricer.commands.parts.setup import prepare
from pricer.config_file import load_config
from pricer.config_schema import schema_text
from pricer.core.gpus import Gpu
from pricer.data.columns import Given, Question
from pricer.errors import DataError, PricerError
from pricer.views.terminal_progress import Watcher
from tests.loopback_hub import LoopbackHub
from tests.repositories import Cli

WORDS = ["lamp", "oak", "steel", "table", "wide", "small", "round", "blue", "chair", "desk", "shelf", "frame"]
COUNT = 150


def items(seed: int = 0) -> list[dict[str, Any]]:
    """Products with a title, a description, a category and a price of 20 to 900 dollars."""
    numbers = random.Random(seed)
    return [
        {
            "sku": f"B0{place:06}",
            "name": f"{numbers.choice(WORDS)} {place}",
            "description": " ".join(numbers.choices(WORDS, k=12)) + f" {place}",
            "category": numbers.choice(["Lighting", "Furniture"]),
            "price": numbers.randrange(20, 900),
        }
        for place in range(COUNT)
    ]


def cars() -> list[dict[str, Any]]:
    """A table of attributes, with an identifier and another price."""
    numbers = random.Random(1)
    rows = []
    for place in range(COUNT):
        price = numbers.randrange(2_000, 40_000)
        year, km = numbers.randrange(1995, 2024), numbers.randrange(1_000, 250_000)
        row = {"": place, "brand": numbers.choice(["Audi", "VW"]), "year": year, "km": km}
        rows.append({**row, "list_price": round(price * 1.05), "price": price})
    return rows


def write_csv(name: str, rows: Sequence[Mapping[str, Any]], delimiter: str = ",", encoding: str = "utf-8") -> str:
    lines = [delimiter.join(rows[0]), *(delimiter.join(map(str, row.values())) for row in rows)]
    Path(name).write_text("\n".join(lines) + "\n", encoding=encoding)
    return name


def write_jsonl(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return name


def write_parquet(name: str, rows: Sequence[Mapping[str, Any]]) -> str:
    pq.write_table(pa.Table.from_pylist(list(rows)), name)
    return name


def init_here(source: str, **given: Any) -> Initialised:
    return init(source, Options(Given(**given)), None, None, Watcher)


@pytest.mark.parametrize(
    ("name", "write"), [("items.csv", write_csv), ("items.jsonl", write_jsonl), ("items.parquet", write_parquet)]
)
def test_a_file_becomes_a_config_that_trains(name: str, write: Any) -> None:
    source = write(name, items())

    result = Cli("init", source)

    (folder,) = Path("data").iterdir()
    assert result.out.splitlines() == [
        "rows         150",
        "price        price, in $",
        "description  description",
        "title        name",
        "category     category",
        "left out     sku: an identifier",
        "written: items.yaml, pricer.schema.json",
        f"data folder: {folder}",
    ]
    assert (result.code, result.err) == (0, "next: pricer data items.yaml\n")
    config = load_config(Path("items.yaml"))
    data = config.data
    assert (data.source, data.description, data.price, data.title, data.category) == (
        source, "description", "price", "name", "category",
    )  # fmt: skip
    assert prepare(config).items.folder == folder  # training makes no other one
    planned = Cli("train", "items.yaml", "--dry-run")
    assert (planned.code, "training items" in planned.out) == (0, True)


def test_the_config_says_why_above_every_setting() -> None:
    init_here(write_csv("cars.csv", cars()))

    lines = Path("cars.yaml").read_text(encoding="utf-8").splitlines()
    assert lines[:15] == [
        "# yaml-language-server: $schema=pricer.schema.json",
        "# pricer train cars.yaml",
        "#",
        "# Written by `pricer init` from 150 rows of cars.csv.",
        "# `auto` is settled when training starts; --dry-run shows each value with its reason.",
        "model:",
        "  # This machine has no GPU, so this is the tiny bundled base; on a GPU, a Llama 3.2 knows much more.",
        "  base: builtin:base",
        "data:",
        "  source: cars.csv",
        "  # No column has a text, so the names and values of these describe an item. Left out: list_price",
        "  # (another price).",
        "  description: [brand, year, km]",
        "  price: price",
        "  # The error is broken down by it.",
    ]
    assert Path("pricer.schema.json").read_text(encoding="utf-8") == schema_text()
    # 150 items: a fifth of them is less than the 100 that a held-out split should have.
    assert "  # Now 0.2: " in "\n".join(lines)


def test_a_table_of_attributes_is_trained_on_and_predicted_from_its_columns() -> None:
    init_here(write_csv("cars.csv", cars()))
    short = ["--set", "train.epochs=1", "--set", "train.val_items=0", "--set", "adapter.r=2"]

    assert Cli("train", "cars.yaml", *short).code == 0
    rows = [{"brand": "Audi", "year": 2017, "km": 30_000}, {"brand": "VW", "year": 2001, "km": ""}]
    predicted = Cli("predict", "--file", write_csv("new.csv", rows), "--json")

    assert [json.loads(line)["price"] > 0 for line in predicted.out.splitlines()] == [True, True]


def test_a_semicolon_an_old_encoding_and_a_decimal_comma_are_found() -> None:
    rows = [
        {"Produktname": row["name"], "Beschreibung": f"Für {row['description']}", "Preis": f"{row['price']},50 €"}
        for row in items()
    ]

    init_here(write_csv("lampen.csv", rows, ";", "windows-1252"))

    data = load_config(Path("lampen.yaml")).data
    assert (data.description, data.price, data.title) == ("Beschreibung", "Preis", "Produktname")
    assert (data.encoding, data.decimal_mark, data.unit) == ("windows-1252", ",", "€")


def test_utf_16_without_a_mark_is_found() -> None:
    init_here(write_csv("lamps.csv", [{**row, "name": "Größe"} for row in items()], encoding="utf-16-le"))

    assert load_config(Path("lamps.yaml")).data.encoding == "utf-16-le"


@pytest.mark.parametrize("layout", ["prompts", "messages"])
def test_ready_made_prompts_need_no_columns(layout: str) -> None:
    rows: list[dict[str, Any]] = []
    for row in items():
        question = f"How much is this?\n\n{row['description']}"
        chat = [{"role": "user", "content": question}, {"role": "assistant", "content": f"Price is ${row['price']}"}]
        prompt = {"text": f"{question}\n\nPrice is ${row['price']}.00", "price": row["price"]}
        rows.append(prompt if layout == "prompts" else {"messages": chat})

    found = init_here(write_jsonl("ready.jsonl", rows))

    assert found.recognised == (
        ("rows", "150"), ("layout", layout), ("question", "How much is this?"), ("lead", "Price is $"),
    )  # fmt: skip
    assert load_config(Path("ready.yaml")).data.layout == layout
    assert found.problem is None


def test_the_splits_of_a_folder_are_kept() -> None:
    Path("parts").mkdir()
    write_csv("parts/train.csv", items())
    write_csv("parts/test.csv", items(seed=7))

    init_here("parts")

    text = Path("parts.yaml").read_text(encoding="utf-8")
    assert "# The source has its own splits (test, train); what is missing is cut.\n  keep_splits: true\n" in text


def test_what_is_unsure_is_one_line_with_the_candidates_and_an_option() -> None:
    write_csv(
        "loans.csv",
        [{"loan_amount": 5 * n % 97 + 1, "annual_income": n * n + 7, "term": 36 + n % 9} for n in range(60)],
    )

    result = Cli("init", "loans.csv")

    assert result.err.splitlines() == [
        "error: which column is the price? loan_amount or annual_income",
        " hint: pricer init loans.csv --price loan_amount",
    ]
    assert result.code == 1
    assert not Path("loans.yaml").exists()


def test_on_a_terminal_it_asks() -> None:
    write_csv(
        "loans.csv",
        [{"loan_amount": 5 * n % 97 + 1, "annual_income": n * n + 7, "term": 36 + n % 9} for n in range(60)],
    )
    asked: list[Question] = []

    def answer(question: Question) -> str:
        asked.append(question)
        return question.candidates[1]

    init("loans.csv", Options(Given()), None, answer, Watcher)

    assert asked == [Question("price", "which column is the price?", ("loan_amount", "annual_income"))]
    assert load_config(Path("loans.yaml")).data.price == "annual_income"


@pytest.mark.parametrize(
    ("arguments", "lines"),
    [
        (
            ["items.csv", "--price", "cost"],
            ["error: items.csv has no column cost; it has sku, name, description, category, price",
             " hint: --price COLUMN"],
        ),
        (
            ["items.csv", "--price", "name"],
            ["error: items.csv: name is a number above zero in only 0% of its cells; it has sku, name, description, "
             "category, price", " hint: --price COLUMN"],
        ),
        (
            ["items.csv", "--output", "mine.yaml"],
            ["error: mine.yaml is already there, and nothing is overwritten",
             " hint: another name: --output mine.yaml"],
        ),
        (
            ["gone.csv"],
            ["error: there is no file or folder gone.csv",
             " hint: data.source is relative to the folder you start pricer in; a Hub data set is USER/NAME"],
        ),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_an_error_and_writes_nothing(arguments: list[str], lines: list[str]) -> None:
    write_csv("items.csv", items())
    Path("mine.yaml").write_text("# mine\n")

    result = Cli("init", *arguments)

    assert result.err.splitlines() == lines
    assert result.code == 1
    assert Path("mine.yaml").read_text() == "# mine\n"
    assert not Path("items.yaml").exists()
    assert not Path("pricer.schema.json").exists()


def test_a_wide_table_has_all_its_columns_in_the_config() -> None:
    numbers = random.Random(0)
    names = [f"feature {place}, of many" for place in range(120)]
    write_jsonl(
        "wide.jsonl", [{**{name: numbers.randrange(99) for name in names}, "price": place + 1} for place in range(60)]
    )

    init("wide.jsonl", Options(Given(price="price")), None, None, Watcher)

    text = Path("wide.yaml").read_text(encoding="utf-8")
    assert load_config(Path("wide.yaml")).data.description == names
    assert max(map(len, text.splitlines())) <= 120


def test_a_data_set_of_the_hub(hub: LoopbackHub) -> None:
    rows = "".join(json.dumps(row) + "\n" for row in items())
    hub.create("ann/lamps", kind="dataset").commit({"train.jsonl": rows.encode(), "test.jsonl": rows.encode()}, "data")

    found = init_here("ann/lamps")

    assert dict(found.recognised)["description"] == "description"
    assert load_config(Path("lamps.yaml")).data.source == "ann/lamps"


def test_nothing_is_overwritten() -> None:
    write_csv("items.csv", items())
    Path("pricer.schema.json").write_text("{}")
    init_here("items.csv")

    with pytest.raises(PricerError, match=r"^items\.yaml is already there, and nothing is overwritten$"):
        init_here("items.csv")

    assert Path("pricer.schema.json").read_text() == "{}"


def test_options_decide_what_the_data_says_otherwise() -> None:
    write_csv("items.csv", [{**row, "sold": 2000 + place} for place, row in enumerate(items())])
    given = Given(description=("name", "category"), price="price", title="sku")

    init("items.csv", Options(given, "€", "acme/base", "sold"), Path("own.yaml"), None, Watcher)

    config = load_config(Path("own.yaml"))
    assert config.data.description == ["name", "category"]
    assert (config.data.title, config.data.unit, config.data.time_column) == ("sku", "€", "sold")
    assert config.model.base == "acme/base"


def test_names_from_a_file_cannot_change_the_config() -> None:
    odd = "a\n# unit: €"
    write_jsonl(
        "odd.jsonl", [{odd: place % 9, "km: [1": place * place + 3, "price": 20 + place % 50} for place in range(60)]
    )

    init_here("odd.jsonl")

    data = load_config(Path("odd.yaml")).data
    assert (data.description, data.unit) == ([odd, "km: [1"], "$")


def test_a_problem_of_the_data_is_said_and_the_config_is_written() -> None:
    # Half of the prices are texts: more than the 5 % that may be rejected.
    write_csv(
        "items.csv", [{**row, "price": "ask" if place % 2 else row["price"]} for place, row in enumerate(items())]
    )

    found = init_here("items.csv", price="price")

    assert isinstance(found.problem, DataError)
    assert Path("items.yaml").exists()
    assert (found.folder, list(Path("data").glob("*"))) == (None, [])


@pytest.mark.parametrize(
    ("gpu", "base"),
    [
        (None, "builtin:base"),
        (Gpu("NVIDIA T4", 15 * 2**30, bfloat16=False), "meta-llama/Llama-3.2-3B"),
        (Gpu("NVIDIA GTX 1080", 8 * 2**30, bfloat16=False), "meta-llama/Llama-3.2-1B"),
    ],
)
def test_the_base_fits_the_machine(monkeypatch: pytest.MonkeyPatch, gpu: Gpu | None, base: str) -> None:
    monkeypatch.setattr("pricer.ml.devices.gpu_here", lambda: gpu)
    write_csv("items.csv", items())

    init_here("items.csv")

    assert load_config(Path("items.yaml")).model.base == base
