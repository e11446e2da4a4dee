"""Uploads of a training: put each checkpoint into the outbox, and push it to the Hub in the background."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pricer.commands.parts.claim import acquire, open_lease_of, released_at_end
from pricer.commands.parts.watcher import Watcher
from pricer.errors import HubError, Interrupted, LeaseLost
from pricer.stores.checkpoints import PARTS, read_manifest
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.hub_lease import HubLease
from pricer.stores.hub_states import end_run, push_state, read_state_step
from pricer.stores.outbox import Entry
from pricer.stores.published import published_files
from pricer.stores.runs import Run, now
from pricer.stores.training_states import pick_state_files
from pricer.stores.uploader import Uploader

UploadProgress = Callable[[int, int, str, str], None]
"""`Watcher.uploading`."""

# Fewer attempts than in the foreground, because the worker itself tries again.
_ATTEMPTS = 3


class Uploads:
    """Delivers a run's checkpoints and training states to its repository, while this process holds its `lease` (None:
    it is acquired before the first delivery).
    """

    def __init__(self, run: Run, repo: str, note: Callable[[str], None], lease: HubLease | None = None) -> None:
        self.lost: LeaseLost | None = None
        """Another process has the lease, so nothing more is delivered, and training should stop."""
        self._lease = lease or open_lease_of(run)
        self._replaced: list[int] = []
        self._note = note
        self._run = run
        self._keep_state = run.config().hub.state
        self._uploader = Uploader(run.outbox, note)
        self._hub = Hub(repo, attempts=_ATTEMPTS, wait=self._uploader.wait, before_commit=run.outbox.budget.take)
        self._store = HubStore(self._hub, run.folder)
        self._later = f"pricer push --run {run.name}"

    def start(self) -> None:
        """Start delivering in the background."""
        self._uploader.start(self._deliver)

    def put_checkpoint(self, folder: Path, step: int) -> None:
        """Put the checkpoint in `folder` into the outbox, unless it was delivered or is there already. If the Hub has
        other weights at this step, they stay, and this checkpoint is not pushed.
        """
        checkpoint, known = read_manifest(folder), self._store.checkpoints()
        if any(other.commit and other.step == step and other != checkpoint for other in known):
            self._replaced.append(step)
        elif checkpoint not in [*self._run.outbox.checkpoints(), *known]:
            self._run.outbox.put("checkpoint", step, [folder / name for name in PARTS])
            self._uploader.wake()

    def put_state(self, folder: Path, step: int) -> None:
        """Put the training state in `folder` into the outbox, unless `hub.state` is none."""
        if self._keep_state != "none":
            # The other files that another machine needs to continue.
            log = self._run.folder / "metrics.jsonl"
            own = published_files(self._run.folder) | ({log.name: log.read_bytes()} if log.is_file() else {})
            names = pick_state_files(path.name for path in folder.iterdir())
            self._run.outbox.put("state", step, [folder / name for name in names], own)
            if self._keep_state == "latest":
                self._run.outbox.thin_states()
            self._uploader.wake()

    def put_end(self) -> None:
        """Put the end of a finished run into the outbox, unless it was delivered or is there already."""
        is_waiting = any(entry.kind == "end" for entry in self._run.outbox.entries())
        if self._run.has_finished() and not self._run.facts().get("ended") and not is_waiting:
            self._run.outbox.put("end", self._run.last_step(), [])
            self._uploader.wake()

    def drain(self, on_progress: UploadProgress, seconds: float = math.inf) -> list[Entry]:
        """Deliver the remaining entries for at most `seconds`, and return those that could not be delivered.
        `on_progress` is called several times a second, unless nothing remains.
        """
        # Training is over, so no more entries arrive.
        total = len(self._run.outbox.entries())

        def report(left: list[Entry]) -> None:
            if total:
                on_progress(total - len(left), total, left[0].name if left else "", self._later)

        return self._uploader.drain(report, seconds)

    def deliver_all(self, on_progress: UploadProgress) -> None:
        """Deliver the remaining entries. A HubError names those that could not be delivered, and says why."""
        try:
            left = self.drain(on_progress)
        except KeyboardInterrupt:
            rest = len(self._run.outbox.entries())
            text = f"stopped; {rest} uploads are left, safe in {self._run.outbox.folder}"
            raise Interrupted(text, self._later) from None
        if self.lost:
            raise self.explain_loss(self.lost)
        if left:
            raise self._explain(left)

    def _explain(self, left: Sequence[Entry]) -> HubError:
        names, problem = ", ".join(entry.name for entry in left), self._uploader.problem
        reason, safe = f" ({problem.message})" if problem else "", f"they are safe in {self._run.outbox.folder}"
        if isinstance(problem, HubError) and not problem.transient:
            repair = f"{problem.hint}; then {self._later}; or " if problem.refused and problem.hint else ""
            hint = f"{safe}; {repair}deliver to another repository: {self._later} --repo USER/NEW"
            return HubError(f"refused for good, so not on the Hub: {names}{reason}", hint, refused=problem.refused)
        return HubError(f"not on the Hub yet: {names}{reason}", f"{safe}; deliver them later: {self._later}")

    def explain_loss(self, lost: LeaseLost) -> LeaseLost:
        """The error with which a training ends that has lost its lease."""
        left = ", ".join(entry.name for entry in self._run.outbox.entries() if entry.kind != "end")
        where = f"; not on the Hub, but safe in {self._run.outbox.folder}: {left}" if left else ""
        return LeaseLost(lost.message + where, lost.hint)

    def stop(self) -> None:
        """Stop delivering."""
        self._uploader.stop()
        if self._replaced:
            steps = ", ".join(f"{step:,}" for step in self._replaced)
            self._note(
                f"not pushed, because the Hub has these steps with other weights from an earlier training: {steps}"
            )
            self._replaced.clear()

    def _deliver(self, entry: Entry) -> None:
        try:
            if not self._lease.is_held:
                self._acquire_late()
            self._deliver_held(entry)
        except LeaseLost as lost:
            self.lost = lost
            self._uploader.stop()
            raise

    def _acquire_late(self) -> None:
        """Acquire the lease that could not be acquired when the training began. A LeaseLost if another machine has gone
        further with the training meanwhile.
        """
        acquire(self._run, self._lease, self._note)
        if self._run.has_finished() or not self._lease.had_other_holder:
            return
        step = read_state_step(self._hub)
        if step > self._run.last_step():
            self._lease.release()
            text = f"another machine has gone on with the training in {self._hub.repo}, to step {step:,}"
            raise LeaseLost(text, f"to go on from there: pricer train --resume --run {self._run.name}")

    def _deliver_held(self, entry: Entry) -> None:
        if entry.kind == "checkpoint":
            self._lease.check()
            self._store.push(entry.folder, entry.step)
        elif entry.kind == "state":
            push_state(self._hub, self._lease, entry.folder, entry.step, keep_all=self._keep_state == "all")
        else:
            record = published_files(self._run.folder)["run.json"]
            end_run(self._hub, self._lease, record, keep_states=self._keep_state == "all")
            self._run.record(ended=now())


@contextmanager
def uploads(run: Run, note: Callable[[str], None], lease: HubLease | None = None) -> Iterator[Uploads | None]:
    """While open, deliver entries of the outbox in the background. Yields None for a run without a repository."""
    if run.repo is None:
        yield None
        return
    opened = Uploads(run, run.repo, note, lease)
    opened.start()
    try:
        yield opened
    finally:
        opened.stop()


def has_uploads(run: Run) -> bool:
    """Whether the Hub lacks something of the run: an entry of the outbox, or the record that the run is finished."""
    is_ended = run.repo is None or not run.has_finished() or bool(run.facts().get("ended"))
    return bool(run.outbox.entries()) or not is_ended


def deliver_outbox(run: Run, watcher: Watcher) -> None:
    """Deliver the outbox of a run that is not being trained. A HubError names what could not be delivered."""
    lease = open_lease_of(run)
    with released_at_end(run, lease, watcher.note), uploads(run, watcher.note, lease) as to_hub:
        assert to_hub is not None  # it has a repository
        to_hub.put_end()
        to_hub.deliver_all(watcher.uploading)
