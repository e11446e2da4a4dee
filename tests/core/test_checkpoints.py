"""What a checkpoint is, and in which order candidates come."""

import re
from dataclasses import replace
from typing import Any

import pytest

from pricer.core.checkpoints import Answers, Candidate, tag_name
from pricer.core.prices import PriceFormat
from tests.builders import a_checkpoint

ANSWERS = Answers(PriceFormat("padded", 4), answer_tokens=5, max_price=5399.0, train_median=2144.0)


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
        {"answers": ANSWERS},
    ],
)
def test_the_revision_changes_with_every_part_of_the_manifest(change: dict[str, Any]) -> None:
    assert a_checkpoint(**change).id != a_checkpoint().id


def test_the_revision_is_the_one_that_earlier_checkpoints_were_recorded_under() -> None:
    # A change here makes every stored checkpoint "not what its manifest says".
    assert a_checkpoint().id == "b95e97aab5047bb0e3fdb7502766760e97806007"


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"answer_tokens": 1}, "answer_tokens is 1"),
        ({"answer_tokens": 65}, "answer_tokens is 65"),
        ({"price_format": PriceFormat("padded", 100)}, "price_format.width is 100"),
        ({"price_format": PriceFormat("padded", 0)}, "price_format.width is 0"),
        ({"max_price": 0.0}, "max_price is 0.0, not a price above zero"),
        ({"max_price": float("inf")}, "max_price is inf, not a price above zero"),
        ({"train_median": -1.0}, "train_median is -1.0, not a price above zero"),
        ({"train_median": float("nan")}, "train_median is nan, not a price above zero"),
    ],
)
def test_answers_out_of_bounds_are_refused(change: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(problem)}$"):
        replace(ANSWERS, **change)


def test_names_sort_as_steps_do() -> None:
    steps = [5, 40, 300, 99_999, 100_000]

    assert [tag_name(step) for step in steps] == sorted(tag_name(step) for step in steps)
    assert a_checkpoint(5000).name == "step-005000"


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


TRAINED = Candidate.of(a_checkpoint(7))
BASELINE = Candidate("constant")


def test_a_candidate_says_which_checkpoint_it_is() -> None:
    assert Candidate("step-000007", a_checkpoint(7).id, 7, 0.7) == TRAINED
    assert (BASELINE.is_baseline, TRAINED.is_baseline) == (True, False)


def test_baselines_come_first_then_checkpoints_by_step() -> None:
    ordered = [replace(BASELINE, name="a"), BASELINE, TRAINED, Candidate.of(a_checkpoint(10))]

    assert sorted((ordered[index] for index in (2, 0, 3, 1)), key=lambda candidate: candidate.order) == ordered
