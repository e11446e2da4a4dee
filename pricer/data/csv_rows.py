"""The rows of a CSV file, read strictly: a quote in the wrong place is an error and never joins two rows."""

import csv
import io
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TextIO

from pricer.config import DataConfig
from pricer.data.attributes import described_columns
from pricer.data.rows import Row, SourceFile, list_columns, shorten
from pricer.data.text_files import MAX_CHARACTERS, open_text, read_lines
from pricer.errors import ConfigError, DataError

_DELIMITERS = (",", ";", "\t", "|")
# The delimiter is found from the beginning of the file.
_SAMPLE_CHARACTERS = 2**18
_SAMPLE_ROWS = 20
_NUMBER = re.compile(r"[$€£¥]?\d[\d.,]*")
_YEAR = re.compile(r"(19|20)\d\d")
_QUOTES = 'write a quote inside a quoted cell twice (""), and close every quote that opens a cell'


@dataclass(frozen=True, slots=True)
class _Dialect:
    """How a file separates its cells. `first_line` is 1 if the first line only names the delimiter (`sep=;`)."""

    delimiter: str
    first_line: int
    skips_space: bool


def read_csv_columns(file: SourceFile, config: DataConfig) -> tuple[str, ...]:
    """The columns that have a name. A DataError if the first row is no header, or no row follows."""
    with open_text(file, config.encoding) as text:
        reader = _Reader(text, file, _find_dialect(file, config))
        header = reader.header
        first = next(reader.rows(0), None)
    if not header:
        raise DataError(f"{file.name} is empty")
    if any("\0" in name for name in header):
        order = "be" if header[0].startswith("\0") else "le"
        raise DataError(
            f"{file.name} is not {config.encoding.upper()}: its header has NUL bytes", f"data.encoding: utf-16-{order}"
        )
    named = [name for name in header if name]
    is_known = any(name in named for name in _used_columns(config))
    if not is_known and any(_NUMBER.fullmatch(name) and not _YEAR.fullmatch(name) for name in named):
        raise DataError(
            f"{file.name} seems to have no header: its first row is {shorten(', '.join(header), 100)}",
            f"add a first line that names the columns: {','.join(_used_columns(config))}",
        )
    if doubled := [name for name, count in Counter(named).items() if count > 1]:
        raise DataError(f"{file.name} has two columns named {list_columns(doubled)}", "rename one of them")
    if first is None:
        raise DataError(f"{file.name} has a header and no rows")
    return tuple(named)


def read_csv_rows(file: SourceFile, index: int, config: DataConfig) -> Generator[Row]:
    """Every row. `index` is the file's place in its source."""
    dialect = _find_dialect(file, config)
    with open_text(file, config.encoding) as text:
        yield from _Reader(text, file, dialect).rows(index)


class _Reader:
    """Python's CSV reader with the line on which each row starts, and with errors that name it."""

    def __init__(self, text: TextIO, file: SourceFile, dialect: _Dialect) -> None:
        csv.field_size_limit(MAX_CHARACTERS)
        self._file, self._dialect = file, dialect
        lines = read_lines(text, file)
        next(islice(lines, dialect.first_line, dialect.first_line), None)
        self._reader = csv.reader(lines, delimiter=dialect.delimiter, skipinitialspace=dialect.skips_space, strict=True)
        self.header: list[str] = []
        self._rows = self._number_rows()
        self.header = [name.strip() for name in next(self._rows, (0, []))[1]]

    def rows(self, index: int) -> Iterator[Row]:
        """Every row below the header."""
        header, width = self.header, len(self.header)
        has_unnamed = "" in header
        for line, cells in self._rows:
            if len(cells) != width and (len(cells) < width or any(cells[width:])):
                problem = f"{len(cells)} {'cell' if len(cells) == 1 else 'cells'} under {width} columns"
                yield Row({}, index, line, problem, shorten(self._dialect.delimiter.join(cells)))
                continue
            values = dict(zip(header, cells, strict=False))
            if has_unnamed:
                del values[""]
            yield Row(values, index, line)

    def _number_rows(self) -> Iterator[tuple[int, list[str]]]:
        """Yield every row that is not blank, with the line on which it starts."""
        skipped = self._dialect.first_line
        end = skipped
        try:
            for cells in self._reader:
                start, end = end + 1, self._reader.line_num + skipped
                if not cells:
                    continue
                if end > start:
                    self._refuse_swallowed_rows(start, cells)
                yield start, cells
        except csv.Error as error:
            raise self._error(str(error), end + 1) from None

    def _refuse_swallowed_rows(self, start: int, cells: Sequence[str]) -> None:
        """Raise if a cell of several lines looks like rows between two stray quotes: each line then has as many cells
        as the header, with a number in the same column.
        """
        delimiter, width = self._dialect.delimiter, len(self.header)
        for place, cell in enumerate(cells):
            lines = cell.splitlines()
            if len(lines) < 2 or delimiter not in cell:
                continue
            parts = [line.split(delimiter) for line in lines if line.strip()]
            rows = [[*cells[:place], *parts[0]], *parts[1:-1], [*parts[-1], *cells[place + 1 :]]]
            if len(parts) < 2 or any(len(row) != width for row in rows):
                continue
            if any(all(_NUMBER.fullmatch(row[column]) for row in rows) for column in range(width)):
                raise self._error("rows inside a cell", start)

    def _error(self, message: str, line: int) -> DataError:
        place = self._file.place(line)
        if "field limit" in message:
            long = f"a cell is longer than {MAX_CHARACTERS:,} characters, or a quote is not closed ({place})"
            return DataError(long, _QUOTES)
        if "unexpected end" in message:
            return DataError(f"a quote that opens in this row is never closed ({place})", _QUOTES)
        return DataError(f"a quote in this row is in the wrong place ({place})", _QUOTES)


def _find_dialect(file: SourceFile, config: DataConfig) -> _Dialect:
    """The delimiter that the config or the file's first line names, or the one that fits the first rows best."""
    with open_text(file, config.encoding) as text:
        sample = text.read(_SAMPLE_CHARACTERS)
    first, _, rest = sample.partition("\n")
    named = re.fullmatch(r'"?sep=(.)"?\r?', first)
    if config.delimiter and not _can_separate(config.delimiter):
        raise ConfigError([f"data.delimiter is {config.delimiter!r}, which cannot separate cells"], 'for example ";"')
    if config.delimiter or named:
        delimiter = config.delimiter or named[1]  # type: ignore[index]
    else:
        is_tsv = ".tsv" in [suffix.lower() for suffix in Path(file.name).suffixes]
        candidates = sorted(_DELIMITERS, key="\t,;|".index if is_tsv else _DELIMITERS.index)
        delimiter = max(candidates, key=lambda each: _fit(sample, each, config))  # the first of equals
    header = next(iter(_read_sample(rest if named else sample, delimiter)), [])
    skips_space = len(header) > 1 and all(name.startswith(" ") for name in header[1:])
    return _Dialect(delimiter, 1 if named else 0, skips_space)


def _used_columns(config: DataConfig) -> tuple[str, ...]:
    return (*described_columns(config.description), config.price)


def _can_separate(delimiter: str) -> bool:
    return not (delimiter.isalnum() or delimiter in '"\r\n\0\\ .')


def _fit(sample: str, delimiter: str, config: DataConfig) -> tuple[int, float, int] | tuple[()]:
    """How well a delimiter fits: configured columns in the header, share of rows as long as the header, columns. Empty
    if it separates nothing.
    """
    rows = _read_sample(sample, delimiter)
    if not rows or len(rows[0]) < 2:
        return ()
    header = [name.strip() for name in rows[0]]
    known = sum(name in header for name in _used_columns(config))
    return known, sum(len(row) == len(header) for row in rows) / len(rows), len(header)


def _read_sample(sample: str, delimiter: str) -> list[list[str]]:
    """The first rows that are not blank. Errors are left to the strict reader."""
    csv.field_size_limit(MAX_CHARACTERS)
    rows: list[list[str]] = []
    with suppress(csv.Error):
        rows.extend(
            islice(filter(None, csv.reader(io.StringIO(sample, newline=""), delimiter=delimiter)), _SAMPLE_ROWS)
        )
    return rows
