"""Main memory and disks of this machine."""

import errno
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Bytes that are written to see whether that is possible: a quota says nothing to those who only ask what is free.
_TRIAL = 1 << 20


@dataclass(frozen=True, slots=True)
class Disk:
    """Where a folder is or would be. `free` in bytes, None: unknown; `problem`: why nothing can be written there."""

    folder: Path
    free: int | None
    problem: str


def look_at_disk(folder: Path) -> Disk:
    """How much is free for a folder, and whether a file can be written and forced to disk there, or above it where it
    is not there yet. Nothing stays behind.
    """
    folder = folder.absolute()
    present = next(part for part in (folder, *folder.parents) if part.exists())
    try:
        free: int | None = shutil.disk_usage(present).free
    except OSError:
        free = None
    try:
        with tempfile.TemporaryFile(dir=present) as file:
            file.write(b"\0" * _TRIAL)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return Disk(folder, free, _said(error, present))
    return Disk(folder, free, "")


def memory() -> tuple[int, int]:
    """Bytes of main memory that can be had without swapping, and in all."""
    import psutil

    found = psutil.virtual_memory()
    return found.available, found.total


def _said(error: OSError, folder: Path) -> str:
    # tempfile tries to make a file of a folder that is a file.
    if error.errno == errno.ENOTDIR:
        return f"{folder} is not a folder"
    return error.strerror or str(error)
