"""Checkpoints in a Hub repository. Each push is read back before it counts as delivered."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from pricer.core.checkpoints import BEST, Checkpoint, Failure
from pricer.errors import CheckpointError, HubError
from pricer.redaction import hub_address
from pricer.stores.checkpoints import (
    ADAPTER,
    PARTS,
    FolderStore,
    read_checkpoint,
    sort_checkpoints,
    verify,
)
from pricer.stores.files import append_lines, format_json, link_or_copy, parse_json
from pricer.stores.hub import Hub
from pricer.stores.hub_downloads import download_checkpoint
from pricer.stores.hub_lease import holds_another_run
from pricer.stores.hub_pick import put_pick, read_pick
from pricer.stores.outbox import Outbox
from pricer.stores.published import published_files


class HubStore:
    """A CheckpointStore in a Hub repository.

    Each checkpoint has a commit on `main` and a tag (`step-005000`). The commit also has the run's config and facts, so
    the training can be repeated from it. The run's folder has copies of the checkpoints, a log of confirmed pushes, and
    the outbox. A checkpoint that waits in the outbox is a checkpoint like the others; its `commit` is None.
    """

    is_remote = True

    def __init__(self, hub: Hub, run_folder: Path) -> None:
        self.hub = hub
        self.location = hub_address(hub.repo)
        self._local = FolderStore(run_folder)
        self._outbox = Outbox(run_folder / "outbox")
        self._folder, self._facts = run_folder, run_folder / "run.json"
        # The last known head of `main`; None if another process may have moved it.
        self._head: str | None = None
        # The commit of the picked checkpoint when the head was read; None if none was picked.
        self._best: str | None = None

    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint that is in the repository or waits in the outbox, sorted by step."""
        # The outbox first: an entry that is delivered meanwhile is then in both lists, and not in neither.
        waiting = {checkpoint.step: checkpoint for checkpoint in self._outbox.checkpoints()}
        delivered = {checkpoint.step: checkpoint for checkpoint in self._delivered()}
        return sort_checkpoints({**waiting, **delivered}.values())

    def damaged(self) -> list[Failure]:
        """The records on this machine that cannot be read."""
        return self._local.damaged()

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Push the checkpoint in `folder`, read it back, tag it, and then log it as delivered. Pushing it again has no
        effect, even if the answer to the first push was lost.
        """
        return self._deliver(read_checkpoint(folder, step), folder)

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with the verified adapter: the local copy, or a download of the checkpoint's commit."""
        if folder := self._local.find(checkpoint):
            return folder
        if known := self._find_delivered(checkpoint):
            return download_checkpoint(self.hub, known)
        return self._keep_waiting(checkpoint)

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Set the tag `name` to this checkpoint, here and on the Hub. An existing tag moves. A checkpoint that
        waits in the outbox gets the tag only here.
        """
        known = self._find_delivered(checkpoint)
        if known is None and checkpoint not in self._outbox.checkpoints():
            raise CheckpointError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not in {self.hub.repo}")
        # Set the local tag first: in someone else's repository, setting the tag on the Hub fails.
        self._local.set_tags({name: checkpoint.id})
        if known is not None:
            assert known.commit is not None  # it was delivered
            self.hub.tag(name, known.commit, move=True)
            if name == BEST:
                self._best = known.commit

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint with the tag `name`, or None."""
        tagged_id = self._local.tagged_id(name)
        return next((c for c in self.checkpoints() if c.id == tagged_id), None)

    def publish_pick(
        self, checkpoint: Checkpoint, render: Callable[[str, bytes | None], Mapping[str, bytes] | None]
    ) -> str | None:
        """Commit the pick and its pages to `main`, and return the repository's name. None if `render` returns None."""
        known = self._find_delivered(checkpoint)
        assert known is not None  # a tag was set to it, and so it was delivered
        assert known.commit is not None
        head = self.hub.refs().branches.get("main", known.commit)
        pages = render(self.hub.repo, self.hub.read(head, "README.md"))
        if pages is None:
            return None
        self._head = None
        put_pick(self.hub, known, head, lambda: self.fetch(known), pages)
        return self.hub.repo

    def log_found(self, found: Sequence[Checkpoint]) -> None:
        """Log checkpoints of the repository that another machine has pushed. A step that is logged stays as it is."""
        known = {checkpoint.name for checkpoint in self._delivered()}
        append_lines(self._local.log, [c.to_json() for c in found if c.name not in known])

    def _delivered(self) -> list[Checkpoint]:
        # A line without a commit belongs to a checkpoint that was kept before the run had this repository.
        return [checkpoint for checkpoint in self._local.checkpoints() if checkpoint.commit is not None]

    def _find_delivered(self, checkpoint: Checkpoint) -> Checkpoint | None:
        """The same checkpoint with its commit; None if it is not in the repository."""
        return next((delivered for delivered in self._delivered() if delivered == checkpoint), None)

    def _keep_waiting(self, checkpoint: Checkpoint) -> Path:
        """Keep a verified copy of a checkpoint in the outbox, because its entry may be delivered and removed."""
        folder = self._outbox.checkpoints().get(checkpoint)
        if folder is None:
            raise CheckpointError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not in {self.hub.repo}")
        try:
            verify(checkpoint, folder)
            self._local.keep(checkpoint, folder, link_or_copy)
        except (CheckpointError, FileNotFoundError):
            if folder.exists():  # otherwise it was delivered meanwhile, and a delivery keeps a copy
                raise
        return self._local.fetch(checkpoint)

    def _deliver(self, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
        """Push a checkpoint unless it is logged, keep a local copy, and log it. Returns it with its commit."""
        known = self._find_delivered(checkpoint)
        delivered = known or checkpoint.at(self._commit_and_confirm(checkpoint, folder))
        self._local.keep(checkpoint, folder, link_or_copy)
        if known is None:
            # The log line comes after this. If a kill comes in between, both are done again.
            self._put_pick_back()
            append_lines(self._local.log, [delivered.to_json()])
        return delivered

    def _put_pick_back(self) -> None:
        """Commit the picked checkpoint to `main` again, if there is one, because `main` is what people load."""
        if self._best is None:
            return
        known = next((logged for logged in self._local.checkpoints() if logged.commit == self._best), None)
        pick = known or read_pick(self.hub, self._best)
        if pick is not None:
            # If the last line fails, its commit may exist all the same, so the head is unknown.
            head, self._head = self._head, None
            head = head or self.hub.refs().branches.get("main", self._best)
            self._head = put_pick(
                self.hub, pick, head, lambda: self._local.find(pick) or download_checkpoint(self.hub, pick)
            )

    def _commit_and_confirm(self, checkpoint: Checkpoint, folder: Path) -> str:
        commit = self._find_earlier_push(checkpoint, folder) or self._commit(checkpoint, folder)
        if name := self._difference(checkpoint, folder, commit):
            self._head = None
            raise HubError(
                f"{self.hub.repo} holds another {name} at {commit[:12]} than was pushed as {checkpoint.name}",
                transient=True,
            )
        # The tag of a step never moves.
        self.hub.tag(checkpoint.name, commit, move=False)
        return commit

    def _find_earlier_push(self, checkpoint: Checkpoint, folder: Path) -> str | None:
        """The commit of an earlier push whose answer was lost; None if there is no such commit. A CheckpointError if
        another checkpoint has the step's tag.
        """
        if self._head is not None:
            return None
        refs = self.hub.refs()
        head, self._best = refs.branches.get("main"), refs.tags.get(BEST)
        self._refuse_another_run(head)
        if tagged := refs.tags.get(checkpoint.name):
            name = self._difference(checkpoint, folder, tagged)
            if name is None:
                return tagged
            raise CheckpointError(
                f"{self.hub.repo} has another {name} at its tag {checkpoint.name} ({tagged[:12]}), which stays"
            )
        for commit in self.hub.commits():
            if commit.title == checkpoint.name and not self._difference(checkpoint, folder, commit.hash):
                return commit.hash
        self._head = head
        return None

    def _refuse_another_run(self, head: str | None) -> None:
        """Raise a HubError if another run pushed first. Two runs that start together both find an empty repository."""
        own = (parse_json(self._facts.read_bytes() if self._facts.is_file() else b"") or {}).get("id")
        record = self.hub.read_record(head if own else None, "run.json")
        if record.get("id") not in (None, own):
            raise holds_another_run(self.hub.repo, record)

    def _commit(self, checkpoint: Checkpoint, folder: Path) -> str:
        files: dict[str, Path | bytes] = {name: folder / name for name in PARTS}
        record = published_files(self._folder)
        facts = parse_json(record.get("run.json", b"")) or {}
        if facts.get("finished"):  # on the Hub it is finished only when every checkpoint has arrived
            record["run.json"] = format_json({**facts, "finished": None}).encode()
        files |= record
        # If the next lines fail, the commit may exist all the same, so the head is unknown.
        parent, self._head = self._head, None
        self._head = self.hub.commit(files, checkpoint.name, parent=parent)
        return self._head

    def _difference(self, checkpoint: Checkpoint, folder: Path, commit: str) -> str | None:
        """The first file of a checkpoint that is missing or different in the commit; None if there is none."""
        # The adapter was hashed before, so its gigabytes are not read again.
        return self.hub.first_difference(commit, folder, PARTS, {ADAPTER: checkpoint.adapter_sha256})
