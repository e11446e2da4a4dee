"""The rows of a Parquet file as plain values, read batch by batch."""

import datetime
from collections.abc import Iterator
from contextlib import contextmanager
from decimal import Decimal
from typing import Any

from pricer.data.rows import Row, SourceFile, list_columns
from pricer.data.text_files import unreadable
from pricer.errors import DataError, first_line

_BATCH = 512
# Text does not compress so well: a file beyond both has absurd sizes in its metadata.
_MAX_RATIO = 200
_MAX_UNPACKED = 256 * 2**20


def read_parquet_columns(file: SourceFile) -> tuple[str, ...]:
    """The columns. A DataError if the file is no sound Parquet file or has no rows."""
    with _open_parquet(file) as parquet:
        if parquet.metadata.num_rows < 1:
            raise DataError(f"{file.name} has no rows")
        names = parquet.schema_arrow.names
    if doubled := list(dict.fromkeys(name for name in names if names.count(name) > 1)):
        raise DataError(f"{file.name} has two columns named {list_columns(doubled)}", "rename one of them")
    return tuple(names)


def read_parquet_rows(file: SourceFile, index: int) -> Iterator[Row]:
    """Every row. `index` is the file's place in its source."""
    number = 0
    with _open_parquet(file) as parquet:
        names = parquet.schema_arrow.names
        for batch in parquet.iter_batches(batch_size=_BATCH):
            try:
                columns = [_read_column(column) for column in batch.columns]
            except (ValueError, OverflowError) as error:
                place = f"rows {number + 1} to {number + batch.num_rows}"
                raise DataError(f"{file.name} cannot be read: {first_line(error)} ({file.name}, {place})") from None
            for cells in zip(*columns, strict=True):
                number += 1
                yield Row(dict(zip(names, cells, strict=True)), index, number)


@contextmanager
def _open_parquet(file: SourceFile) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with file.path.open("rb") as data, pq.ParquetFile(data, pre_buffer=False) as parquet:
            _refuse_absurd_sizes(file, parquet.metadata)
            yield parquet
    except pa.ArrowInvalid as error:
        raise DataError(
            f"{file.name} is truncated, damaged, or not Parquet: {first_line(error)}", "write or download it again"
        ) from None
    except (OSError, MemoryError, pa.ArrowException) as error:
        raise unreadable(file, error) from None


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
    import pyarrow.compute as pc

    if isinstance(column, pa.ExtensionArray):
        column = column.storage
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    kind = column.type
    if pa.types.is_timestamp(kind):
        # Python's times have no nanoseconds.
        column = column.cast(pa.timestamp("us", tz=kind.tz), safe=False)
    if pa.types.is_floating(kind):
        column = pc.if_else(pc.is_nan(column), None, column)
    values = column.to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind):
        return values  # type: ignore[no-any-return]
    return [_simplify(value) for value in values]


def _simplify(value: Any) -> Any:
    """A value that JSON could hold: dates as text, decimals as numbers, bytes as text where they are UTF-8."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, datetime.timedelta):
        return str(value)
    if isinstance(value, bytes):
        try:
            return value.decode()
        except UnicodeDecodeError:
            return value
    if isinstance(value, list):
        return [_simplify(each) for each in value]
    if isinstance(value, dict):
        return {key: _simplify(each) for key, each in value.items()}
    return value
