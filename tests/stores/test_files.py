"""Files that are whole or not there."""

import errno
import fcntl
import json
import os
import stat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.stores.files import (
    append_lines,
    locked,
    new_folder,
    read_arrays,
    read_lines,
    sha256_of,
    write_arrays,
    write_atomically,
    write_json,
)

RECORDS = st.lists(
    st.dictionaries(st.sampled_from(["step", "text"]), st.integers() | st.text(alphabet='aé"\\{}\n\u2028 1')),
    max_size=6,
)


def as_lines(records: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records).encode()


def test_a_file_is_replaced_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "facts.json"

    write_json(path, {"lamp": "café", "n": 1})
    write_json(path, {"n": 2})

    assert path.read_text(encoding="utf-8") == '{\n  "n": 2\n}\n'
    assert [file.name for file in path.parent.iterdir()] == ["facts.json"]


def test_a_written_file_can_be_read_by_others(tmp_path: Path) -> None:
    write_atomically(tmp_path / "file", b"\x00\xff")

    assert stat.S_IMODE((tmp_path / "file").stat().st_mode) == 0o644
    assert (tmp_path / "file").read_bytes() == b"\x00\xff"


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full_disk(*_: Any) -> None:
        raise OSError("No space left on device")

    path = tmp_path / "facts.json"
    path.write_text("old")
    monkeypatch.setattr(os, "replace", full_disk)

    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, "new")

    assert path.read_text() == "old"
    assert list(tmp_path.glob(".facts*")) == []


def test_an_appended_line_is_one_json_object_in_utf8(tmp_path: Path) -> None:
    path = tmp_path / "new" / "log.jsonl"

    append_lines(path, [{"text": "café\n2"}])
    append_lines(path, [{"n": 1}, {"n": 2}], durable=False)

    assert path.read_bytes() == '{"text": "café\\n2"}\n{"n": 1}\n{"n": 2}\n'.encode()


def test_a_file_that_is_not_there_has_no_lines(tmp_path: Path) -> None:
    assert list(read_lines(tmp_path / "log.jsonl")) == []


def test_a_file_cut_at_any_byte_reads_as_the_records_before_the_cut(tmp_path: Path) -> None:
    path = tmp_path / "cut.jsonl"
    records: list[dict[str, Any]] = [{"n": 1}, {}, {"text": 'é\n"}'}]
    content = as_lines(records)

    for cut in range(len(content) + 1):
        path.write_bytes(content[:cut])
        assert list(read_lines(path)) == records[: content[:cut].count(b"\n")]


@given(RECORDS, st.data())
def test_appending_after_a_torn_line_loses_only_that_line(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]], data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "torn.jsonl"
    content = as_lines(records)
    cut = data.draw(st.integers(0, len(content)))
    path.write_bytes(content[:cut])

    append_lines(path, [{"new": 1}])

    whole = records[: content[:cut].count(b"\n")]
    assert list(read_lines(path)) == [*whole, {"new": 1}]
    assert path.read_bytes() == as_lines([*whole, {"new": 1}])


@pytest.mark.parametrize("line", [b"{", b"[1]", b"5", b"", b"null", b'{"text": "caf\xe9"}'])
def test_a_broken_line_before_the_last_is_named(line: bytes) -> None:
    path = Path("log.jsonl")
    path.write_bytes(b'{"n": 1}\n' + line + b'\n{"n": 3}\n')

    with pytest.raises(ValueError, match=r"^not a JSON object \(log.jsonl, line 2\)$"):
        list(read_lines(path))


def test_the_sha256_is_of_the_content(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"abc")

    # The example of FIPS 180-2, appendix B.1
    assert sha256_of(tmp_path / "file") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_new_folder_appears_when_its_block_ends(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "step-5"

    with new_folder(target) as folder:
        (folder / "weights").write_text("5")
        assert not target.exists()

    assert (target / "weights").read_text() == "5"
    assert [path.name for path in target.parent.iterdir()] == ["step-5"]


def test_a_new_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = tmp_path / "step-5"
    target.mkdir()
    (target / "stale").write_text("old")

    with new_folder(target) as folder:
        (folder / "weights").write_text("new")

    assert [path.name for path in target.iterdir()] == ["weights"]
    assert [path.name for path in tmp_path.glob("*step*")] == ["step-5"]


def test_a_block_that_fails_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "step-5"
    target.mkdir()
    (target / "weights").write_text("old")

    with pytest.raises(RuntimeError, match="killed"), new_folder(target) as folder:  # noqa: PT012
        (folder / "weights").write_text("half")
        raise RuntimeError("killed")

    assert (target / "weights").read_text() == "old"
    assert [path.name for path in tmp_path.glob("*step*")] == ["step-5"]


def test_columns_come_back_as_they_were(tmp_path: Path) -> None:
    path = tmp_path / "new" / "scores.npz"

    write_arrays(path, price=np.array([1.5, 0.1]), answered=np.array([True, False]))
    found = read_arrays(path, price=np.float64, answered=np.bool_)

    assert {name: column.tolist() for name, column in found.items()} == {"price": [1.5, 0.1], "answered": [True, False]}


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ({"price": np.array([1, 2])}, "^price is not a column of float64$"),
        ({"price": np.ones((2, 2))}, "^price is not a column of float64$"),
        ({"price": np.array(1.0)}, "^price is not a column of float64$"),
        ({"price": np.ones(2), "charged": np.ones(3)}, "^columns of different lengths$"),
        ({"charged": np.ones(2)}, "price"),
    ],
)
def test_columns_of_another_kind_are_refused(tmp_path: Path, columns: dict[str, np.ndarray], problem: str) -> None:
    write_arrays(tmp_path / "file.npz", **columns)

    with pytest.raises((KeyError, ValueError), match=problem):
        read_arrays(tmp_path / "file.npz", **dict.fromkeys(["price", *columns], np.float64))


@pytest.mark.parametrize("content", [b"", b"PK", b"junk", b"PK\x03\x04" + bytes(60)])
def test_a_file_that_holds_no_columns_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "file.npz").write_bytes(content)

    with pytest.raises(ValueError, match=r"^(?!columns)"):
        read_arrays(tmp_path / "file.npz", price=np.float64)


def test_columns_are_not_unpickled(tmp_path: Path) -> None:
    np.savez(tmp_path / "file.npz", price=np.array([{"a": 1}], dtype=object))

    with pytest.raises(ValueError, match="allow_pickle=False"):
        read_arrays(tmp_path / "file.npz", price=np.float64)


def test_a_file_is_locked_as_nfs_wants_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, flock = tmp_path / "shard.lock", fcntl.flock
    path.touch()

    def flock_on_nfs(handle: int, kind: int) -> None:
        is_writable = fcntl.fcntl(handle, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDONLY
        if kind & fcntl.LOCK_EX and not is_writable:
            raise OSError(errno.EBADF, "Bad file descriptor")
        flock(handle, kind)

    monkeypatch.setattr("pricer.stores.files.fcntl.flock", flock_on_nfs)
    monkeypatch.setattr("pricer.stores.files._PAUSE", 0.0)
    with locked(path, BlockingIOError()), pytest.raises(BlockingIOError), locked(path, BlockingIOError()):
        pass
