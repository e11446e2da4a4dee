"""What `pricer data` shows: the same facts on the terminal, as JSON and as the card of the folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from pricer.commands.data import Prepared
from pricer.core.data_summary import DataSummary
from pricer.core.prompt_facts import PromptFacts, PromptSample, WrittenPrice, measure_lengths
from pricer.core.units import PriceUnit
from pricer.views import terminal_data
from pricer.views.data_card import data_card

SUMMARY = DataSummary(
    rows=1_000,
    rejected={"no price": 3, "price is a range": 7},
    dropped={"duplicate": 40},
    items={"train": 760, "val": 95, "test": 95},
    own_splits=("test",),
    revision=None,
    near_duplicate_groups=2,
    items_in_groups=5,
    largest_group=3,
    near_copies={"val": 0, "test": 4},
    price_in_description=6,
    train_median=240.0,
    min_price=12.5,
    max_price=4_999.0,
    max_train_price=4_999.0,
    price_quantiles=(15.0, 40.0, 120.0, 240.0, 600.0, 2_000.0, 4_500.0),
    price_bands=((10.0, 20.0, 50), (20.0, 50.0, 300), (50.0, 100.0, 600)),
    categories={"lamps": 900, "desks|<b>": 50},
    warnings=("one price is 10,000 times the median",),
)

PROMPTS = PromptFacts(
    base="builtin:base",
    max_length=48,
    max_length_reason="",
    price_format="padded, 4 digits",
    lengths=measure_lengths([30, 41, 42, 43, 44, 45, 46, 47, 48, 95], 48),
    prices=(WrittenPrice(240.0, "0240", ("0", "2", "4", "0")),),
    samples=(PromptSample("What does this cost?\n\nA lamp </pre>\n\nPrice is $", "0240", 30),),
)

PREPARED = Prepared(
    source="lamps.csv",
    folder=Path("data/lamps-1a2b3c4d"),
    summary=SUMMARY,
    unit=PriceUnit("$"),
    prompts=PROMPTS,
    held_out=("95 validation items: the 95 % interval of an error is ± $9 at most.",),
    notes=(),
    warnings=SUMMARY.warnings,
    next_command="pricer train lamps.yaml",
)


def printed(capsys: pytest.CaptureFixture[str], **changes: Any) -> tuple[list[str], str]:
    terminal_data.prepared(replace(PREPARED, **changes), as_json=False)
    found = capsys.readouterr()
    return [line.rstrip() for line in found.out.splitlines()], found.err


def test_the_terminal_shows_exactly_this(capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys)

    assert "\n".join(out) == EXPECTED
    assert err == "warning: one price is 10,000 times the median\nnext: pricer train lamps.yaml\n"


EXPECTED = """\
lamps.csv: 1,000 rows, 950 items

Rows left out

 left out                     rows   share
 ─────────────────────────────────────────
 rejected: price is a range      7    0.7%
 rejected: no price              3    0.3%
 dropped: duplicate             40    4.0%

each is listed in data/lamps-1a2b3c4d/rejected.jsonl

Splits

 split        items   near-copies   from
 ──────────────────────────────────────────
 training       760                 cut
 validation      95             0   cut
 test            95             4   its own

The source has its own test split; validation items are cut from its training items.
95 validation items: the 95 % interval of an error is ± $9 at most.
2 groups of near-duplicates hold 5 items, the largest 3. 4 test items have a near-copy among the training items.

Prices

 price         items
 ────────────────────────────────────────────────────
 $10 to $20       50   ██
 $20 to $50      300   ███████████████
 $50 to $100     600   ██████████████████████████████

Prices are $12.50 to $4,999; the median of the training items is $240.

Categories

 category    items
 ──────────────────────────────────────────────────
 lamps         900   ██████████████████████████████
 desks|<b>      50   ██


Tokens of prompt and completion, builtin:base

 tokens     items
 ─────────────────────────────────────────────────
 30 to 39       1   ████
 40 to 49       8   ██████████████████████████████
 50 to 59       0
 60 to 69       0
 70 to 79       0
 80 to 89       0
 90 to 95       1   ████

Prompt and completion take 44 tokens (median), 95 (99 %) or 95 (longest).
With prompt.max_length 48, 10.0% of the descriptions are cut.

Prices as tokens: padded, 4 digits

 price   completion   tokens
 ────────────────────────────────────
 $240          0240   [0] [2] [4] [0]


Sample prompt 1, 30 tokens, completion 0240
  What does this cost?
  A lamp </pre>
  Price is $

folder: data/lamps-1a2b3c4d"""


@pytest.mark.parametrize("columns", ["40", "60"])
def test_a_narrow_terminal_leaves_columns_out_and_cuts_no_number(
    columns: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)

    out, _ = printed(capsys)

    text = "\n".join(out)
    assert all(number in text for number in ("760", "900", "600", "50", "40"))
    assert "…" not in text


def test_text_from_a_file_cannot_control_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    token = f"hf_{'a' * 30}"
    sample = PromptSample(f"\x1b[31mQ\n\n{token}\u202e\n\nPrice is $", "0240", 9)

    out, _ = printed(
        capsys,
        summary=replace(SUMMARY, categories={"\x1b]0;owned\x07": 3}),
        prompts=replace(PROMPTS, samples=(sample,)),
    )

    text = "\n".join(out)
    assert text.replace("\n", "").isprintable()
    assert token not in text


def test_json_has_all_facts(capsys: pytest.CaptureFixture[str]) -> None:
    terminal_data.prepared(PREPARED, as_json=True)

    record = json.loads(capsys.readouterr().out)
    assert (record["rows"], record["rejected"], record["items"]["val"]) == (
        1_000,
        {"no price": 3, "price is a range": 7},
        95,
    )
    assert record["prompts"]["lengths"]["cut"] == 0.1
    assert record["folder"] == "data/lamps-1a2b3c4d"


def test_the_card_is_one_for_the_hub() -> None:
    _, front, body = data_card(PREPARED).split("---\n", maxsplit=2)

    assert yaml.safe_load(front) == {
        "pretty_name": "lamps-1a2b3c4d",
        "tags": ["pricer", "price-prediction"],
        "task_categories": ["text-generation"],
        "size_categories": ["n<1K"],
        "configs": [
            {
                "config_name": "default",
                "data_files": [
                    {"split": "train", "path": "train.parquet"},
                    {"split": "validation", "path": "val.parquet"},
                    {"split": "test", "path": "test.parquet"},
                ],
            }
        ],
    }
    assert "950 items with a description and a price, made by pricer from 1,000 rows of\n`lamps.csv`." in body
    assert "| rejected: price is a range | 7 | 0.7% |" in body


def test_a_sample_prompt_can_be_read_in_the_file_itself() -> None:
    sample = PromptSample('Is this 9.5" (24), *new*?\n\nA & B <i>\\(x\\)</i>\n\nPrice is $', "0240", 30)

    card = data_card(replace(PREPARED, prompts=replace(PROMPTS, samples=(sample,))))

    # Only what HTML or mathematics would take for something else is written as an entity.
    assert (
        '<pre>Is this 9.5" (24), *new*?\n\nA &#38; B &#60;i&#62;&#92;(x&#92;)&#60;/i&#62;\n\nPrice is &#36;0240</pre>'
        in card
    )


def test_text_from_a_file_cannot_become_markup() -> None:
    token = f"hf_{'a' * 30}"

    card = data_card(replace(PREPARED, source=f"a`|<b>\n# {token}.csv"))

    assert "</pre>\n" in card
    assert "A lamp </pre>" not in card
    assert "desks|<b>" not in card
    assert token not in card
    assert "\n# hf" not in card


def test_the_card_says_what_the_splits_depend_on() -> None:
    cards = [
        data_card(replace(PREPARED, summary=replace(SUMMARY, own_splits=(), by_time=by_time)))
        for by_time in (False, True)
    ]

    assert ["cut by a hash" in card for card in cards] == [True, False]
    assert ["cut by time" in card for card in cards] == [False, True]
