"""Main memory and disks of this machine."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Bytes that are written to see whether that is possible: a quota says nothing to those who only ask what is free.
_TRIAL = 1 << 20


@dataclass(frozen=True, slots=True)
class Disk:
    """Where a folder is or would be. `free` in bytes, None: unknown; `problem`: why nothing can be written there, and
    `obstacle` what is in its place, if that is why: a file, or a link to nothing.
    """

    folder: Path
    free: int | None
    problem: str
    obstacle: Path | None = None


def look_at_disk(folder: Path) -> Disk:
    """How much is free for a folder, and whether a file can be written and forced to disk there, or above it where it
    is not there yet. Nothing stays behind.
    """
    folder = folder.absolute()
    # Path.exists raises below a folder that may not be looked into.
    present = next(part for part in (folder, *folder.parents) if os.path.lexists(part))
    if not os.path.exists(present):
        return Disk(folder, None, f"{present} is a link to nothing", present)
    if not os.path.isdir(present):
        return Disk(folder, None, f"{present} is not a folder", present)
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
        return Disk(folder, free, error.strerror or str(error))
    return Disk(folder, free, "")


def memory() -> tuple[int, int]:
    """Bytes of main memory that can be had without swapping, and in all."""
    import psutil

    found = psutil.virtual_memory()
    return found.available, found.total
