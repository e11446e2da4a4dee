"""`pricer push`: push the checkpoints to the Hub that training could not push."""

from dataclasses import dataclass

from pricer.commands.parts.uploads import deliver_outbox, has_uploads
from pricer.commands.parts.watcher import Watcher
from pricer.errors import RunError
from pricer.stores.files import locked
from pricer.stores.runs import Run, find_run


@dataclass(frozen=True, slots=True)
class Pushed:
    """The result of `pricer push`. `delivered` has the names of the entries of the outbox."""

    run: Run
    delivered: tuple[str, ...]


def push(name: str | None, watcher: Watcher) -> Pushed:
    """Deliver the outbox of a run (None: the newest). An entry that cannot be delivered stays there and raises a
    HubError.
    """
    run = find_run(name, trained=True, note=watcher.note)
    if not run.store.is_remote:
        raise RunError(
            f"{run.name} keeps its checkpoints in {run.store.location}, not on the Hub",
            "train with a repository: --set hub.repo=USER/NAME, or hub.repo=auto",
        )
    waiting = tuple(entry.name for entry in run.outbox.entries())
    if has_uploads(run):
        text = f"another process is delivering the checkpoints of {run.name}"
        run.outbox.folder.mkdir(exist_ok=True)
        with locked(run.outbox.folder, RunError(text, "a training does it by itself")):
            pass
        with run.lock():
            deliver_outbox(run, watcher)
    return Pushed(run, waiting)
