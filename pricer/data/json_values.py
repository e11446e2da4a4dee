"""JSON, parsed as strictly as it allows: a value in a line, or the elements of an array that is read piece by piece."""

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any, TextIO

from pricer.data.rows import SourceFile, shorten
from pricer.data.text_files import MAX_CHARACTERS
from pricer.errors import DataError

JSON_HINT = "a JSON file has an object in each line, or is one array of objects"
SPACE = " \t\r\n"
_CHUNK = 2**18
# A syntax error this close to the end of what was read may only mean that more has to be read.
_MARGIN = 16


class DoubledKeyError(Exception):
    """An object has a key twice, and nobody knows which value is meant."""


def parse_json(text: str) -> Any:
    """The value of a line. NaN, as pandas writes a missing value, is None. A lone surrogate, which is half a character
    and cannot be UTF-8, becomes �. A ValueError says what is wrong with the line, in a few words.
    """
    try:
        value = _STRICT.decode(text)
    except (DoubledKeyError, RecursionError, ValueError) as error:
        raise ValueError(explain_json(error)) from None
    return _mend_surrogates(value, text)


def explain_json(error: Exception) -> str:
    """What is wrong with a text that is not JSON, in a few words."""
    if isinstance(error, RecursionError):
        return "broken JSON: nested too deeply"
    if isinstance(error, DoubledKeyError):
        return str(error)
    if "integer string conversion" in str(error):
        return "broken JSON: a number has too many digits"
    return f"broken JSON: {str(error).split(': line')[0]}"


def read_array(text: TextIO, file: SourceFile) -> Iterator[tuple[int, str, Any]]:
    """Yield the line, the text and the value of every element of an array. The value is a DoubledKeyError where a key
    is given twice. A DataError where the array is broken.
    """
    pieces = _Pieces(text, file)
    pieces.take("[")
    if pieces.next_sign() != "]":
        yield pieces.read_element()
        while pieces.next_sign() == ",":
            pieces.take(",")
            yield pieces.read_element()
    pieces.take("]")
    if pieces.next_sign():
        raise pieces.error("there is more after the end of the array")


class _Pieces:
    """The text of an array, of which only the part around the current element is in memory."""

    def __init__(self, text: TextIO, file: SourceFile) -> None:
        self._text, self._file = text, file
        self._buffer, self._place = "", 0
        # The line of a place in the buffer: counting goes on from there.
        self._line, self._counted = 1, 0

    def next_sign(self) -> str:
        """The next character that is not space; empty at the end."""
        while True:
            while self._place < len(self._buffer):
                if (sign := self._buffer[self._place]) not in SPACE:
                    return sign
                self._place += 1
            if not self._fill():
                return ""

    def take(self, sign: str) -> None:
        """Go past a character. A DataError if another one comes next."""
        if (found := self.next_sign()) != sign:
            raise self.error(f"{sign} expected, {found} found" if found else "the array is not closed")
        self._place += 1

    def read_element(self) -> tuple[int, str, Any]:
        """Go past the next element."""
        self.next_sign()
        self._line, self._counted = self._line_at(self._place), self._place
        start = self._line
        value, end = self._decode()
        text = self._buffer[self._place : end]
        self._place = end
        return start, text, _mend_surrogates(value, text)

    def error(self, problem: str, place: int | None = None) -> DataError:
        """The error for the current place, or the given one."""
        where = self._file.place(self._line_at(self._place if place is None else place))
        return DataError(f"broken JSON: {problem} ({where})", JSON_HINT)

    def _decode(self) -> tuple[Any, int]:
        while True:
            try:
                value, end = _decode_first(self._buffer, self._place)
            except RecursionError:
                raise self.error("nested too deeply") from None
            except ValueError as error:
                place = getattr(error, "pos", len(self._buffer))
                is_open = "Unterminated string" in str(error) or place >= len(self._buffer) - _MARGIN
                if len(self._buffer) - self._place > MAX_CHARACTERS:
                    raise self.error(f"an element is longer than {MAX_CHARACTERS:,} characters") from None
                if not is_open or not self._fill():
                    raise self.error(explain_json(error).partition(": ")[2], min(place, len(self._buffer))) from None
                continue
            if end < len(self._buffer) or not self._fill():  # a number at the end may go on
                return value, end

    def _fill(self) -> bool:
        """Read on, and forget what lies behind. False at the end of the text."""
        self._line, self._counted = self._line_at(self._place), 0
        rest = self._buffer[self._place :]
        # Twice as much each time: a long element is parsed anew whenever more of it has been read.
        piece = self._text.read(max(_CHUNK, len(rest)))
        self._buffer, self._place = rest + piece, 0
        return bool(piece)

    def _line_at(self, place: int) -> int:
        return self._line + self._buffer.count("\n", self._counted, place)


def _decode_first(text: str, place: int) -> tuple[Any, int]:
    try:
        return _STRICT.raw_decode(text, place)
    except DoubledKeyError as error:
        return error, json.JSONDecoder().raw_decode(text, place)[1]


def replace_surrogates(text: str) -> str:
    """The text with � in place of every lone surrogate."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _mend_surrogates(value: Any, text: str) -> Any:
    """Replace the lone surrogates in a value that was read from `text`."""
    return _mend(value) if "\\ud" in text or "\\uD" in text else value


def _mend(value: Any) -> Any:
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, list):
        return [_mend(each) for each in value]
    if isinstance(value, dict):
        return {_mend(key): _mend(each) for key, each in value.items()}
    return value


def _build_object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) < len(pairs):
        doubled = next(name for name, count in Counter(name for name, _ in pairs).items() if count > 1)
        raise DoubledKeyError(f"{shorten(doubled, 40)} is given twice")
    return values


def _read_constant(name: str) -> float | None:
    return None if name == "NaN" else float(name)


_STRICT = json.JSONDecoder(object_pairs_hook=_build_object, parse_constant=_read_constant)
