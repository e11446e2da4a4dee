"""Who drops out of a race, when, and whether that is right: by hand, and on simulated training curves."""

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from pricer.core.checkpoints import Checkpoint
from pricer.core.halving import Round, drop_worst, plan_rounds
from pricer.errors import RunError
from tests.builders import a_checkpoint
from tests.simulation import CURVES, drawn_scores, true_errors


def race(errors: Mapping[int, np.ndarray], budget: float) -> Checkpoint:
    """The winner over these absolute errors, by step."""
    left: list[Checkpoint] = [a_checkpoint(step) for step in errors]
    items = len(next(iter(errors.values())))
    for one in plan_rounds(len(left), items, budget):
        seen = {checkpoint.id: errors[checkpoint.step][: one.stop] for checkpoint in left}
        out = {dropout.id for dropout in drop_worst(left, seen, one.survivors)}
        left = [checkpoint for checkpoint in left if checkpoint.id not in out]
    (winner,) = left
    return winner


def test_a_budget_is_spent_in_rounds_of_equal_cost_and_halves_the_field() -> None:
    # 8 × 1,000 predictions, 30 % are 2,400: three rounds of 800. 8 on 100 items, 4 on 200 more, 2 on 400 more.
    rounds = plan_rounds(8, 1000, 0.3)

    assert rounds == [Round(8, 0, 100, 4), Round(4, 100, 300, 2), Round(2, 300, 700, 1)]
    assert [one.predictions for one in rounds] == [800, 800, 800]


def test_an_odd_field_keeps_the_larger_half() -> None:
    # 5 × 30 predictions, half: 75. A round of 26 takes ⌊26/5⌋ = 5 items, the next ends at ⌊26/5 + 26/3⌋ = 13, the
    # last to ⌊26/5 + 26/3 + 26/2⌋ = 26: 5 × 5 + 3 × 8 + 2 × 13 = 75.
    assert plan_rounds(5, 30, 0.5) == [Round(5, 0, 5, 3), Round(3, 5, 13, 2), Round(2, 13, 26, 1)]


def test_items_that_run_out_leave_their_share_to_the_rounds_before() -> None:
    # 4 × 100 predictions, 70 % are 280. Equal halves would be 4 on 35 and 2 on 105: but there are 100. With 40 and 60
    # items it is 4 × 40 + 2 × 60 = 280.
    assert plan_rounds(4, 100, 0.7) == [Round(4, 0, 40, 2), Round(2, 40, 100, 1)]


def test_rounds_that_reach_no_new_items_are_one() -> None:
    # The whole work is allowed: the first round takes all 10 items, and nothing is left for a second one.
    assert plan_rounds(4, 10, 1.0) == [Round(4, 0, 10, 1)]


def test_a_single_checkpoint_has_won_before_it_is_scored() -> None:
    assert plan_rounds(1, 10, 0.3) == []


def test_a_budget_under_one_item_each_is_refused() -> None:
    with pytest.raises(RunError, match=r"0\.09 of 20 predictions does not give each checkpoint one item"):
        plan_rounds(2, 10, 0.09)


def test_the_worst_go_first_each_with_its_distance_to_the_leader() -> None:
    field = [a_checkpoint(step) for step in (1, 2, 3, 4)]
    means: dict[int, Sequence[float]] = {1: [7.0, 9.0], 2: [1.0, 3.0], 3: [4.0, 6.0], 4: [0.0, 20.0]}

    dropped = drop_worst(field, {one.id: means[one.step] for one in field}, survivors=2)

    # Means 8, 2, 5 and 10.
    assert [(one.step, one.n, one.leader, one.margin) for one in dropped] == [(4, 2, 2, 8.0), (1, 2, 2, 6.0)]


def test_a_tie_goes_to_the_earlier() -> None:
    assert race({step: np.arange(300.0) for step in (1, 2, 3)}, budget=0.5).step == 1


@pytest.mark.parametrize("curve", ["valley", "plateau"])
def test_thirty_percent_of_the_work_finds_a_checkpoint_within_half_a_dollar_of_the_best(curve: str) -> None:
    truth, rng = true_errors(CURVES[curve]), np.random.default_rng(7)
    close = []
    for _ in range(60):
        errors = {step: scores.abs_error for step, scores in enumerate(drawn_scores(CURVES[curve], 2000, rng))}
        winner = race(errors, budget=0.3).step
        means = [float(row.mean()) for row in errors.values()]
        close.append((truth[winner] <= truth.min() + 0.5, means[winner] <= min(means) + 0.5))

    # Close to the truly best, and to the one that is best when all are scored on everything.
    truly, as_full = np.mean(close, axis=0)
    assert truly >= 0.95
    assert as_full >= 0.95
