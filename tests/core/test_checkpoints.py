"""What a checkpoint is."""

import json
from typing import Any

import pytest

from pricer.core.checkpoints import Checkpoint, Member, tag_name, windows_around
from tests.builders import a_checkpoint


@pytest.mark.parametrize(
    "change",
    [
        {"step": 6},
        {"epoch": 0.6},
        {"base": "meta-llama/Llama-3.2-3B"},
        {"base_revision": "ba5f"},
        {"prompt_fingerprint": "9a3f"},
        {"data_fingerprint": "da7b"},
        {"adapter_sha256": "00"},
    ],
)
def test_the_revision_changes_with_every_part_of_the_manifest(change: dict[str, Any]) -> None:
    assert a_checkpoint(**change).id != a_checkpoint().id


def test_the_revision_is_the_one_that_earlier_checkpoints_were_recorded_under() -> None:
    # A change here makes every stored checkpoint "not what its manifest says".
    assert a_checkpoint().id == "7c87faeeb9cdfc7d3410cca095472290f453417c"


def test_names_sort_as_steps_do() -> None:
    steps = [5, 40, 300, 99_999, 100_000]

    assert [tag_name(step) for step in steps] == sorted(tag_name(step) for step in steps)
    assert a_checkpoint(5000).name == "step-005000"


def test_a_manifest_reads_back_as_it_was_written() -> None:
    checkpoint = a_checkpoint(step=5, epoch=0.1 + 0.2)

    assert Checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json()))) == checkpoint


def test_a_manifest_may_leave_the_id_out() -> None:
    record = a_checkpoint().to_json()
    del record["id"]

    assert Checkpoint.from_json(record) == a_checkpoint()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"step": "5"}, "step is '5'"),
        ({"step": 5.0}, "step is 5.0"),
        ({"step": True}, "step is True"),
        ({"step": None}, "step is None"),
        ({"epoch": "half"}, "epoch is 'half'"),
        ({"base": None}, "base is None"),
        ({"adapter_sha256": 7}, "adapter_sha256 is 7"),
        ({"auto_map": {}}, "auto_map is not part of a manifest"),
    ],
)
def test_a_manifest_with_a_wrong_entry_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Checkpoint.from_json({**a_checkpoint().to_json(), **change})


def test_a_manifest_without_an_entry_is_refused() -> None:
    record = a_checkpoint().to_json()
    del record["base_revision"]

    with pytest.raises(ValueError, match="base_revision is None"):
        Checkpoint.from_json(record)


def test_a_manifest_that_was_changed_by_hand_no_longer_fits_its_revision() -> None:
    record = {**a_checkpoint(5).to_json(), "step": 6}

    with pytest.raises(ValueError, match=f"its contents make it {a_checkpoint(6, epoch=0.5).id}"):
        Checkpoint.from_json(record)


class TestPlaces:
    """Where a checkpoint lies on the Hub is no part of what it is."""

    def test_the_same_checkpoint_in_two_places_is_equal_and_has_one_revision(self) -> None:
        here = a_checkpoint()
        there = here.at("c" * 40, "checkpoint-5")

        assert (there.commit, there.folder) == ("c" * 40, "checkpoint-5")
        assert (here.commit, here.folder) == (None, "")
        assert there == here == there.at("d" * 40)
        assert hash(there) == hash(here)
        assert there.id == here.id

    def test_a_place_reads_back_as_it_was_written(self) -> None:
        there = a_checkpoint().at("c" * 40, "checkpoint-5")

        read = Checkpoint.from_json(json.loads(json.dumps(there.to_json())))

        assert (read, read.commit, read.folder) == (there, "c" * 40, "checkpoint-5")

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"commit": 5}, "commit is 5"),
            ({"commit": None}, "commit is None"),
            ({"commit": ["c"]}, r"commit is \['c'\]"),
            ({"folder": None}, "folder is None"),
            ({"folder": True}, "folder is True"),
        ],
    )
    def test_a_place_that_is_none_is_refused(self, change: dict[str, Any], message: str) -> None:
        with pytest.raises(ValueError, match=f"^{message}$"):
            Checkpoint.from_json({**a_checkpoint().at("c" * 40).to_json(), **change})


@pytest.mark.parametrize("name", ["epoch", "base_revision", "prompt_fingerprint", "data_fingerprint"])
def test_what_another_trainer_did_not_say_is_unknown(name: str) -> None:
    unknown: dict[str, Any] = {name: None}
    checkpoint = a_checkpoint(**unknown)

    assert Checkpoint.from_json(json.loads(json.dumps(checkpoint.to_json()))) == checkpoint
    assert checkpoint.id != a_checkpoint().id


def a_soup(*steps: int) -> Checkpoint:
    return a_checkpoint(steps[-1], members=tuple(Member(step, a_checkpoint(step).id) for step in steps))


def test_a_soup_is_named_after_its_members_and_is_another_than_its_last_one() -> None:
    soup = a_soup(400, 450, 500)

    assert (soup.name, soup.step, soup.member_steps) == ("soup-000400-000450-000500", 500, (400, 450, 500))
    assert soup.id not in {a_checkpoint(500).id, a_soup(450, 500).id}
    assert Checkpoint.from_json(json.loads(json.dumps(soup.to_json()))) == soup
    assert "members" not in a_checkpoint(500).to_json()


@pytest.mark.parametrize(
    "members",
    [
        None,
        [],
        "ab",
        7,
        [{"step": 500, "revision": "a"}],
        [{"step": 500, "revision": "a"}, {"step": 500, "revision": "b"}],
        [{"step": 500, "revision": "a"}, {"step": 400, "revision": "b"}],
        [{"step": "400", "revision": "a"}, {"step": 500, "revision": "b"}],
        [{"step": 400, "revision": 7}, {"step": 500, "revision": "b"}],
        [{"step": 400, "revision": "a", "x": 1}, {"step": 500, "revision": "b"}],
        [{"step": step, "revision": "a"} for step in range(492, 501)],
    ],
)
def test_members_that_are_not_some_checkpoints_by_step_are_refused(members: object) -> None:
    with pytest.raises(ValueError, match="members are"):
        Checkpoint.from_json({**a_checkpoint(500).to_json(), "revision": None, "members": members})


def test_a_soup_of_another_step_than_its_last_member_is_refused() -> None:
    record = {**a_soup(400, 500).to_json(), "step": 600}

    with pytest.raises(ValueError, match="step is 600, its last member's 500"):
        Checkpoint.from_json(record)


@pytest.mark.parametrize(
    ("best", "windows"),
    [
        (100, [(100, 200), (100, 200, 300)]),
        (200, [(100, 200), (200, 300), (100, 200, 300), (200, 300, 400)]),
        (300, [(200, 300), (300, 400), (100, 200, 300), (200, 300, 400), (300, 400, 500)]),
        (500, [(400, 500), (300, 400, 500)]),
    ],
)
def test_the_windows_around_a_checkpoint_are_of_two_and_of_three_neighbours(
    best: int, windows: list[tuple[int, ...]]
) -> None:
    checkpoints = [a_checkpoint(step) for step in (300, 100, 200, 500, 400)]

    found = windows_around(checkpoints, a_checkpoint(best).id)

    assert [tuple(c.step for c in window) for window in found] == windows


def test_a_single_checkpoint_has_no_window() -> None:
    assert windows_around([a_checkpoint(100)], a_checkpoint(100).id) == []
