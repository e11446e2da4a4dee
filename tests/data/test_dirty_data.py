"""Three dirty variants of one made-up data set: every planted defect is found, counted and listed, and nothing else."""

import csv
import json
import random
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pricer.config import DataConfig
from pricer.core.items import ItemSet, Split
from pricer.data.preparation import load_items

GOODS = ("lamp", "kettle", "chair", "rug", "clock", "shelf", "tent", "drill", "mirror", "basket")
MATERIALS = ("brass", "oak", "wool", "glass", "cork", "steel", "linen", "bamboo", "slate", "copper")
WORDS = [f"{a}{b}" for a in ("ba", "ce", "di", "fo", "gu", "ha", "je", "ki", "lo", "mu") for b in MATERIALS]

# What stands in a price cell, and the reason why the row is rejected.
BAD_PRICES = {
    "": "no price",
    "N/A": "no price",
    "call for price": "price is not a number",
    "free": "price is not a number",
    "12 kg": "price is not a number",
    "$5 - $10": "price is a range",
    "from $20": "price is a range",
    "10-20": "price is a range",
    "0": "price not above zero",
    "-4.50": "price not above zero",
    "($3.00)": "price not above zero",
}
# How a copy differs from its original, so that it is no exact copy after cleaning.
NEAR_COPIES: dict[str, Callable[[str], str]] = {
    "a full stop": lambda text: text + ".",
    "no commas": lambda text: text.replace(",", ""),
    "capitals": str.upper,
    "a word": lambda text: text.replace("sturdy", "robust"),
    "spaces": lambda text: text.replace(", ", " ,  "),
}
# How a copy differs from its original, so that it is an exact one after cleaning.
EXACT_COPIES: dict[str, Callable[[str], str]] = {
    "nothing": str,
    "paragraph": lambda text: f"<p>{text}</p>",
    "zero-width space": lambda text: text.replace("made", "ma\u200bde"),
    "tag": lambda text: text.replace("sturdy", "<b>sturdy</b>"),
}


def make_goods(n: int) -> list[dict[str, Any]]:
    """Clean rows of made-up goods: 40 words each, no two alike, with prices from $20 that no text contains."""
    generator = random.Random(7)
    rows = []
    for number in range(n):
        good, words = generator.choice(GOODS), ", ".join(generator.sample(WORDS, 30))
        text = f"A sturdy {good} no {number} made of {generator.choice(MATERIALS)}, with {words}"
        rows.append({"description": text, "price": f"{20 + number * 0.37:.2f}", "kind": good})
    return rows


def write_csv(rows: list[dict[str, Any]]) -> str:
    with Path("dirty.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, ["description", "price", "kind"])
        writer.writeheader()
        writer.writerows(rows)
    return "dirty.csv"


def listed(items: ItemSet) -> list[tuple[str, int]]:
    """Reason and line of every row in rejected.jsonl, by line."""
    assert items.folder is not None
    lines = (items.folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()
    return sorted(((row["reason"], row["line"]) for row in map(json.loads, lines)), key=lambda pair: pair[1])


def everything(items: ItemSet) -> dict[str, tuple[Split, float]]:
    """Split and price of every item by description."""
    return {item.description: (split, item.price) for split in Split for item in items.items(split)}


def test_bad_prices_texts_and_lengths() -> None:
    good = make_goods(400)
    defects = [({**good[0], "description": f"Bad price {n}", "price": price}, reason)
               for n, (price, reason) in enumerate(BAD_PRICES.items())]  # fmt: skip
    defects += [
        ({"description": "", "price": "5"}, "no description"),
        ({"description": " \t", "price": "5"}, "no description"),
        ({"description": "<br>\x07", "price": "5"}, "no description"),
        ({"description": "A lamp", "price": "50"}, "too short"),
        ({"description": "lamp " * 300, "price": "50"}, "too long"),
        ({"description": "A cheap lamp that is made of brass", "price": "0.5"}, "below min_price"),
        ({"description": "A placeholder that is made of brass", "price": "999999999.99"}, "above max_price"),
        ({"description": "A fine lamp, now only $77.50, made of brass", "price": "77.50"}, "price in description"),
    ]
    rows, reasons = good.copy(), dict[int, str]()
    for number, (row, reason) in enumerate(defects):
        rows.insert(17 * number + 3, row)
        reasons[17 * number + 3 + 2] = reason  # line 1 is the header

    items = load_items(
        DataConfig(
            source=write_csv(rows), min_characters=10, max_characters=1000, min_price=1, max_price=100_000,
            price_in_description="drop",
        )
    )  # fmt: skip

    assert listed(items) == sorted(((reason, line) for line, reason in reasons.items()), key=lambda pair: pair[1])
    assert items.summary is not None
    assert Counter(items.summary.rejected) + Counter(items.summary.dropped) == Counter(reasons.values())
    assert set(everything(items)) == {row["description"] for row in good}
    assert items.summary.warnings == ()


def test_prices_of_another_country_markup_and_control_characters() -> None:
    good = make_goods(300)
    rows = [{**row, "price": f"{float(row['price']):,.2f}".translate({44: 46, 46: 44}) + " €"} for row in good]
    rows += [{"description": f"Dear thing {n} of brass", "price": f"{n}.299,00 €"} for n in range(1, 9)]
    changed = {4: "<p>{}</p>", 9: "<b>New</b>: {}", 14: "{}\x0b", 19: "{} &amp; more", 24: "\ufeff{}", 29: "{}<br/>"}
    for place, form in changed.items():
        rows[place] = {**rows[place], "description": form.format(rows[place]["description"])}
    rows[40] = {**rows[40], "price": "12,00 - 15,00 €"}

    items = load_items(DataConfig(source=write_csv(rows), decimal_mark=",", unit="€"))

    found = everything(items)
    assert listed(items) == [("price is a range", 42)]
    assert items.summary is not None
    assert items.summary.markup_removed == len(changed)
    assert not any(mark in text for text in found for mark in ("<", "&amp;", "\x0b", "\ufeff"))
    assert found["Dear thing 3 of brass"][1] == 3299.0
    prices = {row["description"]: float(row["price"]) for n, row in enumerate(good) if n not in (*changed, 40)}
    assert {text: found[text][1] for text in prices} == prices
    assert items.summary.warnings == ()


@pytest.mark.parametrize("source", ["one file", "own splits"])
def test_exact_and_near_copies(source: str) -> None:
    good = make_goods(400)
    near = [(good[10 + n], edit) for n, edit in enumerate(list(NEAR_COPIES.values()) * 8)]
    exact = [(good[100 + n], edit) for n, edit in enumerate(list(EXACT_COPIES.values()) * 5)]
    dearer = good[200]
    copies = [{**row, "description": edit(row["description"])} for row, edit in [*near, *exact]]
    copies.append({**dearer, "price": "999.00"})
    if source == "own splits":
        for split, rows in (("train", good), ("test", copies)):
            Path(write_csv(rows)).rename(f"{split}.csv")

        items = load_items(DataConfig(source=".", val_fraction=0))

        # Nothing is moved or dropped, and all copies are leaks.
        assert listed(items) == []
        assert items.summary is not None
        assert items.summary.items == {"train": 400, "val": 0, "test": len(copies)}
        assert items.summary.near_copies == {"val": 0, "test": len(copies)}
        assert items.near_copies == {item.id for item in items.test}
        return

    items = load_items(DataConfig(source=write_csv([*good, *copies])))

    # Header, 400 rows, 40 near-copies; then 20 exact ones.
    assert listed(items) == [("duplicate", 1 + 400 + 40 + n) for n in range(1, 21)]
    assert items.summary is not None
    found = everything(items)
    split_of = {text: split for text, (split, _) in found.items()}
    assert all(split_of[row["description"]] == split_of[edit(row["description"])] for row, edit in near)
    assert items.summary.near_duplicate_groups == 40 + 1  # and the item with two prices
    assert items.summary.largest_group == 2
    assert items.summary.near_copies == {"val": 0, "test": 0}
    assert sum(items.summary.items.values()) == 400 + 40 + 1
