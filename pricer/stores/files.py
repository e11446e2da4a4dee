"""Files that are complete or absent: atomic writes, append-only JSON lines, content hashes, locks."""

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

# Attempts to take a lock, and seconds between them. Several, because `is_locked` briefly holds the lock.
_ATTEMPTS, _PAUSE = 5, 0.02


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file completely or not at all: under a temporary name, flushed to disk, then renamed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        Path(name).chmod(0o644)  # mkstemp sets 0600, and other users could not read the file
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    _sync(path.parent)


def write_json(path: Path, record: Mapping[str, Any]) -> None:
    """Write one JSON object atomically, for people to read."""
    write_atomically(path, format_json(record))


def format_json(record: Mapping[str, Any]) -> str:
    """One JSON object as the text of a file, for people to read."""
    return json.dumps(record, indent=2, ensure_ascii=False) + "\n"


def parse_json(text: str | bytes) -> dict[str, Any] | None:
    """The JSON object that a text holds; None if it holds anything else, or is nested too deeply to be read."""
    try:
        record = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return record if isinstance(record, dict) else None


def read_json(path: Path) -> dict[str, Any]:
    """The JSON object in a file; a ValueError if the file holds anything else, an OSError if it cannot be read."""
    record = parse_json(path.read_bytes())
    if record is None:
        raise ValueError("not a JSON object")
    return record


def write_arrays(path: Path, **columns: np.ndarray) -> None:
    """Write columns atomically, as numpy's .npz without pickle."""
    file = io.BytesIO()
    np.savez_compressed(file, allow_pickle=False, **columns)
    write_atomically(path, file.getvalue())


def read_arrays(path: Path, **columns: Any) -> dict[str, np.ndarray]:
    """Read back columns of these names and types, each of shape (rows,). A FileNotFoundError if there is no file; a
    KeyError or ValueError if the file holds anything else.
    """
    try:
        # Opened here, because numpy does not close a file that is no archive.
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


def write_lines(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON objects, a line each, atomically: a file that `append_lines` can add to. A file that has exactly these
    lines is left alone.
    """
    content = _as_lines(records).encode()
    if not path.is_file() or path.stat().st_size != len(content) or path.read_bytes() != content:
        write_atomically(path, content)


def append_lines(path: Path, records: Iterable[Mapping[str, Any]], *, durable: bool = True) -> None:
    """Append JSON objects, a line each, in one write. A last line that a killed writer left half-written is cut off
    first. Processes wait for each other. Lines that are not `durable` survive a kill but not a power cut.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab+") as file:
        _lock(file.fileno())
        _cut_torn_line(file)
        file.write(_as_lines(records).encode())
        file.flush()
        if durable:
            os.fsync(file.fileno())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """The JSON objects of an appended file, none if there is no file. A half-written last line is left out. Any other
    broken line, which no killed writer leaves, is a ValueError that names it.
    """
    for number, line in whole_lines(path):
        record = parse_json(line)
        if record is None:
            raise ValueError(f"not a JSON object ({path}, line {number})")
        yield record


def whole_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of an appended file, numbered from 1; none if there is no file. A half-written last one is left out."""
    if not path.exists():
        return
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.endswith(b"\n"):
                yield number, line


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def link_or_copy(source: Path, target: Path) -> None:
    """Make a second file with the same content, as a hard link if possible. Replacing one file does not change the
    other.
    """
    try:
        os.link(source.resolve(), target)
    except OSError:
        shutil.copyfile(source, target)


@contextmanager
def new_folder(target: Path) -> Iterator[Path]:
    """A temporary folder to fill. If the block ends without an error, it is renamed to `target` and replaces an older
    one.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as scratch:
        folder = Path(scratch) / "new"
        folder.mkdir()
        yield folder
        for path in (*folder.rglob("*"), folder):
            _sync(path)
        if target.exists():
            target.replace(Path(scratch) / "old")
        folder.replace(target)
        _sync(target.parent)


@contextmanager
def locked(path: Path, busy: Exception | None = None, *, shared: bool = False) -> Iterator[None]:
    """Lock a folder or a file until the block, or the process, ends. If another process holds it, raise `busy`; None:
    wait. Several processes can hold a `shared` lock; another process cannot lock the path meanwhile.
    """
    # NFS locks a file exclusively only if it is open for writing. A folder cannot be opened for writing.
    handle = os.open(path, os.O_RDWR if path.is_file() else os.O_RDONLY)
    try:
        _lock(handle, busy, shared=shared)
        yield
    finally:
        os.close(handle)


def is_locked(folder: Path) -> bool:
    """Whether another process has locked the folder; False if the file system has no locks."""
    try:
        with locked(folder, BlockingIOError()):
            return False
    except BlockingIOError:
        return True


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _as_lines(records: Iterable[Mapping[str, Any]]) -> str:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)


def _lock(handle: int, busy: Exception | None = None, *, shared: bool = False) -> None:
    """Lock an open file or folder until it is closed."""
    kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
    for left in reversed(range(_ATTEMPTS)):
        try:
            fcntl.flock(handle, kind | (fcntl.LOCK_NB if busy else 0))
            return
        except BlockingIOError:
            if busy and left == 0:
                raise busy from None
            time.sleep(_PAUSE)
        except OSError:
            return  # some network file systems have no locks; one process at a time works there too


def _cut_torn_line(file: Any) -> None:
    if (size := file.seek(0, os.SEEK_END)) > 0:
        file.seek(size - 1)
        if file.read(1) != b"\n":
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
