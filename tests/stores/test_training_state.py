"""Training states: the newest complete one is what training continues from."""

from pathlib import Path

import pytest

from pricer.stores.training_states import TrainingStates

STATES = TrainingStates(Path("state"))


def a_state(step: int, *, whole: bool = True) -> Path:
    folder = STATES.folder / f"checkpoint-{step}"
    folder.mkdir(parents=True)
    (folder / "optimizer.pt").write_bytes(b"momentum")
    if whole:
        STATES.mark_complete(folder)
    return folder


def test_a_run_that_saved_no_state_has_none() -> None:
    assert STATES.newest() is None


def test_the_newest_is_the_highest_step_not_the_last_name() -> None:
    for step in (900, 1000, 50):
        a_state(step)

    assert STATES.newest() == (STATES.folder / "checkpoint-1000", 1000)


def test_a_state_that_was_not_finished_does_not_count() -> None:
    a_state(5)
    a_state(10, whole=False)

    assert STATES.newest() == (STATES.folder / "checkpoint-5", 5)


@pytest.mark.parametrize("damage", ["changed", "removed", "torn record", "no record of files"])
def test_a_state_that_was_damaged_does_not_count(damage: str) -> None:
    folder = a_state(10)
    match damage:
        case "changed":
            (folder / "optimizer.pt").write_bytes(b"other")
        case "removed":
            (folder / "optimizer.pt").unlink()
        case "torn record":
            (folder / "state.json").write_text('{"files"')
        case _:
            (folder / "state.json").write_text("{}")

    assert STATES.newest() is None


def test_states_beyond_the_one_to_go_on_from_are_dropped() -> None:
    for step, whole in ((5, True), (10, True), (15, False)):
        a_state(step, whole=whole)

    STATES.delete_after(10)

    assert sorted(folder.name for folder in STATES.folder.iterdir()) == ["checkpoint-10", "checkpoint-5"]


def test_other_folders_are_no_states() -> None:
    for name in ("checkpoint-", "checkpoint-best", "checkpoint-5.tmp", "runs"):
        (STATES.folder / name).mkdir(parents=True)

    assert STATES.newest() is None
