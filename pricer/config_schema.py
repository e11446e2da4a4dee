"""The JSON schema of config files, for editors with a YAML language server."""

import json
from typing import Any

from pricer.config import RunConfig

SCHEMA_FILE = "pricer.schema.json"

# PyYAML reads 1_000 as a number and 1e-4 as text, other readers the other way round. A config may have both.
_AS_TEXT = {
    "integer": {"type": "string", "pattern": r"^[0-9][0-9_]*(\.0)?([eE]\+?[0-9]+)?$"},
    "number": {"type": "string", "pattern": r"^[0-9][0-9_]*(\.[0-9]+)?([eE][-+]?[0-9]+)?$"},
}


# pydantic leaves these limits as they are behind a validator that runs before the type is checked.
_LIMITS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}


def config_schema() -> dict[str, Any]:
    """The JSON schema of a config file. Its descriptions are the documentation of the settings."""
    schema = RunConfig.model_json_schema()
    sections = {name: {"$ref": section["$ref"]} for name, section in schema["properties"].items()}
    # YAML reads a section as null if all its settings are commented out.
    definitions = {name: {**_edit(one), "type": ["object", "null"]} for name, one in schema["$defs"].items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "A config of pricer",
        "type": ["object", "null"],
        "properties": sections,
        "additionalProperties": False,
        "$defs": definitions,
    }


def schema_text() -> str:
    """The JSON schema as a file."""
    return json.dumps(config_schema(), indent=2, ensure_ascii=False) + "\n"


def _edit(part: Any) -> Any:
    """Accept every way of writing a number, put each description on one line, and drop pydantic's titles."""
    if isinstance(part, list):
        return [_edit(each) for each in part]
    if not isinstance(part, dict):
        return part
    edited = {
        _LIMITS.get(name, name): _edit(each) for name, each in part.items() if name != "title" or _is_schema(each)
    }
    if isinstance(text := edited.get("description"), str):
        edited["description"] = " ".join(text.split())
    if "off" in edited.get("enum", ()):
        edited = {**{name: each for name, each in edited.items() if name != "type"}, "enum": [*edited["enum"], False]}
    if (kind := edited.get("type")) in _AS_TEXT:
        number = {name: edited.pop(name) for name in ("type", *_LIMITS.values()) if name in edited}
        edited["anyOf"] = [number, _AS_TEXT[kind]]
    return edited


def _is_schema(value: Any) -> bool:
    """Whether `title` is the name of a setting."""
    return isinstance(value, dict)
