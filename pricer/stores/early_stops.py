"""The request to stop a training early: stop.json in the run's folder, or on the branch `state` of its repository."""

from dataclasses import asdict
from pathlib import Path

from pricer.core.early_stopping import EarlyStop
from pricer.errors import HubError, RunError
from pricer.stores.files import format_json, write_json
from pricer.stores.hub import Hub, is_there
from pricer.stores.hub_lease import STATE_BRANCH
from pricer.stores.records import parse_record, read_record

STOP = "stop.json"
# Maximum size in bytes. A usual request has 100.
_LARGEST = 10_000


def write_stop(run_folder: Path, stop: EarlyStop) -> None:
    """Ask the training of a run in this folder to stop."""
    write_json(run_folder / STOP, asdict(stop))


def read_stop(run_folder: Path) -> EarlyStop | None:
    """The request in a run's folder; None if there is none, a RunError if it is damaged."""
    path = run_folder / STOP
    try:
        return read_record(EarlyStop, path) if path.exists() else None
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}", "remove it") from None


def drop_stop(run_folder: Path) -> None:
    """Remove the request from a run's folder, if there is one."""
    (run_folder / STOP).unlink(missing_ok=True)


def send_stop(hub: Hub, stop: EarlyStop) -> None:
    """Ask the training that pushes to a repository to stop. Nothing is sent if the request is there already, or if the
    repository has no training state any more, because the training has ended.
    """
    content, head = format_json(asdict(stop)).encode(), hub.refs().branches.get(STATE_BRANCH)
    if head is not None and _read(hub, head) != content:
        # Without a parent: the training itself commits to this branch at any time.
        hub.commit({STOP: content}, "stop early", branch=STATE_BRANCH, retry=True)


def fetch_stop(hub: Hub, head: str) -> EarlyStop | None:
    """The request in a commit of the branch `state`; None if there is none that can be read."""
    content = _read(hub, head)
    try:
        return None if content is None else parse_record(EarlyStop, content)
    except ValueError as error:
        text = f"{STOP} on the branch {STATE_BRANCH} of {hub.repo} cannot be read: {error}"
        raise HubError(text) from None


def _read(hub: Hub, head: str) -> bytes | None:
    with is_there():
        return hub.read(head, STOP, _LARGEST)
