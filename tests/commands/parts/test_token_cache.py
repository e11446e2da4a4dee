"""The cache of tokens: training gets the tokens of its items, whatever happened to the file in the meantime."""

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from pricer.commands.parts import token_cache
from pricer.commands.parts.setup import Setup, prepare
from pricer.commands.parts.token_cache import tokenize_training
from pricer.config import DataConfig, RunConfig
from pricer.data.acceptance import Progress
from pricer.errors import DataError
from pricer.ml.token_table import open_table
from pricer.ml.tokens import TokenizedExample
from pricer.stores.files import sha256_of, write_json
from tests.builders import Killed
from tests.ml.test_token_table import as_values


def ignore(what: str, reached: str) -> None:
    pass


@pytest.fixture(scope="module")
def _setup() -> Setup:
    return prepare(RunConfig(data=DataConfig(train_limit=25, val_limit=4)))


@pytest.fixture
def setup(_setup: Setup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Setup:
    """A setup whose items lie in the data folder `prepared`, to be tokenized ten at a time."""
    monkeypatch.setattr(token_cache, "_ITEMS_AT_ONCE", 10)
    (tmp_path / "prepared").mkdir()
    return replace(_setup, items=replace(_setup.items, folder=tmp_path / "prepared"))


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of items in each batch that was tokenized."""
    sizes: list[int] = []
    batches = token_cache._batches

    def counted(setup: Setup, progress: Progress) -> Iterator[Sequence[TokenizedExample]]:
        for batch in batches(setup, progress):
            sizes.append(len(batch))
            yield batch

    monkeypatch.setattr(token_cache, "_batches", counted)
    return sizes


def tokens(setup: Setup) -> list[object]:
    return [as_values(example) for example in tokenize_training(setup, ignore)]


def uncached(setup: Setup) -> list[object]:
    return [as_values(e) for e in setup.encoder.examples([setup.template.example(item) for item in setup.items.train])]


def folders(setup: Setup) -> list[Path]:
    assert setup.items.folder is not None
    return sorted(setup.items.folder.iterdir())


def test_the_tokens_are_those_of_the_encoder_and_are_made_once(setup: Setup, made: list[int]) -> None:
    assert tokens(setup) == tokens(setup) == uncached(setup)
    assert made == [10, 10, 5]


def test_without_a_data_folder_nothing_is_kept(setup: Setup, made: list[int], tmp_path: Path) -> None:
    loose = replace(setup, items=replace(setup.items, folder=None))

    assert tokens(loose) == tokens(loose) == uncached(setup)
    assert made == [10, 10, 5] * 2
    assert folders(setup) == []


def test_a_change_of_a_single_byte_is_noticed(setup: Setup, made: list[int]) -> None:
    tokens(setup)
    path = folders(setup)[0] / "tokens.arrow"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    assert tokens(setup) == uncached(setup)
    assert made == [10, 10, 5] * 2
    assert len(folders(setup)) == 1


@pytest.mark.parametrize("name", ["tokens.arrow", "tokens.json"])
def test_a_file_that_is_cut_off_or_gone_is_made_again(setup: Setup, made: list[int], name: str) -> None:
    for damage in (lambda path: path.write_bytes(path.read_bytes()[:40]), Path.unlink):
        tokens(setup)
        damage(folders(setup)[0] / name)
        made.clear()

        assert tokens(setup) == uncached(setup)
        assert made == [10, 10, 5]


@pytest.mark.parametrize(("column", "value"), [("input_ids", [10**6]), ("input_ids", [-1]), ("start", 9999)])
def test_tokens_that_another_program_wrote_are_made_again(setup: Setup, column: str, value: object) -> None:
    tokens(setup)
    path = folders(setup)[0] / "tokens.arrow"
    table = open_table(path).rows
    place = table.schema.get_field_index(column)
    changed = pa.chunked_array([[value] * len(table)], table.schema.field(place).type)
    other = path.with_name("other.arrow")  # the table is still mapped from its file
    with pa.OSFile(str(other), "wb") as file, pa.ipc.new_file(file, table.schema) as writer:
        writer.write_table(table.set_column(place, table.schema.field(place), changed))
    other.replace(path)
    write_json(path.with_name("tokens.json"), {"rows": len(table), "sha256": sha256_of(path)})

    assert tokens(setup) == uncached(setup)


def test_a_kill_in_the_middle_leaves_no_tokens_and_the_next_call_cleans_up(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    def killed(folder: Path, setup: Setup, note: object) -> None:
        # A process that is killed cannot clean up: a copy of its scratch folder stays.
        shutil.copytree(folder.parent, folder.parent.with_name(".tokens-killed"))
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(token_cache, "_write", killed)
        with pytest.raises(Killed):
            tokens(setup)
    assert [path.name for path in folders(setup)] == [".tokens-killed"]

    assert tokens(setup) == uncached(setup)
    (kept,) = folders(setup)
    assert kept.name.startswith("tokens-")


def test_other_tokens_get_a_folder_of_their_own(setup: Setup, made: list[int]) -> None:
    config = setup.config
    longer = prepare(config.model_copy(update={"prompt": config.prompt.model_copy(update={"max_length": 60})}))
    asks = prepare(config.model_copy(update={"prompt": config.prompt.model_copy(update={"question": "How much?"})}))
    fewer = prepare(config.model_copy(update={"data": config.data.model_copy(update={"train_limit": 24})}))
    others = [replace(one, items=replace(one.items, folder=setup.items.folder)) for one in (longer, asks, fewer)]

    found = [tokens(one) for one in (setup, *others)]

    assert found == [uncached(one) for one in (setup, *others)]
    assert len(folders(setup)) == 4
    assert [tokens(one) for one in (setup, *others)] == found
    assert len(made) == 3 * 4


def test_another_tokenizer_makes_its_own_tokens(setup: Setup) -> None:
    tokens(setup)
    other = prepare(setup.config)
    other.tokenizer.add_tokens(["computer", "price"])
    other = replace(other, items=setup.items)

    assert tokens(other) == uncached(other) != uncached(setup)
    assert len(folders(setup)) == 2


def test_a_folder_that_cannot_be_written_is_a_data_error(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(token_cache, "write_table", full)

    with pytest.raises(DataError, match="cannot be written: No space left on device"):
        tokens(setup)
    assert folders(setup) == []
