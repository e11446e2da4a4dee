"""Cells and shards: every cell is in one shard, and what is no shard is said in one line."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.cells import Cell, Shard, parse_shard, share

# Two candidates with three batches each.
CELLS = [Cell(name, (index,)) for name in ("a", "b") for index in range(3)]


def test_a_shard_is_a_contiguous_part() -> None:
    # Six cells in four parts: 6 * 1 / 4 = 1.5, 6 * 2 / 4 = 3, 6 * 3 / 4 = 4.5.
    parts = [list(share(CELLS, Shard(number, 4))) for number in (1, 2, 3, 4)]

    assert parts == [CELLS[:1], CELLS[1:3], CELLS[3:4], CELLS[4:]]


@given(cells=st.integers(0, 200), of=st.integers(1, 70))
def test_every_cell_is_in_one_shard_and_no_shard_has_two_more_than_another(cells: int, of: int) -> None:
    every = [Cell("a", (index,)) for index in range(cells)]
    parts = [share(every, Shard(number, of)) for number in range(1, of + 1)]

    assert [cell for part in parts for cell in part] == every
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("text", ["3/8", "3of8"])
def test_a_shard_is_read_as_it_is_written(text: str) -> None:
    shard = parse_shard(text)

    assert shard == Shard(3, 8)
    assert (str(shard), shard.label) == ("3/8", "3of8")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("0/8", "0/8 is no shard: they are numbered from 1 to 8"),
        ("9/8", "9/8 is no shard: the last one is 8/8"),
        ("1/10000", "1/10000 is no shard: an evaluation has 1 to 9,999 shards"),
        ("1/0", "1/0 is no shard: an evaluation has 1 to 9,999 shards"),
        ("3", "'3' is no shard: the third of eight is 3/8"),
        ("-1/8", "'-1/8' is no shard: the third of eight is 3/8"),
        ("٣/8", "'٣/8' is no shard: the third of eight is 3/8"),
    ],
)
def test_what_is_no_shard_is_said_in_one_line(text: str, problem: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011  # the whole message is compared
        parse_shard(text)

    assert str(raised.value) == problem
