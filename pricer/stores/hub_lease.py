"""The lease of a Hub repository: which process may push to it. It is the file lease.json on the branch `state`."""

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from pricer.errors import HubError, LeaseLost
from pricer.stores.files import format_json, read_json, write_json
from pricer.stores.hub import Hub, is_there
from pricer.stores.processes import Process, has_ended, this_process
from pricer.stores.records import parse_record

STATE_BRANCH = "state"
LEASE = "lease.json"
# Maximum size in bytes. A usual lease has 400.
_LARGEST_LEASE = 10_000
# Attempts to commit a lease. Before each one, the lease on the Hub is read again.
_ATTEMPTS = 4


@dataclass(frozen=True, slots=True)
class Owner:
    """Who wants a lease: the id of a run, and the id of its folder. `resume` is the command that resumes the run.
    `has_finished()`: whether the training has ended, and only its uploads are left.
    """

    run_id: str | None
    folder_id: str
    resume: str
    has_finished: Callable[[], bool] = lambda: False


@dataclass(frozen=True, slots=True)
class Lease:
    """A lease, as lease.json has it. `holder` identifies the folder of a run, and `session` a process that trains it.
    `released`: when the holder gave it back, or None. Times are in UTC.
    """

    run_id: str | None
    holder: str
    session: str
    machine: str
    host: str
    pid: int
    started: str
    since: str
    renewed: str
    released: str | None = None

    def __post_init__(self) -> None:
        # Anybody who can write to the repository can write a lease, and these values are shown.
        if not all(text.isprintable() and len(text) <= 100 for text in (self.host, self.since, self.renewed)):
            raise ValueError("a text in it is too long, or is no text")
        if not 0 < self.pid < 2**31:
            raise ValueError(f"pid is {str(self.pid)[:20]}")

    def describe(self) -> str:
        """Who holds it and since when, for messages."""
        renewed = "" if self.renewed == self.since else f", last renewed {_minute(self.renewed)}"
        return f"{self.host} (process {self.pid}) since {_minute(self.since)}{renewed}"

    def is_free(self) -> bool:
        """Whether it was released, or its process is known to have ended, or is this very process."""
        process, here = Process(self.machine, self.host, self.pid, self.started), this_process()
        return self.released is not None or process == here or has_ended(process)


class HubLease:
    """The lease of a repository, for this process. While it is held, no other process pushes checkpoints of the run.
    It does not expire, because a machine that cannot reach the Hub may still be training.
    """

    def __init__(self, hub: Hub, owner: Owner, read_record: Callable[[], Mapping[str, bytes]]) -> None:
        """`read_record` returns the files that say which run it is. They are committed together with the lease."""
        here, present = this_process(), _now()
        self.repo = hub.repo
        self.is_held = False
        self.previous: Lease | None = None
        """The lease that was there before, once this one is held."""
        self._hub, self._owner, self._read_record = hub, owner, read_record
        self._own = Lease(
            owner.run_id,
            owner.folder_id,
            uuid4().hex,
            here.machine,
            here.host,
            here.pid,
            here.started,
            present,
            present,
        )
        self._head: str | None = None
        self._takes_over = False

    @property
    def had_other_holder(self) -> bool:
        """Whether another folder, here or on another machine, held the lease before."""
        return self.previous is not None and self.previous.holder != self._own.holder

    def look(self, *, take_over: bool = False) -> None:
        """Raise a LeaseLost if the lease cannot be acquired. Nothing is written."""
        branches = self._hub.refs().branches
        record = self._read_main(branches.get("main"))
        if head := branches.get(STATE_BRANCH):
            _, found = self._read_newest(head, take_over=take_over)
            self._refuse_held(found, record, take_over=take_over)

    def acquire(self, *, take_over: bool = False) -> None:
        """Acquire the lease. A LeaseLost says who holds it. A lease can be acquired if it was released, belongs to this
        run folder, or was held by a process of this machine that has ended; with `take_over`, also from anybody else.
        If the Hub cannot be reached, the next attempt takes over, too.
        """
        self._takes_over = take_over = take_over or self._takes_over
        for attempt in range(1, _ATTEMPTS + 1):
            branches = self._hub.refs().branches
            record = self._read_main(branches.get("main"))
            head = branches.get(STATE_BRANCH) or self._make_branch(branches.get("main"))
            head, found = self._read_newest(head, take_over=take_over)
            if found and found.session == self._own.session:
                break  # an earlier attempt has succeeded, and only its answer was lost
            self._refuse_held(found, record, take_over=take_over)
            self.previous = found
            self._own = replace(self._own, since=(present := _now()), renewed=present)
            files = {**self._read_record(), LEASE: _to_bytes(self._own)}
            try:
                # With a parent, only one of two processes that start together can succeed.
                head = self._hub.commit(files, "lease", branch=STATE_BRANCH, parent=head)
                break
            except HubError as error:
                if not error.transient or error.limited or attempt == _ATTEMPTS:
                    raise
                self._hub.wait_after(attempt, error)
        self._head, self.is_held, self._takes_over = head, True, False

    def check(self) -> str:
        """The head of the branch `state`, if the lease is still held; acquire it first if that was not possible before.
        A LeaseLost if another process has it, or had it since.
        """
        if not self.is_held:
            self.acquire()
        head = self._hub.refs().branches.get(STATE_BRANCH)
        if head is not None and head == self._head:
            return head
        head, found = self._read_newest(head) if head else (None, None)
        if found is None:  # somebody has deleted the file or the branch
            self.acquire()
        elif found.session == self._own.session:
            self._head = head
        else:
            self.is_held = False
            text = f"{found.host} (process {found.pid}) has taken over the training in {self.repo}"
            raise LeaseLost(f"{text} at {_minute(found.since)}", self._owner.resume)
        assert self._head is not None  # the lease is held
        return self._head

    def renew(self) -> bytes:
        """The content of lease.json with the present time, for the commit of a training state."""
        self._own = replace(self._own, renewed=_now())
        return _to_bytes(self._own)

    def release(self) -> None:
        """Give the lease back, if it is held."""
        if self.is_held:
            files = {LEASE: _to_bytes(replace(self._own, released=_now()))}
            self._hub.commit(files, "lease released", branch=STATE_BRANCH, parent=self.check())
            self.is_held = False

    def wait_after(self, failures: int, error: HubError) -> None:
        """Wait before another attempt to acquire it, after `failures` in a row."""
        self._hub.wait_after(failures, error)

    def forget(self) -> None:
        """The branch `state` was deleted at the end of the run, so there is nothing to release."""
        self.is_held = False

    def _make_branch(self, main: str | None) -> str:
        if main is None:  # a repository without a commit, which has no branch to start from
            main = self._hub.commit(self._read_record(), "initial commit")
        problem = HubError(f"{self.repo} has no branch {STATE_BRANCH} after it was made", transient=True)
        for attempt in range(1, _ATTEMPTS + 1):
            self._hub.branch(STATE_BRANCH, start=main)
            if head := self._hub.refs().branches.get(STATE_BRANCH):
                return head
            # The client takes every conflict to mean that the branch is there already.
            self._hub.wait_after(attempt, problem)
        raise problem

    def _read_newest(self, head: str, *, take_over: bool = False) -> tuple[str, Lease | None]:
        """The lease at a head of the branch, and that head. If another process has squashed the branch since the head
        was read, its commit is gone, and the new head is read instead.
        """
        try:
            return head, self._read(head, take_over=take_over)
        except HubError as error:
            newest = self._hub.refs().branches.get(STATE_BRANCH) if error.missing else head
            if newest is None or newest == head:
                raise
            return newest, self._read(newest, take_over=take_over)

    def _read(self, head: str, *, take_over: bool = False) -> Lease | None:
        with is_there():
            file = self._hub.files(head, [LEASE]).get(LEASE)
            if file is None:
                return None
            path = self._hub.download(head, file, _LARGEST_LEASE) if file.size <= _LARGEST_LEASE else None
        try:
            if path is None:
                raise ValueError(f"it has {file.size:,} bytes")
            return parse_record(Lease, path.read_bytes())
        except ValueError as error:
            if take_over:
                return None
            problem = f"{LEASE} on the branch {STATE_BRANCH} of {self.repo} cannot be read: {error}"
            raise LeaseLost(problem, f"if nobody trains this run: {self._owner.resume} --take-over") from None

    def _refuse_held(self, found: Lease | None, record: Mapping[str, Any], *, take_over: bool) -> None:
        if found is None:
            return
        is_free, own = found.is_free(), self._owner.run_id
        if None not in (found.run_id, own) and found.run_id != own:
            # A run that ended before its first checkpoint has left nothing but its lease.
            if record or not is_free:
                raise holds_another_run(self.repo, {"id": found.run_id, **record})
        elif not (is_free or take_over or found.holder == self._own.holder):
            raise LeaseLost(
                f"{self.repo} is being trained by {found.describe()}",
                f"wait until it ends; if that machine is dead: {self._owner.resume} --take-over",
            )

    def _read_main(self, main: str | None) -> dict[str, Any]:
        """The run.json of `main`, empty if there is none. A HubError if it is another run's, or says that the run was
        finished elsewhere.
        """
        with is_there():
            record = self._hub.read_record(main, "run.json")
        if self._owner.run_id and record.get("id", self._owner.run_id) != self._owner.run_id:
            raise holds_another_run(self.repo, record)
        if record.get("finished") and not self._owner.has_finished():
            text = f"the training in {self.repo} was finished on another machine, there is nothing to go on with"
            raise LeaseLost(text, f"pricer eval --repo {self.repo} --all-checkpoints")
        return record


def identify_folder(folder: Path) -> str:
    """The id of a run's folder. A copy of the folder gets another id: both could be trained at the same time."""
    path, inode = folder / "holder.json", folder.stat().st_ino
    with contextlib.suppress(OSError, ValueError, KeyError):
        known = read_json(path)
        if known["inode"] == inode:
            return str(known["id"])
    new = uuid4().hex
    write_json(path, {"id": new, "inode": inode})
    return new


def holds_another_run(repo: str, record: Mapping[str, Any]) -> HubError:
    """The error for a repository of another run. `record` is the run.json of that run."""
    stated = [f"id {record['id'][:8]}"] if isinstance(record.get("id"), str) else []
    started = record.get("started")
    stated += [f"started {_minute(started)}"] if isinstance(started, str) else []
    which = ascii(", ".join(stated))[1:-1]  # it comes from a stranger
    return HubError(
        f"{repo} holds the checkpoints of another run" + (f" ({which})" if which else ""),
        f"pricer train --resume --repo {repo}, or another repository: --repo USER/NEW",
    )


def _to_bytes(lease: Lease) -> bytes:
    return format_json(asdict(lease)).encode()


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _minute(time: str) -> str:
    """A time of a lease for people."""
    return f"{time[:16].replace('T', ' ')} UTC"
