"""The table of tokens: the examples come back as they were, from a file and from memory."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pricer.ml.token_table import TokenTable, open_table, write_table
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt


def an_example(key: str, prompt: list[int], answer: list[int], *, cut: bool = False) -> TokenizedExample:
    ids = np.array([*prompt, *answer], dtype=np.int32)
    return TokenizedExample(TokenizedPrompt(key, ids[: len(prompt)], cut), ids, len(prompt))


EXAMPLES = [
    an_example("a", [1, 2, 3], [9, 0]),
    an_example("b", [4], [8, 7, 0], cut=True),
    an_example("c", [5, 6], [7, 0]),
    an_example("d", [1], [0]),
    an_example("e", [2, 2, 2], [3, 0]),
]


def as_values(example: TokenizedExample) -> tuple[str, list[int], list[int], int, bool]:
    return example.item_id, example.prompt.ids.tolist(), example.ids.tolist(), example.start, example.prompt.cut


@pytest.fixture
def table(tmp_path: Path) -> TokenTable:
    """The examples in a file of three batches, one of which is empty."""
    write_table(tmp_path / "tokens.arrow", [EXAMPLES[:2], [], EXAMPLES[2:]])
    return open_table(tmp_path / "tokens.arrow")


def test_every_example_comes_back_from_the_file(table: TokenTable) -> None:
    expected = [as_values(example) for example in EXAMPLES]

    assert [as_values(example) for example in table] == expected
    assert [as_values(example) for example in table[1:4]] == expected[1:4]
    assert as_values(table[-1]) == expected[-1]
    with pytest.raises(IndexError):
        table[5]


def test_the_columns_are_numpy_arrays(table: TokenTable) -> None:
    assert table.lengths.tolist() == [5, 4, 4, 2, 5]
    assert table.cut.tolist() == [False, True, False, False, False]


def test_the_longest_examples_come_first_and_equals_keep_their_order(table: TokenTable) -> None:
    assert [example.item_id for example in table.longest(4)] == ["a", "e", "b", "c"]


def test_a_table_in_memory_has_the_same_examples(table: TokenTable) -> None:
    assert [as_values(example) for example in TokenTable.of(EXAMPLES)] == [as_values(example) for example in table]
    assert TokenTable.of(table) is table


def test_token_ids_are_views_into_the_file_and_not_copies(table: TokenTable) -> None:
    assert not table[0].ids.flags.owndata
    assert not table[0].ids.flags.writeable


def test_a_file_with_other_columns_is_refused(tmp_path: Path) -> None:
    other = pa.table({"id": ["a"]})
    with pa.OSFile(str(tmp_path / "other"), "wb") as file, pa.ipc.new_file(file, other.schema) as writer:
        writer.write_table(other)

    with pytest.raises(ValueError, match="not a table of tokens"):
        open_table(tmp_path / "other")
