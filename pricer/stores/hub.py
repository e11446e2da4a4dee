"""One repository on the Hugging Face Hub: what is read from it and written to it. Every failure is a HubError, but for
those of this machine's own disk, which are OSErrors.
"""

import errno
import functools
import hashlib
import logging
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from pricer.errors import HubError
from pricer.stores.budget import CommitBudget

T = TypeVar("T")

# Seconds without a byte, in either direction, after which a connection counts as dead. huggingface_hub has no limit:
# an upload that hangs would hang for ever.
_SILENCE = 60.0
_LONGEST_WAIT = 60.0
_SHORTEST_WAIT = 1.0
_HOUR = 3600.0
# Files that the Hub keeps in LFS whatever their size.
_LARGE = (".safetensors", ".pt", ".pth")
_GONE_TOO_FAST = (408, 425, 429)
_OVERTAKEN = (409, 412)
_UNKNOWN = 401
_REFUSED = (_UNKNOWN, 403)
_RIGHTS = "what the token may do, and how much space is left: https://huggingface.co/settings"
# What this machine's disk and not the network says.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file of a commit. `size` in bytes; `sha256` of the content where it is kept in LFS, else None; `blob` is git's
    own hash of a file that is not.
    """

    path: str
    size: int
    sha256: str | None
    blob: str

    def holds(self, path: Path) -> bool:
        """Whether this is the content of a local file."""
        if path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            if self.sha256 is not None:
                return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256
            # A git blob is hashed with a header in front: https://git-scm.com/book/en/v2/Git-Internals-Git-Objects
            digest = hashlib.sha1(f"blob {self.size}\0".encode(), usedforsecurity=False)
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest() == self.blob


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


class Hub:
    """A model repository. Reads are tried up to `attempts` times, with growing waits and whatever the Hub asks for in
    Retry-After; `wait(seconds)` may raise to give up. A commit is sent once: only its sender can tell whether one whose
    answer was lost has arrived.
    """

    def __init__(
        self,
        repo: str,
        *,
        attempts: int = 6,
        wait: Callable[[float], object] = time.sleep,
        budget: CommitBudget | None = None,
    ) -> None:
        self.repo = repo
        self._attempts = attempts
        self._wait = wait
        self._budget = budget
        self._was_let_in = False

    def create(self, *, private: bool) -> None:
        """Make the repository if it is not there. An existing one keeps its visibility."""
        self._patiently(lambda: _api().create_repo(self.repo, private=private, exist_ok=True))

    def refs(self) -> Refs:
        """All branches and tags."""
        found = self._patiently(lambda: _api().list_repo_refs(self.repo))
        return Refs(
            {branch.name: branch.target_commit for branch in found.branches},
            {tag.name: tag.target_commit for tag in found.tags},
        )

    def commits(self, revision: str = "main") -> list[RemoteCommit]:
        """The commits of a branch, the newest first."""
        found = self._patiently(lambda: _api().list_repo_commits(self.repo, revision=revision))
        return [RemoteCommit(commit.commit_id, commit.title) for commit in found]

    def files(self, commit: str, paths: list[str]) -> dict[str, RemoteFile]:
        """Those of `paths` that are files of that commit."""
        return self._files(lambda: _api().get_paths_info(self.repo, paths, revision=commit))

    def all_files(self, commit: str) -> dict[str, RemoteFile]:
        """Every file of that commit."""
        return self._files(lambda: _api().list_repo_tree(self.repo, recursive=True, revision=commit))

    def _files(self, request: Callable[[], Any]) -> dict[str, RemoteFile]:
        # A tree is listed page by page, while it is gone through.
        found = self._patiently(lambda: [entry for entry in request() if hasattr(entry, "blob_id")])
        files = [RemoteFile(f.path, f.size, f.lfs.sha256 if f.lfs else None, f.blob_id) for f in found]
        return {file.path: file for file in files}

    def read(self, commit: str, path: str, limit: int) -> bytes | None:
        """The content of a small file, None if the commit has none of that name; a HubError beyond `limit` bytes."""
        file = self.files(commit, [path]).get(path)
        return None if file is None else self.download(commit, file, limit).read_bytes()

    def is_cached(self, commit: str, file: RemoteFile) -> bool:
        """Whether the file is in the cache that all tools share."""
        from huggingface_hub import try_to_load_from_cache

        return isinstance(try_to_load_from_cache(self.repo, file.path, revision=commit), str)

    def download(
        self, commit: str, file: RemoteFile, limit: int, into: Path | None = None, *, anew: bool = False
    ) -> Path:
        """A local copy of a file, at its path below `into` or (None) in the cache that all tools share, from which it
        is taken unless `anew`.
        """
        if file.size > limit:
            raise HubError(
                f"{self.repo} has a {file.path} of {file.size:,} bytes, which is too large (at most {limit:,})"
            )
        return Path(
            self._patiently(
                lambda: _api().hf_hub_download(
                    self.repo, file.path, revision=commit, local_dir=into, force_download=anew
                )
            )
        )

    def commit(
        self,
        files: Mapping[str, Path | bytes],
        message: str,
        *,
        branch: str = "main",
        parent: str | None = None,
        again: bool = False,
    ) -> str:
        """Commit files under their names in the repository, and return the commit's hash.

        With `parent` the commit is made only on top of that one. What is already there stays as it is. `again`: one
        that fails is sent again, which is harmless where only the content matters and not the number of commits.
        """
        from huggingface_hub import CommitOperationAdd

        additions = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=content) for name, content in files.items()]
        # First the large files, which may be sent again and again, so that the commit itself is one short request. One
        # by one: for several huggingface_hub starts threads, which a process waits for before it ends.
        for addition in additions:
            if addition.path_in_repo.endswith(_LARGE):
                upload = functools.partial(
                    _api().preupload_lfs_files, self.repo, [addition], revision=branch, free_memory=False
                )
                self._patiently(upload)
        if self._budget:
            self._budget.take()
        send = functools.partial(
            _api().create_commit,
            self.repo,
            additions,
            commit_message=message,
            revision=branch,
            parent_commit=parent,
            num_threads=1,
        )
        return str((self._patiently(send) if again else self._once(send)).oid)

    def tag(self, name: str, commit: str) -> None:
        """Let a tag mean that commit, whatever it meant before."""
        from huggingface_hub.errors import HfHubHTTPError

        def move() -> None:
            try:
                _api().create_tag(self.repo, tag=name, revision=commit)
            except HfHubHTTPError as error:
                if error.response.status_code not in _OVERTAKEN:
                    raise
                present = self.refs().tags.get(name)
                if present == commit:
                    return
                if present is not None:
                    _api().delete_tag(self.repo, tag=name)
                _api().create_tag(self.repo, tag=name, revision=commit)

        self._patiently(move)

    def branch(self, name: str, start: str) -> None:
        """Make a branch at that commit, unless there is one of that name."""
        self._patiently(lambda: _api().create_branch(self.repo, branch=name, revision=start, exist_ok=True))

    def squash(self, branch: str, message: str) -> None:
        """Make one commit of a branch's whole history: what older commits held is no longer kept."""
        self._patiently(lambda: _api().super_squash_history(self.repo, branch=branch, commit_message=message))

    def _patiently(self, request: Callable[[], T]) -> T:
        for attempt in range(1, self._attempts + 1):
            try:
                return self._once(request)
            except HubError as error:
                if attempt == self._attempts or not error.transient:
                    raise
                self._wait(pause(attempt, error))
        raise AssertionError("unreachable")

    def _once(self, request: Callable[[], T]) -> T:
        try:
            answer = request()
        except Exception as error:
            _explain(error, self.repo, self._was_let_in)
        self._was_let_in = True
        return answer


def user() -> str:
    """The name of the account whose token is in use; a HubError without one."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise HubError("no token for the Hugging Face Hub was found", "hf auth login, or set HF_TOKEN")
    hub = Hub("this account", attempts=4)
    return str(hub._patiently(lambda: _api().whoami()["name"]))


def licence_of(base: str, revision: str | None) -> str | None:
    """The licence that a base on the Hub states, None if it states none."""
    card = Hub(base, attempts=3)._patiently(lambda: _api().model_info(base, revision=revision).card_data)
    stated = card.get("license") if card else None
    return stated if isinstance(stated, str) else None


def cache() -> Path:
    """The folder that downloads without one of their own go to; it may not be there yet."""
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE).absolute()


def offline_variable() -> str:
    """The variable of the environment that switches the Hub off, where it is off."""
    # huggingface_hub asks the other one where this one is empty.
    is_other = os.environ.get("TRANSFORMERS_OFFLINE") and not os.environ.get("HF_HUB_OFFLINE")
    return "TRANSFORMERS_OFFLINE" if is_other else "HF_HUB_OFFLINE"


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


def pause(attempt: int, error: HubError) -> float:
    """Seconds to wait after the so-manieth failure in a row: what the Hub asks for, else doubling, with some jitter."""
    # Jitter: machines that failed together should not come back together.
    own = min(_LONGEST_WAIT, 0.5 * 2.0 ** min(attempt, 10)) * random.uniform(0.75, 1.25)  # noqa: S311
    if error.retry_after is None:
        return own
    # "At once", again and again, would be a flood, and more than an hour is no answer.
    return min(max(error.retry_after, min(own, _SHORTEST_WAIT)), _HOUR)


def _api() -> Any:
    from huggingface_hub import HfApi

    _quieten()
    return HfApi()


@functools.cache
def _quieten() -> None:
    """Set up huggingface_hub, once: connections that do not hang, no bars, no warnings with addresses in them."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils._http import default_client_factory
    from huggingface_hub.utils.tqdm import disable_progress_bars

    def client() -> Any:
        made = default_client_factory()
        made.timeout = _SILENCE
        return made

    # The same for uploads by Xet, which do not pass the client; read when the first one starts.
    os.environ.setdefault("HF_XET_CLIENT_READ_TIMEOUT", f"{_SILENCE:.0f}s")
    os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")
    set_client_factory(client)
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)


def _explain(error: Exception, repo: str, was_let_in: bool) -> NoReturn:
    """Raise what a library reported as a HubError. Whoever `was_let_in` and is refused now most likely met a hiccup."""
    if isinstance(error, HubError):
        raise error
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    # Errors come wrapped: an upload's as a RuntimeError, a download's as a missing local file.
    for cause in _causes(error):
        match cause:
            case OfflineModeIsEnabled():
                variable = offline_variable()
                raise HubError(f"the Hub is switched off ({variable})", f"unset {variable}") from None
            case HFValidationError():
                raise HubError(f"{repo!r} cannot name a repository on the Hub", "USER/NAME") from None
            case GatedRepoError():
                raise HubError(
                    f"{repo} is gated: its terms have to be accepted first",
                    f"accept them on https://huggingface.co/{repo}, then `hf auth login`",
                ) from None
            case RepositoryNotFoundError():
                raise HubError(
                    f"there is no repository {repo} on the Hub, or this account may not see it",
                    "a private one needs `hf auth login`, or HF_TOKEN",
                    transient=was_let_in,
                ) from None
            case RevisionNotFoundError() | RemoteEntryNotFoundError():
                raise HubError(f"{repo} on the Hub has no such revision or file: {_said(cause)}") from None
        if isinstance(cause, OSError) and cause.errno in _DISK:
            raise cause
        status = getattr(getattr(cause, "response", None), "status_code", None)
        if isinstance(status, int):
            raise _refusal(cause, status, repo, was_let_in) from None
    # What is left are broken connections and answers, each library with its own class for them.
    raise HubError(
        f"the Hub cannot be reached for {repo}: {_first_line(error)}", "is the network up?", transient=True
    ) from None


def _refusal(error: BaseException, status: int, repo: str, was_let_in: bool) -> HubError:
    """What an HTTP status of 400 or more means here."""
    said = _said(error)
    if status in _REFUSED:
        message = f"the Hub refuses access to {repo} ({status}): {said}"
        hint = "hf auth whoami; hf auth login" if status == _UNKNOWN else _RIGHTS
        return HubError(message, hint, transient=was_let_in)
    return HubError(
        f"the Hub answers {status} for {repo}: {said}",
        "see https://status.huggingface.co",
        transient=status >= 500 or status in (*_GONE_TOO_FAST, *_OVERTAKEN),
        retry_after=_retry_after(getattr(error, "response", None)),
    )


def _retry_after(response: Any) -> float | None:
    from huggingface_hub.utils._http import parse_ratelimit_headers

    headers = getattr(response, "headers", {})
    limits = parse_ratelimit_headers(headers)
    if limits is not None and limits.remaining == 0:
        return float(limits.reset_in_seconds)
    stated = headers.get("retry-after", "")
    if stated.isdecimal():
        return float(stated)
    try:
        return max(0.0, parsedate_to_datetime(stated).timestamp() - time.time())
    except ValueError:
        return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:  # a chain may be a circle
        yield error
        error, seen = error.__cause__ or error.__context__, seen + 1


def _said(error: BaseException) -> str:
    """What the Hub said itself, in one line, else what the library made of it."""
    # Headers and body may each have a message, and a hook that refuses a push has many lines.
    stated = str(getattr(error, "server_message", None) or "").strip()
    return stated.splitlines()[0] if stated else _first_line(error)


def _first_line(error: BaseException) -> str:
    # Without what follows a question mark: addresses of storage hold a signature there.
    text = re.sub(r"\?\S{20,}", "?…", str(error))
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
