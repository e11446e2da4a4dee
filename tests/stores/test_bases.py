"""Base models: from a name to a folder and a pinned revision."""

import json
import os
from pathlib import Path

import pytest

from pricer.config import ModelConfig
from pricer.errors import ModelError
from pricer.stores import bases
from pricer.stores.bases import Base, find_base, read_config, read_context
from pricer.stores.files import sha256_of
from tests.loopback_hub import Fault, LoopbackHub


def a_base(name: str = "base", config: str = '{"model_type": "llama"}') -> Path:
    folder = Path(name)
    folder.mkdir()
    (folder / "config.json").write_text(config)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")
    (folder / "tokenizer_config.json").write_text('{"add_bos_token": true}')
    return folder


def revision(folder: Path) -> str:
    return find_base(ModelConfig(base=f"./{folder}")).revision


def test_a_local_base_is_its_folder_with_a_revision_of_its_content() -> None:
    folder = a_base()

    base = find_base(ModelConfig(base="./base"))

    assert base.name == "base"  # others see it: it says nothing of this machine's folders
    assert base.folder.samefile(folder)
    assert len(base.revision) == 40
    assert set(base.revision) <= set("0123456789abcdef")


def test_a_copy_elsewhere_has_the_same_revision() -> None:
    assert revision(a_base("one")) == revision(a_base("other"))


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"])
def test_the_revision_changes_with_every_file_that_is_read(file: str) -> None:
    folder = a_base()
    before = revision(folder)

    (folder / file).write_text('{"changed": 1}')

    assert revision(folder) != before


def test_the_revision_does_not_change_with_files_that_are_not_read() -> None:
    folder = a_base()
    before = revision(folder)

    (folder / "README.md").write_text("words")

    assert revision(folder) == before


def test_weights_that_swap_names_change_the_revision() -> None:
    folder = a_base()
    (folder / "other.safetensors").write_bytes(b"other")
    before = revision(folder)

    (folder / "model.safetensors").write_bytes(b"other")
    (folder / "other.safetensors").write_bytes(b"weights")

    assert revision(folder) != before


def test_a_local_base_is_found_at_the_revision_it_was_pinned_at() -> None:
    pinned = revision(a_base())

    assert find_base(ModelConfig(base="./base", revision=pinned)).revision == pinned


def test_a_local_base_that_changed_since_it_was_pinned_is_refused() -> None:
    folder = a_base()
    pinned = revision(folder)
    (folder / "model.safetensors").write_bytes(b"other")
    found = revision(folder)

    with pytest.raises(ModelError) as raised:
        find_base(ModelConfig(base="./base", revision=pinned))

    assert raised.value.message == f"the base ./base is at {found[:12]}, this run was set to {pinned}"
    assert raised.value.hint == "its files have changed: put the old ones back, or train a new run"


def test_a_base_with_code_of_its_own_is_refused() -> None:
    a_base(config=json.dumps({"model_type": "mine", "auto_map": {"AutoModel": "modeling_mine.Mine"}}))

    with pytest.raises(ModelError, match=r"^base wants to run code of its own \(auto_map in config.json\)$"):
        find_base(ModelConfig(base="./base"))


def test_a_base_without_safetensors_is_refused() -> None:
    folder = a_base()
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")

    with pytest.raises(ModelError, match=r"^base has no safetensors weights$") as raised:
        find_base(ModelConfig(base="./base"))

    assert raised.value.hint == "pricer loads no pickled weights (.bin, .pth): convert them first"


def test_a_plan_needs_no_weights() -> None:
    (a_base() / "model.safetensors").unlink()

    assert read_config(find_base(ModelConfig(base="./base"), weights=False)) == {"model_type": "llama"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "base/config.json is not a JSON object"),
        (b"\xff", "base/config.json is not a JSON object"),
        (b"[" * 100_000, "base/config.json is not a JSON object"),
        (b"[]", "base/config.json is not a JSON object"),
    ],
)
def test_a_damaged_config_is_named(content: bytes, message: str) -> None:
    (a_base() / "config.json").write_bytes(content)

    with pytest.raises(ModelError, match=message):
        find_base(ModelConfig(base="./base"))


@pytest.mark.parametrize(
    ("config", "context"),
    [
        ({"max_position_embeddings": 2048}, 2048),
        ({"n_positions": 1024}, 1024),
        ({"max_position_embeddings": 8192, "sliding_window": 4096}, 4096),
        ({"max_position_embeddings": 8192, "sliding_window": 4096, "use_sliding_window": False}, 8192),
        ({"max_position_embeddings": 8192, "sliding_window": None}, 8192),
        ({"text_config": {"max_position_embeddings": 32768, "sliding_window": 512}}, 512),
        ({}, None),
        ({"text_config": []}, None),
    ],
)
def test_the_context_is_at_most_the_window_of_its_layers(config: dict[str, object], context: int | None) -> None:
    folder = a_base(config=json.dumps(config))

    assert read_context(Base("base", folder, "r")) == context


def test_a_folder_without_a_config_is_no_base() -> None:
    Path("base").mkdir()

    with pytest.raises(ModelError, match=r"^there is no config.json in base$") as raised:
        read_config(Base("base", Path("base"), ""))

    assert raised.value.hint == "model.base names a model folder"


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "~/nowhere", "../nowhere", "nowhere", "a/b/c"])
def test_a_missing_folder_is_not_looked_for_on_the_hub(name: str) -> None:
    with pytest.raises(ModelError, match=f"^there is no model folder {name}$") as raised:
        find_base(ModelConfig(base=name))

    assert raised.value.hint == "put it where you start pricer, or a link to it; a Hub base is written user/name"


@pytest.mark.parametrize(
    "name", ["builtin:nothing", "builtin:", "builtin:../assets", "builtin:/tmp", "builtin:base/.."]
)
def test_an_embedded_base_that_is_unknown_is_refused(name: str) -> None:
    with pytest.raises(ModelError, match=f"^there is no embedded base {name}$") as raised:
        find_base(ModelConfig(base=name))

    assert raised.value.hint == "model.base: builtin:base"


def test_without_the_network_a_base_that_was_never_downloaded_is_named() -> None:
    with pytest.raises(ModelError) as raised:
        find_base(ModelConfig(base="user/name"))

    assert (raised.value.message, raised.value.hint) == (
        "the base user/name is not in the cache, and the Hub is switched off (HF_HUB_OFFLINE)",
        "unset HF_HUB_OFFLINE",
    )


def test_without_the_network_a_base_without_its_weights_is_named(home: Path) -> None:
    cached = home / "huggingface" / "hub" / "models--user--name"
    (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text("0" * 40)
    (cached / "snapshots" / ("0" * 40) / "config.json").write_text('{"model_type": "llama"}')

    with pytest.raises(
        ModelError, match=r"^the weights of user/name are not in the cache, and the Hub is switched off"
    ):
        find_base(ModelConfig(base="user/name"))


def test_a_hub_base_that_cannot_be_downloaded_says_so(hub: LoopbackHub) -> None:
    hub.create("user/name")
    hub.faults.script("GET", "/api/models/user/name", [Fault.status(403)] * 9)

    with pytest.raises(ModelError, match=r"^the base user/name cannot be downloaded: ") as raised:
        find_base(ModelConfig(base="user/name"))

    assert raised.value.hint == "is the network up?"


def test_a_hub_base_in_the_cache_is_found_at_its_commit(home: Path) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = home / "huggingface" / "hub" / "models--user--name"
    snapshot = cached / "snapshots" / commit
    snapshot.mkdir(parents=True)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    (snapshot / "config.json").write_text('{"model_type": "llama"}')
    (snapshot / "model.safetensors").write_bytes(b"weights")

    base = find_base(ModelConfig(base="user/name"))

    assert (base.name, base.folder, base.revision) == ("user/name", snapshot, commit)


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that were hashed; every file counts as large."""
    names: list[str] = []

    def counting(path: Path) -> str:
        names.append(path.name)
        return sha256_of(path)

    monkeypatch.setattr(bases, "sha256_of", counting)
    monkeypatch.setattr(bases, "_WORTH_REMEMBERING", 0)
    return names


def the_cache(home: Path) -> Path:
    (found,) = (home / ".cache" / "pricer" / "base-hashes").iterdir()
    return found


def test_a_file_that_did_not_change_is_hashed_once(hashed: list[str]) -> None:
    folder = a_base()
    before = revision(folder)
    names, files = sorted(hashed), sorted(path.name for path in folder.iterdir())
    hashed.clear()

    assert revision(folder) == before
    assert names == files  # and nothing was written into the base's folder
    assert hashed == []


def test_a_file_of_the_same_size_and_time_with_other_content_is_hashed_again(hashed: list[str]) -> None:
    folder = a_base()
    path = folder / "model.safetensors"
    before, times = revision(folder), path.stat()
    hashed.clear()

    path.write_bytes(b"WEIGHTS")
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))

    assert revision(folder) != before
    assert hashed == ["model.safetensors"]


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 100_000, b'{"config.json": 5}'],
)
def test_a_damaged_cache_is_no_error(hashed: list[str], home: Path, content: bytes) -> None:
    folder = a_base()
    before = revision(folder)
    the_cache(home).write_bytes(content)

    assert revision(folder) == before
    hashed.clear()
    assert revision(folder) == before
    assert hashed == []  # it was mended


def test_a_cache_that_cannot_be_written_is_no_error(hashed: list[str], home: Path) -> None:
    (home / ".cache").write_text("a file where the folder should be")
    folder = a_base()

    assert revision(folder) == revision(folder)


def test_small_files_are_not_worth_a_cache(home: Path) -> None:
    revision(a_base())

    assert not (home / ".cache").exists()
