"""The JSON schema of config files accepts what pricer accepts, as far as a schema can say it."""

from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from pricer.config import RunConfig
from pricer.config_file import CONFIGS, to_yaml
from pricer.config_schema import config_schema, schema_text
from tests.repositories import Cli

SCHEMA = config_schema()
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)


def problems(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(yaml.safe_load(text))]


@pytest.mark.parametrize("file", sorted(CONFIGS.glob("*.yaml")), ids=lambda file: file.stem)
def test_it_accepts_every_bundled_config(file: Path) -> None:
    assert problems(file.read_text(encoding="utf-8")) == []


def test_it_accepts_every_setting_with_its_default() -> None:
    assert problems(to_yaml(RunConfig())) == []


@pytest.mark.parametrize(
    "text",
    [
        "", "train:", "train: {checkpoint_every: 20_000}", "train: {checkpoint_every: '20_000'}",
        "train: {learning_rate: 1e-4}", "train: {learning_rate: 0.0001}", "train: {micro_batch: auto}",
        "train: {micro_batch: 8}", "data: {description: [brand, year]}", "data: {title: null}", "tracking: {mode: off}",
    ],
)  # fmt: skip
def test_it_accepts_every_way_to_write_a_value(text: str) -> None:
    assert problems(text) == []


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("train: {learnin_rate: 1}", "'learnin_rate' was unexpected"),
        ("trian: {}", "'trian' was unexpected"),
        ("train: {batch_size: 0}", "0 is not valid"),
        ("train: {epochs: three}", "'three' is not valid"),
        ("train: {seed: true}", "True is not valid"),
        ("model: {quantization: int8}", "'int8' is not one of ['nf4', 'none']"),
        ("data: {description: []}", "[] is not valid"),
        ("train: [1]", "[1] is not of type"),
    ],
)
def test_it_refuses_a_mistake(text: str, problem: str) -> None:
    (found,) = problems(text)

    assert problem in found


def test_every_setting_has_its_documentation_on_one_line() -> None:
    assert "Optimizer steps between checkpoints." in section("TrainConfig")["checkpoint_every"]["description"]
    texts = [one.get("description", "") for name in SCHEMA["$defs"] for one in section(name).values()]
    assert [text for text in texts if not text or "\n" in text] == []


def section(name: str) -> dict[str, Any]:
    return dict(SCHEMA["$defs"][name]["properties"])


def test_the_command_prints_it() -> None:
    result = Cli("config", "schema")

    assert (result.code, result.out, result.err) == (0, schema_text(), "")
