"""Files that are whole or not there: atomic writes, append-only JSON lines, content hashes."""

import fcntl
import hashlib
import io
import json
import os
import shutil
import tempfile
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

# Bytes at the end of an appended file that hold its last line.
_TAIL = 1 << 16
# Times and seconds between them that a lock is tried: `is_locked`, for a moment, keeps it, too.
_ATTEMPTS, _PAUSE = 5, 0.02


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a whole file or none: under a temporary name, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp's 0600 would shut out the rest of a team
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write one JSON object atomically, for people to read."""
    write_atomically(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


def write_arrays(path: Path, **columns: np.ndarray) -> None:
    """Write columns atomically, as numpy's .npz without pickle."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **columns)
    write_atomically(path, file.getvalue())


def read_arrays(path: Path, **columns: Any) -> dict[str, np.ndarray]:
    """Read back columns of these names and types (a value for each row). A FileNotFoundError if there is no file; a
    KeyError or ValueError if the file holds anything else.
    """
    try:
        # Opened here: of a file that is no archive, numpy leaves it open.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            found = {name: archive[name] for name in columns}
    except (zipfile.BadZipFile, EOFError, AttributeError, TypeError) as error:
        raise ValueError(str(error)) from None
    for name, dtype in columns.items():
        if found[name].ndim != 1 or not np.issubdtype(found[name].dtype, dtype):
            raise ValueError(f"{name} is not a column of {np.dtype(dtype).name}")
    if len({len(column) for column in found.values()}) != 1:
        raise ValueError("columns of different lengths")
    return found


def append_lines(path: Path, records: Iterable[Mapping[str, Any]], *, durable: bool = True) -> None:
    """Append JSON objects, a line each, in one write. A torn last line of a killed writer is cut off first; one that
    another process is just writing is waited for.

    Not `durable`: handed to the operating system but not forced to disk, which survives a kill but not a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
    with path.open("ab+") as file:
        _lock(file.fileno(), wait=True)
        _cut_torn_line(file)
        file.write(text.encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of an appended file, none if there is no file; a torn last line is left out.

    A broken line before the last is a ValueError that names it: no killed writer leaves one.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.endswith(b"\n"):
                return
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                record = None
            if not isinstance(record, dict):
                raise ValueError(f"not a JSON object ({path}, line {number})")
            yield record


def last_line(path: Path) -> dict[str, Any] | None:
    """The last whole line of an appended file, found without reading the rest; None if there is none, or it is no JSON
    object.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - _TAIL))
            whole = file.read().rpartition(b"\n")[0]
        record = json.loads(whole.rpartition(b"\n")[2])
    except (FileNotFoundError, ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """The same content under a second name, without a second copy where the file system can: whoever later replaces or
    removes one of the two leaves the other as it is.
    """
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A folder to fill that appears under its name, in place of any older one, only when the block ends well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        for file in sorted(folder.rglob("*")):
            sync_folder(file)
        sync_folder(folder)
        if target.exists():
            target.replace(Path(scratch) / "old")
        folder.replace(target)
        sync_folder(target.parent)


@contextmanager
def locked(folder: Path, *, wait: bool) -> Iterator[None]:
    """Keep a folder from other processes that lock it too; a BlockingIOError if one has it and `wait` is false.

    The lock goes with the process, however that ends.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        _lock(handle, wait=wait)
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether another process keeps the folder by `locked`; False where the file system has no locks. It disturbs
    nobody: it shares the lock with others that ask, and who wants it tries more than once.
    """
    handle = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(handle)
    return False


def sync_folder(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _lock(handle: int, *, wait: bool) -> None:
    """Lock an open file or folder until it is closed."""
    for left in reversed(range(_ATTEMPTS)):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            return
        except BlockingIOError:
            if left == 0:
                raise
            time.sleep(_PAUSE)
        except OSError:
            return  # some network file systems have no locks; one process at a time works there too


def _cut_torn_line(file: Any) -> None:
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    whole = file.read().rfind(b"\n") + 1
    file.truncate(whole)
    file.seek(whole)
