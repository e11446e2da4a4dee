"""Who drops out of a race, when, and whether that is right: by hand, and on simulated training curves."""

import math
from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from pricer.core.checkpoints import Checkpoint
from pricer.core.halving import Round, drop_worst, plan_rounds
from pricer.errors import RunError
from tests.builders import a_checkpoint


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


# How far the MAE of 20 checkpoints, $46 at best, is above the best one's.
STEP = np.arange(20)
CURVES = {
    # Eleven of 20 are more than $3 off, four within $0.50.
    "steep": 30 * np.exp(-STEP / 2) + 0.12 * np.maximum(0, STEP - 9) ** 2 + 0.1 * np.maximum(0, 9 - STEP) ** 2,
    # Six are within $0.50.
    "usual": 25 * np.exp(-STEP / 1.8) + 0.05 * (STEP - 11) ** 2,
    # Ten are within $0.50.
    "plateau": 20 * np.exp(-STEP / 1.5) + 0.02 * (STEP - 12) ** 2,
    # All are within $1, 15 within $0.50.
    "flat": 0.01 * (STEP - 10) ** 2,
}
ITEMS = 2000
# Absolute errors are log-normal: with σ = 1.04 the worst 5 % of items carry Φ(1.04 − 1.645) = 27 % of the error, and at
# an MAE of 46 the SD is 46 × √(e^1.0816 − 1) = 64 (published: 27 %, 65–73).
SIGMA = 1.04
# Checkpoints $2.51 apart are ordered right 94 % of the time on 200 shared items: Φ(2.51/(s/√200)) = 0.94, so the SD s
# of the paired difference is 2.51 × √200/1.555 = 22.8, and 22.8² = 2 × 70² × (1 − r) makes r = 0.947. (On different
# items: Φ(2.51 × √200/(√2 × 70)) = 0.64, as published.) For logs: ln(1 + 0.947 (e^1.0816 − 1))/1.0816 = 0.967.
LOG_CORRELATION = 0.967


def simulated(curve: str, rng: np.random.Generator) -> dict[int, np.ndarray]:
    """Absolute errors of 20 checkpoints on 2,000 shared items, by step."""
    excess = CURVES[curve] - CURVES[curve].min()
    shared = math.sqrt(LOG_CORRELATION) * rng.standard_normal(ITEMS)
    own = math.sqrt(1 - LOG_CORRELATION) * rng.standard_normal((len(excess), ITEMS))
    rows = (46 + excess)[:, None] * np.exp(SIGMA * (shared + own) - SIGMA**2 / 2)
    return dict(enumerate(rows))


def test_the_simulated_errors_are_like_the_published_ones() -> None:
    rng = np.random.default_rng(3)
    errors = [simulated("flat", rng) for _ in range(50)]
    one, other = (np.concatenate([e[name] for e in errors]) for name in (10, 11))

    assert 62 < one.std() < 67
    assert 20 < (one - other).std() < 23
    assert 0.26 < np.sort(one)[-5000:].sum() / one.sum() < 0.28  # the worst 5 % of 100,000


@pytest.mark.parametrize("curve", CURVES)
def test_thirty_percent_of_the_work_finds_a_checkpoint_within_half_a_dollar_of_the_best(curve: str) -> None:
    rng = np.random.default_rng(7)
    excess = CURVES[curve] - CURVES[curve].min()
    close = []
    for _ in range(200):
        errors = simulated(curve, rng)
        winner = race(errors, budget=0.3).step
        means = {step: float(row.mean()) for step, row in errors.items()}
        close.append((excess[winner] <= 0.5, means[winner] <= min(means.values()) + 0.5))

    # Close to the truly best, and to the one that is best when all are scored on everything.
    truly, as_full = np.mean(close, axis=0)
    assert truly >= 0.95
    assert as_full >= 0.95
