"""Texts to price, from the command line, a file or standard input. Every line is checked."""

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pricer.config import DataConfig
from pricer.core.items import Item
from pricer.data.attributes import described_columns, read_description
from pricer.errors import DataError


def read_input(text: str | None, file: Path | None, standard_input: BinaryIO, config: DataConfig) -> list[Item]:
    """Read the Items from `text`, or else from `file`, or else from JSON lines on standard input."""
    if text is not None:
        return [parse_text(text)]
    if file:
        return read_texts(file, config)
    return parse_texts(standard_input.read(), config, "standard input", is_json=True)


def parse_text(text: str) -> Item:
    """A single text as an Item."""
    if not text.strip():
        raise DataError("the text is empty")
    return _item(1, text, None)


def read_texts(path: Path, config: DataConfig) -> list[Item]:
    """The Items of a file. A .jsonl file has JSON lines; any other file has a plain text in each line."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"there is no file {path}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from None
    return parse_texts(data, config, str(path), is_json=path.suffix == ".jsonl")


def parse_texts(data: bytes, config: DataConfig, where: str, *, is_json: bool) -> list[Item]:
    """The Items of lines of text. With `is_json`, a line is a string in quotes or an object. The run's config names the
    keys for an object's description and title; the object's `id` is kept. A DataError names the first invalid line.
    """
    lines = _decoded(data, where)
    parsed = (_parse(line, number, config, f"({where}, line {number})") for number, line in lines)
    items = list(parsed) if is_json else [_item(number, line, None) for number, line in lines]
    if not items:
        raise DataError(f"nothing to price in {where}", "a description in each line")
    return items


def _parse(line: str, number: int, config: DataConfig, place: str) -> Item:
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"broken JSON: {str(error).split(': line')[0]} {place}",
            "a line is an object or a string in quotes; plain texts come in a file that does not end in .jsonl",
        ) from None
    columns = ", ".join(described_columns(config.description))
    if isinstance(record, str):
        text, key, title = record, number, None
    elif isinstance(record, dict):
        text, key = read_description(record, config.description), record.get("id", number)
        title = record.get(config.title) if config.title else None
    else:
        raise DataError(f"a line is an object or a string, this is {line.strip()[:40]} {place}")
    if not isinstance(text, str) or not text.strip():
        raise DataError(f"{columns} is {'empty' if text in (None, '') else 'no text'} {place}")
    return _item(key, text, str(title) if title else None)


def _item(key: Any, text: str, title: str | None) -> Item:
    # The price is unknown. Prompts do not depend on it.
    return Item(str(key), text, math.nan, title)


def _decoded(data: bytes, where: str) -> Iterator[tuple[int, str]]:
    """Yield the lines that are not empty, numbered from 1."""
    for number, line in enumerate(data.split(b"\n"), start=1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise DataError(f"not UTF-8: byte 0x{line[error.start]:02x} ({where}, line {number})") from None
        if text.strip():
            yield number, text.rstrip("\r")
