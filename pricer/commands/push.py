"""`pricer push`: push what training could not push to the Hub, or move a whole run to another repository."""

from dataclasses import dataclass

from pricer.commands.parts.moving import move_run
from pricer.commands.parts.uploads import deliver_outbox, has_uploads
from pricer.commands.parts.watcher import Watcher
from pricer.commands.pick import publish_pick_of
from pricer.core.checkpoints import Checkpoint
from pricer.errors import HubError, RunError
from pricer.stores.files import locked
from pricer.stores.runs import Run, find_run


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of `pricer push`. `delivered` has the names of the entries of the outbox. `picked` is the pick that
    was brought to the Hub, None if the Hub lacked nothing of it.
    """

    run: Run
    delivered: tuple[str, ...]
    picked: Checkpoint | None = None


def push(name: str | None, watcher: Watcher, repo: str | None = None) -> Pushed:
    """Deliver the outbox of a run (None: the newest), and its pick. With `repo`, the run is moved there first, with all
    its checkpoints. An entry that cannot be delivered stays in the outbox and raises a HubError.
    """
    run = find_run(name, trained=True, note=watcher.note)
    if repo is not None and repo != run.repo:
        run = move_run(run, repo, watcher)
    if not run.store.is_remote:
        raise RunError(
            f"{run.name} keeps its checkpoints in {run.store.location}, not on the Hub",
            f"pricer push --run {run.name} --repo USER/NAME",
        )
    waiting = tuple(entry.name for entry in run.outbox.entries())
    if has_uploads(run):
        text = f"another process is delivering the checkpoints of {run.name}"
        run.outbox.folder.mkdir(exist_ok=True)
        with locked(run.outbox.folder, RunError(text, "the training delivers them by itself")):
            pass
        with run.lock():
            deliver_outbox(run, watcher)
    try:
        return Pushed(run, waiting, publish_pick_of(run))
    except HubError as error:
        if error.refused:
            error.hint += f"; or move the run: pricer push --run {run.name} --repo USER/NEW"
        raise
