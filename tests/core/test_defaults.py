"""Golden tables of the defaults that look at the data: each value shows the rule that decides it."""

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.defaults import (
    Default,
    choose_batch_size,
    choose_checkpoint_every,
    choose_epochs,
    choose_learning_rate,
    choose_max_length,
    find_waste,
    half_width,
    held_out_fractions,
)

BUNDLED, SMALL, LARGE, LARGEST = 2_157_280, 134_515_008, 3_212_749_824, 8_030_261_248


@pytest.mark.parametrize(
    ("items", "val", "test"),
    [
        (0, 0.2, 0.2),
        (30, 0.2, 0.2),  # a fifth each: 6 and 6 of 30
        (499, 0.2, 0.2),  # a fifth is 99.8 items, so 100 are too many
        (500, 0.25, 0.2),  # a fifth is 100: the validation split aims at 130, but takes a quarter at most
        (929, 0.14, 0.11),  # 130 / 929 = 0.140; 100 / 929 = 0.108
        (1_300, 0.1, 0.1),  # 10 % are 130
        (5_013, 0.1, 0.1),
        (20_000, 0.1, 0.1),
        (40_000, 0.05, 0.1),  # 2,000 / 40,000
        (400_000, 0.005, 0.025),  # 2,000 / 400,000; 10,000 / 400,000
        (800_000, 0.0025, 0.013),  # 10,000 / 800,000 = 0.0125, with two digits 0.013
    ],
)
def test_the_shares_of_the_held_out_splits_follow_from_the_number_of_items(items: int, val: float, test: float) -> None:
    assert held_out_fractions(items, "auto", "auto") == (val, test)


def test_a_share_that_is_given_stays_and_leaves_room_for_training() -> None:
    assert held_out_fractions(929, 0.3, "auto") == (0.3, 0.11)
    assert held_out_fractions(929, "auto", 0.0) == (0.14, 0.0)
    assert held_out_fractions(929, 0.3, 0.4) == (0.3, 0.4)
    assert held_out_fractions(929, "auto", 0.8) == pytest.approx((0.1, 0.8))
    # 0.9 is for testing: half of the other 0.1 for validation.
    assert held_out_fractions(929, "auto", 0.9) == pytest.approx((0.05, 0.9))


def test_the_interval_narrows_with_the_root_of_the_number_of_items() -> None:
    # The standard deviation of 0, 10, 20, 30 and 40 is the root of 1,000 / 4: 15.81.
    errors = [0.0, 10.0, 20.0, 30.0, 40.0]

    assert half_width(errors, 100) == pytest.approx(1.96 * 15.811 / 10, rel=1e-4)
    assert half_width(errors, 400) == pytest.approx(1.96 * 15.811 / 20, rel=1e-4)
    assert half_width(errors, 0) is None
    assert half_width([5.0], 100) is None


@pytest.mark.parametrize(
    ("items", "batch_size"),
    [
        (30, 8),  # the root of 30 / 4 is 1.4, the minimum is 8
        (500, 8),  # 22.4 / 4 = 5.6
        (929, 8),  # 30.5 / 4 = 7.6
        (5_013, 16),  # 70.8 / 4 = 17.7, as in the quickstart
        (20_000, 32),  # 141 / 4 = 35, as in the recipe
        (400_000, 128),  # 632 / 4 = 158
        (800_000, 256),  # 894 / 4 = 224, as in the recipe
        (80_000_000, 256),
    ],
)
def test_the_batch_grows_with_the_root_of_the_number_of_items(items: int, batch_size: int) -> None:
    assert choose_batch_size(items).value == batch_size


@pytest.mark.parametrize(
    ("parameters", "rate"),
    [(10_000, 2e-3), (BUNDLED, 2e-3), (SMALL, 4e-4), (1_235_814_400, 1e-4), (LARGE, 1e-4), (LARGEST, 1e-4)],
)
def test_the_learning_rate_falls_with_the_size_of_the_base(parameters: int, rate: float) -> None:
    assert choose_learning_rate(parameters).value == rate


def test_the_reason_of_a_learning_rate_names_the_size() -> None:
    assert choose_learning_rate(SMALL).reason == "the base has 135 M parameters, and smaller bases need more"
    assert choose_learning_rate(LARGEST).reason.startswith("the base has 8 B parameters")


@pytest.mark.parametrize(
    ("items", "small", "large"),
    [
        (18, 13, 9),  # at most 13; 3 × 5,556^(1/8) = 8.8
        (500, 11, 6),  # 3 × 200^(1/4) = 11.3; 3 × 200^(1/8) = 5.8
        (929, 10, 5),  # 3 × 107.6^(1/4) = 9.7; 3 × 107.6^(1/8) = 5.4
        (5_013, 6, 4),  # 3 × 19.9^(1/4) = 6.3; 3 × 19.9^(1/8) = 4.4
        (20_000, 4, 4),  # 3 × 5^(1/4) = 4.5, halves to even; 3 × 5^(1/8) = 3.7
        (400_000, 3, 3),
        (800_000, 3, 3),
    ],
)
def test_fewer_items_are_trained_on_in_more_epochs(items: int, small: int, large: int) -> None:
    assert [choose_epochs(items, base).value for base in (BUNDLED, SMALL)] == [small, small]
    assert [choose_epochs(items, base).value for base in (LARGE, LARGEST)] == [large, large]


@pytest.mark.parametrize(
    ("steps", "epochs", "every", "reason"),
    [
        # 649 items of 929 in batches of 8 are 82 steps an epoch: 3 × 11 = 33 checkpoints, 902 / 33 = 27.
        (902, 11, 27, "34 checkpoints, 3.1 an epoch"),
        # A short training has about 12: 625 / 12 = 52.
        (625, 1, 52, "13 checkpoints, 13 an epoch"),
        (9_375, 3, 781, "13 checkpoints, 4.3 an epoch"),
        # 20 epochs would have 60: at most 40, 2,000 / 40 = 50.
        (2_000, 20, 50, "40 checkpoints, 2 an epoch: at most 40 in all"),
        # 79 / 39 = 2.03; one at each step would be 79.
        (79, 13, 2, "40 checkpoints, 3.1 an epoch"),
        (41, 13, 2, "21 checkpoints, 1.6 an epoch: at most 40 in all"),
        (23, 1, 1, "23 checkpoints, 23 an epoch"),
        (5, 1, 1, "the training has only 5 steps: a checkpoint after each"),
        (1, 1, 1, "the training has only 1 step: a checkpoint after each"),
    ],
)
def test_checkpoints_are_neither_few_nor_many(steps: int, epochs: float, every: int, reason: str) -> None:
    assert choose_checkpoint_every(steps, epochs) == Default(every, reason)


@given(items=st.integers(1, 10**6), batch_size=st.integers(1, 512), epochs=st.floats(0.1, 50))
def test_every_training_has_8_to_40_checkpoints_and_3_an_epoch_if_40_allow(
    items: int, batch_size: int, epochs: float
) -> None:
    per_epoch = math.ceil(items / batch_size)
    steps = math.ceil(epochs * per_epoch)

    every = choose_checkpoint_every(steps, epochs).value

    checkpoints = math.ceil(steps / every)
    assert min(8, steps) <= checkpoints <= 40
    # The limit may also be reached because steps cannot be divided: every step has one, or every second.
    assert checkpoints >= 3 * epochs or checkpoints == steps or 3 * epochs > 40 or every == math.ceil(steps / 40)


def test_at_most_one_prompt_in_a_hundred_is_cut() -> None:
    lengths = [*[50] * 990, *[300] * 10]

    assert choose_max_length(lengths, 20, 1024, None) == Default(
        56, "the longest of 1,000 prompts has 300 tokens with its price, and 1.0% are cut"
    )
    assert choose_max_length([*lengths, 300], 20, 1024, None).value == 304  # 11 of 1,001 are 1.1 %


def test_a_prompt_has_room_for_some_words_even_if_no_description_needs_it() -> None:
    assert choose_max_length([21], 28, None, None) == Default(
        32, "the longest of 1 prompts has 21 tokens with its price"
    )


@pytest.mark.parametrize(
    ("context", "room", "value", "reason"),
    [
        (512, 700, 512, "it is the base's context; 100% of the descriptions are longer and will be cut"),
        (2048, 640, 640, "it is what fits into the GPU's memory; 100% of the descriptions are longer and will be cut"),
        (None, 0, 28, "it is what fits into the GPU's memory; 100% of the descriptions are longer and will be cut"),
        (2048, None, 1000, "the longest of 3 prompts has 1000 tokens with its price"),
    ],
)
def test_a_length_stays_within_the_context_and_the_memory(
    context: int | None, room: int | None, value: int, reason: str
) -> None:
    assert choose_max_length([900, 1000, 1000], 28, context, room) == Default(value, reason)


def test_what_would_waste_a_run_is_said_with_what_to_set() -> None:
    fine: dict[str, Any] = {
        "steps": 141,
        "epochs": 3,
        "checkpoint_every": 11,
        "val_items": 100,
        "cut": 0.1,
        "max_length": 96,
        "enough": 200,
    }

    assert find_waste(**fine) == []
    assert find_waste(**{**fine, "checkpoint_every": 500, "cut": 0.83, "val_items": 93}) == [
        "there will be one checkpoint and nothing to choose from, because train.checkpoint_every is 500 and the "
        "training has 141 steps: --set train.checkpoint_every=11",
        "83% of the descriptions are longer than prompt.max_length (96 tokens) and will be cut: "
        "--set prompt.max_length=200",
        "93 validation items cannot tell checkpoints apart, 100 are a minimum: set a larger data.val_fraction or "
        "data.val_limit, or get more items",
    ]
    assert find_waste(**{**fine, "cut": 0.5, "enough": 96}) == [
        "50% of the descriptions are longer than prompt.max_length (96 tokens) and will be cut: "
        "take a base with a longer context"
    ]
