"""Data sets on the Hub: their commit, their splits and subsets, and what is wrong with them in one line."""

import io
from pathlib import Path

import datasets  # at the top, so that the fixture `hub` points it at the loopback Hub
import pytest

from pricer.config import DataConfig
from pricer.core.items import Split
from pricer.data.rows import Source
from pricer.data.sources import open_source
from pricer.errors import DataError
from tests.loopback_hub import Fault, LoopbackHub

CSV = b"description,price\nA lamp,12.5\n"
SUBSETS = b"""---
configs:
- config_name: red
  data_files: red/*.csv
- config_name: blue
  data_files:
  - split: train
    path: blue/a.csv
  - split: held_out
    path: blue/b.csv
---
# Lamps
"""


def commit(hub: LoopbackHub, files: dict[str, bytes], name: str = "ann/lamps", *, gated: bool = False) -> str:
    return hub.create(name, kind="dataset", gated=gated).commit(files, "data").hash


def open_lamps(**settings: str) -> Source:
    return open_source(DataConfig(source="ann/lamps", **settings))  # type: ignore[arg-type]


def splits(source: Source) -> dict[str, Split | None]:
    return {file.name: file.split for file in source.files}


def error(name: str = "ann/lamps", **settings: str) -> tuple[str, str]:
    with pytest.raises(DataError) as raised:
        list(open_source(DataConfig(source=name, **settings)).rows())  # type: ignore[arg-type]
    assert "\n" not in raised.value.message
    return raised.value.message, raised.value.hint


def test_a_data_set_keeps_its_splits_and_its_commit(hub: LoopbackHub) -> None:
    files = {"train.csv": CSV, "data/validation.csv": CSV, "test-00000-of-00001.csv": CSV, "LICENSE.txt": b"free"}
    revision = commit(hub, files)

    source = open_lamps()

    assert source.revision == revision
    assert splits(source) == {
        "ann/lamps/train.csv": Split.TRAIN,
        "ann/lamps/data/validation.csv": Split.VAL,
        "ann/lamps/test-00000-of-00001.csv": Split.TEST,
    }
    assert [row.values for row in source.rows()] == [{"description": "A lamp", "price": "12.5"}] * 3


def test_a_commit_stands_although_the_branch_goes_on(hub: LoopbackHub) -> None:
    repo = hub.create("ann/lamps", kind="dataset")
    first = repo.commit({"train.csv": CSV}, "data").hash
    repo.commit({"train.csv": CSV + b"A hat,3\n"}, "more data")

    assert [sum(1 for _ in open_lamps(revision=revision).rows()) for revision in (first, "main")] == [1, 2]


def test_what_is_in_the_cache_needs_no_network(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    revision = commit(hub, {"train.csv": CSV})
    before = open_lamps()
    asked = len(hub.requests)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

    assert open_lamps(revision=revision).fingerprint == before.fingerprint
    assert open_lamps().fingerprint == before.fingerprint  # the commit that main had
    assert len(hub.requests) == asked
    assert error(revision="v2") == (
        "ann/lamps is not in the cache, and the Hub is switched off (HF_HUB_OFFLINE)",
        "unset HF_HUB_OFFLINE, or set data.revision to a commit that was downloaded before",
    )


def test_a_csv_on_the_hub_is_checked_like_one_here(hub: LoopbackHub) -> None:
    commit(hub, {"train.csv": b"description,price\nA lamp, red,12.5\nN/A,3\n"})

    bad, good = open_lamps().rows()

    assert (bad.problem, bad.line) == ("3 cells under 2 columns", 2)
    assert good.values == {"description": "N/A", "price": "3"}
    commit(hub, {"train.csv": b'description,price\n"24" tv,3\n'}, "ann/tvs")
    assert error("ann/tvs")[0] == "a quote in this row is in the wrong place (ann/tvs/train.csv, line 2)"


def test_a_subset_is_chosen_by_name_and_never_by_chance(hub: LoopbackHub) -> None:
    commit(hub, {"README.md": SUBSETS, "red/x.csv": CSV, "blue/a.csv": CSV, "blue/b.csv": CSV})

    assert splits(open_lamps(subset="blue")) == {"ann/lamps/blue/a.csv": Split.TRAIN, "ann/lamps/blue/b.csv": None}
    assert splits(open_lamps(subset="red")) == {"ann/lamps/red/x.csv": Split.TRAIN}
    assert error() == ("ann/lamps has several subsets: red, blue", "data.subset: red")
    assert error(subset="green") == (
        "ann/lamps has no subset green; it has red, blue",
        "data.subset: one of these, or null",
    )


def test_parquet_and_arrow_are_read(hub: LoopbackHub) -> None:
    table, parquet = datasets.Dataset.from_dict({"description": ["A lamp", "A hat"], "price": [1.5, 2.0]}), io.BytesIO()
    datasets.disable_progress_bars()
    table.to_parquet(parquet)
    table.save_to_disk("table")
    arrow = next(Path("table").glob("*.arrow")).read_bytes()
    parts = {"train": Split.TRAIN, "test": Split.TEST}
    commit(hub, {f"data/{part}-00000-of-00001.parquet": parquet.getvalue() for part in parts})
    commit(hub, {f"{part}/x.arrow": arrow for part in parts}, "ann/arrows")

    for name in ("ann/lamps", "ann/arrows"):
        source = open_source(DataConfig(source=name))

        assert source.columns == ("description", "price")
        assert [file.split for file in source.files] == list(parts.values())
        assert [file.counted for file in source.files] == ["row", "row"]
        rows = [(row.values["description"], row.values["price"], row.file, row.line) for row in source.rows()]
        assert rows == [("A lamp", 1.5, 0, 1), ("A hat", 2.0, 0, 2), ("A lamp", 1.5, 1, 1), ("A hat", 2.0, 1, 2)]


@pytest.mark.parametrize(
    ("files", "message", "hint"),
    [
        ({"lamps.py": b"import os"}, "ann/lamps is loaded by code of its own, which pricer does not run",
         "the Hub may have its rows as Parquet files: data.revision: refs/convert/parquet"),
        ({"README.md": b"# Lamps"}, "ann/lamps has no data files", "see {page}/tree/main"),
        ({"README.md": b"---\nconfigs:\n- config_name: x\n  data_files: /etc/passwd\n---\n"},
         "the card of ann/lamps names a file outside of it: /etc/passwd", ""),
        ({"README.md": b"---\nconfigs:\n- config_name: x\n  data_files: gone.csv\n---\n"},
         "the card of ann/lamps names a file that is not there: 'hf://datasets/ann/lamps@{commit}/gone.csv'",
         "see {page}/tree/main"),
        ({"README.md": b"---\nconfigs: 3\n---\n", "train.csv": CSV},
         "the data set ann/lamps cannot be read: Expected configs to be a list, but got '3'", ""),
        ({"train.csv": CSV, "test.csv": b"description,cost\nA hat,3\n"}, "ann/lamps/test.csv has no column price, "
         "unlike ann/lamps/train.csv; it has description, cost", "all files of a source need the same columns"),
    ],
)  # fmt: skip
def test_a_data_set_that_cannot_be_read_says_why(
    hub: LoopbackHub, files: dict[str, bytes], message: str, hint: str
) -> None:
    revision = commit(hub, files)

    known = {"commit": revision, "page": f"{hub.url}/datasets/ann/lamps"}
    assert error() == (message.format(**known), hint.format(**known))


def test_what_the_hub_refuses_is_named(hub: LoopbackHub, waits: list[float]) -> None:
    commit(hub, {"train.csv": CSV})
    commit(hub, {"train.csv": CSV}, "bob/lamps", gated=True)

    login = "a private data set needs `hf auth login`, or HF_TOKEN"
    page = f"{hub.url}/datasets"
    assert error("ann/gone") == ("there is no data set ann/gone on the Hub, or this account may not see it", login)
    assert error("bob/lamps") == (
        "bob/lamps is gated: its terms have to be accepted first",
        f"accept them on {page}/bob/lamps, then `hf auth login`",
    )
    assert error(revision="v9") == ("ann/lamps has no revision v9", f"see {page}/ann/lamps/tree/main")
    hub.faults.script("GET", "/api/datasets/ann/lamps", [Fault.status(500)] * 20)
    assert error()[0].startswith("the Hub answers 500 for ann/lamps: ")


def test_no_network_is_said(hub: LoopbackHub, waits: list[float]) -> None:
    commit(hub, {"train.csv": CSV})
    hub.faults.script("GET", "/api/datasets/ann/lamps", [Fault.cut_request(reset=True)] * 20)

    message, hint = error()

    assert message.startswith("the Hub cannot be reached for ann/lamps: ")
    assert hint == "is the network up?"


def test_a_cache_that_cannot_be_written_is_named(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(hub, {"train.csv": CSV})
    Path("file").write_text("", encoding="utf-8")
    cache = str(Path("file/hub").absolute())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", cache)

    message, hint = error()

    assert message == f"{cache}, which data of the Hub is downloaded to, cannot be written: Not a directory"
    assert hint == "set HF_HOME to a folder that can be written, and has room"
