"""The rows of a JSON file: an object in each line, or one array of objects."""

from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from pricer.config import DataConfig
from pricer.data.json_values import JSON_HINT, SPACE, DoubledKeyError, parse_json, read_array
from pricer.data.rows import Row, SourceFile, shorten
from pricer.data.text_files import open_text, read_lines
from pricer.errors import DataError

# The columns are the keys of the first rows.
_SAMPLE_ROWS = 1000
_START = 2**12


def read_json_columns(file: SourceFile, config: DataConfig) -> tuple[str, ...]:
    """The keys of the first thousand rows. A DataError if there are none."""
    columns: dict[str, None] = {}
    first_problem = None
    for row in islice(read_json_rows(file, 0, config), _SAMPLE_ROWS):
        columns |= dict.fromkeys(row.values)
        if row.problem and first_problem is None:
            first_problem = DataError(f"{row.problem} ({file.place(row.line)})", JSON_HINT)
    if not columns:
        raise first_problem or DataError(f"{file.name} has no rows")
    return tuple(columns)


def read_json_rows(file: SourceFile, index: int, config: DataConfig) -> Iterator[Row]:
    """Every row. `index` is the file's place in its source."""
    with open_text(file, config.encoding) as text:
        is_array = text.read(_START).lstrip(SPACE).startswith("[")
    with open_text(file, config.encoding) as text:
        if is_array:
            for line, element, value in read_array(text, file):
                yield _row(value, index, line, element)
        else:
            yield from _read_objects(text, file, index)


def _read_objects(text: TextIO, file: SourceFile, index: int) -> Iterator[Row]:
    for number, line in enumerate(read_lines(text, file), start=1):
        if line.isspace():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            yield Row({}, index, number, str(error), shorten(line))
            continue
        yield _row(value, index, number, line)


def _row(value: Any, index: int, line: int, text: str) -> Row:
    if isinstance(value, dict):
        return Row(value, index, line)
    if isinstance(value, DoubledKeyError):
        return Row({}, index, line, str(value), shorten(text))
    return Row({}, index, line, f"a row is a JSON object, this is {shorten(text, 40)}", shorten(text))
