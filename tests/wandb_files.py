"""What the wandb library wrote to disk, read back."""

import importlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any


def records_of(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log with a 7-byte head, in blocks of 32 KiB, none torn here."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:  # too little for another head: filled with zeros
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last; not: first, middle
            record = messages.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def session(path: Path) -> SimpleNamespace:
    """What one session wrote: the run, its config, rows, summary and charts, and which metric is drawn over which."""
    records = list(records_of(path))
    run = next(record.run for record in records if record.HasField("run"))
    return SimpleNamespace(
        identity=(run.project, run.display_name, run.run_id),
        host=run.host,
        config={item.key: json.loads(item.value_json) for item in run.config.update if item.key != "_wandb"},
        rows=[_items(record.history.item) for record in records if record.HasField("history")],
        summary=_items(item for record in records for item in record.summary.update),
        charts=[
            item.nested_key[2]
            for record in records
            for item in record.config.update
            if list(item.nested_key[:2]) == ["_wandb", "visualize"]
        ],
        axes={
            record.metric.glob_name or record.metric.name: record.metric.step_metric
            for record in records
            if record.HasField("metric")
        },
    )


def _items(items: Iterable[Any]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for item in items:
        place, value = found, json.loads(item.value_json)
        *above, name = [item.key] if item.key else item.nested_key
        for key in above:
            place = place.setdefault(key, {})
        place[name] = value
    return found


def sessions(folder: Path) -> list[SimpleNamespace]:
    """What each session of the run in `folder` wrote, the earliest first."""
    paths = sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
    return [session(path) for path in paths]


def table(folder: Path, cell: dict[str, Any]) -> dict[str, Any]:
    """The table that a cell of a row stands for: its columns and its data."""
    (path,) = folder.glob(f"wandb/offline-run-*/files/{cell['path']}")
    found: dict[str, Any] = json.loads(path.read_text())
    return {name: found[name] for name in ("columns", "data")}


def curve(rows: list[dict[str, Any]], name: str) -> list[tuple[int, Any]]:
    return [(row["step"], row[name]) for row in rows if name in row]
