"""The picked checkpoint at the top of `main`, which is what every loader reads if no revision is given."""

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, MANIFEST, PARTS, parse_manifest
from pricer.stores.hub import LARGEST_TEXT, Hub, RemoteFile

# `pricer eval --repo` reads the titles of commits. This one must not look like a step or an epoch.
_TITLE = "The pick, and its model card"


def put_pick(
    hub: Hub,
    checkpoint: Checkpoint,
    head: str,
    fetch: Callable[[], Path],
    pages: Mapping[str, bytes] = MappingProxyType({}),
) -> str:
    """Commit the adapter of `checkpoint`, which is on the Hub, to the top of `main`, together with `pages` (contents by
    path). Read it back, and return the commit. If `head`, the head of `main`, holds all of it, nothing is committed,
    and `head` is returned. `fetch` returns a local folder with the adapter.

    A HubError if the Hub refuses, or holds something else afterwards.
    """
    parts = _parts_on_hub(hub, checkpoint)
    if _difference(hub, head, parts, pages) is None:
        return head
    commit = _commit(hub, checkpoint, parts, pages, fetch)
    if name := _difference(hub, commit, parts, pages):
        raise HubError(f"{hub.repo} holds another {name} at {commit[:12]} than was sent", transient=True)
    return commit


def _parts_on_hub(hub: Hub, checkpoint: Checkpoint) -> dict[str, RemoteFile]:
    """The files of a checkpoint at its commit, by their names without a folder. Another trainer writes no manifest."""
    assert checkpoint.commit is not None  # it is on the Hub
    found = hub.files(checkpoint.commit, [checkpoint.path(name) for name in PARTS])
    for name in (ADAPTER, ADAPTER_CONFIG):
        if checkpoint.path(name) not in found:
            raise CheckpointError(f"{checkpoint.name} of {hub.repo} ({checkpoint.commit[:12]}) has no {name}")
    return {name: found[checkpoint.path(name)] for name in PARTS if checkpoint.path(name) in found}


def _difference(hub: Hub, commit: str, parts: Mapping[str, RemoteFile], pages: Mapping[str, bytes]) -> str | None:
    """The first file that the commit lacks or holds with other content; None if it holds them all."""
    found = hub.files(commit, [*parts, *pages])
    for name, part in parts.items():
        if name not in found or not found[name].has_content_of(part):
            return name
    return next((name for name, text in pages.items() if name not in found or not found[name].holds(text)), None)


def _commit(
    hub: Hub,
    checkpoint: Checkpoint,
    parts: Mapping[str, RemoteFile],
    pages: Mapping[str, bytes],
    fetch: Callable[[], Path],
) -> str:
    assert checkpoint.commit is not None  # it is on the Hub
    copies = {name: (checkpoint.commit, file.path) for name, file in parts.items()}
    try:
        return hub.commit(pages, _TITLE, copies=copies)
    except HubError:
        # The Hub may not copy, or its answer was lost: then the client finds the same content there, and sends nothing.
        files: dict[str, Path | bytes] = {ADAPTER: fetch() / ADAPTER, **pages}
        for name in parts.keys() - {ADAPTER}:
            files[name] = hub.download(checkpoint.commit, parts[name], LARGEST_TEXT)
        return hub.commit(files, _TITLE, retry=True)


def read_pick(hub: Hub, commit: str) -> Checkpoint | None:
    """The checkpoint whose manifest a commit holds; None if it holds none. Another trainer writes none."""
    content = hub.read(commit, MANIFEST)
    try:
        return None if content is None else parse_manifest(content).at(commit)
    except ValueError:
        return None
