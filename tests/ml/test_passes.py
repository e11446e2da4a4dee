"""How a step is computed: what fits, and of that the fastest."""

import pytest

from pricer.config import TrainConfig
from pricer.ml.out_of_memory import OutOfMemoryError
from pricer.ml.passes import Passes, fastest

KEPT, AGAIN = False, True


class Card:
    """A GPU with room for so many items, fewer with their activations kept, that takes so many seconds for each."""

    def __init__(self, kept: int, again: int, seconds: dict[bool, float]) -> None:
        self._room = {KEPT: kept, AGAIN: again}
        self._seconds = seconds
        self.tried: list[tuple[int, bool]] = []

    def trial(self, passes: Passes) -> float | None:
        self.tried.append((passes.micro_batch, passes.activation_checkpointing))
        fits = passes.micro_batch <= self._room[passes.activation_checkpointing]
        return self._seconds[passes.activation_checkpointing] if fits else None


def test_a_batch_that_fits_is_computed_at_once_and_nothing_else_is_tried() -> None:
    card = Card(16, 64, {KEPT: 1.0, AGAIN: 1.3})

    assert fastest(TrainConfig(batch_size=16), card.trial) == Passes(16)
    assert card.tried == [(16, KEPT)]


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        ({KEPT: 1.0, AGAIN: 1.3}, Passes(8)),
        # Small parts can be slow, where each costs more to start than to compute.
        ({KEPT: 3.0, AGAIN: 1.3}, Passes(32, activation_checkpointing=True)),
    ],
)
def test_of_smaller_parts_and_recomputed_activations_the_faster_is_taken(
    seconds: dict[bool, float], expected: Passes
) -> None:
    card = Card(8, 32, seconds)

    assert fastest(TrainConfig(batch_size=32), card.trial) == expected
    assert card.tried == [(32, KEPT), (16, KEPT), (8, KEPT), (32, AGAIN)]


def test_what_the_config_says_is_not_looked_for() -> None:
    card = Card(4, 64, {KEPT: 1.0, AGAIN: 1.3})

    config = TrainConfig(batch_size=32, micro_batch=8, activation_checkpointing=True)
    assert fastest(config, card.trial) == Passes(8, activation_checkpointing=True)
    assert card.tried == [(8, AGAIN)]


@pytest.mark.parametrize(
    ("config", "message", "hint"),
    [
        (
            TrainConfig(batch_size=32, micro_batch=8, activation_checkpointing=False),
            "a step of 8 items does not fit into this GPU's memory",
            "train.micro_batch: auto and train.activation_checkpointing: auto",
        ),
        (
            TrainConfig(batch_size=6),
            "a step of 1 items does not fit into this GPU's memory",
            "a smaller prompt.max_length or adapter.r, or a GPU with more memory",
        ),
    ],
)
def test_a_step_that_cannot_fit_is_said_before_a_run_is_made(config: TrainConfig, message: str, hint: str) -> None:
    with pytest.raises(OutOfMemoryError) as caught:
        fastest(config, Card(0, 0, {}).trial)

    assert (caught.value.message, caught.value.hint) == (message, hint)
