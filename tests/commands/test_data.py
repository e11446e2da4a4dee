"""`pricer data`: what it says about a small file with planted defects, and what it leaves in the folder."""

import json
import random
import re
from pathlib import Path
from typing import Any

from tests.repositories import Cli

WORDS = ["lamp", "oak", "steel", "table", "wide", "small", "round", "blue", "chair", "desk", "shelf", "frame"]


def write_items() -> str:
    """400 products, and after them five bad rows, two copies and a pair of near-copies."""
    numbers = random.Random(3)
    rows: list[dict[str, Any]] = [
        {"description": " ".join(numbers.choices(WORDS, k=14)) + f" {place}", "price": numbers.randrange(20, 900)}
        for place in range(400)
    ]
    rows += [{**rows[0], "price": bad} for bad in ("call for price", "$5 - $9", None, 0)]
    rows += [{"description": "", "price": 5}, rows[1], rows[2]]
    rows += [
        {"description": f"{rows[3]['description']}!", "price": 70},
        {"description": "A lamp for 44.00", "price": 44},
    ]
    Path("lamps.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    Path("lamps.yaml").write_text("data: {source: lamps.jsonl}\n")
    return "lamps.yaml"


def test_every_planted_defect_is_counted_and_shown() -> None:
    result = Cli("data", write_items())

    out = re.sub(r"lamps-[0-9a-f]{8}", "lamps-1a2b3c4d", result.out)
    lines = [line.strip() for line in out.splitlines()]
    # 400 products, the near-copy and the one with its price in the text are left of 409 rows.
    assert lines[0] == "lamps.jsonl: 409 rows, 402 items"
    for line in (
        "rejected: no description              1    0.2%",
        "rejected: no price                    1    0.2%",
        "rejected: price is a range            1    0.2%",
        "rejected: price is not a number       1    0.2%",
        "rejected: price not above zero        1    0.2%",
        "dropped: duplicate                    2    0.5%",
        "each is listed in data/lamps-1a2b3c4d/rejected.jsonl",
        "The splits are cut by a hash of the texts: an item keeps its split when other items are added.",
        "1 group of near-duplicates hold 2 items, the largest 2.",
        "1 description contains its own price.",
        "folder: data/lamps-1a2b3c4d",
    ):
        assert line in lines
    assert result.err == "next: pricer train lamps.yaml\n"
    assert result.code == 0


def test_json_and_the_card_have_the_same_counts() -> None:
    record = json.loads(Cli("data", write_items(), "--json").out)

    folder = Path(record["folder"])
    card = (folder / "README.md").read_text(encoding="utf-8")
    assert sum(record["items"].values()) == 402
    assert f"| training | {record['items']['train']} |" in card
    assert f"# `{folder.name}`" in card
    rejected = [json.loads(line) for line in (folder / "rejected.jsonl").read_text().splitlines()]
    assert len(rejected) == sum(record["rejected"].values()) + sum(record["dropped"].values())


def test_what_is_there_is_not_made_again() -> None:
    first = Cli("data", write_items())
    folder = next(Path("data").iterdir())
    made = (folder / "data.json").stat().st_mtime_ns

    second = Cli("data", "lamps.yaml")

    assert second.out == first.out
    assert [path.name for path in Path("data").iterdir()] == [folder.name]
    assert (folder / "data.json").stat().st_mtime_ns == made


def test_a_setting_can_be_overridden() -> None:
    result = Cli("data", write_items(), "--set", "data.max_price=400", "--json")

    record = json.loads(result.out)
    assert record["max_price"] <= 400
    assert record["dropped"]["above max_price"] > 0


def test_a_changed_folder_is_refused() -> None:
    Cli("data", write_items())
    train = next(Path("data").glob("*/train.parquet"))
    train.write_bytes(train.read_bytes() + b" ")

    result = Cli("data", "lamps.yaml")

    assert result.err.splitlines()[0] == f"error: {train} changed since it was written"
    assert result.code == 1
