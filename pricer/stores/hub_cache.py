"""The folders of this machine in which the Hub's libraries keep what they download."""

from pathlib import Path
from typing import Any

from pricer.errors import HubError
from pricer.stores.hub_client import offline_variable


def home() -> Path:
    """The folder with everything that the libraries keep (HF_HOME); it may not be there yet."""
    from huggingface_hub import constants

    return Path(constants.HF_HOME).absolute()


def cache() -> Path:
    """The folder that downloads without one of their own go to; it may not be there yet."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).absolute()


def is_cached(repo: str, commit: str, path: str) -> bool:
    """Whether a file of a model repository is in the cache."""
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(repo, path, revision=commit), str)


def find_in_cache(repo: str, commit: str, path: str) -> Path:
    """A file of a model repository in the cache; a HubError if it was not downloaded."""
    from huggingface_hub import try_to_load_from_cache

    file = try_to_load_from_cache(repo, path, revision=commit)
    if isinstance(file, str):
        return Path(file)
    variable = offline_variable()
    what = f"{path} of {repo} ({commit[:12]})"
    raise HubError(f"{what} is not in the cache, and the Hub is switched off ({variable})", f"unset {variable}")


def list_cache(repo: str, revision: str) -> dict[str, Path]:
    """The files of a revision of a model repository that are in the cache, by their paths in the repository."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        return {}
    return {path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()}


def find_snapshots(repo: str) -> Any:
    """huggingface_hub's description of what the cache has of a model repository (CachedRepoInfo); None if nothing."""
    from huggingface_hub import scan_cache_dir
    from huggingface_hub.errors import CacheNotFound

    try:
        repos = scan_cache_dir(cache()).repos
    except CacheNotFound:
        return None
    return next((one for one in repos if (one.repo_id, one.repo_type) == (repo, "model") and one.revisions), None)
