"""Data sets on the Hub: their commit, their splits and subsets, and what is wrong with them in one line."""

import datasets  # noqa: F401  # the fixture `hub` points it at the loopback Hub

from pricer.config import DataConfig
from pricer.core.items import Split
from pricer.data.sources import open_source
from tests.loopback_hub import LoopbackHub

CSV = b"description,price\nA lamp,12.5\n"


def commit(hub: LoopbackHub, files: dict[str, bytes], name: str = "ann/lamps", gated: bool = False) -> str:
    repo = hub.create(name, kind="dataset", gated=gated)
    return repo.commit(files, "data").hash


def test_a_data_set_keeps_its_splits_and_its_commit(hub: LoopbackHub) -> None:
    revision = commit(hub, {"train.csv": CSV, "data/validation.csv": CSV, "test-00000-of-00001.csv": CSV})

    source = open_source(DataConfig(source="ann/lamps"))

    assert source.revision == revision
    print(source)
    assert {(file.name, file.split) for file in source.files} == {
        ("ann/lamps/train.csv", Split.TRAIN),
        ("ann/lamps/data/validation.csv", Split.VAL),
        ("ann/lamps/test-00000-of-00001.csv", Split.TEST),
    }
    print(hub.requests)
    assert 0
