"""What is known of the items that the adapters of another trainer are scored on."""

import pytest

from pricer.core.held_out import Claim, HeldOutCheck, Training, find_training, judge_held_out
from pricer.core.items import Split

TRAIN, VAL, TEST = Split


def find(*claims: Claim, source: str = "ann/lamps", subset: str | None = None, on_hub: bool = True) -> Training:
    return find_training(claims, "bob/prices", source, subset, on_hub=on_hub)


def test_a_split_of_the_same_data_set_is_known() -> None:
    card = Claim("Ann/Lamps", (TRAIN,), "README.md")

    assert find(card) == Training(("train",), "as README.md of bob/prices says")


def test_several_statements_are_put_together() -> None:
    # An item of val was trained on if any statement says so.
    claims = [Claim("ann/lamps", (), "README.md"), Claim(None, (TRAIN,), "README.md")]
    claims.append(Claim("ann/lamps", (VAL, TRAIN), "training_params.json"))

    assert find(*claims) == Training(("train", "val"), "as README.md and training_params.json of bob/prices says")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        ([], "bob/prices names no Hub data set that its adapters were trained on"),
        # A split without a data set could be of any.
        ([Claim(None, (TRAIN,), "README.md")], "bob/prices names no Hub data set that its adapters were trained on"),
        ([Claim("ann/lamps", (), "README.md")], "bob/prices names ann/lamps, and no split of it"),
        ([Claim("ann/hats", (TRAIN,), "README.md")], "bob/prices names ann/hats, and not ann/lamps"),
        ([Claim(f"ann/{n}", (TRAIN,), "README.md") for n in "abcde"],
         "bob/prices names ann/a, ann/b, ann/c and 2 more, and not ann/lamps"),
    ],
)  # fmt: skip
def test_what_cannot_be_known_has_a_reason(claims: list[Claim], reason: str) -> None:
    assert find(*claims) == Training(None, reason)


def test_another_subset_is_other_data() -> None:
    red = Claim("ann/lamps", (TRAIN,), "README.md", "red")

    assert find(red, subset="red").splits == ("train",)
    assert find(red).splits == ("train",)
    assert find(red, subset="blue") == Training(None, "bob/prices names ann/lamps, and not ann/lamps, subset blue")


def test_files_of_this_machine_may_be_a_copy() -> None:
    card = Claim("ann/lamps", (TRAIN,), "README.md")

    assert find(card, source="lamps.csv", on_hub=False) == Training(
        None, "bob/prices names ann/lamps, and lamps.csv may have the same items"
    )


def test_what_is_said_of_the_scored_items() -> None:
    said, silent = Training(("train",), "as its card says"), Training(None, "bob/prices is silent")

    assert judge_held_out(said, "ann/lamps", ["train", "test"]) == HeldOutCheck(
        True,
        "held out: the adapters were trained on train of ann/lamps, as its card says; none of it is scored",
    )
    assert judge_held_out(silent, "ann/lamps", ["train", "test"]) == HeldOutCheck(
        False,
        "not known to be held out: bob/prices is silent. The split train of ann/lamps is assumed, and none of it is "
        "scored. If you know better, set data.trained_splits",
    )
    assert judge_held_out(silent, "ann/lamps", ["train"]).text.startswith(
        "not known to be held out: bob/prices is silent. ann/lamps has no held-out split of its own, so the adapters "
    )
    none = judge_held_out(Training((), "as data.trained_splits says"), "ann/lamps", [])
    assert none == HeldOutCheck(
        True, "held out: the adapters were trained on no item of ann/lamps, as data.trained_splits says"
    )


def test_copies_of_the_training_items_are_said_and_copies_alone_are_not_held_out() -> None:
    said = Training(("train",), "as its card says")
    text = "held out: the adapters were trained on train of ann/lamps, as its card says; none of it is scored"
    items = {"train": 600, "val": 150, "test": 75}

    def judge(training: Training, **copies: int) -> HeldOutCheck:
        return judge_held_out(training, "ann/lamps", ["train", "val", "test"], items, {"train": 0, **copies})

    assert judge(said, val=0, test=0) == HeldOutCheck(True, text)
    some = "50 of 150 val items and 7 of 75 test items have a near-copy among the training items"
    assert judge(said, val=50, test=7) == HeldOutCheck(True, f"{text}. {some}")
    every = "75 of 75 test items have a near-copy among the training items"
    assert judge(said, val=0, test=75) == HeldOutCheck(False, f"not {text}. {every}")
    assert judge(Training((), "as data.trained_splits says"), val=150).known
