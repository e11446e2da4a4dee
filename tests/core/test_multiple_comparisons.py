"""Multiple comparisons with the best: by hand, and on candidates whose true losses are known."""

import numpy as np
import pytest

from pricer.core.multiple_comparisons import ComparisonWithBest, compare_with_best

# On four resamples, the first varies by ±1 and the others do not vary.
SWING = np.array([1.0, -1.0, 1.0, -1.0])


def compare(*losses: float, swings: tuple[float, ...]) -> ComparisonWithBest:
    """Candidates with these losses, which vary by these multiples of SWING."""
    observed = np.array(losses)
    drawn = observed[:, None] + np.array(swings)[:, None] * SWING
    return compare_with_best(observed, drawn, int(observed.argmin()))


def test_each_is_compared_with_the_best_of_the_others() -> None:
    found = compare(10.0, 12.0, 15.0, swings=(0.0, 0.0, 0.0))

    # The best is compared with the second, and the others with the best.
    assert found.worse_by.tolist() == [-2.0, 2.0, 5.0]
    assert found.interval.tolist() == [[-2.0, -2.0], [2.0, 2.0], [5.0, 5.0]]
    assert found.may_be_best.tolist() == [True, False, False]
    assert found.max_regret == 0.0


def test_the_interval_holds_the_best_of_all_others_whichever_it_is() -> None:
    found = compare(10.0, 10.5, 10.2, swings=(1.0, 0.0, 0.0))

    # The standard error is √(4/3) = 1.155 for pairs with the first, and t is always ±1/1.155: q · error = 1.
    # Candidate 1: 0.5 ± 1 to the first, 0.3 ± 0 to the last. Whatever the first is, it is worse than the last by 0.3.
    assert found.interval[1] == pytest.approx([0.3, 1.5])
    assert found.interval[2] == pytest.approx([-0.3, 1.2])
    # The last is worse by 0.2 ± 1, the first better by 0.2 ± 1.
    assert found.may_be_best.tolist() == [True, False, True]
    # The last may be better than the first by 1 − 0.2.
    assert found.max_regret == pytest.approx(0.8)


def test_equal_candidates_may_both_be_the_best() -> None:
    found = compare(10.0, 10.0, 11.0, swings=(1.0, 1.0, 1.0))

    assert found.worse_by.tolist() == [0.0, 0.0, 1.0]
    assert found.interval.tolist() == [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]]
    assert found.may_be_best.tolist() == [True, True, False]


@pytest.mark.parametrize("truth", [(0.0,) * 8, (0.3, 0.1, 0.0, 0.0, 0.05, 0.2, 0.4, 0.6)])
def test_statements_hold_for_all_candidates_at_once(truth: tuple[float, ...]) -> None:
    """With normal losses that have the standard error 0.1."""
    rng, true, repeats = np.random.default_rng(0), np.array(truth), 400
    best = int(true.argmin())
    noise = 0.1 * rng.standard_normal((8, 2_000))
    to_best = np.array([loss - np.delete(true, number).min() for number, loss in enumerate(true)])
    covered = kept = bounded = 0
    for _ in range(repeats):
        observed = true + 0.1 * rng.standard_normal(8)
        chosen = int(observed.argmin())
        found = compare_with_best(observed, observed[:, None] + noise, chosen)
        covered += bool(np.all((found.interval[:, 0] <= to_best) & (to_best <= found.interval[:, 1])))
        kept += bool(found.may_be_best[best])
        bounded += true[chosen] - true[best] <= found.max_regret

    # 95 % of 400 are 380, give or take √(400 · 0.95 · 0.05) = 4.4. Only if all are equal are they no more.
    assert min(covered, kept, bounded) >= 380 - 3 * 4.4
    if not true.any():
        assert max(covered, kept) <= 380 + 3 * 4.4
