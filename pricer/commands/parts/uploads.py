"""Uploads of a training: put each checkpoint into the outbox, and push it to the Hub in the background."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError, Interrupted
from pricer.stores.checkpoints import PARTS, STATE_FILES, read_manifest
from pricer.stores.hub import Hub, user
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.hub_states import push_state
from pricer.stores.outbox import Entry, Uploader
from pricer.stores.published import published_files
from pricer.stores.runs import Run

# Fewer attempts than in the foreground, because the worker itself tries again.
_ATTEMPTS = 3


class Uploads:
    """Delivers a run's checkpoints and training states to its repository."""

    def __init__(self, run: Run, repo: str, note: Callable[[str], None]) -> None:
        self._run = run
        self._keep_state = run.config().hub.state
        self._uploader = Uploader(run.outbox, note)
        self._hub = Hub(repo, attempts=_ATTEMPTS, wait=self._uploader.wait, before_commit=run.outbox.budget.take)
        self._store = HubStore(self._hub, run.folder)

    def start(self) -> None:
        """Start delivering in the background."""
        self._uploader.start(self._deliver)

    def put_checkpoint(self, folder: Path, step: int) -> None:
        """Put the checkpoint in `folder` into the outbox, unless it was delivered or is there already."""
        checkpoint = read_manifest(folder)
        waiting = [_manifest_of(entry) for entry in self._run.outbox.entries() if entry.kind == "checkpoint"]
        if checkpoint not in [*waiting, *self._store.checkpoints()]:
            self._run.outbox.put("checkpoint", step, [folder / name for name in PARTS])
            self._uploader.wake()

    def put_state(self, folder: Path, step: int) -> None:
        """Put the training state in `folder` into the outbox, unless `hub.state` is none."""
        if self._keep_state != "none":
            # The other files that another machine needs to continue.
            log = self._run.folder / "metrics.jsonl"
            own = published_files(self._run.folder) | ({log.name: log.read_bytes()} if log.is_file() else {})
            state = [folder / name for name in STATE_FILES]
            self._run.outbox.put("state", step, [path for path in state if path.is_file()], own)
            if self._keep_state == "latest":
                self._run.outbox.thin_states()
            self._uploader.wake()

    def drain(self, on_progress: Callable[[int, int], None], seconds: float = math.inf) -> list[Entry]:
        """Deliver the remaining entries for at most `seconds`, and return those that could not be delivered.
        `on_progress(done, total)` is called several times a second.
        """
        # Training is over, so no more entries arrive.
        total = len(self._run.outbox.entries())
        return self._uploader.drain(lambda left: on_progress(total - left, total) if total else None, seconds)

    def deliver_all(self, on_progress: Callable[[int, int], None]) -> None:
        """Deliver the remaining entries. A HubError names those that could not be delivered."""
        try:
            left = self.drain(on_progress)
        except KeyboardInterrupt:
            raise Interrupted(
                f"stopped; {len(self._run.outbox.entries())} uploads are left, safe in {self._run.outbox.folder}",
                f"pricer push --run {self._run.name}",
            ) from None
        if left:
            names, problem = ", ".join(entry.name for entry in left), self._uploader.problem
            raise HubError(
                f"not on the Hub yet: {names}" + (f" ({problem.message})" if problem else ""),
                f"they are safe in {self._run.outbox.folder}; deliver them later: pricer push --run {self._run.name}",
            )

    def stop(self) -> None:
        """Stop delivering."""
        self._uploader.stop()

    def _deliver(self, entry: Entry) -> None:
        if entry.kind == "checkpoint":
            self._store.push(entry.folder, entry.step)
        else:
            push_state(self._hub, entry.folder, entry.step, keep_all=self._keep_state == "all")


def _manifest_of(entry: Entry) -> Checkpoint | None:
    # None: the entry was delivered after it was listed, or it is damaged, which its delivery reports.
    try:
        return read_manifest(entry.folder)
    except CheckpointError:
        return None


@contextmanager
def uploads(run: Run, note: Callable[[str], None]) -> Iterator[Uploads | None]:
    """While open, deliver entries of the outbox in the background. Yields None for a run without a repository."""
    if run.repo is None:
        yield None
        return
    opened = Uploads(run, run.repo, note)
    opened.start()
    try:
        yield opened
    finally:
        opened.stop()


def claim(repo: str, project: str, run: str, *, private: bool) -> str:
    """Create the repository of a new run and return its name, with `auto` resolved.

    A HubError if the repository already has checkpoints: a repository is for one run.
    """
    name = f"{user()}/{project}-{run}" if repo == "auto" else repo
    hub = Hub(name)
    hub.create(private=private)
    if any(tag.startswith("step-") for tag in hub.refs().tags):
        raise HubError(
            f"{name} holds the checkpoints of another run",
            f"pricer train --resume --repo {name}, or another repository: --set hub.repo=USER/NAME",
        )
    return name
