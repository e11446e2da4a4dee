"""Checkpoints in a repository on the Hub: one commit and one tag each, and each is read back before it counts."""

import json
import os
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.redaction import hub_address
from pricer.stores.checkpoints import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    PARTS,
    Soups,
    find_tagged,
    in_order,
    read_checkpoint,
    read_log,
    verified_folder,
    verify,
    write_tags,
)
from pricer.stores.files import append_lines, link_or_copy, new_folder, parse_json, write_lines
from pricer.stores.hub import Hub, cache

# Bytes. No adapter of any open base is larger.
LARGEST_ADAPTER = 32_000_000_000
LARGEST_TEXT = 1_000_000


class HubStore:
    """A CheckpointStore in a Hub repository: a commit on `main` and a tag (`step-005000`) for each checkpoint.

    `folder` holds local copies of what was pushed from here, `log` has a line for every confirmed push. `soups` are
    those made here; one is pushed, as a commit and a tag of its own, when it gets a tag. `run_files` are committed
    beside each checkpoint, so that a commit holds all that is needed to train it again. `run_id` is the `id` in
    run.json: checkpoints of another run are not overwritten.
    """

    is_remote = True

    def __init__(
        self,
        hub: Hub,
        folder: Path,
        log: Path,
        soups: Soups,
        run_files: Iterable[Path] = (),
        run_id: str | None = None,
    ) -> None:
        self.hub = hub
        self.location = hub_address(hub.repo)
        self._run_id = run_id
        self._folder = folder
        self._log = log
        self._soups = soups
        self._run_files = tuple(run_files)
        # The head of `main` if only this process can have moved it; None: not known.
        self._head: str | None = None

    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint whose push was confirmed, sorted by step."""
        return [checkpoint for checkpoint in read_log(self._log) if not checkpoint.members]

    def soups(self) -> list[Checkpoint]:
        """Every soup that was made here or is in the repository, sorted by its last step."""
        pushed = [checkpoint for checkpoint in read_log(self._log) if checkpoint.members]
        return in_order([*pushed, *(soup for soup in self._soups.all() if soup not in pushed)])

    def new_soup(self, steps: Sequence[int]) -> AbstractContextManager[Path]:
        """A folder, on this machine, for the average of the checkpoints at these steps."""
        return self._soups.new(steps)

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Put the checkpoint in `folder` on the Hub, read it back, tag it, and only then count it as kept.

        Pushing the same one again changes nothing, even where the answer to the first push was lost.
        """
        return self._deliver(read_checkpoint(folder, step), folder)

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with the adapter, verified: the local copy, or a download of its very commit."""
        known = self._known(checkpoint)
        if known is None and checkpoint.members:
            return self._soups.fetch(checkpoint)
        if known is None:
            raise self._absent(checkpoint)
        return self._local(known) or self._download(known)

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Let `name` mean this checkpoint, here and on the Hub, whatever it meant before. A soup is pushed first."""
        known = self._known(checkpoint)
        if known is None and not checkpoint.members:
            raise self._absent(checkpoint)
        # Here first: in somebody else's repository, the tag can be set on this machine only.
        write_tags(self._folder, {name: checkpoint.id})
        known = known or self._deliver(checkpoint, self._soups.fetch(checkpoint))
        assert known.commit is not None  # it was delivered
        self.hub.tag(name, known.commit)

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint, or soup, that `name` means, or None."""
        return find_tagged(self._folder, name, [*read_log(self._log), *self._soups.all()])

    def publish_card(self, render: Callable[[str], str], message: str) -> str | None:
        """Write the repository's README.md, whose text `render` gives for the repository's name; that name."""
        self.hub.commit({"README.md": render(self.hub.repo).encode()}, message, retry=True)
        return self.hub.repo

    def record_scan(self, checkpoints: Iterable[Checkpoint], tags: Mapping[str, str]) -> None:
        """Record what was found in the repository: its checkpoints and soups, and tags as commit hashes."""
        found = list(checkpoints)
        by_commit = {checkpoint.commit: checkpoint.id for checkpoint in found}
        write_lines(self._log, [checkpoint.to_json() for checkpoint in found])
        write_tags(self._folder, {name: by_commit[commit] for name, commit in tags.items() if commit in by_commit})

    def _known(self, checkpoint: Checkpoint) -> Checkpoint | None:
        return next((c for c in read_log(self._log) if c == checkpoint), None)

    def _absent(self, checkpoint: Checkpoint) -> CheckpointError:
        return CheckpointError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not in {self.hub.repo}")

    def _deliver(self, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
        """The checkpoint at its commit, which was read back, with its tag and a line in the log."""
        known = self._known(checkpoint)
        delivered = known or self._commit_and_confirm(checkpoint, folder)
        if self._local(checkpoint) is None:
            with new_folder(self._folder / checkpoint.name) as target:
                for name in PARTS:
                    link_or_copy(folder / name, target / name)
        if known is None:
            append_lines(self._log, [delivered.to_json()])
        return delivered

    def _commit_and_confirm(self, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
        commit = self._arrived(checkpoint, folder) or self._commit(checkpoint, folder)
        if name := self._difference(checkpoint, folder, commit):
            self._head = None
            raise HubError(
                f"{self.hub.repo} holds another {name} at {commit[:12]} than was pushed as {checkpoint.name}",
                transient=True,
            )
        self.hub.tag(checkpoint.name, commit)
        return checkpoint.at(commit)

    def _arrived(self, checkpoint: Checkpoint, folder: Path) -> str | None:
        """The commit that holds it already, or None: the answer to an earlier push may have been lost."""
        if self._head is not None:
            return None
        refs = self.hub.refs()
        head = refs.branches.get("main")
        self._refuse_another_run(head)
        titled = [commit.hash for commit in self.hub.commits() if commit.title == checkpoint.name]
        tagged = [refs.tags[checkpoint.name]] if checkpoint.name in refs.tags else []
        for commit in [*tagged, *titled]:
            manifest = self.hub.read(commit, MANIFEST, LARGEST_TEXT)
            if manifest is not None and _is(manifest, checkpoint) and not self._difference(checkpoint, folder, commit):
                return commit
        self._head = head
        return None

    def _refuse_another_run(self, head: str | None) -> None:
        """Raise a HubError if another run pushed first: two that begin at once both find the repository empty."""
        if self._run_id is None:
            return
        record = self.hub.read(head, "run.json", LARGEST_TEXT) if head else None
        owner = (parse_json(record or b"") or {}).get("id")
        if owner not in (None, self._run_id):
            raise HubError(
                f"{self.hub.repo} holds the checkpoints of another run",
                "train into a repository of its own: --set hub.repo=USER/NAME",
            )

    def _commit(self, checkpoint: Checkpoint, folder: Path) -> str:
        files: dict[str, Path | bytes] = {name: folder / name for name in PARTS}
        if not checkpoint.members:  # a machine that did not train may push a soup, with other facts
            files |= {path.name: path.read_bytes() for path in self._run_files if path.is_file()}
        # Whatever goes wrong from here on, the commit may have been made.
        parent, self._head = self._head, None
        self._head = self.hub.commit(files, checkpoint.name, parent=parent)
        return self._head

    def _difference(self, checkpoint: Checkpoint, folder: Path, commit: str) -> str | None:
        """The first part of a checkpoint that the commit lacks or holds with other content; None: it holds all."""
        # The adapter was hashed a moment ago; gigabytes need not be read again.
        return self.hub.first_difference(commit, folder, PARTS, {ADAPTER: checkpoint.adapter_sha256})

    def _local(self, checkpoint: Checkpoint) -> Path | None:
        try:
            if checkpoint.members:
                return self._soups.fetch(checkpoint)
            return verified_folder(checkpoint, self._folder / checkpoint.name)
        except CheckpointError:
            return None

    def _download(self, checkpoint: Checkpoint) -> Path:
        assert checkpoint.commit is not None  # it is in the log
        prefix = f"{checkpoint.folder}/" if checkpoint.folder else ""
        place = f"{checkpoint.name} of {self.hub.repo} ({checkpoint.commit[:12]})"
        found = self.hub.files(checkpoint.commit, [prefix + ADAPTER, prefix + ADAPTER_CONFIG])
        for name in (ADAPTER, ADAPTER_CONFIG):
            if prefix + name not in found:
                raise CheckpointError(f"{place} has no {name}")
        adapter = found[prefix + ADAPTER]
        if adapter.sha256 not in (None, checkpoint.adapter_sha256):
            raise CheckpointError(
                f"{place} is not what its manifest says: the Hub has sha256 {adapter.sha256[:12]}…, the manifest "
                f"{checkpoint.adapter_sha256[:12]}…"
            )
        if adapter.size <= LARGEST_ADAPTER and not self.hub.is_cached(checkpoint.commit, adapter):
            refuse_without_room(cache(), adapter.size, f"{adapter.path} of {self.hub.repo}")
        for force in (False, True):
            config = self.hub.download(checkpoint.commit, found[prefix + ADAPTER_CONFIG], LARGEST_TEXT, force=force)
            self.hub.download(checkpoint.commit, adapter, LARGEST_ADAPTER, force=force)
            try:
                verify(checkpoint, config.parent)
                break
            except CheckpointError:
                if force:  # the cache is not to blame
                    raise
        return config.parent


def refuse_without_room(folder: Path, size: int, what: str) -> None:
    """Raise a HubError unless that many bytes are free on the disk that `folder` is on."""
    # Path.exists raises below a folder that may not be looked into.
    present = next(part for part in (folder, *folder.absolute().parents) if os.path.exists(part))  # noqa: PTH110
    free = shutil.disk_usage(present).free
    if size > free:
        raise HubError(
            f"{what} takes {size:,} bytes, {free:,} are free on the disk with {folder}",
            "make room, or set HF_HOME to a folder on another disk",
        )


def _is(manifest: bytes, checkpoint: Checkpoint) -> bool:
    try:
        return Checkpoint.from_json(json.loads(manifest)) == checkpoint
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False
