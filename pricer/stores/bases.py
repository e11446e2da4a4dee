"""Base models: from a name to a local folder and a pinned revision. Only safetensors and JSON are read, never code."""

import contextlib
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.config import ModelConfig
from pricer.errors import ModelError, first_line
from pricer.stores.files import read_json, sha256_of, write_json
from pricer.stores.hub_client import is_offline, offline_variable
from pricer.stores.hub_errors import gated

ASSETS = Path(__file__).parent.parent / "assets"
# Pickled weights (*.bin, *.pth) and Python files are never downloaded.
_WANTED = ["*.safetensors", "*.json"]
# Duplicates of the weights in the original layout of their authors.
_UNWANTED = ["consolidated*", "original/*"]
# Minimum size in bytes of files whose hash is cached. Smaller files are hashed quickly.
_WORTH_REMEMBERING = 16 << 20


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk. `name` is its repository on the Hub, or the last part of a local folder, because others see
    it. `revision` is a Hub commit hash, or for a local folder a hash of its content.
    """

    name: str
    folder: Path
    revision: str


def find_base(config: ModelConfig, *, weights: bool = True) -> Base:
    """The base that `model.base` names, downloaded if necessary. Without `weights`, only its JSON files are needed: its
    config and its tokenizer.
    """
    folder = _local_folder(config.base)
    if folder is None:
        base = _download(config, weights=weights)
    else:
        # Hashing gigabytes of weights takes minutes.
        name = config.base if config.base.startswith("builtin:") else folder_name(folder)
        base = Base(name, folder, _content_revision(folder) if weights else "")
        if weights and config.revision not in (None, base.revision):
            raise ModelError(
                f"the base {config.base} is at {base.revision[:12]}, this run was set to {config.revision}",
                "its files have changed: put the old ones back, or train a new run",
            )
    read_config(base)
    if weights and not any(base.folder.glob("*.safetensors")):
        if is_offline() and folder is None:
            raise _not_in_cache(f"the weights of {base.name} are")
        raise ModelError(
            f"{base.name} has no safetensors weights",
            "pricer loads no pickled weights (.bin, .pth): convert them first",
        )
    return base


def read_config(base: Base) -> dict[str, Any]:
    """The base's config.json; a ModelError if it is missing, broken or asks for code of its own."""
    path = base.folder / "config.json"
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise ModelError(f"there is no config.json in {base.folder}", "model.base names a model folder") from None
    except ValueError as error:
        raise ModelError(f"{path} is {error}") from None
    if "auto_map" in config:
        raise ModelError(
            f"{base.name} wants to run code of its own (auto_map in config.json)",
            "pricer runs no code from a model: choose an architecture that transformers knows",
        )
    return config


def read_context(base: Base) -> int | None:
    """The maximum number of tokens that a base can read, from its config.json; None if it does not say. If some of its
    layers see only a window of the last tokens, that window: answers are computed as if there were none.
    """
    config = read_config(base)
    decoder = config.get("text_config", config)  # bases that also read images keep their decoder's settings there
    if not isinstance(decoder, dict):
        return None
    names = ["max_position_embeddings", "n_positions"]
    if decoder.get("use_sliding_window", True):
        names.append("sliding_window")
    found = (decoder.get(name) for name in names)
    return min((value for value in found if isinstance(value, int) and value > 0), default=None)


def names_a_folder(name: str) -> bool:
    """Whether a name can only name a folder, not a repository on the Hub (`user/name`)."""
    return name.startswith(("/", ".", "~")) or name.count("/") != 1


def folder_name(path: Path) -> str:
    """The last part of a path: a run's files on the Hub must not show the folders of somebody's disk."""
    return Path(os.path.abspath(path)).name or "folder"  # noqa: PTH100  # resolve() would follow a link to another name


def spell_as_path(name: str) -> str:
    """The name of a local file or folder, spelled so that it cannot be taken for a repository on the Hub even if it is
    gone: `./models/llama` instead of `models/llama`. Other names stay as they are.
    """
    return name if names_a_folder(name) or not Path(name).exists() else f"./{name}"


def _local_folder(name: str) -> Path | None:
    if name.startswith("builtin:"):
        folder = ASSETS / name.removeprefix("builtin:")
        if folder.parent != ASSETS or not (folder / "config.json").is_file():
            raise ModelError(f"there is no embedded base {name}", "model.base: builtin:base")
        return folder
    folder = Path(name).expanduser()
    if folder.is_dir():
        return folder
    if names_a_folder(name):
        raise ModelError(
            f"there is no model folder {name}",
            "put it where you start pricer, or a link to it; a Hub base is written user/name",
        )
    return None


def _content_revision(folder: Path) -> str:
    # All that is read from a base: tokenizer_config.json, for one, decides whether a prompt gets a start-of-text token.
    files = [path for path in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]) if path.is_file()]
    large = [path for path in files if path.stat().st_size >= _WORTH_REMEMBERING]
    remembered = _hashes_of(large) if large else {}
    digest = hashlib.sha256()
    for path in files:
        digest.update(f"{path.name} {remembered.get(path) or sha256_of(path)}\n".encode())
    return digest.hexdigest()[:40]


def _hashes_of(files: Sequence[Path]) -> dict[Path, str]:
    """The sha256 of files in one folder, remembered in the user's cache while they last. A broken cache is no error."""
    hashes: dict[Path, str] = {}
    with contextlib.suppress(OSError, RuntimeError):  # RuntimeError: there is no home folder
        place = hashlib.sha256(str(files[0].parent.resolve()).encode()).hexdigest()[:16]
        home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
        cache = home / "pricer" / "base-hashes" / f"{place}.json"
        known: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            known = read_json(cache)
        found = {}
        for path in files:
            state = _state_of(path)
            digest = known.get(state)
            found[state] = hashes[path] = digest if isinstance(digest, str) else sha256_of(path)
        # The cache last: if it cannot be written, the hashes are still returned.
        if found != known:
            write_json(cache, found)
    return hashes


def _state_of(path: Path) -> str:
    """A key that changes when the file changes. A copy may keep its source's mtime, but not the ctime."""
    found = path.stat()
    return f"{path.name} {found.st_size} {found.st_mtime_ns} {found.st_ctime_ns} {found.st_ino}"


def _download(config: ModelConfig, *, weights: bool) -> Base:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    name, wanted = config.base, _WANTED if weights else ["*.json"]
    nowhere = f"there is no base {name} on the Hub, nor a folder of that name"
    problems: dict[type[Exception], tuple[str, str]] = {
        GatedRepoError: gated(name),  # before its base class
        RepositoryNotFoundError: (nowhere, "a private one needs `hf auth login`"),
        RevisionNotFoundError: (f"{name} has no revision {config.revision}", "model.revision: a commit hash"),
    }
    try:
        folder = snapshot_download(name, revision=config.revision, allow_patterns=wanted, ignore_patterns=_UNWANTED)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        if is_offline() and isinstance(error, LocalEntryNotFoundError):
            raise _not_in_cache(f"the base {name} is") from None
        other = f"the base {name} cannot be downloaded: {first_line(error)}", "is the network up?"
        raise ModelError(*next((text for kind, text in problems.items() if isinstance(error, kind)), other)) from None
    # The cache keeps every revision in a folder named by its commit hash.
    return Base(name, Path(folder), Path(folder).name)


def _not_in_cache(what: str) -> ModelError:
    variable = offline_variable()
    return ModelError(f"{what} not in the cache, and the Hub is switched off ({variable})", f"unset {variable}")
