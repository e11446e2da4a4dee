"""Does what `pricer pick` says of its choice hold? Repeated on simulated checkpoints whose true errors are known.

    python benchmarks/selection.py [REPEATS] [pairs]

Of each curve of true errors and number of items, two tables: what is shown, and what other ways would have shown. The
optimism of a choice is the chosen checkpoint's true error minus its error on the items that chose it, on average over
the repeats; so that it is known more closely, the same difference averaged over all checkpoints, which is 0 in
expectation, is taken off. `pairs`: only the intervals of pairs that nobody chose, for more repeats than choices have
time for.
"""

import sys
from collections import defaultdict
from pathlib import Path
from statistics import NormalDist

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.core.checkpoints import Candidate
from pricer.core.comparison import compare_to_best
from pricer.core.evaluation import ScoreTable
from pricer.core.resampling import resample
from tests.simulation import CURVES, drawn_scores, true_errors

ITEMS = (200, 500, 2_000)
CANDIDATES = [Candidate(f"step {step}", f"id {step}", step) for step in range(20)]
# Interval ends hardly move with more of them.
RESAMPLES = 2_000
# Two checkpoints that are near each other and two that are not, where the curve is not flat.
PAIRS = {"near": (10, 13), "far": (2, 13)}
NORMAL = NormalDist()

Tally = dict[str, list[float]]


def covers(interval: tuple[float, float] | np.ndarray, truth: float) -> float:
    """1 if it does, else 0."""
    return float(interval[0] <= truth <= interval[1])


def bca(resampled: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The BCa interval of a mean (Efron 1987)."""
    deviations = values - values.mean()
    acceleration = float((deviations**3).sum() / (6 * (deviations**2).sum() ** 1.5))
    share = float(np.clip((resampled < values.mean()).mean(), 1e-3, 1 - 1e-3))
    bias = NORMAL.inv_cdf(share)
    ends = [bias + NORMAL.inv_cdf(p) for p in (0.025, 0.975)]
    interval: np.ndarray = np.quantile(resampled, [NORMAL.cdf(bias + end / (1 - acceleration * end)) for end in ends])
    return interval


def pairs(scores: list[ScoreTable], truth: np.ndarray, seed: int, tally: Tally) -> None:
    """The interval of the difference of two checkpoints that nobody chose, and others in its place."""
    for name, (i, j) in PAIRS.items():
        errors = scores[i].abs_error.mean(), scores[j].abs_error.mean()
        low, high = (i, j) if errors[0] <= errors[1] else (j, i)
        two = [scores[low], scores[high]]
        comparison = compare_to_best(CANDIDATES[:2], two, "mae", 0, RESAMPLES, seed)
        assert comparison is not None
        interval = comparison.differences[1].interval
        assert interval is not None
        behind = float(truth[high] - truth[low])
        tally[f"pair, {name}"].append(covers(interval, behind))
        drawn = resample(two, "mae", 0, RESAMPLES, seed).drawn
        differences = drawn[1] - drawn[0]
        tally[f"pair, {name}: percentiles"].append(covers(np.quantile(differences, [0.025, 0.975]), behind))
        tally[f"pair, {name}: BCa"].append(covers(bca(differences, two[1].abs_error - two[0].abs_error), behind))


def choices(scores: list[ScoreTable], truth: np.ndarray, seed: int, tally: Tally) -> None:
    """What is said of the choice."""
    observed = np.array([one.abs_error.mean() for one in scores])
    best = int(observed.argmin())
    common = float((truth - observed).mean())
    comparison = compare_to_best(CANDIDATES[: len(scores)], scores, "mae", best, RESAMPLES, seed)
    assert comparison is not None
    differences = comparison.differences
    tally["true optimism"].append(float(truth[best] - observed[best]) - common)
    tally["optimism"].append(comparison.corrected - float(observed[best]))
    tally["figure"].append(covers(comparison.corrected_interval, float(truth[best])))
    tally["above the lowest truth"].append(float(truth[best] - truth.min()))
    intervals = [one.interval for one in differences]
    inside = [covers(i, float(truth[k] - truth[best])) for k, i in enumerate(intervals) if i is not None]
    tally["to the chosen one"].append(float(np.mean(inside)))
    tally["significantly different"].append(float(np.mean([one.is_significant for one in differences])))
    level = [one for one, gap in zip(differences, truth - truth.min(), strict=True) if gap < 0.005]
    tally["a truly best one is not significantly different"].append(float(not all(o.is_significant for o in level)))
    tally["no truly best one is significantly different"].append(float(not any(o.is_significant for o in level)))
    resampled = resample(scores, "mae", best, RESAMPLES, seed)
    drawn, left_out, every = resampled.drawn, resampled.left_out, np.arange(resampled.drawn.shape[1])
    followed = drawn.argmin(axis=0)
    deviations = drawn - observed[:, None]
    naive = -float(deviations[followed, every].mean())
    tally["bootstrap optimism"].append(naive)
    tally["bootstrap optimism × √2"].append(naive * 2**0.5)
    noise = np.cov(deviations)
    apart = (np.trace(noise) - noise.mean() * len(noise)) / (len(noise) - 1)
    kept = max(0.0, 1 - apart / observed.var(ddof=1)) ** 0.5
    shrunk = (observed.mean() + kept * (observed - observed.mean()))[:, None] + deviations
    tally["bootstrap optimism, means shrunk"].append(-float(deviations[shrunk.argmin(axis=0), every].mean()))
    out = np.quantile(left_out[followed, every], [0.025, 0.975])
    tally["figure: percentiles of left-out losses"].append(covers(out, float(truth[best])))
    half = 1.96 * float(drawn[best].std())
    tally["figure: raw ± 1.96 standard errors"].append(
        covers((float(observed[best]) - half, float(observed[best]) + half), float(truth[best]))
    )
    corrected = float(observed[best]) + tally["optimism"][-1]
    tally["figure: corrected ± 1.96 standard errors"].append(
        covers((corrected - half, corrected + half), float(truth[best]))
    )


def simulate(curve: np.ndarray, items: int, repeats: int, pairs_only: bool) -> Tally:
    """All figures of each repeat."""
    truth, rng = true_errors(curve), np.random.default_rng(items)
    tally: Tally = defaultdict(list)
    for repeat in range(repeats):
        scores = drawn_scores(curve, items, rng)
        pairs(scores, truth, repeat, tally)
        if not pairs_only:
            choices(scores, truth, repeat, tally)
    return tally


def report(name: str, items: int, tally: Tally) -> None:
    """Print shares in percent, optimism in dollars and as a share of the true one."""
    mean = {key: float(np.mean(values)) for key, values in tally.items()}
    print(f"\n{name}, {items:,} items")
    for key, value in mean.items():
        if "optimism" in key:
            print(f"  {key:<48} ${value:6.3f}  {value / mean['true optimism']:5.2f}")
        elif "above" in key:
            print(f"  {key:<48} ${value:6.3f}")
        else:
            print(f"  {key:<48} {100 * value:6.1f} %")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    repeats, pairs_only = int(sys.argv[1]) if len(sys.argv) > 1 else 500, "pairs" in sys.argv
    error = 100 * (0.95 * 0.05 / repeats) ** 0.5
    print(f"{repeats:,} repeats: a share of 95 % is known to ± {1.96 * error:.1f} points")
    for name, curve in CURVES.items():
        for items in ITEMS:
            report(name, items, simulate(curve, items, repeats, pairs_only))


if __name__ == "__main__":
    main()
