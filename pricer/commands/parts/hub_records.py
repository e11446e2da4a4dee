"""What a run's repository says of it: its config and the facts of its run.json, read as data from a stranger."""

from typing import Any

from pricer.config import RunConfig
from pricer.errors import RunError
from pricer.stores.files import parse_json
from pricer.stores.hub import LARGEST_TEXT, Hub
from pricer.stores.published import published_config

# The facts that are read from another machine's run.json, with their types; then the objects, with their inner types.
_FACTS: dict[str, type] = {
    **dict.fromkeys(("id", "precision", "data_fingerprint", "prompt_fingerprint", "tracking_id"), str),
    "seed": int,
    "train_median": float,
}
_OBJECTS: dict[str, type] = {"items": int, "versions": str}
# Maximum size of a config.yaml in bytes. A usual one has 2,000; reading a million would take ten seconds.
LARGEST_CONFIG = 100_000


def with_repo(config: RunConfig, repo: str) -> RunConfig:
    """The config with `hub.repo` set to the repository that it was read from."""
    # A downloaded config must not decide where this machine pushes.
    return config.model_copy(update={"hub": config.hub.model_copy(update={"repo": repo})})


def with_local_paths(config: RunConfig, own: RunConfig) -> RunConfig:
    """A config from the Hub with the local paths of this machine's config of the same run. The Hub has only the names.
    A source or base that differs stays as the Hub has it.
    """
    names = published_config(own)
    same = {name: getattr(own.data, name) for name in ("source", "val_source", "test_source")}
    same = {name: path for name, path in same.items() if getattr(names.data, name) == getattr(config.data, name)}
    base = own.model.base if names.model.base == config.model.base else config.model.base
    sections = {
        "data": config.data.model_copy(update=same),
        "model": config.model.model_copy(update={"base": base}),
    }
    return config.model_copy(update=sections)


def read_text(hub: Hub, commit: str, name: str, limit: int) -> bytes:
    """The content of a file of a commit, at most `limit` bytes; a RunError if the commit has none of that name."""
    content = hub.read(commit, name, limit)
    if content is None:
        raise RunError(f"{hub.repo} has no {name} at {commit[:12]}", "it was not pushed by pricer train")
    return content


def read_facts(hub: Hub, commit: str) -> dict[str, Any]:
    """The facts that may be taken over from the run.json of a commit."""
    record = parse_json(read_text(hub, commit, "run.json", LARGEST_TEXT))
    if record is None:
        raise RunError(f"run.json of {hub.repo} cannot be read", "it was not pushed by pricer train")
    facts = {name: record[name] for name, kind in _FACTS.items() if isinstance(record.get(name), kind)}
    for name, kind in _OBJECTS.items():
        values = record.get(name)
        if isinstance(values, dict) and all(isinstance(value, kind) for value in values.values()):
            facts[name] = values
    if isinstance(defaults := record.get("defaults"), dict):
        facts["defaults"] = {name: values for name, values in defaults.items() if _is_default(values)}
    return facts


def _is_default(values: Any) -> bool:
    """Whether this is how run.json records an `auto` setting: the value that was chosen, with the reason."""
    return (
        isinstance(values, dict)
        and values.keys() == {"value", "reason"}
        and isinstance(values["value"], int | float | str | None)
        and isinstance(values["reason"], str)
    )
