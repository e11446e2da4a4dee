"""The rows of a source, before they are checked, and where each one came from."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from pricer.core.items import Split


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. `name` is what messages call it. `split` is the split that its name or the data set gives
    it, or None.
    """

    path: Path
    name: str
    split: Split | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `values` has its cells by column: text for CSV, any JSON value for JSON lines and Parquet. `file` is the
    index of its SourceFile, and `line` the line on which it starts (in Parquet the row), counted from 1.

    `problem` says why the row itself cannot be read (broken JSON, too many cells); `values` is then empty, and `raw`
    has the beginning of its text. It is None for a row that can be read.
    """

    values: Mapping[str, Any]
    file: int
    line: int
    problem: str | None = None
    raw: str = ""


class Source(Protocol):
    """An opened source: its files, and a way to read their rows as often as needed."""

    files: tuple[SourceFile, ...]
    columns: tuple[str, ...]
    """The columns that every file has, in the order of the first file."""
    fingerprint: str
    """A hash of the content of all files, with their splits."""
    revision: str | None
    """The commit of a Hub data set, else None."""

    def rows(self) -> Iterator[Row]:
        """Every row, in the order of files and lines. A DataError if a file cannot be read any further."""
