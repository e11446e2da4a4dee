"""The data folder: complete or absent, found by its content, and never used when it has changed."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from pricer.config import DataConfig
from pricer.core.items import Split
from pricer.data.item_files import StoredItems, item_file, near_copies_in, prices_in, write_items
from pricer.data.preparation import load_items, prepare_data
from pricer.errors import DataError
from tests.data.item_files import LAMP, jsonl

CODE = "import sys; from pricer.config import DataConfig; from pricer.data.preparation import prepare_data; "
PREPARE = CODE + "print(prepare_data(DataConfig(source=sys.argv[1])).path)"


def rows(n: int) -> list[dict[str, object]]:
    return [
        {"description": f"lamp {i} of {'brass' if i % 2 else 'oak'} and {i * i} more", "price": 9 + i} for i in range(n)
    ]


def folders() -> list[Path]:
    return sorted(Path("data").glob("*"))


class TestFolder:
    def test_it_has_a_file_for_each_split_what_was_left_out_and_facts(self) -> None:
        folder = prepare_data(DataConfig(source=jsonl(*rows(30))))

        assert folder.path.parent == Path("data")
        assert folder.path.name.startswith("items-")
        names = {path.name for path in folder.path.iterdir()}
        assert names >= {"train.parquet", "val.parquet", "test.parquet", "rejected.jsonl", "data.json"}
        assert "work" not in names

    def test_the_same_content_and_settings_have_one_folder_wherever_the_file_is(self) -> None:
        first = prepare_data(DataConfig(source=jsonl(*rows(30))))
        Path("items.jsonl").rename("moved.jsonl")

        again = prepare_data(DataConfig(source="moved.jsonl", train_limit=3))

        assert again.path == first.path

    def test_the_shares_that_auto_stands_for_have_the_same_folder(self) -> None:
        source = jsonl(*rows(30))
        items = load_items(DataConfig(source=source))
        assert items.val_fraction is not None
        assert items.test_fraction is not None

        settled = DataConfig(source=source, val_fraction=items.val_fraction, test_fraction=items.test_fraction)

        assert load_items(settled).folder == items.folder

    def test_auto_finds_the_folder_that_was_made_with_its_shares(self) -> None:
        source = jsonl(*rows(30))
        # A fifth of 30 items is what auto takes for each split.
        given = prepare_data(DataConfig(source=source, val_fraction=0.2, test_fraction=0.2))

        assert [prepare_data(DataConfig(source=source)).path for _ in range(2)] == [given.path] * 2
        made = given.path.stat().st_mtime_ns
        assert prepare_data(DataConfig(source=source)).path.stat().st_mtime_ns == made
        assert len(folders()) == 1

    def test_other_content_in_a_file_of_the_same_time_and_size_has_another_folder(self) -> None:
        source = jsonl(LAMP, *rows(30))
        before, first = Path(source).stat(), load_items(DataConfig(source=source))
        jsonl({**LAMP, "price": 99.5}, *rows(30))
        os.utime(source, ns=(before.st_atime_ns, before.st_mtime_ns))

        after = load_items(DataConfig(source=source))

        assert after.folder != first.folder
        assert after.fingerprint != first.fingerprint

    @pytest.mark.parametrize("setting", [{"min_price": 10}, {"near_duplicates": "ignore"}, {"test_fraction": 0.5}])
    def test_another_setting_has_another_folder(self, setting: dict[str, object]) -> None:
        source = jsonl(*rows(30))

        paths = {prepare_data(DataConfig.model_validate({"source": source, **more})).path for more in ({}, setting)}

        assert len(paths) == 2

    @pytest.mark.parametrize(
        ("name", "damage"),
        [
            *((f"{split}.parquet", damage) for split in ("train", "val", "test") for damage in ("a byte less", "gone")),
            *(("data.json", damage) for damage in ("edited", "empty", "gone", "a folder", "other keys")),
        ],
    )
    def test_a_folder_that_changed_is_refused(self, name: str, damage: str) -> None:
        config = DataConfig(source=jsonl(*rows(30)))
        file = prepare_data(config).path / name
        content = file.read_bytes()
        if damage in ("gone", "a folder"):
            file.unlink()
            if damage == "a folder":
                file.mkdir()
        elif damage == "a byte less":
            file.write_bytes(content[:200] + content[201:])
        elif damage == "empty":
            file.write_bytes(b"")
        else:
            edits: dict[str, object] = {"keys": []} if damage == "other keys" else {"fractions": {"val": 0.3}}
            file.write_text(json.dumps({**json.loads(content), **edits}))

        with pytest.raises(DataError) as raised:
            prepare_data(config)

        assert raised.value.message == f"{file} changed since it was written"
        assert raised.value.hint == f"delete the folder {file.parent}: it is made again"
        shutil.rmtree(file.parent)
        assert prepare_data(config).path == file.parent

    def test_other_folders_and_files_in_data_are_left_alone(self) -> None:
        Path("data/.my-notes").mkdir(parents=True)
        Path("data/mine").mkdir()
        Path("data/mine/data.json").write_text("{}")
        jsonl(*rows(30), name="data/houses.jsonl")

        folder = prepare_data(DataConfig(source="data/houses.jsonl"))

        assert {path.name for path in folders()} == {".my-notes", "mine", "houses.jsonl", folder.path.name}

    def test_a_working_folder_that_cannot_be_written_is_named(self) -> None:
        Path("data").write_text("a file")

        with pytest.raises(DataError) as raised:
            prepare_data(DataConfig(source=jsonl(*rows(30))))

        assert raised.value.message == f"the data folder {Path.cwd() / 'data'} cannot be written: File exists"
        assert raised.value.hint == "start pricer in a folder that can be written, and has room for a copy of the data"

    def test_what_a_failure_left_is_deleted(self) -> None:
        with pytest.raises(DataError):
            prepare_data(DataConfig(source=jsonl({"description": "x"})))

        assert folders() == []

    def test_two_processes_make_one_folder(self) -> None:
        source = jsonl(*rows(3000))
        command = [sys.executable, "-c", PREPARE, source]

        both = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(2)]
        ends = [process.communicate() for process in both]

        assert [process.returncode for process in both] == [0, 0], ends
        assert {end[0].strip() for end in ends} == {str(folders()[0])}
        assert len(folders()) == 1


@pytest.fixture
def small_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a file system of its own needs the right to mount one")
    yield folder
    monkeypatch.chdir(tmp_path)
    subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_full_disk_leaves_nothing_and_is_said(small_disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = Path(jsonl(*rows(5000))).absolute()  # 128 × 4 × 5,000 bytes of signatures alone are 2.6 MB
    monkeypatch.chdir(small_disk)

    with pytest.raises(DataError) as raised:
        prepare_data(DataConfig(source=str(source)))

    assert raised.value.message == f"the data folder {small_disk / 'data'} cannot be written: No space left on device"
    assert folders() == []


def test_a_disk_that_can_only_be_read_is_enough_for_a_folder_that_is_there(
    small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = str(Path(jsonl(*rows(50))).absolute())
    monkeypatch.chdir(small_disk)
    made = prepare_data(DataConfig(source=source))
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)

    assert prepare_data(DataConfig(source=source)).path == made.path
    with pytest.raises(DataError, match=r"^the data folder .*/data cannot be written: Read-only file system$"):
        prepare_data(DataConfig(source=source, min_price=20))


@pytest.mark.slow
def test_a_kill_at_any_moment_leaves_a_whole_folder_or_none() -> None:
    source = jsonl(*rows(8000))
    config, complete = DataConfig(source=source), 0
    for attempt in range(12):
        process = subprocess.Popen([sys.executable, "-c", PREPARE, source], stdout=subprocess.DEVNULL)
        try:
            process.wait(timeout=0.4 + 0.3 * attempt)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for folder in Path("data").glob("[!.]*"):
            complete += 1
            made = prepare_data(config)  # it verifies the files
            assert made.path == folder
            assert sum(made.summary.items.values()) == 8000
            shutil.rmtree(folder)

    prepare_data(config)

    assert complete < 12
    assert len(folders()) == 1  # nothing of the killed processes is left


class TestStoredItems:
    def stored(self, count: int = 25) -> tuple[Path, StoredItems]:
        groups = (
            {
                "id": [str(i) for i in part],
                "description": [f"lamp {i}" for i in part],
                "title": [None] * len(part),
                "category": ["lamps"] * len(part),
                "price": [float(i) for i in part],
                "near_copy": [i == 7 for i in part],
                "place": [i / 25 for i in part],
            }
            for part in np.array_split(np.arange(25), 3)
        )
        path = item_file(Path(), Split.TRAIN)
        write_items(path, Split.TRAIN, groups)
        return path, StoredItems(path, count)

    def test_they_are_a_sequence(self) -> None:
        _, items = self.stored()

        assert len(items) == 25
        assert [item.price for item in items] == list(range(25))
        assert (items[3].description, items[-1].id, items[3].category) == ("lamp 3", "24", "lamps")
        assert [item.price for item in items[8:19]] == list(range(8, 19))
        assert [item.price for item in items[20:5:-5]] == [20, 15, 10]
        assert items[30:] == ()
        with pytest.raises(IndexError):
            items[25]

    def test_only_the_first_ones_may_be_wanted(self) -> None:
        path, items = self.stored(count=10)

        assert [item.price for item in items] == list(range(10))
        assert items[-1].price == 9
        assert prices_in(path, 10).tolist() == list(range(10))
        with pytest.raises(IndexError):
            items[10]

    def test_near_copies_are_known(self) -> None:
        path, _ = self.stored()

        assert near_copies_in(path) == ["7"]


def test_settings_that_say_what_auto_is_lead_to_the_same_folder_in_any_order() -> None:
    source = jsonl(*rows(30))
    automatic = DataConfig(source=source)
    shares = {f"{split}_fraction": share for split, share in prepare_data(automatic).facts.fractions.items()}
    shutil.rmtree("data")

    first = prepare_data(automatic.model_copy(update=shares))
    again = prepare_data(automatic)

    assert again.path == first.path
    reports: list[str] = []
    prepare_data(automatic, lambda what, _: reports.append(what))
    assert reports == []  # it is found, not made again
