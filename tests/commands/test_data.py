"""`pricer data`: what it says about a small file with planted defects, and what it leaves in the folder."""

import json
import random
import re
from pathlib import Path
from typing import Any

from pricer.commands.data import prepare_data
from pricer.commands.parts.setup import prepare
from pricer.commands.parts.token_cache import tokenize_training
from pricer.config_file import load_config
from tests.commands.conftest import Listener
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


def test_it_prints_exactly_this_about_every_planted_defect() -> None:
    result = Cli("data", write_items())

    lines = [line.rstrip() for line in re.sub(r"lamps-[0-9a-f]{8}", "lamps-1a2b3c4d", result.out).splitlines()]
    assert "\n".join(lines) == SHOWN
    assert result.err.splitlines() == [
        "warning: 1 of 404 descriptions contain their own price; data.price_in_description: drop leaves these items "
        "out",
        "warning: 83 validation items cannot tell checkpoints apart, 100 are a minimum: set a larger "
        "data.val_fraction or data.val_limit, or get more items",
        "next: pricer train lamps.yaml",
    ]
    assert result.code == 0


# 402 = 409 rows - 5 rejected - 2 duplicates.
SHOWN = """\
lamps.jsonl: 409 rows, 402 items

Rows left out

 left out                          rows   share
 ──────────────────────────────────────────────
 rejected: no description             1    0.2%
 rejected: no price                   1    0.2%
 rejected: price is a range           1    0.2%
 rejected: price is not a number      1    0.2%
 rejected: price not above zero       1    0.2%
 dropped: duplicate                   2    0.5%

each is listed in data/lamps-1a2b3c4d/rejected.jsonl

Splits

 split        items   near-copies   from
 ───────────────────────────────────────
 training       247                 cut
 validation      83             0   cut
 test            72             0   cut

The splits are cut by a hash of the texts: an item keeps its split when others are added that differ.
83 validation items: the 95 % interval of an error is ± $27 at most.
72 test items: the 95 % interval of an error is ± $29 at most.
1 group of near-duplicates holds 2 items, the largest 2.

Prices

 price            items
 ───────────────────────────────────────────────────────
 $20 to $50          15   ██
 $50 to $100         28   █████
 $100 to $200        41   ███████
 $200 to $500       135   ██████████████████████
 $500 to $1,000     183   ██████████████████████████████

Prices are $21 to $899; the median of the training items is $451.

Tokens of prompt and completion, builtin:base

 tokens     items
 ─────────────────────────────────────────────────
 20 to 29       1   █
 30 to 39       8   █
 40 to 49     169   ██████████████████████████████
 50 to 58      69   ████████████

Prompt and completion take 48 tokens (median), 56 (99 %) or 58 (longest).
With prompt.max_length 56, 0.8% of the descriptions are cut.

Prices as tokens: padded, 3 digits

 price   completion   tokens
 ────────────────────────────────
 $58            058   [0] [5] [8]
 $454           454   [4] [5] [4]
 $839           839   [8] [3] [9]
 $899           899   [8] [9] [9]


Sample prompt 1, 51 tokens, completion 033
  What does this cost to the nearest dollar?
  steel wide frame oak small small steel frame wide lamp small lamp chair shelf 96
  Price is $

Sample prompt 2, 41 tokens, completion 543
  What does this cost to the nearest dollar?
  oak shelf steel lamp shelf oak shelf chair shelf frame round desk lamp desk 21
  Price is $

Sample prompt 3, 49 tokens, completion 858
  What does this cost to the nearest dollar?
  round frame chair frame oak blue steel frame small chair desk oak oak desk 200
  Price is $

11,671 training tokens are kept in the folder.

folder: data/lamps-1a2b3c4d"""


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
    record = json.loads(Cli("data", write_items(), "--set", "data.max_price=400", "--json").out)
    result = Cli("data", "lamps.yaml", "--set", "data.max_price=400")

    assert record["max_price"] <= 400
    assert record["dropped"]["above max_price"] > 0
    assert result.err.splitlines()[-1] == "next: pricer train lamps.yaml --set data.max_price=400"


def test_training_makes_the_folder_and_its_card_itself() -> None:
    small = ["train.epochs=0.1", "train.val_items=0", "adapter.r=2"]

    Cli("train", write_items(), *(part for setting in small for part in ("--set", setting)))

    (card,) = Path("data").glob("*/README.md")
    assert "402 items with a description and a price" in card.read_text(encoding="utf-8")


def test_a_changed_folder_is_refused() -> None:
    Cli("data", write_items())
    train = next(Path("data").glob("*/train.parquet"))
    train.write_bytes(train.read_bytes() + b" ")

    result = Cli("data", "lamps.yaml")

    assert result.err.splitlines()[0] == f"error: {train} changed since it was written"
    assert result.code == 1


def test_training_reads_the_tokens_that_were_made_here() -> None:
    record = json.loads(Cli("data", write_items(), "--json").out)
    reports: list[tuple[str, str]] = []

    table = tokenize_training(prepare(load_config(Path("lamps.yaml"), [])), lambda *report: reports.append(report))

    assert reports == []
    assert record["tokens"] == {"count": int(table.lengths.sum()), "cut": int(table.cut.sum())}


def test_every_part_of_the_preparation_reports_its_progress() -> None:
    listener = Listener()

    prepare_data(load_config(Path(write_items()), []), [], listener)

    assert listener.prepared == [
        ("comparing for near-duplicates", "402 items"),
        ("writing splits", "402 items"),
        ("tokenizing", "0 of 247 training items"),
    ]
