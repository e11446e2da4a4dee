"""Texts to be priced: lines of a file or of standard input, every line checked."""

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pricer.config import DataConfig
from pricer.core.items import Item
from pricer.errors import DataError


def read_input(text: str | None, file: Path | None, standard_input: BinaryIO, config: DataConfig) -> list[Item]:
    """The Items of a text, else of a file, else of the JSON lines on standard input."""
    if text is not None:
        return [one_text(text)]
    return read_texts(file, config) if file else read_lines_of(standard_input.read(), config)


def read_texts(path: Path, config: DataConfig) -> list[Item]:
    """The Items of a file. Each line of a .jsonl file is an object or a string; each line of any other file is a text.
    Empty lines are skipped. A DataError names the first line that cannot be used.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    lines = _decoded(data.split(b"\n"), str(path))
    if path.suffix == ".jsonl":
        return _not_empty(parse_lines(lines, config, str(path)), str(path))
    return _not_empty([_item(number, line, None) for number, line in lines], str(path))


def read_lines_of(data: bytes, config: DataConfig) -> list[Item]:
    """The Items of standard input, which is JSON lines."""
    where = "standard input"
    return _not_empty(parse_lines(_decoded(data.split(b"\n"), where), config, where), where)


def one_text(text: str) -> Item:
    """A single text as an Item."""
    if not text.strip():
        raise DataError("the text is empty")
    return _item(1, text, None)


def parse_lines(lines: Iterable[tuple[int, str]], config: DataConfig, where: str) -> Iterator[Item]:
    """Items from numbered JSON lines. A line is a text in quotes, or an object: its description and title are in the
    columns that the run's config names, and its `id` is kept.
    """
    for number, line in lines:
        place = f"({where}, line {number})"
        try:
            record = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(
                f"broken JSON: {str(error).split(': line')[0]} {place}",
                "a line is an object or a string in quotes; plain texts come in a file that does not end in .jsonl",
            ) from None
        if isinstance(record, str):
            record = {config.description: record}
        if not isinstance(record, dict):
            raise DataError(f"a line is an object or a string, this is {line.strip()[:40]} {place}")
        text, title = record.get(config.description), record.get(config.title) if config.title else None
        if not isinstance(text, str) or not text.strip():
            raise DataError(f"{config.description} is {'empty' if text in (None, '') else 'no text'} {place}")
        yield _item(record.get("id", number), text, str(title) if title else None)


def _item(key: Any, text: str, title: str | None) -> Item:
    # The price is unknown, and no prompt depends on it.
    return Item(str(key), text, math.nan, title)


def _not_empty(items: Iterable[Item], where: str) -> list[Item]:
    found = list(items)
    if not found:
        raise DataError(f"nothing to price in {where}", "a description in each line")
    return found


def _decoded(lines: Iterable[bytes], where: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, numbered from 1."""
    for number, line in enumerate(lines, start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8: byte 0x{line[error.start]:02x} ({where}, line {number})") from None
        if text.strip():
            yield number, text.rstrip("\r")
