"""Processes of this machine: which one this is, and whether another one still runs."""

import hashlib
import os
import platform
import uuid
from dataclasses import dataclass
from pathlib import Path

import psutil


@dataclass(frozen=True, slots=True)
class Process:
    """A process. `machine` identifies the machine since its last start, and the container if there is one. `started`
    tells the process from a later one with the same `pid`. `host` is the machine's name, for people.
    """

    machine: str
    host: str
    pid: int
    started: str


def this_process() -> Process:
    """The process that calls."""
    return Process(_machine(), platform.node()[:60], os.getpid(), _start_of(os.getpid()))


def has_ended(process: Process) -> bool:
    """Whether it is known that a process runs no more. False on another machine, where nobody can know."""
    here = this_process()
    if process.machine != here.machine:
        return False
    try:
        found = psutil.Process(process.pid)
        return found.status() == psutil.STATUS_ZOMBIE or _start_of(process.pid) != process.started
    except psutil.NoSuchProcess:
        return True
    except psutil.AccessDenied:
        return False


def _machine() -> str:
    # A hash, because the lease of a public repository must not tell more about a machine than its name.
    known = [platform.node(), _read("/proc/sys/kernel/random/boot_id") or str(uuid.getnode()), _namespace()]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()[:32]


def _namespace() -> str:
    # Two containers on one machine have the same boot id, but number their processes separately.
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115
    except OSError:
        return ""


def _start_of(pid: int) -> str:
    # On Linux the time since the machine started, because psutil's time changes when the clock is set.
    fields = _read(f"/proc/{pid}/stat").rpartition(")")[2].split()
    return fields[19] if len(fields) > 19 else f"{psutil.Process(pid).create_time():.0f}"


def _read(path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""
