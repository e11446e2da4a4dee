"""The rows of a source, before they are checked, and where each one came from."""

from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

from pricer.core.items import Split

_SHOWN_COLUMNS = 20
_SHOWN_CHARACTERS = 40


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of a source. `name` is what messages call it. `split` is the split that its name or the data set gives
    it, or None. `counted` says whether its rows are found by line (text files) or by row (other formats).
    """

    path: Path
    name: str
    split: Split | None = None
    counted: Literal["line", "row"] = "line"

    def place(self, line: int) -> str:
        """Where a row is, for messages: `items.csv, line 7`."""
        return f"{self.name}, {self.counted} {line}"


@dataclass(frozen=True, slots=True)
class Row:
    """One row. `values` has its cells by column: text for CSV, any JSON value for JSON lines and Parquet, where dates
    are text and NaN is None. `file` is the index of its SourceFile, and `line` the line on which it starts (in Parquet
    the row), counted from 1.

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

    @property
    def files(self) -> tuple[SourceFile, ...]:
        """Its files, in the order of their rows."""

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that every file has, in the order of the first file."""

    @property
    def fingerprint(self) -> str:
        """A hash of the content of all files, with their splits."""

    @property
    def revision(self) -> str | None:
        """The commit of a Hub data set, else None."""

    def rows(self) -> Generator[Row]:
        """Every row, in the order of files and lines. A DataError if a file cannot be read any further."""


def list_columns(columns: Iterable[str]) -> str:
    """The names of columns for a message, on one line; long names and long lists are shortened."""
    names = [shorten(name, _SHOWN_CHARACTERS) for name in columns]
    more = [f"and {len(names) - _SHOWN_COLUMNS} more"] if len(names) > _SHOWN_COLUMNS else []
    return ", ".join(names[:_SHOWN_COLUMNS] + more) or "no columns"


def shorten(text: str, characters: int = 300) -> str:
    """The beginning of a text on one line, for a message."""
    line = " ".join(text[: characters * 4].split())
    return line if len(line) <= characters else line[: characters - 1] + "…"
