"""Adapters that a stranger made: nothing of theirs is run, one line says what is wrong, and the base stays usable."""

import json
import os
import pickle
import re
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from pricer.config import AdapterConfig
from pricer.errors import CheckpointError
from pricer.ml.adapters import AdapterSwitch, add_adapter
from pricer.ml.base import load_base
from pricer.ml.devices import Precision
from pricer.stores.bases import ASSETS

BASE = ASSETS / "base"
CPU = Precision("cpu", "nf4", "float32")

A_DOWN = "base_model.model.model.layers.0.mlp.down_proj.lora_A.weight"
WEIGHTS = "adapter_model.safetensors"
SETTINGS = "adapter_config.json"


def save_adapter(folder: Path, config: AdapterConfig) -> Path:
    model = add_adapter(load_base(BASE, CPU), config, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:  # B starts at zero, where an adapter has no effect
            torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    return folder


def logits(switch: AdapterSwitch) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = switch.model(input_ids=torch.arange(5, 25)[None]).logits
    return result


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_adapter(tmp_path_factory.mktemp("adapters") / "good", AdapterConfig(r=4, dropout=0.0))


@pytest.fixture(scope="module", params=[True, False], ids=["merged", "beside"])
def merge(request: pytest.FixtureRequest) -> bool:
    merge: bool = request.param
    return merge


@pytest.fixture(scope="module")
def switch(good: Path, merge: bool) -> AdapterSwitch:
    """With the good adapter on."""
    switch = AdapterSwitch(load_base(BASE, CPU), merge=merge)
    switch.use(good)
    return switch


@pytest.fixture
def folder(good: Path, tmp_path: Path) -> Path:
    """A copy of the good adapter, to be spoiled."""
    folder = tmp_path / "adapter"
    folder.mkdir()
    for name in (WEIGHTS, SETTINGS):
        (folder / name).write_bytes((good / name).read_bytes())
    return folder


class Bomb:
    """Unpickling it leaves a file named `ran` in the working folder."""

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, ("touch ran",)


def with_settings(folder: Path, **changes: object) -> None:
    record = json.loads((folder / SETTINGS).read_text())
    (folder / SETTINGS).write_text(json.dumps({**record, **changes}))


def with_tensors(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = load_file(folder / WEIGHTS)
    change(tensors)
    save_file(tensors, folder / WEIGHTS)


def with_value(folder: Path, value: float) -> None:
    def change(tensors: dict[str, torch.Tensor]) -> None:
        tensors[A_DOWN][3, 7] = value

    with_tensors(folder, change)


def with_header(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = (folder / WEIGHTS).read_bytes()
    end = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:end])
    change(header)
    text = json.dumps(header).encode()
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", len(text)) + text + data[end:])


def weights_as_pickle_alone(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / "adapter_model.bin").write_bytes(pickle.dumps(Bomb()))


def pickle_named_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(pickle.dumps(Bomb()))


def torch_pickle_named_safetensors(folder: Path) -> None:
    torch.save({"weight": Bomb()}, folder / WEIGHTS)


def folder_named_safetensors(folder: Path) -> None:
    (folder / WEIGHTS).unlink()
    (folder / WEIGHTS).mkdir()


def module_beside_the_work(folder: Path) -> None:
    (folder.parent / "stranger.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    with_settings(folder, megatron_core="stranger", megatron_config={"hidden_size": 1})


def code_in_the_folder(folder: Path) -> None:
    (folder / "modeling.py").write_text("import pathlib\npathlib.Path('ran').touch()\n")
    with_settings(folder, auto_map={"AutoModelForCausalLM": "modeling.Model"})


def padded_settings(folder: Path) -> None:
    with (folder / SETTINGS).open("ab") as file:
        file.truncate(50_000_000)


def truncated(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:-100])


def cut_in_the_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:1000])


SPOILED: dict[str, tuple[Callable[[Path], object], str]] = {
    # What a folder can hold in place of weights.
    "a pickle alone": (weights_as_pickle_alone, "{folder} has no adapter_model.safetensors"),
    "a pickle by another name": (
        pickle_named_safetensors,
        r"{folder}/adapter_model.safetensors cannot be used: its header has [\d,]+ bytes, 16,000,000 at most",
    ),
    "a torch pickle by another name": (
        torch_pickle_named_safetensors,
        r"{folder}/adapter_model.safetensors cannot be used: its header has [\d,]+ bytes, 16,000,000 at most",
    ),
    "a folder": (folder_named_safetensors, "{folder} has no adapter_model.safetensors"),
    # Files that are not whole, or lie about themselves.
    "no bytes": (lambda folder: (folder / WEIGHTS).write_bytes(b""), "{folder}/{weights} cannot be read: .+"),
    "truncated": (truncated, "{folder}/{weights} cannot be read: .+"),
    "cut in the header": (cut_in_the_header, "{folder}/{weights} cannot be read: .+"),
    "a huge header": (
        lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2**60) + b"{}"),
        "{folder}/{weights} cannot be used: its header has 1,152,921,504,606,846,976 bytes, 16,000,000 at most",
    ),
    "a header that is not JSON": (
        lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 8) + b"not json"),
        "{folder}/{weights} cannot be read: .+",
    ),
    "a header that is a list": (
        lambda folder: (folder / WEIGHTS).write_bytes(struct.pack("<Q", 2) + b"[]"),
        "{folder}/{weights} cannot be read: .+",
    ),
    "terminal codes in the header": (
        lambda folder: with_header(folder, lambda header: header.update(x="\x1b[2J\n" * 1000)),
        "{folder}/{weights} cannot be read: .+",
    ),
    "overlapping tensors": (
        lambda folder: with_header(folder, lambda header: header[A_DOWN].update(data_offsets=[64, 64 + 7680])),
        "{folder}/{weights} cannot be read: .+",
    ),
    "a tensor past the end": (
        lambda folder: with_header(folder, lambda header: header[A_DOWN].update(data_offsets=[10**12, 10**12 + 7680])),
        "{folder}/{weights} cannot be read: .+",
    ),
    "a shape larger than its bytes": (
        lambda folder: with_header(folder, lambda header: header[A_DOWN].update(shape=[2**31, 2**31])),
        "{folder}/{weights} cannot be read: .+",
    ),
    # Tensors that the base has no place for.
    "another shape": (
        lambda folder: with_tensors(folder, lambda tensors: tensors.update({A_DOWN: torch.zeros(4, 481)})),
        r"the adapter in {folder} does not fit the base: {tensor} has shape \[4, 481\], not \[4, 480\]",
    ),
    "another number of dimensions": (
        lambda folder: with_tensors(folder, lambda tensors: tensors.update({A_DOWN: torch.zeros(1)})),
        r"the adapter in {folder} does not fit the base: {tensor} has shape \[1\], not \[4, 480\]",
    ),
    "a tensor too few": (
        lambda folder: with_tensors(folder, lambda tensors: tensors.pop(A_DOWN)),
        "the adapter in {folder} does not fit the base: 1 tensors are missing or unknown, {tensor} for one",
    ),
    "a tensor too many": (
        lambda folder: with_tensors(folder, lambda tensors: tensors.update({"a\x1b[2J\n": torch.zeros(1)})),
        r"the adapter in {folder} does not fit the base: 1 tensors are missing or unknown, a\\x1b\[2J\\n for one",
    ),
    "a weight of the base": (
        lambda folder: with_tensors(folder, lambda tensors: tensors.update({"model.norm.weight": torch.zeros(160)})),
        "the adapter in {folder} does not fit the base: 1 tensors are missing or unknown, model.norm.weight for one",
    ),
    "not a number": (
        lambda folder: with_value(folder, float("nan")),
        r"the adapter in {folder} has weights that are not numbers \(1 tensors, {tensor} for one\)",
    ),
    "infinity": (
        lambda folder: with_value(folder, -float("inf")),
        r"the adapter in {folder} has weights that are not numbers \(1 tensors, {tensor} for one\)",
    ),
    "infinity once in float32": (
        lambda folder: with_tensors(
            folder, lambda tensors: tensors.update({A_DOWN: torch.full((4, 480), 1e300, dtype=torch.float64)})
        ),
        r"the adapter in {folder} has weights that are not numbers \(1 tensors, {tensor} for one\)",
    ),
    "whole numbers": (
        lambda folder: with_tensors(
            folder, lambda tensors: tensors.update({A_DOWN: torch.ones((4, 480), dtype=torch.int64)})
        ),
        "{folder}/{weights} cannot be used: {tensor} holds I64, not floats",
    ),
    # Settings that ask for code, or for work without end.
    "auto_map": (code_in_the_folder, "{folder}/{settings} cannot be used: auto_map is an object, .+"),
    "a module to import": (
        module_beside_the_work,
        "{folder}/{settings} cannot be used: megatron_co(nfig|re) is .+, which is not supported",
    ),
    "a pattern without end": (
        lambda folder: with_settings(folder, target_modules="(.*.*)*(a+)+$"),
        '{folder}/{settings} cannot be used: target_modules is the pattern "(.*.*)*(a+)+$", only all-linear or a list '
        "of names is read",
    ),
    "a rank pattern without end": (
        lambda folder: with_settings(folder, rank_pattern={"(.*.*)*(a+)+$": 4}),
        "{folder}/{settings} cannot be used: rank_pattern is an object, which is not supported",
    ),
    "whole modules": (
        lambda folder: with_settings(folder, modules_to_save=["lm_head"]),
        "{folder}/{settings} cannot be used: modules_to_save is a list, which is not supported",
    ),
    "a rank beyond memory": (
        lambda folder: with_settings(folder, r=10**9),
        "{folder}/{settings} cannot be used: r is 1000000000, it must be a whole number from 1 to 1024",
    ),
    "a rank that the weights do not have": (
        lambda folder: with_settings(folder, r=1024),
        r"the adapter in {folder} does not fit the base: {any} has shape \[4, \d+\], not \[1024, \d+\]",
    ),
    "a scale without end": (
        lambda folder: with_settings(folder, lora_alpha=float("inf")),
        "{folder}/{settings} cannot be used: lora_alpha is Infinity, it must be above 0 and at most 1,000,000",
    ),
    "a module that is not there": (
        lambda folder: with_settings(folder, target_modules=["no_proj"]),
        "the adapter in {folder} does not fit the base: none of its target_modules is there, no_proj for one",
    ),
    "a module that is not linear": (
        lambda folder: with_settings(folder, target_modules=["embed_tokens"]),
        "the adapter in {folder} does not fit the base: its target_modules take in model.embed_tokens, which is not a "
        "linear layer",
    ),
    # Settings that cannot be read.
    "50 MB of settings": (padded_settings, "{folder}/{settings} cannot be used: it is larger than 1,000,000 bytes"),
    "lists in lists": (
        lambda folder: (folder / SETTINGS).write_text("[" * 400_000),
        "{folder} has no adapter_config.json that can be read",
    ),
    "a number of 900,000 digits": (
        lambda folder: (folder / SETTINGS).write_text('{"r": ' + "9" * 900_000 + "}"),
        "{folder} has no adapter_config.json that can be read",
    ),
    "not UTF-8": (
        lambda folder: (folder / SETTINGS).write_bytes(b'{"peft_type": "LORA\xff"}'),
        "{folder} has no adapter_config.json that can be read",
    ),
    "an array": (
        lambda folder: (folder / SETTINGS).write_text("[]"),
        "{folder}/{settings} cannot be used: it holds an empty list, not an object",
    ),
    "no settings": (
        lambda folder: (folder / SETTINGS).unlink(),
        "{folder} has no adapter_config.json that can be read",
    ),
}


@pytest.mark.parametrize("merge", [True], indirect=True, scope="module")
@pytest.mark.parametrize("name", SPOILED)
def test_a_hostile_adapter_is_an_error_of_one_line_and_changes_nothing(
    name: str, switch: AdapterSwitch, good: Path, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spoil, message = SPOILED[name]
    monkeypatch.syspath_prepend(tmp_path)
    before = logits(switch)
    spoil(folder)

    began = time.monotonic()
    with pytest.raises(CheckpointError) as caught:
        switch.use(folder)
    seconds = time.monotonic() - began

    expected = message
    for key, value in {
        "{folder}": str(folder),
        "{weights}": WEIGHTS,
        "{settings}": SETTINGS,
        "{tensor}": A_DOWN,
        "{any}": "base_model.+",
    }.items():
        expected = expected.replace(key, value)
    text = caught.value.message
    assert text == expected or re.fullmatch(expected, text), text
    assert text.isprintable()
    assert len(text) < 400
    assert seconds < 5
    assert not (tmp_path / "ran").exists()
    assert "stranger" not in sys.modules
    assert torch.equal(logits(switch), before)
    switch.use(good)
    assert torch.equal(logits(switch), before)


@pytest.mark.parametrize("name", ["a pickle alone", "another shape", "not a number", "a module that is not there"])
def test_a_base_whose_first_adapter_is_refused_is_as_it_was(
    name: str, good: Path, folder: Path, switch: AdapterSwitch, merge: bool
) -> None:
    fresh = AdapterSwitch(load_base(BASE, CPU), merge=merge)
    bare = logits(fresh)
    SPOILED[name][0](folder)

    with pytest.raises(CheckpointError):
        fresh.use(folder)

    assert torch.equal(logits(fresh), bare)
    fresh.use(good)
    switch.use(good)
    assert torch.equal(logits(fresh), logits(switch))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_an_adapter_saved_at_another_precision_is_used_in_float32(dtype: torch.dtype, folder: Path) -> None:
    switch = AdapterSwitch(load_base(BASE, CPU), merge=False)
    with_tensors(folder, lambda tensors: tensors.update({name: t.to(dtype) for name, t in tensors.items()}))

    switch.use(folder)

    weights = {name: p for name, p in switch.model.named_parameters() if "lora_" in name}
    saved = load_file(folder / WEIGHTS)
    assert len(weights) == len(saved)
    for name, weight in weights.items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, saved[re.sub(r"\.adapter\d+", "", name)].float())


def test_links_are_followed_as_the_hub_cache_needs_it(switch: AdapterSwitch, good: Path, tmp_path: Path) -> None:
    switch.use(good)
    before = logits(switch)
    snapshot = tmp_path / "snapshot"
    snapshot.mkdir()
    for name in (WEIGHTS, SETTINGS):
        (snapshot / name).symlink_to(good / name)

    switch.use(snapshot)

    assert torch.equal(logits(switch), before)


def test_an_adapter_on_fewer_layers_leaves_nothing_of_the_one_before(
    switch: AdapterSwitch, merge: bool, tmp_path: Path
) -> None:
    few = save_adapter(tmp_path / "few", AdapterConfig(r=2, dropout=0.0, target_modules=["q_proj"]))
    alone = AdapterSwitch(load_base(BASE, CPU), merge=merge)
    alone.use(few)

    switch.use(few)

    assert torch.equal(logits(switch), logits(alone))
    assert all(re.search(r"q_proj\.lora_", name) for name, _ in switch.model.named_parameters() if "lora_" in name)


def test_all_linear_in_the_file_means_every_linear_layer_but_the_output(
    switch: AdapterSwitch, good: Path, folder: Path
) -> None:
    switch.use(good)
    before = logits(switch)
    with_settings(folder, target_modules="all-linear")

    switch.use(folder)

    assert torch.equal(logits(switch), before)


def test_rank_stabilized_scaling_is_applied(switch: AdapterSwitch, good: Path, folder: Path) -> None:
    # alpha / sqrt(4) is twice alpha / 4, so half the alpha gives the same update.
    alpha = json.loads((folder / SETTINGS).read_text())["lora_alpha"]
    switch.use(good)
    before = logits(switch)
    with_settings(folder, use_rslora=True, lora_alpha=alpha / 2)

    switch.use(folder)

    assert torch.equal(logits(switch), before)
