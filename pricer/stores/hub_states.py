"""Training states in a Hub repository, on the branch `state`. Each push is read back before it counts as delivered."""

import json
import re
import shutil
from pathlib import Path

from pricer.core.adapter_config import read_adapter_settings
from pricer.core.checkpoints import tag_name
from pricer.core.ranks import is_random_state
from pricer.errors import CheckpointError, HubError
from pricer.stores.checkpoints import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    read_manifest,
    verify,
)
from pricer.stores.files import new_folder, sha256_of
from pricer.stores.hub import LARGE, Hub, is_there
from pricer.stores.hub_downloads import LARGEST_ADAPTER, LARGEST_LOG, refuse_without_room
from pricer.stores.hub_lease import LEASE, STATE_BRANCH, HubLease
from pricer.stores.training_states import STATE_RECORD, TrainingStates, pick_state_files

# Adam keeps two numbers for each weight, beside the weight itself.
_LARGEST_STATE = 3 * LARGEST_ADAPTER
# A random state has some kilobytes. No training has more processes.
_LARGEST_RANDOM_STATE, _MOST_RANDOM_STATES = 1_000_000, 1_024
# If one of these files is missing, the trainer silently starts partly from scratch.
_NEEDED = (MANIFEST, ADAPTER, ADAPTER_CONFIG, "optimizer.pt", "scheduler.pt", "trainer_state.json")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def push_state(hub: Hub, lease: HubLease, folder: Path, step: int, *, keep_all: bool) -> None:
    """Push the training state in `folder` to the branch `state`, renew the lease, and read the state back. Unless
    `keep_all`, older states are deleted. Pushing the same state again has no effect.
    """
    head, title = lease.check(), f"state of {tag_name(step)}"
    files: dict[str, Path | bytes] = {path.name: path for path in sorted(folder.iterdir())}
    if hub.first_difference(head, folder, list(files)):
        head = hub.commit({**files, LEASE: lease.renew()}, title, branch=STATE_BRANCH, parent=head)
        if name := hub.first_difference(head, folder, list(files)):
            raise HubError(
                f"{hub.repo} holds another {name} on its branch {STATE_BRANCH} than was pushed", transient=True
            )
    if not keep_all:
        _squash(hub, title)


def end_run(hub: Hub, lease: HubLease, record: bytes, *, keep_states: bool) -> None:
    """Say on `main` that the run is finished (`record` is its run.json), and delete the branch `state`. With
    `keep_states`, the branch stays, and only the lease is released. Ending a run again has no effect.
    """
    lease.check()
    main = hub.refs().branches["main"]
    if not hub.read_record(main, "run.json").get("finished"):
        hub.commit({"run.json": record}, "training finished", parent=main)
    if keep_states:
        lease.release()
    else:
        _delete_states(hub)
        lease.forget()


def has_ended(hub: Hub) -> bool:
    """Whether the run in a repository is finished. Then all its checkpoints are there."""
    main = hub.refs().branches.get("main")
    with is_there():
        return bool(hub.read_record(main, "run.json").get("finished"))


def _delete_states(hub: Hub) -> None:
    try:
        hub.delete_branch(STATE_BRANCH)
    except HubError:
        head = hub.refs().branches.get(STATE_BRANCH)
        if head is None:
            return  # it was deleted, and only the answer was lost
        # Perhaps this Hub does not delete branches. An empty one takes no room.
        names = [name for name in hub.all_files(head) if name != ".gitattributes"]
        hub.commit({}, "training finished", branch=STATE_BRANCH, parent=head, delete=names)
        _squash(hub, "training finished")


def _squash(hub: Hub, title: str) -> None:
    try:
        hub.squash(STATE_BRANCH, title)
    except HubError as error:
        # Perhaps this Hub does not squash. That costs room on the Hub, and nothing else.
        if error.transient or error.refused:
            raise


def newest_state(hub: Hub) -> str | None:
    """The commit with the newest training state, or None."""
    # The branch is created before its first state is pushed.
    head = hub.refs().branches.get(STATE_BRANCH)
    return head if head and hub.files(head, [STATE_RECORD]) else None


def read_state_step(hub: Hub) -> int:
    """The step of the newest training state; 0 if there is none, or it does not say its step."""
    step = hub.read_record(newest_state(hub), MANIFEST).get("step")
    return step if isinstance(step, int) else 0


def fetch_state(hub: Hub, commit: str, states: TrainingStates) -> tuple[Path, int]:
    """Download the training state of a commit into a run's `states`, and return its folder and step. A CheckpointError
    if a file does not have the sha256 in the state's record, or the adapter does not have the sha256 in its manifest.
    """
    state = f"the training state in {hub.repo}"
    hashes = hub.read_record(commit, STATE_RECORD).get("files")
    if not isinstance(hashes, dict) or not all(_NAME.fullmatch(n) and isinstance(h, str) for n, h in hashes.items()):
        raise CheckpointError(f"{hub.repo} has no training state that can be read on its branch {STATE_BRANCH}")
    if missing := [name for name in _NEEDED if name not in hashes]:
        raise CheckpointError(f"{state} has no {missing[0]}")
    wanted = pick_state_files(hashes)
    if (count := sum(map(is_random_state, wanted))) > _MOST_RANDOM_STATES:
        raise CheckpointError(f"{state} has {count:,} random states (at most {_MOST_RANDOM_STATES:,})")
    found = hub.files(commit, wanted)
    if missing := [name for name in wanted if name not in found]:
        raise CheckpointError(f"{state} has no {missing[0]}")
    step = hub.read_record(commit, MANIFEST).get("step")
    # The step goes into the name of a folder, which cannot have hundreds of digits.
    if isinstance(step, bool) or not isinstance(step, int) or not 1 <= step < 10**12:
        raise CheckpointError(f"{state} does not say its step")
    for file in found.values():
        hub.refuse_larger(file, _limit(file.path))
    folder = states.at(step)
    refuse_without_room(folder, sum(file.size for file in found.values()), state)
    with new_folder(folder) as scratch:
        for name in wanted:
            if sha256_of(hub.download(commit, found[name], _limit(name), into=scratch)) != hashes[name]:
                raise CheckpointError(f"{name} of {state} is not what its record says")
        shutil.rmtree(scratch / ".cache", ignore_errors=True)  # huggingface_hub's notes on the download
        checkpoint = read_manifest(scratch)
        verify(checkpoint, scratch)
        try:
            read_adapter_settings(json.loads((scratch / ADAPTER_CONFIG).read_text(encoding="utf-8")))
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"{ADAPTER_CONFIG} of {state}: {error}") from None
    return folder, checkpoint.step


def _limit(name: str) -> int:
    """The maximum size of a file of a training state, in bytes."""
    if is_random_state(name):
        return _LARGEST_RANDOM_STATE
    return _LARGEST_STATE if name.endswith(LARGE) else LARGEST_LOG
