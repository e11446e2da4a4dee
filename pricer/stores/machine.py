"""Main memory and disks of this machine."""

import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

# Bytes that are written to see whether that is possible: a quota says nothing to those who only ask what is free.
_TRIAL = 1 << 20

CGROUP = Path("/sys/fs/cgroup")
"""Where Linux says what a container may use."""
# The limit, what is used, and in which line of which file how much of that is files that can be dropped: versions 2, 1.
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)


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
    # Path.exists and Path.is_dir raise below a folder that may not be looked into.
    present = next(part for part in (folder, *folder.parents) if os.path.lexists(part))
    if not os.path.exists(present):  # noqa: PTH110
        return Disk(folder, None, f"{present} is a link to nothing", present)
    if not os.path.isdir(present):  # noqa: PTH112
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
    """Bytes of main memory that can be had without swapping, and in all: of the container where this is one."""
    import psutil

    found = psutil.virtual_memory()
    available, total = found.available, found.total
    for limit, used, stat, reclaimable in _CGROUPS:
        try:
            most = int((CGROUP / limit).read_text(encoding="ascii"))
            taken = int((CGROUP / used).read_text(encoding="ascii"))
            lines = (CGROUP / stat).read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # no such version, or no limit: max
            continue
        # Files that were read count, too, until somebody needs the memory.
        files = sum(int(line.split()[1]) for line in lines if line.split()[:1] == [reclaimable])
        total = min(total, most)
        available = min(available, max(0, most - taken + files))
    return available, total
