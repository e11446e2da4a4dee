"""The bundled configs: each loads, starts with the command that runs it, and plans as published."""

from pathlib import Path

import pytest

from pricer.commands.parts.plan import Plan, plan
from pricer.config_file import CONFIGS, load_config
from pricer.core.prices import PriceFormat, format_price

BASES = Path(__file__).parent / "bases"
FILES = sorted(CONFIGS.glob("*.yaml"))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_config_loads_and_starts_with_the_command_that_runs_it(file: Path) -> None:
    load_config(file)

    command = "pricer train" if file.stem == "quickstart" else f"pricer train configs/{file.name}"
    assert file.read_text(encoding="utf-8").splitlines()[0] == f"# {command}"


def planned(name: str, base: str) -> Plan:
    return plan(load_config(CONFIGS / f"{name}.yaml", [f"model.base={BASES / base}"]))


@pytest.mark.parametrize("name", ["llama-3.1-8b-a100", "llama-3.2-3b-a100", "llama-3.2-3b-t4"])
def test_a_published_recipe_writes_whole_dollars_and_never_0(name: str) -> None:
    data = load_config(CONFIGS / f"{name}.yaml").data
    assert isinstance(data.min_price, float)

    assert data.price_unit.to_steps(data.min_price) == 1
    assert data.price_unit.to_steps(data.min_price - 0.01) == 0
    assert format_price(227.4, PriceFormat("plain", None, data.price_unit.decimals)) == "227.00"


def test_a_plan_without_the_data_says_what_it_could_not_settle() -> None:
    (note,) = planned("llama-3.1-8b-a100", "llama-3.1-8b").notes

    assert note.startswith("not settled, because the data was not read: data.test_fraction, prompt.lead, ")


def test_the_400_000_item_run() -> None:
    found = planned("llama-3.1-8b-a100", "llama-3.1-8b")

    # 400,000 / 16 = 25,000 steps an epoch, × 4; a checkpoint every 5,000.
    assert (found.items, found.steps_per_epoch, found.steps, found.checkpoints) == (400_000, 25_000, 100_000, 20)
    assert found.sizes.adapter_bytes == 109_051_904
    assert found.upload_bytes == 20 * 109_051_904


def test_the_800_000_item_run() -> None:
    found = planned("llama-3.2-3b-a100", "llama-3.2-3b")

    # 800,000 / 256 = 3,125 steps an epoch, × 3; 9,375 / 200 = 46.9, the last step has one too.
    assert (found.items, found.steps, found.checkpoints) == (800_000, 9_375, 47)
    assert round(found.sizes.adapter_bytes / 1e6) == 1_556


def test_the_t4_run() -> None:
    found = planned("llama-3.2-3b-t4", "llama-3.2-3b")

    assert (found.items, found.steps, found.checkpoints) == (20_000, 625, 7)
    assert round(found.sizes.adapter_bytes / 1e6, 1) == 73.4
