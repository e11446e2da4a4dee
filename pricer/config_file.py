"""Config files: YAML to and from a RunConfig. All problems of a file are reported together, each with its line."""

import difflib
import re
import reprlib
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from pricer.config import RunConfig
from pricer.errors import ConfigError, first_line
from pricer.redaction import redact, token_in

# In the wheel the configs are inside the package. In a checkout they are beside it.
CONFIGS = next(
    (
        folder
        for folder in (Path(__file__).parent / "configs", Path(__file__).parent.parent / "configs")
        if folder.is_dir()
    ),
    Path("configs"),
)

# Files that only `data.source` can name. A .json file may be a config: JSON is YAML.
_DATA_FILE = re.compile(r"\.(csv|tsv|jsonl|ndjson|parquet)(\.gz|\.zst)?$", re.IGNORECASE)

# Several times the number of existing settings.
_MAX_SETTINGS = 300

# Width of a written line, without its indent. A list may be longer by one element.
_WIDTH = 100

# Shortens values in messages: with aliases, a few lines of YAML can expand to gigabytes.
_SHORT = reprlib.Repr()
_SHORT.maxlevel = 2
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 120


def load_config(path: Path, overrides: Sequence[str] = ()) -> RunConfig:
    """Read a config file and apply `section.key=value` overrides. A ConfigError names every problem and its place."""
    if path.is_file() and _DATA_FILE.search(path.name):
        raise ConfigError([f"{path} is data, not a config"], f"pricer init {shlex.quote(str(path))}")
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        known = ", ".join(sorted(file.stem for file in CONFIGS.glob("*.yaml"))) if CONFIGS.exists() else ""
        raise ConfigError([f"there is no config {path}"], f"known by name: {known}" if known else "") from None
    except OSError as error:
        raise ConfigError([f"{path} cannot be read: {error.strerror}"]) from None
    return parse_config(content, str(path), overrides)


def parse_config(content: bytes, path: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Parse the content of a config file. Problems name `path` as the file."""
    try:
        text = content.decode()
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError([f"not UTF-8 ({path}, line {line})"]) from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        place = f"{path}, line {mark.line + 1}" if mark else path
        raise ConfigError(
            [redact(f"not YAML: {getattr(error, 'problem', None) or first_line(error)} ({place})")]
        ) from None
    if values is None:
        values = {}
    if not isinstance(values, dict):
        raise ConfigError([f"a config is a mapping of sections, not a {type(values).__name__} ({path})"])
    _refuse_tokens(node, path, overrides)
    # YAML reads a section as None if all its settings are commented out.
    values = {section: {} if inside is None else inside for section, inside in values.items()}
    lines = _lines(node)
    if len(lines) > _MAX_SETTINGS:  # a downloaded file may hold any number of them, and each would get an error
        raise ConfigError([f"{len(lines):,} settings are given, at most {_MAX_SETTINGS} are read ({path})"])
    places = {key: f"{path}, line {line}" for key, line in lines}
    problems = [
        f"{key} is given twice ({path}, line {line})"
        for index, (key, line) in enumerate(lines)
        if key in [earlier for earlier, _ in lines[:index]]
    ]
    for override in overrides:
        problems += _override(values, places, override)
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        found: dict[str, list[Any]] = {}  # pydantic reports one error for each type of a union
        for detail in error.errors():
            found.setdefault(_setting(detail), []).append(detail)
        problems += [_problem(setting, details, places, path) for setting, details in found.items()]
    if problems:
        raise ConfigError(problems, _hint(problems))
    return config


def to_yaml(config: RunConfig) -> str:
    """The config as a file that reads back to the same RunConfig."""
    return yaml.safe_dump(config.model_dump(), sort_keys=False, allow_unicode=True)


def to_commented_yaml(head: Iterable[str], settings: Iterable[tuple[str, Any, str]]) -> str:
    """A config file with the comment lines `head` and some settings, each as `section.key`, value, and a comment, which
    is above it and may be empty. Settings of one section follow each other.
    """
    lines = [f"# {_in_comment(line)}".rstrip() for line in head]
    section = ""
    for name, value, comment in settings:
        own, _, key = name.partition(".")
        if own != section:
            lines.append(f"{own}:")
            section = own
        lines += [f"  # {line}" for line in textwrap.wrap(_in_comment(comment), _WIDTH)]
        if isinstance(value, list):
            written = f"{key}: " + "\n  ".join(_dump(value, default_flow_style=True).split("\n"))
        else:
            written = _dump({key: value})
        lines += [f"  {line}" for line in written.split("\n")]
    return "\n".join(lines) + "\n"


def _dump(value: Any, *, default_flow_style: bool = False) -> str:
    written: str = yaml.safe_dump(value, default_flow_style=default_flow_style, allow_unicode=True, width=_WIDTH)
    return written.rstrip("\n")


def _in_comment(text: str) -> str:
    """A text on one line, without what YAML does not allow in a comment."""
    return redact(" ".join("".join(c if c.isprintable() else " " for c in text).split()))


def config_path(name: str) -> Path:
    """The config file that a user names: by its path, or by the name of a bundled one."""
    path, known = Path(name), CONFIGS / f"{name}.yaml"
    return known if not path.exists() and known.exists() else path


def _lines(node: yaml.Node | None, prefix: str = "") -> list[tuple[str, int]]:
    """Every `section` and `section.key` of a YAML document with its line."""
    if not isinstance(node, yaml.MappingNode):
        return []
    found: list[tuple[str, int]] = []
    for key, value in node.value:
        name = f"{prefix}{key.value}"
        found.append((name, key.start_mark.line + 1))
        found += [] if prefix else _lines(value, f"{name}.")
    return found


def _refuse_tokens(node: yaml.Node | None, path: str, overrides: Sequence[str]) -> None:
    """Raise a ConfigError if there is a token anywhere. Call it first: other errors show values."""
    problems = [f"{redact(setting)} holds a token ({path}, line {line})" for setting, line in _tokens(node, "", set())]
    for override in overrides:
        if token_in(override):
            key, equals, _ = redact(override).partition("=")
            problems.append(f"{key.strip()} holds a token (--set {key.strip()}{equals and '=***'})")
    if problems:
        raise ConfigError(
            problems, "a token belongs in the environment (HF_TOKEN, WANDB_API_KEY), or to hf auth login or wandb login"
        )


def _tokens(node: yaml.Node | None, setting: str, seen: set[int]) -> list[tuple[str, int]]:
    """Every token of a YAML document: the setting that holds it, and its line."""
    if node is None or id(node) in seen:  # an alias may lead back to an earlier node
        return []
    seen.add(id(node))
    if isinstance(node, yaml.ScalarNode):
        return [(setting, node.start_mark.line + 1)] if token_in(node.value) else []
    inside: list[tuple[str, yaml.Node]] = []
    for part in node.value:
        if isinstance(part, tuple):
            key, value = part
            own = f"{setting}.{key.value}" if setting else key.value
            inside += [(own, key), (own, value)]
        else:
            inside.append((setting, part))
    return [found for own, part in inside for found in _tokens(part, own, seen)]


def _override(values: dict[str, Any], places: dict[str, str], override: str) -> list[str]:
    """Apply one `section.key=value` in place, and return the problems with its form."""
    key, equals, text = override.partition("=")
    section, dot, name = key.strip().partition(".")
    if not (equals and dot and section and name):
        return [f"--set takes SECTION.KEY=VALUE, not {override!r}"]
    places.setdefault(section, f"--set {override}")
    places[f"{section}.{name}"] = f"--set {override}"
    try:
        value = yaml.safe_load(text)
    except (yaml.YAMLError, RecursionError, ValueError):
        return [f"{text!r} cannot be read as YAML (--set {override})"]
    inside = values.setdefault(section, {})
    if isinstance(inside, dict):
        inside[name] = value
    return []


def _setting(detail: Any) -> str:
    """The setting that a pydantic error belongs to. Unions and lists add more parts to the location of the error."""
    return ".".join(str(part) for part in detail["loc"][:2])


def _problem(setting: str, details: Sequence[Any], places: dict[str, str], path: str) -> str:
    """Pydantic's errors about one setting, as one sentence that names file and line."""
    detail = details[-1]
    place = places.get(setting) or places.get(setting.split(".", maxsplit=1)[0], path)
    if detail["type"] in ("extra_forbidden", "invalid_key"):
        kind = "setting" if "." in setting else "section"
        known = [name for name in _settings() if ("." in name) == ("." in setting)]
        close = difflib.get_close_matches(setting, known, n=1, cutoff=0.75)
        suggestion = f"; did you mean {close[0]}?" if close else ""
        return f"{setting} is not a {kind} ({place}){suggestion}"
    if detail["type"] == "value_error":
        return f"{setting}: {detail['ctx']['error']} ({place})"
    if detail["type"] == "model_type":
        return f"{setting} is {_SHORT.repr(detail['input'])}: a section holds settings, one per line ({place})"
    messages = dict.fromkeys(each["msg"][0].lower() + each["msg"][1:] for each in details)
    return f"{setting} is {_SHORT.repr(detail['input'])}: {', or '.join(messages)} ({place})"


def _hint(problems: Sequence[str]) -> str:
    unknown = next((p for p in problems if " is not a " in p and "did you mean" not in p), None)
    if unknown is None:
        return ""
    section = unknown.split(".")[0].split(" ")[0]
    field = RunConfig.model_fields.get(section)
    names = list(field.default.__class__.model_fields) if field else list(RunConfig.model_fields)
    return f"{section + ' has' if field else 'sections are'} {', '.join(names)}"


def _settings() -> list[str]:
    sections = RunConfig.model_fields
    return [*sections, *(f"{s}.{name}" for s, f in sections.items() for name in f.default.__class__.model_fields)]
