"""Small files of items, written into the test's working folder so that messages can be compared whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from pricer.config import DataConfig
from pricer.core.items import Item
from pricer.data.reading import load_items
from pricer.errors import DataError

LAMP = {"description": "A lamp", "price": 12.5}


def jsonl(*rows: Any) -> str:
    """Write items.jsonl, a row a line."""
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return "items.jsonl"


def csv(*lines: str) -> str:
    """Write items.csv, a header and lines."""
    Path("items.csv").write_text("\n".join(["description,price", *lines]) + "\n")
    return "items.csv"


def parquet(descriptions: Sequence[Any], prices: Sequence[Any]) -> str:
    """Write items.parquet."""
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict({"description": descriptions, "price": prices}).to_parquet("items.parquet")
    return "items.parquet"


def load(source: str, **settings: Any) -> dict[str, Item]:
    """All Items by description."""
    items = load_items(DataConfig(source=source, **settings))
    return {item.description: item for item in (*items.train, *items.val, *items.test)}


def prices(source: str, **settings: Any) -> Mapping[str, float]:
    """All prices by description."""
    return {description: item.price for description, item in load(source, **settings).items()}


def error(source: str, **settings: Any) -> DataError:
    """What loading the items fails with."""
    with pytest.raises(DataError) as raised:
        load_items(DataConfig(source=source, **settings))
    return raised.value
