"""What leaves this machine of config.yaml and run.json: the names of local files and folders, not where they lie."""

import json
from pathlib import Path

import pytest

from pricer.config import DataConfig, ModelConfig, RunConfig
from pricer.config_file import load_config, to_yaml
from pricer.stores.published import published_config, published_facts, published_files


@pytest.mark.parametrize(
    ("given", "published"),
    [
        ("/home/ann/secret/lamps.csv", "lamps.csv"),
        ("secret/more/lamps.csv", "lamps.csv"),
        ("~/lamps", "lamps"),
        ("./models/lamps/", "lamps"),
        ("lamps.csv", "lamps.csv"),
        # A pattern keeps its last folder, or it would match every file where training goes on.
        ("/home/ann/secret/lamps/*.csv", "lamps/*.csv"),
        ("secret/lamps/**/part-*.csv", "lamps/**/part-*.csv"),
        ("*.csv", "*.csv"),
        # No folder of this name is here, so these are on the Hub.
        ("ann/lamps", "ann/lamps"),
        ("builtin:computers", "builtin:computers"),
    ],
)
def test_a_source_is_published_by_its_name(given: str, published: str) -> None:
    config = published_config(RunConfig(data=DataConfig(source=given, val_source=given), model=ModelConfig(base=given)))

    assert (config.data.source, config.data.val_source, config.model.base) == (published,) * 3
    assert config.data.test_source is None


def test_a_folder_that_looks_like_a_repository_is_published_by_its_name() -> None:
    Path("models/lamps").mkdir(parents=True)

    assert published_config(RunConfig(model=ModelConfig(base="models/lamps"))).model.base == "lamps"


def test_the_facts_name_no_folder_of_this_machine() -> None:
    config = RunConfig(data=DataConfig(source="./secret/lamps.csv"))
    facts = {
        "seed": 42,
        "data_folder": "data/lamps-1a2b3c4d",
        "data": {"warnings": ["secret/lamps.csv has no header", f"{Path('secret/lamps.csv').absolute()} is long"]},
    }

    assert published_facts(facts, config) == {
        "seed": 42,
        "data": {"warnings": ["lamps.csv has no header", "lamps.csv is long"]},
    }


def test_a_run_without_local_paths_is_published_byte_for_byte(tmp_path: Path) -> None:
    files = {"config.yaml": b"# mine\ntrain: {}\n", "run.json": b'{"seed":  42}'}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)

    assert published_files(tmp_path) == files
    assert published_files(tmp_path / "nowhere") == {}


def test_the_published_config_reads_back(tmp_path: Path) -> None:
    config = RunConfig(data=DataConfig(source="/home/ann/secret/lamps.csv"))
    (tmp_path / "config.yaml").write_text(to_yaml(config))
    (tmp_path / "run.json").write_text(json.dumps({"data_folder": "data/lamps", "seed": 1}))

    published = published_files(tmp_path)

    (tmp_path / "copy.yaml").write_bytes(published["config.yaml"])
    assert load_config(tmp_path / "copy.yaml") == published_config(config)
    assert json.loads(published["run.json"]) == {"seed": 1}
