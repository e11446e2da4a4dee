"""`datasets.load_dataset` against the loopback hub."""

import io
from pathlib import Path

import pytest
from datasets import Dataset, load_dataset

from tests.loopback_hub import LoopbackHub

ROWS = {"text": ["a lamp", "a chair"], "price": [12.5, 40.0]}
CSV = b"text,price\na lamp,12.5\na chair,40.0\n"
JSONL = b'{"text": "a lamp", "price": 12.5}\n{"text": "a chair", "price": 40.0}\n'


def parquet() -> bytes:
    buffer = io.BytesIO()
    Dataset.from_dict(ROWS).to_parquet(buffer)
    return buffer.getvalue()


@pytest.mark.parametrize("name", ["train.csv", "data/train.jsonl", "data/train-00000-of-00001.parquet"])
def test_a_data_set_is_loaded(hub: LoopbackHub, name: str) -> None:
    content = {".csv": CSV, ".jsonl": JSONL}.get(Path(name).suffix) or parquet()
    hub.create("ann/items", kind="dataset", private=True).commit({name: content})

    loaded = load_dataset("ann/items", split="train")

    assert loaded.to_dict() == ROWS
    assert {sent.status for sent in hub.requests} <= {200, 404}


def test_the_card_says_what_the_splits_are(hub: LoopbackHub) -> None:
    repo = hub.create("ann/items", kind="dataset")
    card = b"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: val\n    path: some.csv\n---\n"
    old = repo.commit({"README.md": card, "some.csv": CSV})
    repo.commit({"some.csv": CSV + b"a table,99.0\n"}, "one more")

    assert len(load_dataset("ann/items", split="val")) == 3
    assert len(load_dataset("ann/items", split="val", revision=old.hash)) == 2


def test_a_data_set_is_streamed(hub: LoopbackHub) -> None:
    hub.create("ann/items", kind="dataset").commit({"train.parquet": parquet()})

    rows = load_dataset("ann/items", split="train", streaming=True)

    assert [row["price"] for row in rows] == [12.5, 40.0]


def test_a_data_set_is_pushed(hub: LoopbackHub, tmp_path: Path) -> None:
    Dataset.from_dict(ROWS).push_to_hub("ann/items", private=True)

    assert hub.repo("ann/items").private
    assert load_dataset("ann/items", split="train").to_dict() == ROWS
