"""Records: reads the dataclasses of pricer.core from JSON, and checks every key and type.

Records are written with `asdict`. A missing or unknown key, a wrong type, infinity and NaN are errors.
"""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError, with_config

from pricer.stores.files import whole_lines

T = TypeVar("T")


def parse_record(kind: type[T], text: str | bytes) -> T:
    """Read a value from a JSON text. A ValueError of one line names the wrong key."""
    try:
        record: T = _adapter(kind).validate_json(text)  # type: ignore[arg-type]  # mypy takes no type for hashable
    except ValidationError as error:
        raise ValueError(_describe(error)) from None
    return record


def read_record(kind: type[T], path: Path) -> T:
    """Read a value from a JSON file. A ValueError if the content is invalid, an OSError if the file cannot be read."""
    return parse_record(kind, path.read_bytes())


def read_records(kind: type[T], path: Path) -> Iterator[T]:
    """Yield the value of each line of a JSON lines file, none if there is no file. A ValueError names a bad line."""
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
    # pydantic also names the member of a union that it tried last.
    places = [str(place) for place in first["loc"] if not str(place).startswith(("str-enum[", "literal["))]
    key = ".".join(places)
    key = key if key.isprintable() and len(key) <= 100 else ascii(key[:100])  # the key is untrusted
    if first["type"] == "missing":
        return f"{key} is missing"
    if first["type"] == "unexpected_keyword_argument":
        return f"{key} is unknown"
    if first["type"] == "value_error":
        message = str(first["ctx"]["error"])
        return f"{key}: {message}" if key else message
    return f"{key or 'it'} is {ascii(first['input'])[:60]}: {first['msg']}"
