"""A repo as values: commits with parents, branches, tags and LFS objects. Knows nothing of HTTP."""

import hashlib
import json
import threading
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta

from tests.loopback_hub.git import Blob, Commit, LfsFile, git_oid, lfs_blob, regular_blob, tree_oid, wants_lfs

# Each commit is one second younger than the one before. Hashes cover the date and must be the same in every run.
EPOCH = datetime(2026, 1, 1, tzinfo=UTC)

GIT_ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"


class Refusal(Exception):  # noqa: N818 (an answer that the Hub intends, not an error of this package)
    """The Hub answers with `status`, with `code` in X-Error-Code, and with the message in X-Error-Message and the body.

    The client tells refusals apart by these two headers. `body` holds more entries for the body.
    """

    def __init__(self, status: int, message: str, code: str | None = None, **body: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.body = body


def no_revision(revision: str) -> Refusal:
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(path: str) -> Refusal:
    return Refusal(404, f"Entry not found: {path}", "EntryNotFound")


class Repo:
    """One repo. Like any repo on the Hub, it starts with the commit "initial commit", which holds `.gitattributes`.

    `lock` is the hub's lock, so that the server's threads and the test see whole changes only.
    """

    def __init__(self, repo_id: str, kind: str, *, private: bool, gated: bool, lock: threading.RLock) -> None:
        self.id = repo_id
        self.kind = kind
        self.private = private
        self.gated: str | bool = "auto" if gated else False
        self.readers: set[str] = set()
        """The users who may read a gated repo, besides its owner."""
        self.branches: dict[str, str] = {}
        """Name to commit hash; `tags` too."""
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
        """The commit that a branch, a tag, a commit hash or the unambiguous start of a hash names."""
        with self._lock:
            name = revision.removeprefix("refs/heads/").removeprefix("refs/tags/")
            commit_hash = self.branches.get(name) or self.tags.get(name)
            if commit_hash is None and len(revision) >= 7:
                found = [known for known in self._commits if known.startswith(revision)]
                commit_hash = found[0] if len(found) == 1 else None
            if commit_hash is None:
                raise no_revision(revision)
            return self._commits[commit_hash]

    def titles(self, revision: str = "main") -> list[str]:
        """The titles of the commits of a branch, tag or commit, newest first."""
        return [commit.title for commit in self.commits(revision)]

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
        """The bytes that a download of the file delivers."""
        return blob.content if blob.sha256 is None else self._objects[blob.sha256]

    def last_change(self, revision: str, path: str) -> Commit:
        """The newest commit that changed the file."""
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
        """The sha256 of every LFS object in the repo, including those that no commit names."""
        with self._lock:
            return set(self._objects)

    def object_size(self, sha256: str) -> int | None:
        """Bytes of an LFS object; None if the repo does not hold it."""
        with self._lock:
            return len(self._objects[sha256]) if sha256 in self._objects else None

    def stored_bytes(self) -> int:
        """The size of all LFS objects and of the regular files of all commits, each content counted once."""
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
        """Commit without HTTP, as the owner. Files that belong in LFS go there."""
        stored = {path: LfsFile(data) if wants_lfs(path, len(data)) else data for path, data in files.items()}
        return self.commit_raw(stored, message, branch, delete)

    def commit_raw(
        self,
        files: Mapping[str, bytes | LfsFile],
        message: str = "initial commit",
        branch: str = "main",
        delete: Iterable[str] = (),
    ) -> Commit:
        """Like `commit`, but nothing is checked: paths may be hostile, an `LfsFile` may claim a false hash and size."""
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
        """Keep an uploaded LFS object, which no commit names yet."""
        with self._lock:
            self._objects[sha256] = content

    def apply(
        self, added: Mapping[str, Blob], deleted: set[str], message: str, branch: str, author: str, parent: str = ""
    ) -> Commit:
        """Add one commit to `branch`, which must exist. Its head must be `parent`, if one is given.

        Deletions are applied first, so that a folder can be replaced. A deleted path that ends in "/" is a folder.
        """
        with self._lock:
            head = self._head(branch)
            if parent and not head.hash.startswith(parent):
                raise Refusal(412, "A commit has happened since. Please refresh and try again.")
            tree = dict(head.tree)
            for path in deleted:
                matches = [known for known in tree if known == path or (path.endswith("/") and known.startswith(path))]
                if not matches:
                    raise Refusal(404, f"A file with this name doesn't exist: {path}", "EntryNotFound")
                for match in matches:
                    del tree[match]
            return self._append(branch, {**tree, **added}, message, author)

    def create_branch(self, name: str, revision: str = "main") -> None:
        self._create_ref(self.branches, name, revision)

    def create_tag(self, name: str, revision: str = "main") -> None:
        self._create_ref(self.tags, name, revision)

    def squash(self, branch: str, message: str, author: str) -> Commit:
        """Turn the branch into one commit without a parent, and drop all that no branch and no tag reaches any more.

        As in git, a tag keeps its commit and all commits before it. LFS objects that no commit names are dropped too.
        """
        with self._lock:
            tree = self._head(branch).tree
            del self.branches[branch]
            commit = self._append(branch, tree, message, author)
            self._commits = {kept.hash: kept for ref in (*self.branches, *self.tags) for kept in self.commits(ref)}
            named = {blob.sha256 for kept in self._commits.values() for blob in kept.tree.values()}
            self._objects = {sha256: content for sha256, content in self._objects.items() if sha256 in named}
            return commit

    def restore(self, recorded: "Repo") -> None:
        """Take over everything that a repo of another hub holds: commits under the same hashes, branches and tags."""
        with self._lock:
            self.branches, self.tags = dict(recorded.branches), dict(recorded.tags)
            self._commits, self._objects = dict(recorded._commits), dict(recorded._objects)
            self._ticks = recorded._ticks

    def _head(self, branch: str) -> Commit:
        if branch not in self.branches:
            raise no_revision(branch)
        return self._commits[self.branches[branch]]

    def _create_ref(self, refs: dict[str, str], name: str, revision: str) -> None:
        with self._lock:
            commit = self.resolve(revision)
            if name in refs:
                raise Refusal(409, f"Reference already exists: {name}")
            refs[name] = commit.hash

    def _append(self, branch: str, tree: Mapping[str, Blob], message: str, author: str) -> Commit:
        parent = self.branches.get(branch)
        date = EPOCH + timedelta(seconds=self._ticks)
        self._ticks += 1
        hashed = json.dumps([self.kind, self.id, tree_oid(tree), parent, message, author, date.isoformat()])
        commit = Commit(git_oid("commit", hashed.encode()), parent, message, author, date, dict(tree))
        self._commits[commit.hash] = commit
        self.branches[branch] = commit.hash
        return commit
