"""The rows of a JSON file: an object in each line, or one array of objects."""

from collections.abc import Generator, Iterator
from itertools import islice
from typing import Any, TextIO

from pricer.config import DataConfig
from pricer.data.json_values import JSON_HINT, SPACE, parse_json, read_array
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


def read_json_rows(file: SourceFile, index: int, config: DataConfig) -> Generator[Row]:
    """Every row. `index` is the file's place in its source."""
    for line, text, value in read_json_values(file, config):
        if isinstance(value, dict):
            yield Row(value, index, line)
        elif isinstance(value, Exception):
            yield Row({}, index, line, str(value), shorten(text))
        else:
            yield Row({}, index, line, f"a row is a JSON object, this is {shorten(text, 40)}", shorten(text))


def read_json_values(file: SourceFile, config: DataConfig) -> Generator[tuple[int, str, Any]]:
    """Yield the line, the text and the value of every line that is not blank, or of every element of an array. The
    value is an exception if the line or the element is broken.
    """
    with open_text(file, config.encoding) as text:
        is_array = text.read(_START).lstrip(SPACE).startswith("[")
    with open_text(file, config.encoding) as text:
        yield from read_array(text, file) if is_array else _read_objects(text, file)


def _read_objects(text: TextIO, file: SourceFile) -> Iterator[tuple[int, str, Any]]:
    for number, line in enumerate(read_lines(text, file), start=1):
        if line.isspace():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            value = error
        yield number, line, value
