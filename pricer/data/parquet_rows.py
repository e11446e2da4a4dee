"""The rows of a Parquet file as plain values, read batch by batch."""

import datetime
import math
from collections import Counter
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from pricer.data.rows import Row, SourceFile, list_columns
from pricer.data.text_files import unreadable
from pricer.errors import DataError, first_line

_BATCH = 512
# With a buffer a column is read in pieces. Without one, a whole row group is in memory, often a whole file.
_BUFFER = 2**20
# Text does not compress so well: a file beyond both has absurd sizes in its metadata.
_MAX_RATIO = 200
_MAX_UNPACKED = 256 * 2**20


def read_parquet_columns(file: SourceFile) -> tuple[str, ...]:
    """The columns. A DataError if the file is no sound Parquet file or has no rows."""
    with _open_parquet(file) as parquet:
        if parquet.metadata.num_rows < 1:
            raise DataError(f"{file.name} has no rows")
        names = parquet.schema_arrow.names
    if doubled := [name for name, count in Counter(names).items() if count > 1]:
        raise DataError(f"{file.name} has two columns named {list_columns(doubled)}", "rename one of them")
    return tuple(names)


def read_parquet_rows(file: SourceFile, index: int) -> Generator[Row]:
    """Every row. `index` is the file's place in its source."""
    number = 0
    with _open_parquet(file) as parquet:
        names = parquet.schema_arrow.names
        for batch in parquet.iter_batches(batch_size=_BATCH):
            for cells in _read_batch(batch):
                number += 1
                if isinstance(cells, str):
                    yield Row({}, index, number, cells)
                else:
                    yield Row(dict(zip(names, cells, strict=True)), index, number)


def _read_batch(batch: Any) -> Iterator[Sequence[Any] | str]:
    """Yield the cells of every row, or what is wrong with it as text."""
    try:
        yield from zip(*[_read_column(column) for column in batch.columns], strict=True)
    except (ValueError, OverflowError) as error:  # text that is not UTF-8, or a date that Python does not have
        if batch.num_rows == 1:
            yield f"cannot be read: {first_line(error)}"
        else:
            for number in range(batch.num_rows):
                yield from _read_batch(batch.slice(number, 1))


@contextmanager
def _open_parquet(file: SourceFile) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.path.open("rb") as data, pq.ParquetFile(data, pre_buffer=False, buffer_size=_BUFFER) as parquet:
            _refuse_absurd_sizes(file, parquet.metadata)
            yield parquet
    except (OSError, MemoryError, UnicodeDecodeError, pa.ArrowException) as error:
        if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno):
            raise unreadable(file, error) from None
        problem = f"{file.name} is truncated, damaged, or not Parquet: {first_line(error)}"
        raise DataError(problem, "write or download it again") from None


def _refuse_absurd_sizes(file: SourceFile, metadata: Any) -> None:
    size = file.path.stat().st_size
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    rows = sum(group.num_rows for group in groups)
    if unpacked < 0 or rows != metadata.num_rows or (unpacked > _MAX_UNPACKED and unpacked > _MAX_RATIO * size):
        raise DataError(
            f"{file.name} is damaged: its {size:,} bytes cannot hold the sizes that it states", "write it again"
        )


def _read_column(column: Any) -> list[Any]:
    """A column as a list of plain values."""
    import pyarrow as pa

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind):
        # Python's times have no nanoseconds.
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    values = column.to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return values  # type: ignore[no-any-return]
    return [simplify_value(value) for value in values]


def simplify_value(value: Any) -> Any:
    """A value that JSON could hold: dates as text, decimals as numbers, UTF-8 bytes as text, NaN as None."""
    if isinstance(value, list | tuple):
        return [simplify_value(each) for each in value]
    if isinstance(value, dict):
        return {key: simplify_value(each) for key, each in value.items()}
    for kind, change in _CHANGES:
        if isinstance(value, kind):
            return change(value)
    return value


def _decode(value: bytes) -> str | bytes:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value


_CHANGES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (Decimal, float),
    (float, lambda number: None if math.isnan(number) else number),
    (datetime.date, lambda date: date.isoformat()),  # also a datetime
    (datetime.time, lambda time: time.isoformat()),
    (datetime.timedelta, str),
    (bytes, _decode),
)
