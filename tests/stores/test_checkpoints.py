"""One contract for every CheckpointStore, and what is particular to the folder store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pricer.core.checkpoints import Checkpoint, CheckpointStore
from pricer.errors import CheckpointError
from pricer.stores.checkpoints import FolderStore, read_manifest, write_manifest
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from tests.builders import a_checkpoint, a_saved_checkpoint
from tests.memory_store import MemoryStore

ADAPTER = "adapter_model.safetensors"
PADDED = {"style": "padded", "width": 4, "decimals": 0, "unit": "$"}


def folder_store() -> CheckpointStore:
    """The same store each time it is opened in one working folder."""
    return FolderStore(Path())


def hub_store() -> CheckpointStore:
    """As on a machine that was started again: the same folder and log, and nothing remembered."""
    return HubStore(Hub("ann/prices"), Path())


# To keep checkpoints elsewhere, add how to open the store here. The store in memory has to stay open.
OpenStore = Callable[[], CheckpointStore]
STORES: dict[str, Callable[[], OpenStore]] = {
    "folder": lambda: folder_store,
    "hub": lambda: hub_store,
    "memory": lambda: one_store(MemoryStore()),
}


def one_store(store: CheckpointStore) -> OpenStore:
    return lambda: store


@pytest.fixture(params=STORES)
def open_store(request: pytest.FixtureRequest) -> OpenStore:
    if request.param == "hub":
        request.getfixturevalue("hub").create("ann/prices")
    return STORES[request.param]()


class TestEveryStore:
    def test_a_new_store_is_empty(self, open_store: OpenStore) -> None:
        assert open_store().checkpoints() == []
        assert open_store().tagged("best") is None

    def test_a_pushed_checkpoint_comes_back_byte_for_byte(self, open_store: OpenStore) -> None:
        source, checkpoint = a_saved_checkpoint(Path("out"), step=5, adapter=b"weights of step 5")

        pushed = open_store().push(source, 5)
        folder = open_store().fetch(checkpoint)

        assert pushed == checkpoint
        assert (folder / ADAPTER).read_bytes() == b"weights of step 5"
        assert (folder / "adapter_config.json").read_text() == "{}"
        assert read_manifest(folder) == checkpoint

    def test_the_source_may_be_overwritten_by_the_next_step(self, open_store: OpenStore) -> None:
        store = open_store()
        checkpoints = []
        for step in (5, 10):
            source, checkpoint = a_saved_checkpoint(Path("out"), step, adapter=f"weights of {step}".encode())
            store.push(source, step)
            checkpoints.append(checkpoint)

        contents = [(store.fetch(checkpoint) / ADAPTER).read_bytes() for checkpoint in checkpoints]

        assert contents == [b"weights of 5", b"weights of 10"]

    def test_pushing_the_same_twice_is_pushing_it_once(self, open_store: OpenStore) -> None:
        source, checkpoint = a_saved_checkpoint(Path("out"))
        open_store().push(source, 5)

        again = open_store().push(source, 5)

        assert again == checkpoint
        assert open_store().checkpoints() == [checkpoint]

    def test_the_oldest_step_comes_first_in_whatever_order_they_were_pushed(self, open_store: OpenStore) -> None:
        for step in (1000, 5, 200):
            open_store().push(a_saved_checkpoint(Path(f"out-{step}"), step)[0], step)

        assert [checkpoint.step for checkpoint in open_store().checkpoints()] == [5, 200, 1000]

    def test_another_step_than_the_manifest_says_is_refused(self, open_store: OpenStore) -> None:
        source, _ = a_saved_checkpoint(Path("out"), step=5)

        with pytest.raises(CheckpointError, match=r"^out holds step 5, not 6$"):
            open_store().push(source, 6)

        assert open_store().checkpoints() == []

    def test_an_adapter_that_is_not_what_its_manifest_says_is_not_pushed(self, open_store: OpenStore) -> None:
        source, checkpoint = a_saved_checkpoint(Path("out"))
        (source / ADAPTER).write_bytes(b"other weights")

        with pytest.raises(CheckpointError) as raised:
            open_store().push(source, 5)

        # sha256 of b"other weights"
        assert raised.value.message == (
            "step-000005 is not what its manifest says: out/adapter_model.safetensors has sha256 53959fa102f3…, "
            f"the manifest {checkpoint.adapter_sha256[:12]}…"
        )
        assert open_store().checkpoints() == []

    def test_of_an_adapter_that_was_damaged_where_it_is_kept_the_right_bytes_are_fetched_or_none(
        self, open_store: OpenStore
    ) -> None:
        source, checkpoint = a_saved_checkpoint(Path("out"))
        open_store().push(source, 5)
        (open_store().fetch(checkpoint) / ADAPTER).write_bytes(b"other weights")

        try:
            fetched = (open_store().fetch(checkpoint) / ADAPTER).read_bytes()
        except CheckpointError as error:
            assert error.message.startswith("step-000005 is not what its manifest says")  # noqa: PT017
        else:
            assert fetched == b"weights"

    @pytest.mark.parametrize("missing", [ADAPTER, "adapter_config.json", "manifest.json"])
    def test_a_folder_that_is_not_a_whole_checkpoint_is_not_pushed(self, open_store: OpenStore, missing: str) -> None:
        source, _ = a_saved_checkpoint(Path("out"))
        (source / missing).unlink()

        with pytest.raises(CheckpointError, match=missing):
            open_store().push(source, 5)

        assert open_store().checkpoints() == []

    def test_a_checkpoint_that_was_never_pushed_is_not_fetched(self, open_store: OpenStore) -> None:
        with pytest.raises(CheckpointError):
            open_store().fetch(a_checkpoint(7))

    def test_what_is_not_kept_is_not_tagged(self, open_store: OpenStore) -> None:
        open_store().push(a_saved_checkpoint(Path("out"), 5)[0], 5)
        with pytest.raises(CheckpointError):
            open_store().tag(a_checkpoint(7), "best")

        assert open_store().tagged("best") is None

    def test_pages_are_rendered_only_where_a_pick_is_published(self, open_store: OpenStore) -> None:
        rendered: list[str] = []

        def render(repo: str, readme: bytes | None) -> dict[str, bytes]:
            assert readme is None
            rendered.append(repo)
            return {"README.md": f"---\nlicense: mit\n---\n# {repo}".encode()}

        pick = open_store().push(a_saved_checkpoint(Path("out"), 5)[0], 5)
        open_store().tag(pick, "best")
        published = open_store().publish_pick(pick, render)

        assert rendered == ([published] if published else [])

    def test_a_tag_moves(self, open_store: OpenStore) -> None:
        five, ten = (open_store().push(a_saved_checkpoint(Path(f"out-{step}"), step)[0], step) for step in (5, 10))
        open_store().tag(five, "best")
        open_store().tag(five, "published")

        open_store().tag(ten, "best")

        assert open_store().tagged("best") == ten
        assert open_store().tagged("published") == five
        assert open_store().tagged("worst") is None


class TestFolderStore:
    def store(self) -> FolderStore:
        return FolderStore(Path())

    def pushed(self, step: int = 5, adapter: bytes = b"weights") -> Checkpoint:
        return self.store().push(a_saved_checkpoint(Path("out"), step, adapter)[0], step)

    def test_a_step_that_is_trained_again_replaces_what_it_was(self) -> None:
        first = self.pushed(5, b"first")
        second = self.pushed(5, b"second")

        assert self.store().checkpoints() == [second]
        assert (self.store().fetch(second) / ADAPTER).read_bytes() == b"second"
        with pytest.raises(CheckpointError):
            self.store().fetch(first)

    def test_a_checkpoint_lies_in_a_folder_named_by_its_step(self) -> None:
        self.pushed()

        assert sorted(path.name for path in Path("checkpoints/step-000005").iterdir()) == [
            "adapter_config.json",
            ADAPTER,
            "manifest.json",
        ]

    def test_the_log_has_a_line_for_every_confirmed_push(self) -> None:
        checkpoint = self.pushed()
        self.pushed()

        assert [json.loads(line) for line in Path("checkpoints.jsonl").read_text().splitlines()] == [
            checkpoint.to_json()
        ]

    def test_a_push_that_was_killed_before_its_log_line_is_not_there(self) -> None:
        checkpoint = self.pushed()
        Path("checkpoints.jsonl").write_bytes(b'{"id": "torn')

        assert self.store().checkpoints() == []
        assert self.pushed() == checkpoint
        assert self.store().checkpoints() == [checkpoint]

    def test_a_folder_that_was_removed_is_missed_by_name(self) -> None:
        checkpoint = self.pushed()
        for file in Path("checkpoints/step-000005").iterdir():
            file.unlink()

        with pytest.raises(
            CheckpointError, match=r"^there is no checkpoint in checkpoints/step-000005 \(no manifest.json\)$"
        ):
            self.store().fetch(checkpoint)

    def test_a_damaged_adapter_is_not_fetched_as_there_is_no_other_copy(self) -> None:
        checkpoint = self.pushed()
        Path("checkpoints/step-000005", ADAPTER).write_bytes(b"other weights")

        with pytest.raises(CheckpointError, match="step-000005 is not what its manifest says"):
            self.store().fetch(checkpoint)

    def test_a_manifest_that_was_replaced_by_hand_is_noticed(self) -> None:
        checkpoint = self.pushed()
        other = a_checkpoint(5, data_fingerprint="other")
        write_manifest(Path("checkpoints/step-000005"), other)

        with pytest.raises(CheckpointError) as raised:
            self.store().fetch(checkpoint)

        assert raised.value.message == (f"checkpoints/step-000005 holds {other.id[:12]}, not {checkpoint.id[:12]}")
        assert raised.value.hint == "the folder was changed by hand: put the checkpoint back"

    @pytest.mark.parametrize(
        ("content", "reason"),
        [
            ("", "not a JSON object"),
            ("{", "not a JSON object"),
            ("{}", "step is missing"),
            ("[" * 100_000, "not a JSON object"),
        ],
    )
    def test_a_manifest_that_is_none_is_named(self, content: str, reason: str) -> None:
        Path("out").mkdir()
        Path("out/manifest.json").write_text(content)

        with pytest.raises(CheckpointError, match=f"^out/manifest.json is not a manifest: {reason}"):
            read_manifest(Path("out"))

    @pytest.mark.parametrize(
        ("answers", "reason"),
        [
            ("MISSING", "answers is missing"),
            ([], "answers is "),
            ({"answer_tokens": 5}, "answers.price_format is missing"),
            ({"answer_tokens": "5"}, "answers.answer_tokens is '5': Input should be a valid integer"),
            ({"answer_tokens": True}, "answers.answer_tokens is True: Input should be a valid integer"),
            ({"answer_tokens": 10**400}, "answers: answer_tokens is 10000000000000000000$"),
            ({"answer_tokens": 1_000_000_000}, "answers: answer_tokens is 1000000000"),
            ({"max_price": -1.0}, "answers: max_price is -1.0, not a price above zero"),
            ({"train_median": None}, "answers.train_median is None: Input should be a valid number"),
            ({"price_format": {**PADDED, "unit": "\x1b[31m$"}}, r"answers.price_format: '\\x1b\[31m\$' is no unit"),
            ({"price_format": {**PADDED, "decimals": 10**400}}, "answers.price_format: decimals is 1000000"),
            ({"price_format": {**PADDED, "style": "roman"}}, "answers.price_format.style is 'roman'"),
            ({"price_format": {**PADDED, "style": "plain"}}, "answers.price_format: a padded price needs a width"),
            ({"price_format": {**PADDED, "width": 10**9}}, "answers: price_format.width is 1000000000"),
            ({"eval": "import os"}, "answers.eval is unknown"),
        ],
    )
    def test_answers_from_a_stranger_are_read_strictly(self, answers: Any, reason: str) -> None:
        whole = {"price_format": PADDED, "max_price": 99.0, "train_median": 9.0}
        manifest = a_checkpoint(5).to_json()
        del manifest["id"], manifest["answers"]
        if answers != "MISSING":
            one_field = isinstance(answers, dict) and answers != {"answer_tokens": 5}
            manifest["answers"] = {**whole, "answer_tokens": 5, **answers} if one_field else answers
        Path("out").mkdir()
        Path("out/manifest.json").write_text(json.dumps(manifest))

        with pytest.raises(CheckpointError, match=f"^out/manifest.json is not a manifest: {reason}"):
            read_manifest(Path("out"))

    @pytest.mark.parametrize(
        ("line", "reason"),
        [
            ("not JSON", "not a JSON object"),
            ("{}", "step is missing"),
            ("\0" * 9, "not a JSON object"),
            (json.dumps({**a_checkpoint(5).to_json(), "base": "other"}), "id is "),
        ],
    )
    def test_a_damaged_line_of_the_log_is_named_and_the_others_are_read(self, line: str, reason: str) -> None:
        pushed = self.pushed()
        log = Path("checkpoints.jsonl")
        log.write_text(f"{line}\n{log.read_text()}")

        assert self.store().checkpoints() == [pushed]
        (damage,) = self.store().damaged()
        assert (damage.name, damage.id) == ("line 1 of checkpoints.jsonl", None)
        assert damage.reason.startswith(reason)

    @pytest.mark.parametrize("content", ["", "{", "[]", '"best"'])
    def test_damaged_tags_are_named(self, content: str) -> None:
        self.pushed()
        Path("checkpoints/tags.json").write_text(content)

        with pytest.raises(CheckpointError, match=r"^checkpoints/tags.json is not JSON$") as raised:
            self.store().tagged("best")

        assert raised.value.hint == "remove it, and run `pricer pick` again"

    @pytest.mark.parametrize("meaning", ["0" * 40, None, 5])
    def test_a_tag_that_means_no_kept_checkpoint_means_none(self, meaning: Any) -> None:
        self.pushed()
        Path("checkpoints/tags.json").write_text(json.dumps({"best": meaning}))

        assert self.store().tagged("best") is None


def test_pushing_again_puts_a_lost_or_changed_folder_back() -> None:
    source, checkpoint = a_saved_checkpoint(Path("out"), step=5)
    store = folder_store()
    store.push(source, 5)
    for damage in (shutil.rmtree, lambda folder: (folder / ADAPTER).write_bytes(b"other")):
        damage(Path("checkpoints/step-000005"))

        store.push(source, 5)

        assert (store.fetch(checkpoint) / ADAPTER).read_bytes() == b"weights"
    assert len(Path("checkpoints.jsonl").read_text().splitlines()) == 1
