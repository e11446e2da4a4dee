"""Averages of adapters: exact, adapters again, and made of nothing that would be refused by itself."""

import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pricer.config import AdapterConfig
from pricer.errors import CheckpointError
from pricer.ml.adapters import AdapterSwitch, add_adapter, average_adapters, write_adapter
from pricer.ml.base import load_base
from pricer.ml.devices import Precision
from pricer.stores.bases import ASSETS

BASE = ASSETS / "base"
IDS = torch.arange(5, 25)[None]
WEIGHTS, SETTINGS = "adapter_model.safetensors", "adapter_config.json"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Three adapters with an effect, r 4 and alpha 6, as peft saves them."""
    folder = tmp_path_factory.mktemp("members")
    for seed in range(3):
        model = add_adapter(
            load_base(BASE, Precision("cpu", "none", "float32")), AdapterConfig(r=4, alpha=6, dropout=0.0), seed
        )
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(parameter, std=0.05)
        model.save_pretrained(folder / str(seed))
    return [folder / str(seed) for seed in range(3)]


@pytest.fixture(scope="module", params=["nf4", "none"])
def quantization(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def a_base(quantization: str = "none") -> Any:
    return load_base(BASE, Precision("cpu", quantization, "float32"))


def logits(model: Any) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = model(input_ids=IDS).logits
    return result


def copies(folders: list[Path], target: Path, **settings: object) -> list[Path]:
    """The adapters with other settings in their files."""
    for folder in folders:
        shutil.copytree(folder, target / folder.name)
        record = json.loads((folder / SETTINGS).read_text()) | settings
        (target / folder.name / SETTINGS).write_text(json.dumps(record))
    return [target / folder.name for folder in folders]


def cook(folders: list[Path], target: Path) -> Path:
    target.mkdir()
    switch = AdapterSwitch(a_base())
    write_adapter(average_adapters([switch.read(folder) for folder in folders]), target)
    return target


def with_dense_average(base: Any, folders: list[Path], scale: float) -> Any:
    """The base with the mean of the updates added to what each layer says, B·A multiplied out in float64."""
    tensors = [load_file(folder / WEIGHTS) for folder in folders]
    for name, module in list(base.named_modules()):
        a, b = (f"base_model.model.{name}.lora_{part}.weight" for part in "AB")
        if a not in tensors[0]:
            continue
        updates = [scale * one[b].double() @ one[a].double() for one in tensors]
        mean = (torch.stack(updates).sum(dim=0) / len(updates)).float()
        module.register_forward_hook(lambda _, inputs, out, mean=mean: out + inputs[0] @ mean.T)
    return base


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("use_rslora", [False, True])
@pytest.mark.parametrize("merge", [True, False], ids=["merged", "beside"])
def test_the_average_is_that_of_the_dense_updates(
    members: list[Path], quantization: str, count: int, use_rslora: bool, merge: bool, tmp_path: Path
) -> None:
    folders = copies(members[:count], tmp_path, use_rslora=use_rslora)
    by_hand = with_dense_average(a_base(quantization), folders, 6 / math.sqrt(4) if use_rslora else 6 / 4)
    switch = AdapterSwitch(a_base(quantization), merge=merge)

    switch.use(cook(folders, tmp_path / "soup"))

    torch.testing.assert_close(logits(switch.model), logits(by_hand), atol=2e-4, rtol=1e-4)


def test_a_and_b_averaged_apart_are_something_else(members: list[Path], tmp_path: Path) -> None:
    (apart,) = copies(members[:1], tmp_path)
    first, second = (load_file(folder / WEIGHTS) for folder in members[:2])
    save_file({name: (first[name] + second[name]) / 2 for name in first}, apart / WEIGHTS)
    by_hand, switch = with_dense_average(a_base(), members[:2], 6 / 4), AdapterSwitch(a_base())

    switch.use(apart)

    assert (logits(switch.model) - logits(by_hand)).abs().max() > 0.05


def test_two_equal_adapters_average_to_the_adapter(members: list[Path], tmp_path: Path) -> None:
    switch = AdapterSwitch(a_base())
    switch.use(members[0])
    alone = logits(switch.model)

    switch.use(cook([members[0], members[0]], tmp_path / "soup"))

    torch.testing.assert_close(logits(switch.model), alone, atol=2e-5, rtol=1e-5)


def test_the_file_is_the_same_each_time_and_has_the_members_weights_as_they_are(
    members: list[Path], tmp_path: Path
) -> None:
    soup, again = cook(members, tmp_path / "soup"), cook(members, tmp_path / "again")

    assert (soup / WEIGHTS).read_bytes() == (again / WEIGHTS).read_bytes()
    settings = json.loads((soup / SETTINGS).read_text())
    assert settings == json.loads((again / SETTINGS).read_text())
    assert (settings["r"], settings["lora_alpha"]) == (12, 6)  # 6 / 12 is a third of 6 / 4
    tensors, second = load_file(soup / WEIGHTS), load_file(members[1] / WEIGHTS)
    for name, own in second.items():
        part = tensors[name][4:8] if ".lora_A." in name else tensors[name][:, 4:8]
        assert torch.equal(part, own)


def fewer_layers(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    save_file({name: tensor for name, tensor in tensors.items() if "q_proj" in name}, folder / WEIGHTS)
    record = json.loads((folder / SETTINGS).read_text()) | {"target_modules": ["q_proj"]}
    (folder / SETTINGS).write_text(json.dumps(record))


def another_alpha(folder: Path) -> None:
    record = json.loads((folder / SETTINGS).read_text()) | {"lora_alpha": 7}
    (folder / SETTINGS).write_text(json.dumps(record))


def a_pickle_alone(folder: Path) -> None:
    (folder / WEIGHTS).rename(folder / "adapter_model.bin")


def no_numbers(folder: Path) -> None:
    tensors = load_file(folder / WEIGHTS)
    next(iter(tensors.values()))[0, 0] = math.nan
    save_file(tensors, folder / WEIGHTS)


def code_to_import(folder: Path) -> None:
    record = json.loads((folder / SETTINGS).read_text()) | {"megatron_config": {"a": 1}}
    (folder / SETTINGS).write_text(json.dumps(record))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (fewer_layers, "these adapters change different layers"),
        (another_alpha, "these adapters have different settings"),
        (a_pickle_alone, "has no adapter_model.safetensors"),
        (no_numbers, "has weights that are not numbers"),
        (code_to_import, "megatron_config is an object, which is not supported"),
    ],
)
def test_members_that_cannot_be_averaged_are_refused_in_one_line(
    spoil: Callable[[Path], None], message: str, members: list[Path], tmp_path: Path
) -> None:
    folders = copies(members[:2], tmp_path)
    spoil(folders[1])

    with pytest.raises(CheckpointError, match=message) as raised:
        cook(folders, tmp_path / "soup")

    assert "\n" not in raised.value.message
    assert list((tmp_path / "soup").iterdir()) == []


def test_an_average_of_too_high_a_rank_is_refused(members: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.ml.adapters.MAX_RANK", 11)
    switch = AdapterSwitch(a_base())

    with pytest.raises(CheckpointError, match="the average of 3 adapters of rank 4 has rank 12, 11 at most"):
        average_adapters([switch.read(folder) for folder in members])
