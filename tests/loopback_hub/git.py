"""What a repo is made of: commits, regular files as git blobs, and LFS objects behind pointers."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".parquet")
LFS_ABOVE_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class LfsFile:
    """A file that is stored in LFS whatever its name is.

    `sha256` and `size` are what the Hub claims about it; None means the true value.
    """

    content: bytes
    sha256: str | None = None
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of a commit. `oid` is git's hash of the content, or of the pointer if `sha256` names an LFS object.

    `size` and `sha256` are what the Hub claims; they are false only for blobs from `Repo.commit_raw`.
    """

    oid: str
    size: int
    content: bytes = b""
    sha256: str | None = None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        """The hash that identifies the content: sha256 for an LFS object, git's hash for a regular file."""
        return self.sha256 or self.oid


@dataclass(frozen=True, slots=True)
class Commit:
    """One commit. Its hash covers all other fields. `parent` is None for the first commit and after a squash."""

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


def wants_lfs(path: str, size: int) -> bool:
    """Whether the Hub stores such a file in LFS. An empty file is always a regular one."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_ABOVE_BYTES)


def git_oid(kind: str, content: bytes) -> str:
    """Git's name of an object: the sha1 of its header and content."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def regular_blob(content: bytes) -> Blob:
    return Blob(oid=git_oid("blob", content), size=len(content), content=content)


def lfs_blob(sha256: str, size: int) -> Blob:
    """The blob of a pointer to an LFS object."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return Blob(oid=git_oid("blob", pointer), size=size, sha256=sha256, pointer_size=len(pointer))


def tree_oid(files: Mapping[str, Blob], folder: str = "") -> str:
    """One hash for all files whose path starts with `folder`. Unlike git's it is flat: only equality matters."""
    lines = [f"{blob.oid} {path}\n" for path, blob in sorted(files.items()) if path.startswith(folder)]
    return git_oid("tree", "".join(lines).encode())


def is_safe(path: str) -> bool:
    """Whether git accepts `path`: it is relative and has no empty, `.`, `..` or `.git` part."""
    return all(part not in ("", ".", "..", ".git") for part in path.split("/"))
