"""The copies of config.yaml and run.json that leave this machine. A local path in them is replaced by its last part."""

import glob
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pricer.config import RunConfig
from pricer.config_file import parse_config, to_yaml
from pricer.stores.bases import folder_name, names_a_folder
from pricer.stores.files import format_json, parse_json

# Facts that only this machine can use.
_OWN_FACTS = ("data_folder",)


def published_config(config: RunConfig) -> RunConfig:
    """The config as others get it: each local file or folder has only its name."""
    data, model = config.data, config.model
    sources = {name: getattr(data, name) for name in ("source", "val_source", "test_source")}
    sections = {
        "data": data.model_copy(update={name: source and _published(source) for name, source in sources.items()}),
        "model": model.model_copy(update={"base": _published(model.base)}),
    }
    return config.model_copy(update=sections)


def published_facts(facts: Mapping[str, Any], config: RunConfig) -> dict[str, Any]:
    """The facts of run.json as others get them. Local paths of the config are replaced in every text."""
    given = (config.data.source, config.data.val_source, config.data.test_source, config.model.base)
    names = {path: _published(path) for path in given if path is not None and _published(path) != path}
    for path, name in tuple(names.items()):  # a message may have another spelling than the config
        spelled = Path(path).expanduser()
        names |= {str(spelled): name, str(spelled.absolute()): name}
    names |= {f"{Path.cwd()}/": ""} if Path.cwd() != Path("/") else {}
    return {fact: _replace(value, names) for fact, value in facts.items() if fact not in _OWN_FACTS}


def published_files(run_folder: Path) -> dict[str, bytes]:
    """config.yaml and run.json of a run as others get them, by name. A file that is missing is left out."""
    paths = [run_folder / name for name in ("config.yaml", "run.json")]
    found = {path.name: path.read_bytes() for path in paths if path.is_file()}
    config = parse_config(found.get("config.yaml", b""), str(run_folder / "config.yaml"))
    facts = parse_json(found.get("run.json", b"")) or {}
    if (others := published_config(config)) != config:
        found["config.yaml"] = to_yaml(others).encode()
    if (known := published_facts(facts, config)) != facts:
        found["run.json"] = format_json(known).encode()
    return found


def _published(source: str) -> str:
    """The name of a local file or folder, or the end of a pattern, from its last folder on. Other sources, such as a
    repository on the Hub, stay as they are.
    """
    if source.startswith("builtin:"):
        return source
    path = Path(source).expanduser()
    if not names_a_folder(source) and not path.exists() and not glob.has_magic(source):
        return source  # a repository on the Hub
    if not glob.has_magic(source):
        return folder_name(path)
    first = next(index for index, part in enumerate(path.parts) if glob.has_magic(part))
    return str(Path(*path.parts[max(first - 1, 0) :])).lstrip("/")


def _replace(value: Any, names: Mapping[str, str]) -> Any:
    """A JSON value whose texts have names instead of paths, the longest path first."""
    if isinstance(value, str):
        for path in sorted(names, key=len, reverse=True):
            if "/" in path:
                value = value.replace(path, names[path])
        return value
    if isinstance(value, list):
        return [_replace(one, names) for one in value]
    return {name: _replace(one, names) for name, one in value.items()} if isinstance(value, dict) else value
