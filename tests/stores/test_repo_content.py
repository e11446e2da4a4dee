"""What a repository holds that has no checkpoint: each kind has its own line."""

import pytest

from pricer.errors import CheckpointError, HubError
from pricer.stores.hub import Hub
from pricer.stores.repo_scan import scan_repo
from tests.loopback_hub import LoopbackHub
from tests.repositories import adapter_config, adapter_files

CONFIG = {"adapter_config.json": adapter_config()}

KINDS: dict[str, tuple[dict[str, bytes], str]] = {
    "nothing": ({}, "ann/odd is empty: no file of a model was pushed to it"),
    "a card alone": (
        {"README.md": b"soon", "LICENSE": b"MIT"},
        "ann/odd is empty: no file of a model was pushed to it",
    ),
    "a pickled adapter": (
        {**CONFIG, "adapter_model.bin": b"\x80"},
        "ann/odd holds its adapter as a pickle (adapter_model.bin), which can run code when it is read: pricer does "
        "not read it",
    ),
    "pickled adapters in folders": (
        {"checkpoint-5/adapter_model.bin": b"\x80", "checkpoint-5/adapter_config.json": adapter_config()},
        "ann/odd holds its adapter as a pickle (checkpoint-5/adapter_model.bin), which can run code when it is read: "
        "pricer does not read it",
    ),
    "an adapter in parts": (
        {**CONFIG, "adapter_model-00001-of-00002.safetensors": b"a", "adapter_model-00002-of-00002.safetensors": b"b"},
        "ann/odd holds its adapter in parts (adapter_model-00001-of-00002.safetensors), which neither peft nor pricer "
        "reads",
    ),
    "an adapter of MLX": (
        {"adapters.safetensors": b"a", "adapter_config.json": b'{"lora_layers": 16}'},
        "ann/odd holds an adapter of MLX (adapters.safetensors), which is no adapter of peft",
    ),
    "an adapter for images": (
        {"pytorch_lora_weights.safetensors": b"a"},
        "ann/odd holds an adapter for a model of images (pytorch_lora_weights.safetensors), not for a language model",
    ),
    "a merged model": (
        {"config.json": b"{}", "model-00001-of-00002.safetensors": b"a", "model-00002-of-00002.safetensors": b"b"},
        "ann/odd holds a full model (model-00001-of-00002.safetensors), not an adapter",
    ),
    "a pickled model": (
        {"config.json": b"{}", "pytorch_model.bin": b"\x80"},
        "ann/odd holds a full model as a pickle (pytorch_model.bin), not an adapter",
    ),
    "GGUF": (
        {"unsloth.Q4_K_M.gguf": b"GGUF", "config.json": b"{}"},
        "ann/odd holds GGUF files (unsloth.Q4_K_M.gguf), which are for llama.cpp",
    ),
    "a configuration alone": (
        CONFIG,
        "ann/odd has an adapter_config.json, and no adapter_model.safetensors beside it",
    ),
    "adapters of several trainings": (
        {**adapter_files(b"a", "a/checkpoint-1/"), **adapter_files(b"b", "b/checkpoint-1/")},
        "ann/odd holds several adapters that are not the steps of one training: a/checkpoint-1, b/checkpoint-1",
    ),
    "adapters in folders without a step": (
        {**adapter_files(b"a", "math/"), **adapter_files(b"b", "it's code/")},
        "ann/odd holds several adapters that are not the steps of one training: it's code, math",
    ),
    "an adapter that is not LoRA": (
        adapter_files(b"a", peft_type="IA3"),
        'adapter_config.json of ann/odd, main: peft_type is "IA3", only LORA is read',
    ),
    "an adapter without its configuration": (
        {"adapter_model.safetensors": b"a"},
        "main has no adapter_config.json",
    ),
    "other files": (
        {"optimizer.pt": b"1", "scheduler.pt": b"2"},
        "ann/odd holds no adapter that can be read, but optimizer.pt, scheduler.pt",
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_said_what_it_is_and_what_to_do(hub: LoopbackHub, kind: str) -> None:
    files, message = KINDS[kind]
    repo = hub.create("ann/odd")
    if files:
        repo.commit(files, "Upload folder using huggingface_hub")

    with pytest.raises(CheckpointError) as caught:
        scan_repo(Hub("ann/odd"))

    assert caught.value.message == message
    assert "\n" not in caught.value.hint
    assert caught.value.hint or files.keys() >= {"adapter_model.safetensors"}


def test_a_hint_quotes_the_name_of_a_folder_for_the_shell(hub: LoopbackHub) -> None:
    files = {**adapter_files(b"a", "$(touch ran)/"), **adapter_files(b"b", "b/")}
    hub.create("ann/odd").commit(files, "Upload folder")

    with pytest.raises(CheckpointError) as caught:
        scan_repo(Hub("ann/odd"))

    assert "--include '$(touch ran)/*'" in caught.value.hint
    assert "hf upload USER/NEW 'adapter/$(touch ran)'" in caught.value.hint


@pytest.mark.parametrize(("kind", "name"), [("dataset", "data set"), ("space", "Space")])
def test_the_id_of_something_else_is_named(hub: LoopbackHub, kind: str, name: str) -> None:
    hub.create("ann/odd", kind=kind)

    with pytest.raises(HubError, match=rf"^ann/odd is a {name} on the Hub, not a model repository$"):
        scan_repo(Hub("ann/odd"))


def test_a_model_counts_before_a_data_set_of_the_same_name(hub: LoopbackHub) -> None:
    hub.create("ann/odd", kind="dataset")
    hub.create("ann/odd").commit(adapter_files(b"a"), "Upload model")

    assert [checkpoint.step for checkpoint in scan_repo(Hub("ann/odd")).checkpoints] == [0]
