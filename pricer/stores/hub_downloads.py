"""Downloads checkpoints from a Hub repository. Nothing is larger than its limit, and each file is verified."""

import os
import shutil
from pathlib import Path

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, verify
from pricer.stores.hub import LARGEST_TEXT, Hub, RemoteFile
from pricer.stores.hub_cache import cache, is_cached

# Maximum sizes in bytes. No adapter of any open base is larger.
LARGEST_ADAPTER = 32_000_000_000
LARGEST_LOG = 500_000_000


def download_checkpoint(hub: Hub, checkpoint: Checkpoint) -> Path:
    """The folder, in the cache, with the verified adapter of a checkpoint that was delivered."""
    assert checkpoint.commit is not None  # it is in the log
    wanted = {name: checkpoint.path(name) for name in (ADAPTER, ADAPTER_CONFIG)}
    place = f"{checkpoint.name} of {hub.repo} ({checkpoint.commit[:12]})"
    try:
        found = hub.files(checkpoint.commit, list(wanted.values()))
    except HubError as error:
        if not error.missing:
            raise
        raise CheckpointError(f"{place} is gone: {error.message}") from None
    if missing := [name for name, path in wanted.items() if path not in found]:
        raise CheckpointError(f"{place} has no {missing[0]}")
    adapter = found[wanted[ADAPTER]]
    if adapter.sha256 not in (None, checkpoint.adapter_sha256):
        raise CheckpointError(
            f"{place} is not what its manifest says: the Hub has sha256 {adapter.sha256[:12]}…, the manifest "
            f"{checkpoint.adapter_sha256[:12]}…"
        )
    if adapter.size <= LARGEST_ADAPTER and not is_cached(hub.repo, checkpoint.commit, adapter.path):
        refuse_without_room(cache(), adapter.size, f"{adapter.path} of {hub.repo}")
    for force in (False, True):
        config = _download_file(hub, place, checkpoint.commit, found[wanted[ADAPTER_CONFIG]], force=force)
        _download_file(hub, place, checkpoint.commit, adapter, force=force)
        try:
            verify(checkpoint, config.parent)
            break
        except CheckpointError:
            if force:  # the download itself is wrong, not the cache
                raise
    return config.parent


def _download_file(hub: Hub, place: str, commit: str, file: RemoteFile, *, force: bool) -> Path:
    limit = LARGEST_TEXT if file.path.endswith(ADAPTER_CONFIG) else LARGEST_ADAPTER
    try:
        return hub.download(commit, file, limit, force=force)
    except HubError as error:
        if not error.missing:
            raise
        raise CheckpointError(f"{place} cannot be downloaded: {error.message}", error.hint) from None


def refuse_without_room(folder: Path, size: int, what: str) -> None:
    """Raise a HubError unless `size` bytes are free on the disk of `folder`."""
    # Path.exists raises inside a folder without read permission.
    present = next(part for part in (folder, *folder.absolute().parents) if os.path.exists(part))  # noqa: PTH110
    free = shutil.disk_usage(present).free
    if size > free:
        raise HubError(
            f"{what} takes {size:,} bytes, {free:,} are free on the disk with {folder}",
            "make room, or set HF_HOME to a folder on another disk",
        )
