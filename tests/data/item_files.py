"""Small files of items, written into the test's working folder so that messages can be compared whole."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pricer.config import DataConfig
from pricer.core.items import Item
from pricer.data.preparation import load_items
from pricer.errors import DataError

LAMP = {"description": "A lamp", "price": 12.5}


def jsonl(*rows: Any, name: str = "items.jsonl") -> str:
    """Write a file of JSON lines, a row a line."""
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return name


def csv(*lines: str) -> str:
    """Write items.csv, a header and lines."""
    Path("items.csv").write_text("\n".join(["description,price", *lines]) + "\n")
    return "items.csv"


def parquet(descriptions: Sequence[Any], prices: Sequence[Any]) -> str:
    """Write items.parquet."""
    pq.write_table(pa.table({"description": descriptions, "price": prices}), "items.parquet")
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


def left_out(source: str, **settings: Any) -> list[dict[str, Any]]:
    """The lines of rejected.jsonl."""
    items = load_items(DataConfig(source=source, **settings))
    assert items.folder is not None
    return [json.loads(line) for line in (items.folder / "rejected.jsonl").read_text(encoding="utf-8").splitlines()]
