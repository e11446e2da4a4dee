"""A repo as values: commits with parents, branches, tags and LFS objects. Knows nothing of HTTP."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from tests.loopback_hub.blobs import Blob, LfsFile, git_oid, lfs_blob, regular_blob, tree_oid, wants_lfs
from tests.loopback_hub.refusals import Refusal, no_entry, no_revision

# Every commit is one second younger than the one before: hashes hold the date, and must be the same in every run.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit: its hash covers everything below it. `parent` None: the first one, or a squashed history."""

    hash: str
    parent: str | None
    message: str
    author: str
    date: datetime
    tree: Mapping[str, Blob]

    @property
    def title(self) -> str:
        """The first line of the message."""
        return self.message.partition("\n")[0]

    @property
    def description(self) -> str:
        """The message without its title."""
        return self.message.partition("\n")[2].strip()


class Repo:
    """One repo. Starts with the commit "initial commit" that holds `.gitattributes`, as repos made on the Hub do.

    The lock is the hub's: the server's threads and the test see whole changes only.
    """

    def __init__(self, repo_id: str, kind: str, *, private: bool, gated: bool, lock: threading.RLock) -> None:
        self.id = repo_id
        self.kind = kind
        self.private = private
        self.gated: str | bool = "auto" if gated else False
        self.readers: set[str] = set()
        """Who was granted access to a gated repo, besides its owner."""
        self.branches: dict[str, str] = {}
        self.tags: dict[str, str] = {}
        self._commits: dict[str, Commit] = {}
        self._objects: dict[str, bytes] = {}
        self._lock = lock
        self._ticks = 0
        self._append("main", {".gitattributes": regular_blob(GIT_ATTRIBUTES)}, "initial commit", self.owner)

    @property
    def owner(self) -> str:
        return self.id.partition("/")[0]

    # --- reading -------------------------------------------------------------------------------------------------

    def resolve(self, revision: str) -> Commit:
        """The commit that a branch, a tag or a commit hash (or an unambiguous start of one) names."""
        with self._lock:
            name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
            commit_hash = self.branches.get(name) or self.tags.get(name)
            if commit_hash is None and len(revision) >= 7:
                found = [known for known in self._commits if known.startswith(revision)]
                commit_hash = found[0] if len(found) == 1 else None
            if commit_hash is None:
                raise no_revision(revision)
            return self._commits[commit_hash]

    def commits(self, revision: str = "main") -> list[Commit]:
        """The history of a branch, tag or commit, newest first."""
        with self._lock:
            history: list[Commit] = []
            commit: Commit | None = self.resolve(revision)
            while commit is not None:
                history.append(commit)
                commit = self._commits.get(commit.parent) if commit.parent else None
            return history

    def files(self, revision: str = "main") -> dict[str, bytes]:
        """Path to content, LFS objects included."""
        with self._lock:
            return {path: self.content(blob) for path, blob in self.resolve(revision).tree.items()}

    def blob(self, revision: str, path: str) -> Blob:
        blob = self.resolve(revision).tree.get(path)
        if blob is None:
            raise no_entry(path)
        return blob

    def content(self, blob: Blob) -> bytes:
        """What a download of it delivers."""
        return blob.content if blob.sha256 is None else self._objects[blob.sha256]

    def last_change(self, revision: str, path: str) -> Commit:
        """The newest commit in which the file became what it is."""
        history = self.commits(revision)
        blob = history[0].tree[path]
        unchanged = history[0]
        for commit in history:
            if commit.tree.get(path) != blob:
                break
            unchanged = commit
        return unchanged

    @property
    def lfs(self) -> set[str]:
        """The sha256 of every LFS object that is held, whether a commit names it or not."""
        with self._lock:
            return set(self._objects)

    def stored_bytes(self) -> int:
        """What the repo holds: all its LFS objects, and the regular files of all its commits, each content once."""
        with self._lock:
            blobs = {blob.oid: blob for commit in self._commits.values() for blob in commit.tree.values()}
            regular = sum(len(blob.content) for blob in blobs.values())
            return regular + sum(len(content) for content in self._objects.values())

    # --- writing -------------------------------------------------------------------------------------------------

    def commit(
        self,
        files: Mapping[str, bytes],
        message: str = "initial commit",
        branch: str = "main",
        delete: Iterable[str] = (),
    ) -> Commit:
        """Commit without HTTP, as the owner. What the Hub keeps in LFS goes there."""
        return self.commit_raw(
            {path: LfsFile(content) if wants_lfs(path, len(content)) else content for path, content in files.items()},
            message,
            branch,
            delete,
        )

    def commit_raw(
        self,
        files: Mapping[str, bytes | LfsFile],
        message: str = "initial commit",
        branch: str = "main",
        delete: Iterable[str] = (),
    ) -> Commit:
        """As `commit`, but nothing is checked: paths may be hostile, an `LfsFile` may lie about its sha256 and size."""
        with self._lock:
            blobs: dict[str, Blob] = {}
            for path, file in files.items():
                if isinstance(file, bytes):
                    blobs[path] = regular_blob(file)
                    continue
                sha256 = file.sha256 or hashlib.sha256(file.content).hexdigest()
                self._objects[sha256] = file.content
                blobs[path] = lfs_blob(sha256, len(file.content) if file.size is None else file.size)
            return self.apply(blobs, set(delete), message, branch, self.owner)

    def store(self, sha256: str, content: bytes) -> None:
        """Keep an uploaded LFS object. No commit names it yet."""
        with self._lock:
            self._objects[sha256] = content

    def object_size(self, sha256: str) -> int | None:
        """Bytes of an LFS object; None: it was never uploaded, or dropped."""
        with self._lock:
            return len(self._objects[sha256]) if sha256 in self._objects else None

    def apply(
        self, added: Mapping[str, Blob], deleted: set[str], message: str, branch: str, author: str, parent: str = ""
    ) -> Commit:
        """One commit on top of `branch`, which must exist; its head must be `parent`, where one is stated.

        Deletions come first, so that a folder can be replaced. A deleted path ending in "/" is a folder.
        """
        with self._lock:
            head = self.branches.get(branch)
            if head is None:
                raise no_revision(branch)
            if parent and not head.startswith(parent):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(self._commits[head].tree)
            for path in deleted:
                gone = [known for known in tree if known == path or (path.endswith("/") and known.startswith(path))]
                if not gone:
                    raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for known in gone:
                    del tree[known]
            tree.update(added)
            return self._append(branch, tree, message, author)

    def create_branch(self, name: str, revision: str = "main") -> None:
        with self._lock:
            commit = self.resolve(revision)
            if name in self.branches:
                raise Refusal(409, f"Reference already exists: {name}")
            self.branches[name] = commit.hash

    def create_tag(self, name: str, revision: str = "main") -> None:
        with self._lock:
            commit = self.resolve(revision)
            if name in self.tags:
                raise Refusal(409, f"Tag reference exists already: {name}")
            self.tags[name] = commit.hash

    def squash(self, branch: str, message: str, author: str) -> Commit:
        """Make the branch one commit with no parent, and forget what no branch and no tag leads to any more.

        A tag keeps its commit and all before it, as in git: only what nothing names is dropped, LFS objects too.
        """
        with self._lock:
            head = self.branches.get(branch)
            if head is None:
                raise no_revision(branch)
            tree = self._commits[head].tree
            del self.branches[branch]
            commit = self._append(branch, tree, message, author)
            kept = {kept.hash: kept for ref in (*self.branches, *self.tags) for kept in self.commits(ref)}
            self._commits = kept
            named = {blob.sha256 for commit in kept.values() for blob in commit.tree.values()}
            self._objects = {sha256: content for sha256, content in self._objects.items() if sha256 in named}
            return commit

    def _append(self, branch: str, tree: Mapping[str, Blob], message: str, author: str) -> Commit:
        parent = self.branches.get(branch)
        date = EPOCH + timedelta(seconds=self._ticks)
        self._ticks += 1
        held = json.dumps([self.kind, self.id, tree_oid(tree), parent, message, author, date.isoformat()])
        commit = Commit(git_oid("commit", held.encode()), parent, message, author, date, dict(tree))
        self._commits[commit.hash] = commit
        self.branches[branch] = commit.hash
        return commit
