"""Facts about this machine: memory, disks, installed packages, and its account on the Hub."""

import contextlib
import functools
import os
import platform
import shutil
import tempfile
import time
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from importlib import metadata
from pathlib import Path

from pricer.core.machine_checks import HubAnswer, Package
from pricer.errors import first_line
from pricer.redaction import without_password
from pricer.stores.hub_client import offline_variable

# Size in bytes of a test file. It is written because a quota may be lower than the free space on the disk.
_TRIAL = 1 << 20
CGROUP = Path("/sys/fs/cgroup")
"""Where Linux keeps the limits of a container."""
# Files with the limit, with the bytes in use, and with the bytes of cached files (its line); cgroup versions 2 and 1.
_CGROUPS = (
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat", "total_inactive_file"),
)

# The file is inside the package in a wheel, and beside the package in a checkout.
_CONSTRAINTS = (Path(__file__).parents[1] / "constraints.txt", Path(__file__).parents[2] / "constraints.txt")
# pricer does not import it, but it decides how a price is tokenized.
_INDIRECT = ("tokenizers",)


@dataclass(frozen=True, slots=True)
class Disk:
    """The disk of a folder. `free` is in bytes, None if unknown. `problem` says why the folder cannot be written, and
    is empty if it can. `obstacle` is a file or a broken link in the folder's place.
    """

    folder: Path
    free: int | None
    problem: str
    obstacle: Path | None = None


def look_at_disk(folder: Path) -> Disk:
    """Whether a file can be written in a folder, or its nearest existing parent, and how much room there is."""
    folder = folder.absolute()
    # Path.exists and Path.is_dir raise below a folder that may not be looked into.
    present = next(part for part in (folder, *folder.parents) if os.path.lexists(part))
    if not os.path.isdir(present):  # noqa: PTH112
        kind = "not a folder" if os.path.exists(present) else "a link to nothing"  # noqa: PTH110
        return Disk(folder, None, f"{present} is {kind}", present)
    free, problem = None, ""
    with contextlib.suppress(OSError):
        free = shutil.disk_usage(present).free
    try:
        with tempfile.TemporaryFile(dir=present) as file:
            file.write(b"\0" * _TRIAL)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        problem = error.strerror or str(error)
    return Disk(folder, free, problem)


def memory() -> tuple[int, int]:
    """Bytes of main memory that are available without swapping, and in total. A container's limits count."""
    import psutil

    found = psutil.virtual_memory()
    available, total = found.available, found.total
    for limit, used, stat, reclaimable in _CGROUPS:
        try:
            maximum = int((CGROUP / limit).read_text(encoding="ascii"))
            taken = int((CGROUP / used).read_text(encoding="ascii"))
            lines = (CGROUP / stat).read_text(encoding="ascii").splitlines()
        except (OSError, ValueError):  # no such version, or no limit: max
            continue
        # Cached files count as used, until another program needs the memory.
        files = sum(int(line.split()[1]) for line in lines if line.split()[:1] == [reclaimable])
        total = min(total, maximum)
        available = min(available, max(0, maximum - taken + files))
    return available, total


def packages() -> list[Package]:
    """Every package that pricer requires, then important indirect ones. pricer must be installed."""
    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    tested = versions_tested()
    found = []
    for requirement in map(Requirement, [*(metadata.requires("pricer") or ()), *_INDIRECT]):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        installed = _version(requirement.name)
        meets = installed is None or requirement.specifier.contains(installed, prereleases=True)
        wanted = None if meets else str(requirement.specifier)
        found.append(Package(requirement.name, installed, tested.get(canonicalize_name(requirement.name)), wanted))
    return found


def versions_tested() -> dict[str, str]:
    """The versions that the tests ran with, by canonical name; empty if there is no constraints.txt."""
    from packaging.utils import canonicalize_name

    path = next((path for path in _CONSTRAINTS if path.is_file()), None)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    pins = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pins if version}


def python() -> tuple[str, str, bool]:
    """Python's version, the versions that pricer needs (empty: not known), and whether it is one of them."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    needed = metadata.metadata("pricer")["Requires-Python"] or "" if is_installed() else ""
    return version, needed, SpecifierSet(needed).contains(version, prereleases=True)


def is_installed() -> bool:
    """Whether pricer is installed as a package, and not merely found on the path."""
    return _version("pricer") is not None


def _version(name: str) -> str | None:
    try:
        # For a package that was half removed this is None, whatever the annotation says.
        found: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return found


def ask_hub(timeout: float = 5.0) -> HubAnswer:
    """The Hub's answer to "who am I", asked once. No answer within `timeout` seconds is a finding, not an error."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    token, endpoint = get_token(), without_password(constants.ENDPOINT)
    answered = functools.partial(HubAnswer, endpoint, token is not None)
    if constants.is_offline_mode():
        return answered(problem="switched off", off_by=offline_variable())
    headers = build_hf_headers(token=token or False)
    start = time.time()
    try:
        answer = get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=headers, timeout=timeout)
    except Exception as error:  # each library on the way has classes of its own
        # The token may come from a login, in any format, so redaction by variable or pattern is not enough.
        return answered(first_line(error).replace(constants.ENDPOINT, endpoint).replace(token or "\0", "***"))
    skew = _skew(answer.headers.get("date", ""), (start + time.time()) / 2)
    if answer.status_code != 200:
        return answered(status=answer.status_code, skew=skew)
    try:
        record = answer.json()
        name, role = record["name"], record.get("auth", {}).get("accessToken", {}).get("role")
    except (ValueError, KeyError, TypeError, AttributeError):
        name, role = None, None
    if not isinstance(name, str):
        return answered("what answers there is not a Hub")
    return answered(status=200, account=name, role=role if isinstance(role, str) else None, skew=skew)


def _skew(date: str, now: float) -> float | None:
    """Seconds by which `now`, by this machine's clock, is ahead of an answer's Date; None without one."""
    try:
        # A Date has whole seconds, rounded down: on average half a second has gone by since.
        return now - (parsedate_to_datetime(date).timestamp() + 0.5)
    except (ValueError, TypeError):
        return None
