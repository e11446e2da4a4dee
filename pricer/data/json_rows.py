"""The rows of a JSON file: an object in each line, or one array of objects. A row is read as strictly as JSON allows."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from pricer.config import DataConfig
from pricer.data.rows import Row, SourceFile, shorten
from pricer.data.text_files import MAX_CHARACTERS, open_text, read_lines
from pricer.errors import DataError

# The columns are the keys of the first rows.
_SAMPLE_ROWS = 1000
_CHUNK = 2**18
_SPACE = " \t\r\n"


def read_json_columns(file: SourceFile, config: DataConfig) -> tuple[str, ...]:
    """The keys of the first thousand rows. A DataError if there are none."""
    columns: dict[str, None] = {}
    problem = None
    count = 0
    for row in islice(read_json_rows(file, 0, config), _SAMPLE_ROWS):
        count += 1
        columns |= dict.fromkeys(row.values)
        problem = problem or (row.problem and DataError(f"{row.problem} ({file.place(row.line)})"))
    if problem and not columns:
        raise problem
    if not count:
        raise DataError(f"{file.name} has no rows")
    return tuple(columns)


def read_json_rows(file: SourceFile, index: int, config: DataConfig) -> Iterator[Row]:
    """Every row. `index` is the file's place in its source."""
    with open_text(file, config.encoding) as text:
        start = text.read(_CHUNK)
        is_array = start.lstrip(_SPACE).startswith("[")
    with open_text(file, config.encoding) as text:
        yield from _read_array(text, file, index) if is_array else _read_objects(text, file, index)


def _read_objects(text: TextIO, file: SourceFile, index: int) -> Iterator[Row]:
    for number, line in enumerate(read_lines(text, file), start=1):
        if line.isspace():
            continue
        try:
            value = _DECODER.decode(line)
        except (ValueError, RecursionError) as error:
            yield Row({}, index, number, _problem(error), shorten(line))
            continue
        yield _row(value, index, number, line)


def _read_array(text: TextIO, file: SourceFile, index: int) -> Iterator[Row]:
    """Yield the elements of an array, which is read piece by piece."""
    buffer, place, line = "", 0, 1
    expected = "["  # then "]" for the first element, which may be missing; then "," before each further one

    def fill() -> bool:
        nonlocal buffer, place, line
        line += buffer.count("\n", 0, place)
        # Twice as much each time: a long element is parsed anew whenever more of it has been read.
        piece = text.read(max(_CHUNK, len(buffer) - place))
        buffer, place = buffer[place:] + piece, 0
        return bool(piece)

    def skip_space() -> str:
        nonlocal place
        while True:
            while place < len(buffer) and buffer[place] in _SPACE:
                place += 1
            if place < len(buffer):
                return buffer[place]
            if not fill():
                return ""

    def here() -> int:
        return line + buffer.count("\n", 0, place)

    def broken(what: str) -> DataError:
        return DataError(f"broken JSON: {what} ({file.place(here())})", "one array, or an object in each line")

    while True:
        sign = skip_space()
        if expected in "[,":
            if sign == "]" and expected == ",":
                place += 1
                break
            if sign != expected:
                raise broken("the array is not closed" if not sign else f"expected {expected!r}, found {sign!r}")
            place += 1
            expected = "]" if expected == "[" else ""
            continue
        if sign == "]" and expected == "]":
            place += 1
            break
        if not sign:
            raise broken("the array is not closed")
        while True:
            try:
                value, end = _DECODER.raw_decode(buffer, place)
            except RecursionError as error:
                raise broken(_problem(error)) from None
            except ValueError as error:
                if len(buffer) - place > MAX_CHARACTERS:
                    raise broken(f"an element is longer than {MAX_CHARACTERS:,} characters") from None
                if not fill():
                    raise broken(str(error).split(": line")[0]) from None
                continue
            if end < len(buffer) or not fill():  # a number may go on
                break
        yield _row(value, index, here(), buffer[place:end])
        place, expected = end, ","
    if skip_space():
        raise broken("there is more after the end of the array")


def _row(value: Any, index: int, line: int, text: str) -> Row:
    if not isinstance(value, dict):
        return Row({}, index, line, f"a row is a JSON object, this is {shorten(text, 40)}", shorten(text))
    # JSON can write half a character, \ud83d, which no UTF-8 file and no tokenizer can take.
    if "\\ud" in text or "\\uD" in text:
        value = _replace_surrogates(value)
    return Row(value, index, line)


def _replace_surrogates(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_replace_surrogates(each) for each in value]
    if isinstance(value, dict):
        return {_replace_surrogates(key): _replace_surrogates(each) for key, each in value.items()}
    return value


def _problem(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "broken JSON: nested too deeply"
    return f"broken JSON: {str(error).split(': line')[0]}"


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object. A ValueError if a key is given twice: nobody knows which value is meant."""
    values = dict(pairs)
    if len(values) < len(pairs):
        names = [name for name, _ in pairs]
        doubled = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{shorten(doubled, 40)} is given twice")
    return values


def _read_constant(name: str) -> float | None:
    """NaN is how pandas writes a missing value; an infinite number stays one."""
    return None if name == "NaN" else float(name)


_DECODER = json.JSONDecoder(object_pairs_hook=_unique, parse_constant=_read_constant)
