"""Multiple comparisons with the best: intervals that hold for all candidates at once, whichever one was chosen, and the
set of candidates that may be the truly best one.

A single 95 % interval of a difference is valid for two candidates that were fixed beforehand. The chosen candidate was
not: it was chosen because it looked best on the same items. Statements about all candidates at once stay valid.
"""

from dataclasses import dataclass

import numpy as np

_CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, eq=False)
class ComparisonWithBest:
    """How K candidates compare with the best of the others. Losses are in the metric's unit; lower is better.

    `worse_by` (K,) is each candidate's loss minus the lowest loss among all others: negative for the best. `interval`
    (K, 2) is its 95 % interval; all K intervals hold at once. `may_be_best` (K,) marks the set that contains the truly
    best candidate with 95 % confidence. `needed` (K,) is the difference to the chosen candidate above which a candidate
    leaves the set. The chosen candidate is worse than the truly best one by at most `max_regret`, with 95 % confidence.
    """

    worse_by: np.ndarray
    interval: np.ndarray
    may_be_best: np.ndarray
    needed: np.ndarray
    max_regret: float


def compare_with_best(observed: np.ndarray, drawn: np.ndarray, chosen: int) -> ComparisonWithBest:
    """Compare candidates by their `observed` losses (K,) and their losses `drawn` (K, resamples) on shared resamples.
    `chosen` is the number of the candidate with the lowest loss.

    - The intervals follow from the differences of all pairs. Each pair has the interval d ± q standard errors. q is the
      95 % quantile of the largest |d* − d| / standard error over all pairs (bootstrap max-t: Romano & Wolf 2005; for
      independent normal means this is Tukey's method). If all pairs are covered, then the difference of a candidate to
      the best of the others lies between the largest lower end and the largest upper end of its pairs (Hsu 1996,
      "Multiple Comparisons: Theory and Methods", chapter 4).
    - The set and the regret are those of Hsu (1981, 1984), with a critical value for each candidate (Edwards & Hsu
      1983). A candidate leaves the set if its loss is above the loss of any other by more than this number of standard
      errors. It is the 95 % quantile of the largest (d* − d) / standard error over its differences to all others.

    Candidates with equal losses on every resample have a difference of 0 with an interval of no width.
    """
    count, deviations = len(observed), drawn - observed[:, None]
    errors = np.stack([(own - deviations).std(axis=1, ddof=1) for own in deviations])  # (K, K)
    critical, largest_t = np.zeros(count), np.zeros(drawn.shape[1])
    for own in range(count):
        varies = errors[own] > 0
        if varies.any():
            t = (deviations[own] - deviations[varies]) / errors[own, varies, None]
            critical[own] = max(0.0, float(np.quantile(t.max(axis=0), _CONFIDENCE)))
            np.maximum(largest_t, np.abs(t).max(axis=0), out=largest_t)
    half_widths = float(np.quantile(largest_t, _CONFIDENCE)) * errors
    differences = observed[:, None] - observed  # (K, K): the loss of each candidate minus the loss of each other
    may_be_best = np.all(differences <= critical[:, None] * errors, axis=1)
    needed = critical * errors[:, chosen]
    regrets = (needed - differences[:, chosen])[may_be_best & (np.arange(count) != chosen)]
    return ComparisonWithBest(
        worse_by=_largest_by_row(differences),
        interval=np.stack([_largest_by_row(differences + sign * half_widths) for sign in (-1, 1)], axis=1),
        may_be_best=may_be_best,
        needed=needed,
        max_regret=float(regrets.max(initial=0.0)),
    )


def _largest_by_row(of_pairs: np.ndarray) -> np.ndarray:
    """The largest value of each row, without the diagonal: a candidate is not compared with itself."""
    largest: np.ndarray = np.where(np.eye(len(of_pairs), dtype=bool), -np.inf, of_pairs).max(axis=1)
    return largest
