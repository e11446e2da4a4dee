"""Accepted rows, on disk while a data set is read: texts in an Arrow file, everything to decide with in numpy columns.

800,000 Python objects would take gigabytes. Here only one batch of rows is in memory as objects.
"""

import hashlib
from array import array
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pricer.core.items import hash_places
from pricer.data.cleaning import Cleaned
from pricer.data.near_duplicates import VALUES, Signer
from pricer.data.rows import Row

_BATCH = 10_000
NO_CATEGORY = -1


@dataclass(frozen=True, slots=True)
class Accepted:
    """The accepted rows, in the order in which they were read.

    `texts` is an Arrow table (description, title, category) in a memory-mapped file. `signatures` is (rows, VALUES),
    None if they were not asked for. All others are columns of shape (rows,): `key` is a hash of the text, `place` and
    `second` are its two places, `file` and `line` say where the row stands.
    """

    texts: Any
    key: np.ndarray
    place: np.ndarray
    second: np.ndarray
    price: np.ndarray
    split: np.ndarray
    time: np.ndarray
    category: np.ndarray
    categories: tuple[str, ...]
    file: np.ndarray
    line: np.ndarray
    signatures: np.ndarray | None

    def __len__(self) -> int:
        return len(self.key)


class Spool:
    """Collects accepted rows in a folder. Close it before the folder is deleted or renamed."""

    def __init__(self, folder: Path, *, sign: bool) -> None:
        import pyarrow as pa

        self._folder = folder
        self._schema = pa.schema([(name, pa.large_string()) for name in ("description", "title", "category")])
        self._file = pa.OSFile(str(folder / "texts.arrow"), "wb")
        self._writer = pa.ipc.new_file(self._file, self._schema)
        self._signatures = (folder / "signatures").open("wb") if sign else None
        self._signer = Signer()
        self._batch: list[Cleaned] = []
        self._numbers: dict[str, Any] = {
            **{name: array("d") for name in ("place", "second", "price", "time")},
            **{name: array("Q") for name in ("key", "line")},
            **{name: array("i") for name in ("category", "file")},
            "split": array("b"),
        }
        self._categories: dict[str, int] = {}

    def add(self, cleaned: Cleaned, row: Row, split: int, time: float) -> None:
        """Add an accepted row, with its own split number and its time."""
        text, category = cleaned.text, cleaned.category
        place, second = hash_places(text)
        number = NO_CATEGORY if category is None else self._categories.setdefault(category, len(self._categories))
        values = {
            "key": hash_text(text), "place": place, "second": second, "price": cleaned.price.value, "split": split,
            "time": time, "category": number, "file": row.file, "line": row.line,
        }  # fmt: skip
        for name, value in values.items():
            self._numbers[name].append(value)
        self._batch.append(cleaned)
        if len(self._batch) == _BATCH:
            self._flush()

    def finish(self) -> Accepted:
        """All rows. The spool is closed."""
        import pyarrow as pa

        self._flush()
        self.close()
        texts = pa.ipc.open_file(pa.memory_map(str(self._folder / "texts.arrow"))).read_all()
        columns = {name: np.array(values) for name, values in self._numbers.items()}
        signatures = None
        if self._signatures:
            path = self._folder / "signatures"
            shape = (len(columns["key"]), VALUES)
            # A file without bytes cannot be mapped.
            signatures = np.memmap(path, np.uint32, "r", shape=shape) if shape[0] else np.zeros(shape, np.uint32)
        return Accepted(texts=texts, categories=tuple(self._categories), signatures=signatures, **columns)

    def close(self) -> None:
        """Close the files. Again, it does nothing."""
        if not self._file.closed:
            self._writer.close()
            self._file.close()
        if self._signatures:
            self._signatures.close()

    def _flush(self) -> None:
        import pyarrow as pa

        if not self._batch:
            return
        columns = [[getattr(cleaned, name) for cleaned in self._batch] for name in self._schema.names]
        self._writer.write_batch(pa.record_batch(columns, schema=self._schema))
        if self._signatures:
            self._signatures.write(self._signer.sign([cleaned.text for cleaned in self._batch]).tobytes())
        self._batch.clear()


def hash_text(text: str) -> int:
    """A 64-bit hash of a text."""
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()[:8], "big")
