"""The packages that are installed, beside those that are needed and those that are tested."""

import platform
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.utils import canonicalize_name

from pricer.stores import machine as module
from pricer.stores.machine import is_installed, packages, python, versions_tested

ROOT = Path(__file__).parents[2]
REQUIRES = ["torch>=2.13", "huggingface-hub>=2.4", "rich>=1000", "gone>=1", "flask>=3.1; extra == 'dev'"]
THAT_MATTER = (
    *("torch", "transformers", "peft", "trl", "bitsandbytes", "datasets", "accelerate", "huggingface-hub", "wandb"),
    *("tokenizers", "safetensors", "typer", "rich", "pydantic", "numpy", "nvidia-ml-py", "packaging"),
)


def test_the_versions_tested_are_those_of_the_constraints() -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]

    tested = versions_tested()

    assert len(tested) == len(pinned)
    assert all(
        f"{name}=={tested[canonicalize_name(name)]}" in pinned for name in (pin.split("==")[0] for pin in pinned)
    )
    assert set(THAT_MATTER) <= set(tested)


def test_the_constraints_are_in_the_wheel() -> None:
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]

    assert build["force-include"]["constraints.txt"] == "pricer/constraints.txt"


def test_without_the_list_nothing_is_known_as_tested(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_CONSTRAINTS", (Path("constraints.txt"),))

    assert versions_tested() == {}


def test_every_package_that_matters_is_looked_at() -> None:
    found = {str(canonicalize_name(package.name)): package for package in packages()}
    # What was installed before pyproject.toml was last changed does not know of the newest one.
    needed = set(THAT_MATTER) - {"packaging", "safetensors"}

    assert needed <= set(found)
    assert all(found[name].installed == metadata.version(name) and found[name].tested for name in needed)
    assert "flask" not in found


def test_missing_old_and_odd_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metadata, "requires", lambda name: REQUIRES)
    versions = {"torch": "2.14.0.dev1+cu130", "huggingface-hub": "2.4.0", "rich": "15.0.0", "tokenizers": None}

    def version(name: str) -> str | None:
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "version", version)

    found = {package.name: (package.installed, package.wanted) for package in packages()}

    assert found == {
        # A pre-release of a later version is above the bound.
        "torch": ("2.14.0.dev1+cu130", None),
        "huggingface-hub": ("2.4.0", None),
        "rich": ("15.0.0", ">=1000"),
        "gone": (None, None),
        # What is left of one that was half removed.
        "tokenizers": (None, None),
    }


def test_this_python_fits_and_an_old_one_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert python() == (platform.python_version(), ">=3.11", True)

    monkeypatch.setattr(platform, "python_version", lambda: "3.10.14")

    assert python() == ("3.10.14", ">=3.11", False)


def test_pricer_that_is_only_found_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    assert is_installed()

    def version(name: str) -> str:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "version", version)

    assert not is_installed()
    assert python()[2]
