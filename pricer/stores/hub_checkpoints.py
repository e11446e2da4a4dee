"""The Hub store: checkpoints in a repository, each one commit and one tag, and each read back before it counts."""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.stores.checkpoints import (
    ADAPTER,
    ADAPTER_CONFIG,
    MANIFEST,
    Soups,
    by_last_step,
    read_log,
    read_manifest,
    read_tags,
    verify,
    whole,
)
from pricer.stores.files import append_lines, link_or_copy, new_folder, write_atomically, write_json
from pricer.stores.hub import Hub, cache, refuse_without_room

# Bytes. More than the largest adapter of the largest open base: what claims more is not one.
LARGEST_ADAPTER = 32_000_000_000
LARGEST_TEXT = 1_000_000
_PARTS = (ADAPTER, ADAPTER_CONFIG, MANIFEST)


class HubStore:
    """A CheckpointStore in a Hub repository: a commit on `main` and a tag (`step-005000`) for each checkpoint.

    `folder` holds local copies of what was pushed from here, `log` has a line for every confirmed push. `soups` are
    those made here, of which only one that gets a tag is pushed, as a commit and a tag of its own. `run_files` are
    committed beside each checkpoint: with them a commit says all that it takes to do it again. `run_id` is the `id` in
    run.json: checkpoints of another run are not pushed over.
    """

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
        self._run_id = run_id
        self._folder = folder
        self._log = log
        self._soups = soups
        self._run_files = tuple(run_files)
        # The head of `main` while nobody but this process can have moved it, None when that is not known.
        self._head: str | None = None

    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint whose push was confirmed, oldest step first."""
        return [checkpoint for checkpoint in read_log(self._log) if not checkpoint.members]

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Put the checkpoint in `folder` on the Hub, read it back, tag it, and only then count it as kept.

        Pushing the same one again changes nothing, also where the answer to the first push was lost.
        """
        checkpoint = read_manifest(folder)
        verify(checkpoint, folder)
        if checkpoint.step != step:
            raise CheckpointError(f"{folder} holds step {checkpoint.step}, not {step}")
        known = self._known(checkpoint) or self._delivered(checkpoint, folder)
        if self._local(checkpoint) is None:
            self._keep(checkpoint, folder)
        if self._known(checkpoint) is None:
            append_lines(self._log, [known.to_json()])
        return known

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """A local folder with the adapter: the copy that was kept, or a download of exactly its commit, verified."""
        known = self._known(checkpoint)
        if known is None and checkpoint.members:
            return self._soups.fetch(checkpoint)
        if known is None:
            raise self._absent(checkpoint)
        return self._local(known) or self._download(known)

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Let `name` mean this checkpoint, here and on the Hub, whatever it meant before. A soup is pushed first."""
        known = self._known(checkpoint)
        commit = known.commit if known else None
        if commit is None and not checkpoint.members:
            raise self._absent(checkpoint)
        # Here first: of a repository that is somebody else's, the tag is ours alone.
        write_json(self._tags, {**read_tags(self._tags), name: checkpoint.id})
        if commit is None:
            delivered = self._delivered(checkpoint, self._soups.fetch(checkpoint))
            append_lines(self._log, [delivered.to_json()])
            commit = delivered.commit
        assert commit is not None  # of what was delivered
        self.hub.tag(name, commit)

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint, or soup, that `name` means, or None."""
        revision = read_tags(self._tags).get(name)
        return next((c for c in [*read_log(self._log), *self._soups.all()] if c.id == revision), None)

    def soups(self) -> list[Checkpoint]:
        """Every soup that was made here or is in the repository, by its last step."""
        pushed = [checkpoint for checkpoint in read_log(self._log) if checkpoint.members]
        return sorted([*pushed, *(soup for soup in self._soups.all() if soup not in pushed)], key=by_last_step)

    def replace(self, checkpoints: Iterable[Checkpoint], tags: Mapping[str, str]) -> None:
        """Take over what was found in the repository: its checkpoints and soups, and tags as commit hashes."""
        found = list(checkpoints)
        by_commit = {checkpoint.commit: checkpoint.id for checkpoint in found}
        write_atomically(self._log, "".join(json.dumps(c.to_json(), ensure_ascii=False) + "\n" for c in found))
        known = {name: by_commit[commit] for name, commit in tags.items() if commit in by_commit}
        write_json(self._tags, {**read_tags(self._tags), **known})

    @property
    def _tags(self) -> Path:
        return self._folder / "tags.json"

    def _known(self, checkpoint: Checkpoint) -> Checkpoint | None:
        return next((c for c in read_log(self._log) if c == checkpoint), None)

    def _absent(self, checkpoint: Checkpoint) -> CheckpointError:
        return CheckpointError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not in {self.hub.repo}")

    def _delivered(self, checkpoint: Checkpoint, folder: Path) -> Checkpoint:
        """The checkpoint in its commit, which was read back, with its tag."""
        commit = self._arrived(checkpoint, folder) or self._commit(checkpoint, folder)
        self._confirm(checkpoint, folder, commit)
        self.hub.tag(checkpoint.name, commit)
        return checkpoint.at(commit)

    def _arrived(self, checkpoint: Checkpoint, folder: Path) -> str | None:
        """The commit that already holds it: the answer to its push may have been lost, or this process is a new one."""
        if self._head is not None:
            return None
        refs = self.hub.refs()
        head = refs.branches.get("main")
        self._refuse_another_run(head)
        titled = [commit.hash for commit in self.hub.commits() if commit.title == checkpoint.name]
        tagged = [refs.tags[checkpoint.name]] if checkpoint.name in refs.tags else []
        for commit in [*tagged, *titled]:
            manifest = self.hub.read(commit, MANIFEST, LARGEST_TEXT)
            if manifest is not None and _is(manifest, checkpoint) and not self._differs(checkpoint, folder, commit):
                return commit
        self._head = head
        return None

    def _refuse_another_run(self, head: str | None) -> None:
        """Raise a HubError if another run was first: two that begin at once both find the repository empty."""
        if self._run_id is None:
            return
        record = self.hub.read(head, "run.json", LARGEST_TEXT) if head else None
        try:
            owner = json.loads(record).get("id") if record else None
        except (ValueError, AttributeError, RecursionError):
            owner = None
        if owner not in (None, self._run_id):
            raise HubError(
                f"{self.hub.repo} holds the checkpoints of another run",
                "train into a repository of its own: --set hub.repo=USER/NAME",
            )

    def _commit(self, checkpoint: Checkpoint, folder: Path) -> str:
        files: dict[str, Path | bytes] = {name: folder / name for name in _PARTS}
        if not checkpoint.members:  # a soup may be pushed by a machine that did not train, with other facts
            files |= {path.name: path.read_bytes() for path in self._run_files if path.is_file()}
        # Whatever goes wrong from here on, the commit may have been made.
        parent, self._head = self._head, None
        self._head = self.hub.commit(files, checkpoint.name, parent=parent)
        return self._head

    def _confirm(self, checkpoint: Checkpoint, folder: Path, commit: str) -> None:
        """Raise a HubError unless that commit holds these very files."""
        if name := self._differs(checkpoint, folder, commit):
            self._head = None
            raise HubError(
                f"{self.hub.repo} holds another {name} at {commit[:12]} than was pushed as {checkpoint.name}",
                transient=True,
            )

    def _differs(self, checkpoint: Checkpoint, folder: Path, commit: str) -> str | None:
        """The first part of a checkpoint of which the commit holds none, or another; None if it holds it all."""
        found = self.hub.files(commit, list(_PARTS))
        for name in _PARTS:
            file = found.get(name)
            # The adapter was hashed a moment ago; gigabytes need not be read again.
            same = file is not None and (
                file.sha256 == checkpoint.adapter_sha256
                if name == ADAPTER and file.sha256 is not None
                else file.holds(folder / name)
            )
            if not same:
                return name
        return None

    def _local(self, checkpoint: Checkpoint) -> Path | None:
        try:
            if checkpoint.members:
                return self._soups.fetch(checkpoint)
            return whole(checkpoint, self._folder / checkpoint.name, "its log says")
        except CheckpointError:
            return None

    def _keep(self, checkpoint: Checkpoint, folder: Path) -> None:
        with new_folder(self._folder / checkpoint.name) as target:
            for name in _PARTS:
                link_or_copy(folder / name, target / name)

    def _download(self, checkpoint: Checkpoint) -> Path:
        assert checkpoint.commit is not None  # it stands in the log
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
        for anew in (False, True):
            config = self.hub.download(checkpoint.commit, found[prefix + ADAPTER_CONFIG], LARGEST_TEXT, anew=anew)
            self.hub.download(checkpoint.commit, adapter, LARGEST_ADAPTER, anew=anew)
            try:
                verify(checkpoint, config.parent)
                break
            except CheckpointError:
                if anew:  # not the cache's fault
                    raise
        return config.parent


def _is(manifest: bytes, checkpoint: Checkpoint) -> bool:
    try:
        return Checkpoint.from_json(json.loads(manifest)) == checkpoint
    except (ValueError, TypeError, AttributeError, RecursionError):
        return False
