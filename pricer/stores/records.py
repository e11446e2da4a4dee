"""Records: the dataclasses of core, read from JSON with every key and type checked.

They are written by `asdict`. Reading is strict: no missing or unknown key, no other type, no infinity or NaN.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from pricer.stores.files import whole_lines

T = TypeVar("T")


def parse_record(kind: type[T], text: str | bytes) -> T:
    """The value that a JSON text holds; a ValueError of one line that names the key."""
    try:
        record: T = _adapter(kind).validate_json(text)  # type: ignore[arg-type]  # mypy takes no type for hashable
    except ValidationError as error:
        raise ValueError(_describe(error)) from None
    return record


def read_record(kind: type[T], path: Path) -> T:
    """The value in a JSON file; a ValueError if it holds anything else, an OSError if it cannot be read."""
    return parse_record(kind, path.read_bytes())


def read_records(kind: type[T], path: Path) -> Iterator[T]:
    """The value of each line of an appended file, none if there is no file; a ValueError that names the line."""
    for number, line in whole_lines(path):
        try:
            yield parse_record(kind, line)
        except ValueError as error:
            raise ValueError(f"{error} ({path}, line {number})") from None


@cache
def _adapter(kind: type[Any]) -> TypeAdapter[Any]:
    # Dataclasses within this one inherit the configuration.
    return TypeAdapter(with_config(ConfigDict(strict=True, extra="forbid", allow_inf_nan=False))(kind))


def _describe(error: ValidationError) -> str:
    first: Any = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    key = key if key.isprintable() and len(key) <= 100 else ascii(key[:100])  # it may come from a stranger
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "unexpected_keyword_argument":
        return f"{key} is unknown"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{key}: {message}" if key else message
    return f"{key or 'it'} is {ascii(first['input'])[:60]}: {first['msg']}"
