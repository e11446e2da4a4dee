"""Simulated checkpoints: errors on shared items as they are seen in training runs, with a truth that is known."""

import math
from statistics import NormalDist

import numpy as np

from pricer.core.evaluation import ScoreTable
from tests.builders import a_score_table

# An item's absolute error is log-normal: an error that is the item's own (its logarithm varies by 1.14), times what the
# checkpoint makes of it (by 0.2), times the checkpoint's true error; prices below $1,000 end it at $950. With true
# errors of about $45 this has the figures of the published runs: the errors vary by $70, the worst 5 % of the items
# carry 31 % of them, and the difference of two checkpoints varies by $22.4, a correlation of 1 − 22.4² / (2 · 70²) =
# 0.95. Two that are $2.51 apart are then ordered right on 200 shared items with probability Φ(2.51 / (22.4 / √200)) =
# 94 %, on different ones with Φ(2.51 / (70 · √2 / √200)) = 64 %; the best of 20 equally good ones looks
# 1.87 · 22.4 / √2 / √200 = $2.1 better than it is (less by a few cents, as extremes of heavy tails average out late).
_OWN, _MADE, _MOST = 1.14, 0.2, 950.0

_STEP = np.arange(20)
CURVES = {
    "equal": np.full(20, 45.0),
    # $7 above the lowest at the beginning, $1.80 at the end.
    "valley": 44 + 0.05 * (_STEP - 12.0) ** 2,
    # Falls for seven checkpoints, stays for seven, rises slowly.
    "plateau": 44 + 0.3 * np.maximum(0, 7 - _STEP) + 0.1 * np.maximum(0, _STEP - 13),
}


def true_errors(curve: np.ndarray) -> np.ndarray:
    """The expected absolute errors: those of a log-normal variable that ends at $950."""
    spread, normal = math.hypot(_OWN, _MADE), NormalDist()
    expected = []
    for error in curve.tolist():
        end = (math.log(_MOST / error) + spread**2 / 2) / spread
        expected.append(error * normal.cdf(end - spread) + _MOST * (1 - normal.cdf(end)))
    return np.array(expected)


def drawn_scores(curve: np.ndarray, items: int, rng: np.random.Generator) -> list[ScoreTable]:
    """Each checkpoint's scores on the same new items."""
    own = np.exp(_OWN * rng.standard_normal(items) - _OWN**2 / 2)
    made = np.exp(_MADE * rng.standard_normal((len(curve), items)) - _MADE**2 / 2)
    errors = np.minimum(curve[:, None] * own * made, _MOST)
    return [a_score_table(1000 + error, 1000.0) for error in errors]
