"""A repository on the Hugging Face Hub. Every failure is a HubError, but one of this machine's disk is an OSError."""

import contextlib
import functools
import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from pricer.errors import HubError
from pricer.redaction import hub_address
from pricer.stores.files import parse_json, sha256_of
from pricer.stores.hub_cache import find_in_cache, list_cache
from pricer.stores.hub_client import hub_client as _api
from pricer.stores.hub_client import is_offline
from pricer.stores.hub_errors import CONFLICT, pause, raise_hub_error
from pricer.waits import Wait, announced

T = TypeVar("T")

# Attempts of a request that is refused although earlier ones were allowed: the Hub may have a passing fault.
_DOUBTS = 3
LARGEST_TEXT = 1_000_000
"""The maximum size, in bytes, of a text that is read whole: a configuration, a manifest, a card."""
LARGE = (".safetensors", ".pt", ".pth")
"""Endings of files that the Hub keeps in LFS whatever their size."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit. `size` in bytes. `sha256`: None for a file outside LFS, which has git's own hash, `blob`."""

    path: str
    size: int
    sha256: str | None
    blob: str

    def is_same_as(self, path: Path, known_sha256: str | None = None) -> bool:
        """Whether a local file has this content. `known_sha256`: its hash, where it was computed a moment ago."""
        if self.sha256 is not None and known_sha256 is not None:
            return self.sha256 == known_sha256
        if path.stat().st_size != self.size:
            return False
        if self.sha256 is not None:
            return self.sha256 == sha256_of(path)
        return self.holds(path.read_bytes())

    def holds(self, content: bytes) -> bool:
        """Whether it has this content."""
        if self.sha256 is not None:
            return self.sha256 == hashlib.sha256(content).hexdigest()
        # A git blob is hashed with a header in front: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
        header = f"blob {len(content)}\0".encode()
        return self.blob == hashlib.sha1(header + content, usedforsecurity=False).hexdigest()

    def has_content_of(self, other: "RemoteFile") -> bool:
        """Whether another file of a repository has the same content."""
        return (self.sha256 or self.blob) == (other.sha256 or other.blob)


@dataclass(frozen=True, slots=True)
class RemoteCommit:
    """A commit: its hash and the first line of its message."""

    hash: str
    title: str


@dataclass(frozen=True, slots=True)
class Refs:
    """What branches and tags mean: names to commit hashes."""

    branches: Mapping[str, str]
    tags: Mapping[str, str]

    @property
    def step_tags(self) -> list[str]:
        """The names of the tags that look like those of pricer's checkpoints, sorted."""
        return sorted(name for name in self.tags if name.startswith("step-"))


class Hub:
    """A model repository. Reads are tried up to `attempts` times, with growing waits, or as long a wait as the Hub asks
    for in Retry-After. Each wait is announced. `wait(seconds)` may raise to give up. A commit is sent once: if its
    answer is lost, only the sender can tell whether it has arrived. `before_commit` is called before each one, and may
    raise to refuse it.
    """

    def __init__(
        self,
        repo: str,
        *,
        attempts: int = 6,
        wait: Callable[[float], object] = time.sleep,
        before_commit: Callable[[], object] = lambda: None,
    ) -> None:
        self.repo = repo
        self._attempts = attempts
        self._wait = wait
        self._before_commit = before_commit
        self._was_authorized = False

    def create(self, *, private: bool) -> None:
        """Make the repository if it is not there. An existing one keeps its visibility."""
        self._with_retries(lambda: _api().create_repo(self.repo, private=private, exist_ok=True))

    def refs(self) -> Refs:
        """All branches and tags."""
        found = self._with_retries(lambda: _api().list_repo_refs(self.repo))
        branches, tags = ({ref.name: ref.target_commit for ref in refs} for refs in (found.branches, found.tags))
        return Refs(branches, tags)

    def commits(self, revision: str = "main") -> list[RemoteCommit]:
        """The commits of a branch, the newest first."""
        found = self._with_retries(lambda: _api().list_repo_commits(self.repo, revision=revision))
        return [RemoteCommit(commit.commit_id, commit.title) for commit in found]

    def find_other_kind(self) -> str | None:
        """`data set` or `Space` if the Hub has one of this name; None if it has neither, or does not say."""
        for kind, name in (("dataset", "data set"), ("space", "Space")):
            with contextlib.suppress(HubError):
                self._request(functools.partial(_api().repo_info, self.repo, repo_type=kind))
                return name
        return None

    def files(self, commit: str, paths: list[str]) -> dict[str, RemoteFile]:
        """The files of that commit among `paths`. While the Hub is switched off, they are those in the cache, and a
        HubError names a file that is not there.
        """
        if is_offline():
            return _describe_cached({path: find_in_cache(self.repo, commit, path) for path in paths})
        return self._files(lambda: _api().get_paths_info(self.repo, paths, revision=commit))

    def all_files(self, commit: str) -> dict[str, RemoteFile]:
        """Every file of that commit. While the Hub is switched off, they are those in the cache."""
        if is_offline():
            return _describe_cached(list_cache(self.repo, commit))
        return self._files(lambda: _api().list_repo_tree(self.repo, recursive=True, revision=commit))

    def _files(self, request: Callable[[], Any]) -> dict[str, RemoteFile]:
        # A tree is listed page by page, while it is gone through.
        found = self._with_retries(lambda: [entry for entry in request() if hasattr(entry, "blob_id")])
        files = [RemoteFile(f.path, f.size, f.lfs.sha256 if f.lfs else None, f.blob_id) for f in found]
        return {file.path: file for file in files}

    def first_difference(
        self, commit: str, folder: Path, names: Sequence[str], known: Mapping[str, str] = MappingProxyType({})
    ) -> str | None:
        """The first of these files of `folder` that the commit lacks or holds with other content; None if it holds them
        all. `known`: the sha256 of local files that were hashed a moment ago.
        """
        with is_there():
            found = self.files(commit, list(names))
        return next((n for n in names if n not in found or not found[n].is_same_as(folder / n, known.get(n))), None)

    def licence(self, revision: str | None) -> str | None:
        """The licence that the repository's model card states, None if it states none."""
        card = self._with_retries(lambda: _api().model_info(self.repo, revision=revision).card_data)
        stated = card.get("license") if card else None
        return stated if isinstance(stated, str) else None

    def read(self, commit: str, path: str, limit: int = LARGEST_TEXT) -> bytes | None:
        """The content of a small file, None if the commit has none of that name; a HubError beyond `limit` bytes."""
        file = self.files(commit, [path]).get(path)
        return None if file is None else self.download(commit, file, limit).read_bytes()

    def read_record(self, commit: str | None, path: str) -> dict[str, Any]:
        """The JSON object in a file. Empty if there is no commit, no such file in it, or no JSON object in the file."""
        return parse_json((commit and self.read(commit, path)) or b"") or {}

    def download(
        self, commit: str, file: RemoteFile, limit: int, into: Path | None = None, *, force: bool = False
    ) -> Path:
        """A local copy of a file, below `into`, or in the cache, where it is looked for first unless `force`."""
        self.refuse_larger(file, limit)
        where = {"revision": commit, "local_dir": into, "force_download": force}
        return Path(self._with_retries(lambda: _api().hf_hub_download(self.repo, file.path, **where)))

    def refuse_larger(self, file: RemoteFile, limit: int) -> None:
        """Raise a HubError if a file has more than `limit` bytes."""
        if file.size > limit:
            text = f"{self.repo} has a {file.path} of {file.size:,} bytes, which is too large (at most {limit:,})"
            raise HubError(text)

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        message: str,
        *,
        copies: Mapping[str, tuple[str, str]] = MappingProxyType({}),
        branch: str = "main",
        parent: str | None = None,
        retry: bool = False,
        delete: Sequence[str] = (),
    ) -> str:
        """Commit files under their names in the repository, and return the commit's hash. Files to `delete` must exist,
        and all others stay as they are. `copies` maps names to files that the repository holds already: each to a
        commit and a path in it. With `parent` the commit is made only on top of that one. `retry`: a commit that fails
        is sent again, which is harmless where only the content matters and not the number of commits.
        """
        from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete

        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        # The large files go first, because their upload can be repeated; the commit itself is then one short request.
        # They go one by one: for several, huggingface_hub starts threads, which delay the end of the process.
        where = {"revision": branch, "free_memory": False}
        for addition in additions:
            if addition.path_in_repo.endswith(LARGE):
                upload = functools.partial(_api().preupload_lfs_files, self.repo, [addition], **where)
                self._with_retries(upload)
        self._before_commit()
        how = {"commit_message": message, "revision": branch, "parent_commit": parent, "num_threads": 1}
        copied = [CommitOperationCopy(path, name, src_revision=commit) for name, (commit, path) in copies.items()]
        deleted = [CommitOperationDelete(path_in_repo=name) for name in delete]
        send = functools.partial(_api().create_commit, self.repo, [*additions, *copied, *deleted], **how)
        return str((self._with_retries(send) if retry else self._request(send)).oid)

    def tag(self, name: str, commit: str, *, move: bool = False) -> None:
        """Set a tag to that commit. A tag that is at another commit moves only with `move`; else it is a HubError."""
        from huggingface_hub.errors import HfHubHTTPError

        def set_tag() -> None:
            try:
                _api().create_tag(self.repo, tag=name, revision=commit)
            except HfHubHTTPError as error:
                if error.response.status_code not in CONFLICT:
                    raise
                present = self.refs().tags.get(name)
                if present not in (None, commit):
                    if not move:
                        text = f"the tag {name} of {self.repo} is at {present[:12]}, not at {commit[:12]}"
                        raise HubError(text, f"look at {hub_address(self.repo)}/tree/{name}") from None
                    _api().delete_tag(self.repo, tag=name)
                if present != commit:
                    _api().create_tag(self.repo, tag=name, revision=commit)

        self._with_retries(set_tag)

    def branch(self, name: str, start: str) -> None:
        """Make a branch at that commit, unless there is one of that name."""
        self._with_retries(lambda: _api().create_branch(self.repo, branch=name, revision=start, exist_ok=True))

    def delete_branch(self, name: str) -> None:
        """Delete a branch, which must exist."""
        self._with_retries(lambda: _api().delete_branch(self.repo, branch=name))

    def wait_after(self, failures: int, error: HubError) -> None:
        """Announce the wait before the next attempt, after `failures` in a row, and wait."""
        seconds = pause(failures, error)
        if error.refused:  # it takes seconds until this is either over or an error
            self._wait(seconds)
            return
        with announced(Wait(error.message, seconds)):
            self._wait(seconds)

    def squash(self, branch: str, message: str) -> None:
        """Make one commit of a branch's whole history: what older commits held is no longer kept."""
        self._with_retries(lambda: _api().super_squash_history(self.repo, branch=branch, commit_message=message))

    def ask(self, question: Callable[[Any], T]) -> T:
        """The answer to a question that only reads. `question` gets the client."""
        return self._with_retries(lambda: question(_api()))

    def _with_retries(self, request: Callable[[], T]) -> T:
        for attempt in range(1, self._attempts):
            try:
                return self._request(request)
            except HubError as error:
                is_doubtful = error.refused and self._was_authorized and attempt < _DOUBTS
                if not (error.transient or is_doubtful):
                    raise
                self.wait_after(attempt, error)
        return self._request(request)

    def _request(self, request: Callable[[], T]) -> T:
        try:
            answer = request()
        except Exception as error:
            raise_hub_error(error, self.repo)
        self._was_authorized = True
        return answer


@contextlib.contextmanager
def is_there() -> Iterator[None]:
    """A context for reading a commit that the Hub itself has just named: if the Hub does not find it, or a file of it,
    it will a moment later, so the HubError is transient.
    """
    try:
        yield
    except HubError as error:
        error.transient |= error.missing
        raise


def _describe_cached(files: Mapping[str, Path]) -> dict[str, RemoteFile]:
    return {path: RemoteFile(path, file.stat().st_size, None, "") for path, file in files.items()}
