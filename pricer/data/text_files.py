"""Text files as lines: decompressed, decoded, and with an error that names the file and the line."""

import codecs
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TextIO

from pricer.data.rows import SourceFile
from pricer.errors import ConfigError, DataError, first_line

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer

# Maximum length of a line and of a cell. Without a maximum, a file that is not text would be read into memory whole.
MAX_CHARACTERS = 64 * 2**20
# A compressed file that grows beyond both is a bomb: text does not compress so well.
_MAX_RATIO = 200
_MAX_UNPACKED = 32 * 2**20

CODECS = {".gz": "gzip", ".zst": "zstd"}
# UTF-32 first: its mark begins with that of UTF-16.
_BOMS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
# Python calls these encodings, too.
_NOT_FOR_FILES = ("idna", "punycode", "raw_unicode_escape", "undefined", "unicode_escape")
_CHUNK = 2**20


@contextmanager
def open_text(file: SourceFile, encoding: str) -> Iterator[TextIO]:
    """Open a text file, decompressed if its name ends in .gz or .zst. Line ends are kept as they are. Every error in
    reading it, also later, becomes a DataError.
    """
    encoding = check_encoding(encoding)
    try:
        try:
            with _open_bytes(file) as data, io.TextIOWrapper(data, encoding, newline="") as text:
                yield text
        except UnicodeError as error:
            raise _undecodable(file, encoding, error) from None
    except (OSError, MemoryError) as error:
        raise unreadable(file, error) from None


def read_lines(text: TextIO, file: SourceFile) -> Iterator[str]:
    """Every line with its line end. A DataError for a line that is longer than 64 million characters."""
    number = 0
    while line := text.readline(MAX_CHARACTERS + 1):
        number += 1
        if len(line) > MAX_CHARACTERS:
            raise DataError(f"a line is longer than {MAX_CHARACTERS:,} characters ({file.place(number)})")
        yield line


def unreadable(file: SourceFile, error: BaseException) -> DataError:
    """The error for a file that cannot be opened or read any further."""
    if isinstance(error, FileNotFoundError):
        return DataError(f"there is no file {file.name} any more")
    if isinstance(error, MemoryError):
        return DataError(f"{file.name} cannot be read: it does not fit into memory")
    is_packed = Path(file.name).suffix.lower() in CODECS
    if isinstance(error, OSError) and error.errno:
        return DataError(f"{file.name} cannot be read: {os.strerror(error.errno)}")
    if is_packed:
        return DataError(
            f"{file.name} is truncated, damaged, or not compressed as its name says: {first_line(error)}",
            "download or compress it again",
        )
    return DataError(f"{file.name} cannot be read: {first_line(error)}")


def check_encoding(name: str) -> str:
    """The encoding to read with. A ConfigError if Python has no such text encoding."""
    try:
        info = codecs.lookup(name)
        "".encode(name)  # refuses codecs that are not for text, such as base64
        if info.name.replace("-", "_") in _NOT_FOR_FILES:
            raise LookupError(name)
    except (LookupError, UnicodeError, ValueError):
        problem = f"data.encoding is {name!r}: there is no such encoding"
        raise ConfigError([problem], "for example data.encoding: utf-16, or windows-1252") from None
    return "utf-8-sig" if info.name == "utf-8" else info.name


@contextmanager
def _open_bytes(file: SourceFile) -> Iterator[BinaryIO]:
    codec = CODECS.get(Path(file.name).suffix.lower())
    with file.path.open("rb") as data:
        yield io.BufferedReader(_Unpacked(data, file, codec), _CHUNK) if codec else data


class _Unpacked(io.RawIOBase):
    """The content of a compressed file. A DataError when it grows as no text does."""

    def __init__(self, packed: BinaryIO, file: SourceFile, codec: str) -> None:
        import pyarrow as pa

        self._packed, self._file = packed, file
        self._stream = pa.CompressedInputStream(pa.PythonFile(packed, mode="r"), codec)
        self._size = 0

    def readable(self) -> bool:
        """Needed by BufferedReader."""
        return True

    def readinto(self, buffer: "WriteableBuffer") -> int:
        """Fill the buffer; 0 at the end of the file."""
        count: int = self._stream.readinto(buffer)
        self._size += count
        if self._size > _MAX_UNPACKED and self._size > _MAX_RATIO * self._packed.tell():
            raise DataError(
                f"{self._file.name} unpacks to more than {_MAX_RATIO} times its size, which no text does",
                "if it is sound, unpack it and give the unpacked file",
            )
        return count


def _undecodable(file: SourceFile, encoding: str, error: UnicodeError) -> DataError:
    """The error for bytes that are not in the encoding. The file is read again to find the line."""
    named = "UTF-8" if encoding == "utf-8-sig" else encoding.upper()
    decoder = codecs.getincrementaldecoder(encoding)()
    line, start, last = 1, b"", ""
    with _open_bytes(file) as data:
        while True:
            chunk = data.read(_CHUNK)
            start = start or chunk[:4]
            try:
                text = last + decoder.decode(chunk, final=not chunk)
            except UnicodeError as found:
                error = found
                if not isinstance(found, UnicodeDecodeError):
                    break
                line += _count_line_ends(last + found.object[: found.start].decode(encoding, "replace"))
                break
            if not chunk:
                break
            # A carriage return at the end of a chunk may belong to a line feed in the next.
            last = "\r" if text.endswith("\r") else ""
            line += _count_line_ends(text[: len(text) - len(last)])
    if not isinstance(error, UnicodeDecodeError):
        return DataError(f"{file.name} is not {named}: {first_line(error)}", "data.encoding names another encoding")
    byte = f"byte 0x{error.object[error.start]:02x} ({file.place(line)})"
    guess = next((name for bom, name in _BOMS.items() if start.startswith(bom)), None)
    if guess:
        return DataError(f"{file.name} is {guess.upper()}, not {named}: {byte}", f"data.encoding: {guess}")
    hint = "save the file as UTF-8" if named != "UTF-8" else "data.encoding: windows-1252, or save the file as UTF-8"
    return DataError(f"not {named}: {byte}", hint)


def _count_line_ends(text: str) -> int:
    return text.count("\n") + text.count("\r") - text.count("\r\n")
