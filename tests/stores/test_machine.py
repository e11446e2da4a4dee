"""Disks that can be written and that cannot, and main memory."""

import errno
import os
import subprocess
from pathlib import Path

import psutil
import pytest

from pricer.stores.machine import look_at_disk, memory


def test_a_folder_that_is_not_there_yet_is_not_made() -> None:
    disk = look_at_disk(Path("runs/deep"))

    assert disk.folder == Path.cwd() / "runs/deep"
    assert disk.problem == ""
    assert disk.free is not None
    assert disk.free > 0
    assert sorted(path.name for path in Path.cwd().iterdir()) == [".home"]


def test_a_full_disk_is_found_by_writing(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)

    assert look_at_disk(Path("runs")).problem == "No space left on device"


def test_a_folder_below_a_file() -> None:
    Path("runs").write_text("", encoding="utf-8")

    disk = look_at_disk(Path("runs/a"))

    assert (disk.problem, disk.obstacle) == (f"{Path.cwd() / 'runs'} is not a folder", Path.cwd() / "runs")


def test_a_link_to_nothing() -> None:
    Path("runs").symlink_to("gone")

    disk = look_at_disk(Path("runs"))

    assert (disk.problem, disk.obstacle) == (f"{Path.cwd() / 'runs'} is a link to nothing", Path.cwd() / "runs")


def test_a_folder_that_may_not_be_looked_into(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir(mode=0)
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)  # root may look into everything
    try:
        disk = look_at_disk(private / "huggingface")
    finally:
        os.seteuid(user)

    assert (disk.problem, disk.obstacle) == ("Permission denied", None)


def test_a_read_only_disk(tmp_path: Path) -> None:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", folder], capture_output=True, check=False
    ).returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    try:
        assert look_at_disk(folder / "runs").problem == "Read-only file system"
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@pytest.mark.parametrize(
    ("names", "line"),
    [
        (("memory.max", "memory.current", "memory.stat"), "inactive_file"),
        (("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"), "total_inactive_file"),
    ],
)
def test_a_container_has_what_its_limit_leaves(
    names: tuple[str, str, str], line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pricer.stores.machine.CGROUP", tmp_path)
    # 2 MB are the limit; of 1.5 MB that are used 0.25 are files that can be dropped.
    contents = ("2000000\n", "1500000\n", f"anon 3\n{line} 250000\n")
    for name, content in zip(names, contents, strict=True):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(content, encoding="ascii")

    assert memory() == (750_000, 2_000_000)


def test_a_container_without_a_limit_has_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.stores.machine.CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("max\n", encoding="ascii")

    assert memory()[1] == psutil.virtual_memory().total


def test_memory_in_bytes() -> None:
    available, total = memory()

    assert 1e6 < available <= total
