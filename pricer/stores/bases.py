"""Base models: from a name to a local folder and a pinned revision. Safetensors and JSON only, never code."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.config import ModelConfig
from pricer.errors import ModelError
from pricer.stores.files import sha256_of

ASSETS = Path(__file__).parent.parent / "assets"
# Weights as pickles (*.bin, *.pth) and Python files are never asked for.
_WANTED = ["*.safetensors", "*.json"]
# The same weights once more, in the layout of their makers.
_UNWANTED = ["consolidated*", "original/*"]


@dataclass(frozen=True, slots=True)
class Base:
    """A base model on disk. `revision` is a Hub commit hash, or for a local folder a hash of its content."""

    name: str
    folder: Path
    revision: str


def find_base(config: ModelConfig, *, weights: bool = True) -> Base:
    """The base that `model.base` names, downloaded if need be; without `weights` its config.json is enough."""
    folder = _local_folder(config.base)
    if folder is None:
        base = _download(config, weights=weights)
    else:
        # Sizes need config.json alone, and hashing gigabytes of weights takes minutes.
        base = Base(config.base, folder, _content_revision(folder) if weights else "")
        if weights and config.revision not in (None, base.revision):
            raise ModelError(
                f"the base {config.base} is at {base.revision[:12]}, this run was set to {config.revision}",
                "its files have changed: put the old ones back, or train a new run",
            )
    _check(base, weights=weights)
    return base


def read_config(base: Base) -> dict[str, Any]:
    """The base's config.json; a ModelError if it is missing, broken or asks for code of its own."""
    path = base.folder / "config.json"
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelError(f"there is no config.json in {base.folder}", "model.base names a model folder") from None
    except ValueError:
        raise ModelError(f"{path} is not JSON") from None
    if not isinstance(config, dict):
        raise ModelError(f"{path} is not a JSON object")
    if "auto_map" in config:
        raise ModelError(
            f"{base.name} wants to run code of its own (auto_map in config.json)",
            "pricer runs no code from a model: choose an architecture that transformers knows",
        )
    return config


def names_a_folder(name: str) -> bool:
    """Whether a name can only be that of a folder, not of a Hub repository (`user/name`)."""
    return name.startswith(("/", ".", "~")) or name.count("/") != 1


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
        raise ModelError(f"there is no model folder {name}", "a Hub base is written user/name")
    return None


def _content_revision(folder: Path) -> str:
    digest = hashlib.sha256()
    # All that is read from a base: tokenizer_config.json, for one, decides whether a prompt gets a start-of-text token.
    for file in sorted([*folder.glob("*.safetensors"), *folder.glob("*.json")]):
        if file.is_file():
            digest.update(f"{file.name} {sha256_of(file)}\n".encode())
    return digest.hexdigest()[:40]


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

    name, wanted = config.base, _WANTED if weights else ["config.json"]
    try:
        folder = Path(
            snapshot_download(name, revision=config.revision, allow_patterns=wanted, ignore_patterns=_UNWANTED)
        )
    except GatedRepoError:
        raise ModelError(
            f"{name} is gated: its licence has to be accepted first",
            f"accept it on https://huggingface.co/{name}, then `hf auth login`",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"there is no base {name} on the Hub, nor a folder of that name", "a private one needs `hf auth login`"
        ) from None
    except RevisionNotFoundError:
        raise ModelError(f"{name} has no revision {config.revision}", "model.revision: a commit hash") from None
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        raise ModelError(
            f"the base {name} cannot be downloaded: {str(error).splitlines()[0]}", "is the network up?"
        ) from None
    # The cache keeps every revision in a folder named by its commit hash.
    return Base(name, folder, folder.name)


def _check(base: Base, *, weights: bool) -> None:
    read_config(base)
    if weights and not any(base.folder.glob("*.safetensors")):
        raise ModelError(
            f"{base.name} has no safetensors weights",
            "pricer loads no pickled weights (.bin, .pth): convert them first",
        )
