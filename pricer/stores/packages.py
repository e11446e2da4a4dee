"""The packages installed here, beside those that pricer needs and those that its tests ran with."""

import platform
from importlib import metadata
from pathlib import Path

from pricer.core.machine_checks import Package

# In the wheel the file lies inside the package, in a checkout beside it.
_CONSTRAINTS = (Path(__file__).parents[1] / "constraints.txt", Path(__file__).parents[2] / "constraints.txt")
# Not imported here by name, but what prices are written with and weights are read by.
_INDIRECT = ("tokenizers", "safetensors")


def packages() -> list[Package]:
    """Every package that pricer needs, in the order of pyproject.toml, then those that count though others bring them.
    Only where pricer `is_installed`.
    """
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
    """The versions that the tests ran with, by canonical name; none if the list is not here."""
    from packaging.utils import canonicalize_name

    path = next((path for path in _CONSTRAINTS if path.is_file()), None)
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    pins = [line.partition("==") for line in lines if not line.startswith("#")]
    return {canonicalize_name(name): version for name, _, version in pins if version}


def python() -> tuple[str, str, bool]:
    """Python's version, which ones pricer needs (empty: not known), and whether it is one of them."""
    from packaging.specifiers import SpecifierSet

    version = platform.python_version()
    needed = metadata.metadata("pricer")["Requires-Python"] or "" if is_installed() else ""
    return version, needed, SpecifierSet(needed).contains(version, prereleases=True)


def is_installed() -> bool:
    """Whether pricer is known as a package here, and not merely found on the path."""
    return _version("pricer") is not None


def _version(name: str) -> str | None:
    try:
        # None of a folder that was left behind half-removed, whatever the annotation says.
        found: str | None = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None
    return found
