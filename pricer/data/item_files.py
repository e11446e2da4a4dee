"""The Parquet file of one split of a data folder: written in row groups, and read as Items without loading it whole."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, overload

import numpy as np

from pricer.core.items import Item, Split

ROW_GROUP = 10_000
_COLUMNS = ("id", "description", "title", "category", "price")


def item_file(folder: Path, split: Split) -> Path:
    """The file of a split in a data folder."""
    return folder / f"{split}.parquet"


def write_items(path: Path, split: Split, groups: Iterator[dict[str, Any]], row_group: int = ROW_GROUP) -> str:
    """Write the items of a split in row groups. Each group has the columns of the file as lists or arrays. Returns a
    hash of the content that does not depend on how it is stored.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    text, number = pa.string(), pa.float64()
    fields = [("id", text), ("description", text), ("title", text), ("category", text), ("price", number)]
    schema = pa.schema([*fields, ("near_copy", pa.bool_()), ("place", number)])
    digest = hashlib.sha256(split.encode())
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for columns in groups:
            table = pa.table({name: columns[name] for name in schema.names}, schema=schema)
            writer.write_table(table, row_group_size=row_group)
            for row in zip(*(table[name].to_pylist() for name in _COLUMNS), strict=True):
                digest.update(json.dumps(row, ensure_ascii=False).encode() + b"\n")
    return digest.hexdigest()


def read_items(path: Path, count: int) -> Sequence[Item]:
    """The first `count` Items of a file: in memory if they are few, otherwise read when they are used."""
    items = StoredItems(path, count)
    return tuple(items) if count <= ROW_GROUP else items


def prices_in(path: Path, count: int) -> np.ndarray:
    """The prices of the first `count` Items."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["price"])["price"].to_numpy()[:count]  # type: ignore[no-any-return]


def ids_in(path: Path, count: int) -> list[str]:
    """The ids of the first `count` Items."""
    import pyarrow.parquet as pq

    return pq.read_table(path, columns=["id"])["id"].slice(0, count).to_pylist()  # type: ignore[no-any-return]


def near_copies_in(path: Path) -> list[str]:
    """The ids of the Items with a near-copy among the training items."""
    import pyarrow.parquet as pq

    table = pq.read_table(path, columns=["id", "near_copy"])
    return table.filter(table["near_copy"])["id"].to_pylist()  # type: ignore[no-any-return]


class StoredItems(Sequence[Item]):
    """The first `count` Items of a file. One row group is in memory at a time, so going through them in order is cheap
    and jumping between them is not. A slice is a tuple of Items.
    """

    def __init__(self, path: Path, count: int) -> None:
        import pyarrow.parquet as pq

        self._file = pq.ParquetFile(path)
        self._count = count
        sizes = [self._file.metadata.row_group(n).num_rows for n in range(self._file.metadata.num_row_groups)]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])
        self._group: tuple[int, Any] = (-1, None)

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> Item: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Item, ...]: ...
    def __getitem__(self, index: int | slice) -> Item | tuple[Item, ...]:
        if isinstance(index, slice):
            start, stop, step = index.indices(self._count)
            if step == 1:
                return tuple(self._between(start, stop))
            return tuple(self[n] for n in range(start, stop, step))
        at = index + self._count if index < 0 else index
        if not 0 <= at < self._count:
            raise IndexError(f"item {index} of {self._count}")
        return next(self._between(at, at + 1))

    def __iter__(self) -> Iterator[Item]:
        return self._between(0, self._count)

    def _between(self, start: int, stop: int) -> Iterator[Item]:
        while start < stop:
            group = int(np.searchsorted(self._starts, start, side="right")) - 1
            offset, end = start - int(self._starts[group]), min(stop, int(self._starts[group + 1]))
            # A thousand rows at a time: the Items of a whole group take 10 MB; one row at a time takes long.
            length = min(1000, end - start)
            rows = self._read(group).slice(offset, length)
            columns = [rows[name].to_pylist() for name in _COLUMNS]
            for key, description, title, category, price in zip(*columns, strict=True):
                yield Item(key, description, price, title, category)
            start += length

    def _read(self, group: int) -> Any:
        if self._group[0] != group:
            self._group = (group, self._file.read_row_group(group, columns=list(_COLUMNS)))
        return self._group[1]
