"""Tokenized examples as columns in an Arrow file, which is mapped into memory. No example is a Python object before it
is used.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pricer.ml.tokens import TokenizedExample, TokenizedPrompt

_SCHEMA = pa.schema(
    [("id", pa.string()), ("input_ids", pa.list_(pa.int32())), ("start", pa.int32()), ("cut", pa.bool_())]
)


class TokenTable(Sequence[TokenizedExample]):
    """Examples in the order of the training items. The columns are numpy arrays of shape (examples,): `lengths` in
    tokens, and `cut`, whether the description was shortened to fit.
    """

    def __init__(self, rows: pa.Table) -> None:
        if rows.schema != _SCHEMA:
            raise ValueError("not a table of tokens")
        self.rows = rows
        self.lengths: np.ndarray = pc.list_value_length(rows["input_ids"]).to_numpy()
        self.cut: np.ndarray = rows["cut"].to_numpy()
        self._starts: np.ndarray = rows["start"].to_numpy()
        parts = rows["input_ids"].chunks
        # Views into the file: token ids of each part, where each example begins in them, and the part's first example.
        self._ids = [part.values.to_numpy() for part in parts]
        self._offsets = [part.offsets.to_numpy() for part in parts]
        self._firsts = np.cumsum([0, *(len(part) for part in parts)])

    @classmethod
    def of(cls, examples: Sequence[TokenizedExample]) -> "TokenTable":
        """The examples as a table in memory. A table is returned as it is."""
        return examples if isinstance(examples, TokenTable) else cls(pa.Table.from_batches([_batch(examples)]))

    def __len__(self) -> int:
        return len(self.lengths)

    @overload
    def __getitem__(self, index: int) -> TokenizedExample: ...

    @overload
    def __getitem__(self, index: slice) -> list[TokenizedExample]: ...

    def __getitem__(self, index: int | slice) -> TokenizedExample | list[TokenizedExample]:
        if isinstance(index, slice):
            return [self._example(each) for each in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return self._example(index % len(self))

    def _example(self, index: int) -> TokenizedExample:
        part = int(np.searchsorted(self._firsts, index, side="right")) - 1
        first = index - self._firsts[part]
        ids = self._ids[part][slice(*self._offsets[part][first : first + 2])]
        start = int(self._starts[index])
        prompt = TokenizedPrompt(self.rows["id"][index].as_py(), ids[:start], bool(self.cut[index]))
        return TokenizedExample(prompt, ids, start)

    def longest(self, count: int) -> list[TokenizedExample]:
        """The longest examples, the longest first. Of equally long ones the first comes first."""
        return [self[int(index)] for index in np.argsort(-self.lengths, kind="stable")[:count]]


def write_table(path: Path, batches: Iterable[Sequence[TokenizedExample]]) -> None:
    """Write batches of examples to an Arrow file, one after the other."""
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, _SCHEMA) as writer:
        for batch in batches:
            writer.write_batch(_batch(batch))


def open_table(path: Path) -> TokenTable:
    """Map an Arrow file into memory. A ValueError if it is not a table of tokens, an OSError if it cannot be read."""
    with pa.memory_map(str(path)) as file:
        return TokenTable(pa.ipc.open_file(file).read_all())


def _batch(examples: Sequence[TokenizedExample]) -> pa.RecordBatch:
    lengths = [len(example.ids) for example in examples]
    ids = np.concatenate([np.zeros(0, dtype=np.int32), *(example.ids for example in examples)])
    columns = [
        pa.array([example.item_id for example in examples], pa.string()),
        pa.ListArray.from_arrays(np.cumsum([0, *lengths], dtype=np.int32), ids),
        pa.array([example.start for example in examples], pa.int32()),
        pa.array([example.prompt.cut for example in examples], pa.bool_()),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=_SCHEMA)
