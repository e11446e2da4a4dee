"""Training states on the Hub: the branch `state`, from which another machine can continue the training."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from pricer.core.adapter_config import read_adapter_settings
from pricer.core.checkpoints import tag_name
from pricer.errors import CheckpointError, HubError
from pricer.stores.checkpoints import ADAPTER_CONFIG, read_manifest, verify
from pricer.stores.files import new_folder, parse_json, sha256_of
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import LARGEST_ADAPTER, LARGEST_TEXT, refuse_without_room

BRANCH = "state"
_RECORD = "state.json"
# Adam keeps two numbers for each weight, beside the weight itself.
_LARGEST_STATE = 3 * LARGEST_ADAPTER
_LARGEST_LOG = 500_000_000
# Without one of these the trainer would silently start afresh in part.
_NEEDED = ("adapter_model.safetensors", "adapter_config.json", "optimizer.pt", "scheduler.pt", "trainer_state.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def push_state(hub: Hub, folder: Path, step: int, *, keep_all: bool) -> None:
    """Put the training state in `folder` on the branch, read it back, and (unless `keep_all`) delete the older ones.

    Pushing the same one again changes nothing.
    """
    refs = hub.refs()
    if BRANCH not in refs.branches:
        hub.branch(BRANCH, start=refs.branches["main"])
        refs = hub.refs()
    head, title = refs.branches[BRANCH], f"state of {tag_name(step)}"
    files: dict[str, Path | bytes] = {path.name: path for path in sorted(folder.iterdir())}
    if hub.first_difference(head, folder, list(files)):
        head = hub.commit(files, title, branch=BRANCH, parent=head)
        if name := hub.first_difference(head, folder, list(files)):
            raise HubError(f"{hub.repo} holds another {name} on its branch {BRANCH} than was pushed", transient=True)
    if not keep_all:
        hub.squash(BRANCH, title)


def newest_state(hub: Hub) -> str | None:
    """The commit with the newest training state, None if there is none."""
    # The branch is made before its first state.
    head = hub.refs().branches.get(BRANCH)
    return head if head and hub.files(head, [_RECORD]) else None


def fetch_state(hub: Hub, commit: str, state_files: tuple[str, ...], target: Callable[[int], Path]) -> tuple[Path, int]:
    """Download the training state of a commit into the folder `target(step)`, and return that folder and the step.

    Only `state_files` are fetched. A CheckpointError unless each has the sha256 of the state's own record, and the
    adapter the one of its manifest.
    """
    hashes = _recorded(hub, commit)
    wanted = [name for name in state_files if name in hashes]
    found = hub.files(commit, wanted)
    manifest = hub.read(commit, "manifest.json", LARGEST_TEXT)
    if manifest is None or "manifest.json" not in hashes:
        raise CheckpointError(f"the training state in {hub.repo} does not say what it is (no manifest.json)")
    folder = target(_step_of(manifest, hub.repo))
    if missing := [name for name in _NEEDED if name not in hashes]:
        raise CheckpointError(f"the training state in {hub.repo} has no {missing[0]}")
    size = sum(file.size for file in found.values())
    if size <= _LARGEST_STATE:
        refuse_without_room(folder, size, f"the training state in {hub.repo}")
    with new_folder(folder) as scratch:
        for name in wanted:
            if name not in found:
                raise CheckpointError(f"the training state in {hub.repo} has no {name}")
            limit = _LARGEST_STATE if name.endswith((".pt", ".pth", ".safetensors")) else _LARGEST_LOG
            path = hub.download(commit, found[name], limit, into=scratch)
            if sha256_of(path) != hashes[name]:
                raise CheckpointError(f"{name} of the training state in {hub.repo} is not what its record says")
        shutil.rmtree(scratch / ".cache", ignore_errors=True)  # huggingface_hub's notes on the download
        checkpoint = read_manifest(scratch)
        verify(checkpoint, scratch)
        try:
            read_adapter_settings(json.loads((scratch / ADAPTER_CONFIG).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{ADAPTER_CONFIG} of the training state in {hub.repo}: {error}") from None
    return folder, checkpoint.step


def _recorded(hub: Hub, commit: str) -> dict[str, str]:
    """The sha256 of each file, by the state's own record."""
    hashes = (parse_json(hub.read(commit, _RECORD, LARGEST_TEXT) or b"") or {}).get("files")
    if isinstance(hashes, dict) and all(_NAME.fullmatch(n) and isinstance(h, str) for n, h in hashes.items()):
        return hashes
    raise CheckpointError(f"{hub.repo} has no training state that can be read on its branch {BRANCH}")


def _step_of(manifest: bytes, repo: str) -> int:
    step = (parse_json(manifest) or {}).get("step")
    # The step goes into the name of a folder, which cannot have hundreds of digits.
    if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step < 10**12:
        raise CheckpointError(f"the training state in {repo} does not say its step")
    return step
