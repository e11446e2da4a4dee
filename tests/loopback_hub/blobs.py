"""Files as a repo holds them: git blobs, and LFS objects behind a pointer."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass

LFS_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".parquet")
LFS_ABOVE_BYTES = 10 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Blob:
    """One file of a commit. `oid` is git's hash: of the content, or of the pointer where `sha256` names an LFS object.

    `size` is what the Hub says of it; only `Repo.commit_raw` makes blobs where that, or the sha256, is a lie.
    """

    oid: str
    size: int
    content: bytes = b""
    sha256: str | None = None
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        """What identifies the content: the sha256 of an LFS object, the git hash of a regular file."""
        return self.sha256 or self.oid


@dataclass(frozen=True, slots=True)
class LfsFile:
    """A file that goes to LFS whatever its name. `sha256` and `size` are what the Hub says of it; None: the truth."""

    content: bytes
    sha256: str | None = None
    size: int | None = None


def wants_lfs(path: str, size: int) -> bool:
    """Whether the Hub keeps such a file in LFS. An empty file is always regular: there is nothing to store."""
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > LFS_ABOVE_BYTES)


def git_oid(kind: str, content: bytes) -> str:
    """Git's name of an object: sha1 of its header and content."""
    return hashlib.sha1(f"{kind} {len(content)}\0".encode() + content).hexdigest()


def regular_blob(content: bytes) -> Blob:
    """The blob of a file that git holds itself."""
    return Blob(oid=git_oid("blob", content), size=len(content), content=content)


def lfs_blob(sha256: str, size: int) -> Blob:
    """The blob of a pointer to an LFS object."""
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
    return Blob(oid=git_oid("blob", pointer), size=size, sha256=sha256, pointer_size=len(pointer))


def tree_oid(files: Mapping[str, Blob]) -> str:
    """One hash for a whole tree; flat, unlike git's, because only equality matters."""
    lines = "".join(f"{blob.oid} {path}\n" for path, blob in sorted(files.items()))
    return git_oid("tree", lines.encode())


def is_safe(path: str) -> bool:
    """Whether git takes `path`: relative, with no empty, `.`, `..` or `.git` part."""
    return all(part not in ("", ".", "..", ".git") for part in path.split("/"))
