"""Does what `pricer pick` says of its choice hold? Repeated on simulated checkpoints whose true errors are known.

    python benchmarks/selection.py [REPEATS] [leads]

`leads`: only the interval of the lead over the best of four baselines, which is fast. Otherwise, one table for each
curve of true errors and number of items. The optimism of a choice is the chosen checkpoint's true error minus its error
on the items that chose it, on average over the repeats. To know it more closely, the same difference averaged over all
checkpoints, which is 0 in expectation, is taken off.
"""

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.core.checkpoints import Candidate
from pricer.core.comparison import compare_to_best, measure_lead
from pricer.core.evaluation import ScoreTable
from pricer.core.resampling import resample
from pricer.core.verdicts import bound_smallest_lead
from tests.simulation import CURVES, drawn_scores, true_errors

ITEMS = (200, 500, 2_000)
CANDIDATES = [Candidate(f"step {step}", f"id {step}", step) for step in range(20)]
# Interval ends hardly move with more of them.
RESAMPLES = 2_000
# Two checkpoints that are near each other, where the curve is not flat.
PAIR = (10, 13)
# How much higher the true errors of four baselines are.
LEADS = {"equal baselines": (2, 2, 2, 2), "near baselines": (2, 3, 4, 5), "one good baseline": (2, 20, 20, 20)}

Tally = dict[str, list[float]]


def covers(interval: tuple[float, float], truth: float) -> float:
    """1 if it does, else 0."""
    return float(interval[0] <= truth <= interval[1])


def judge_pair(scores: list[ScoreTable], truth: np.ndarray, seed: int, tally: Tally) -> None:
    """The interval of the difference of two checkpoints that nobody chose."""
    first, second = sorted(PAIR, key=lambda k: float(scores[k].abs_error.mean()))
    comparison = compare_to_best(CANDIDATES[:2], [scores[first], scores[second]], "mae", 0, RESAMPLES, seed)
    assert comparison is not None
    tally["the interval of a fixed pair"].append(
        covers(comparison.differences[1].interval, float(truth[second] - truth[first]))
    )


def judge_choice(scores: list[ScoreTable], truth: np.ndarray, seed: int, tally: Tally) -> None:
    """What is said of the choice."""
    observed = np.array([one.abs_error.mean() for one in scores])
    best = int(observed.argmin())
    comparison = compare_to_best(CANDIDATES[: len(scores)], scores, "mae", best, RESAMPLES, seed)
    assert comparison is not None
    differences = comparison.differences
    tally["true optimism"].append(float(truth[best] - observed[best]) - float((truth - observed).mean()))
    tally["optimism"].append(comparison.corrected - float(observed[best]))
    tally["the interval of the corrected figure"].append(covers(comparison.corrected_interval, float(truth[best])))
    to_best = [float(own - np.delete(truth, k).min()) for k, own in enumerate(truth)]
    tally["all shown intervals at once"].append(min(map(covers, (one.interval for one in differences), to_best)))
    level = np.flatnonzero(truth - truth.min() < 0.005)
    in_set = np.array([one.may_be_best for one in differences])
    tally["a truly best one may be the best"].append(float(in_set[level].any()))
    tally["a fixed truly best one may be the best"].append(float(in_set[level[len(level) // 2]]))
    tally["number that may be the best"].append(float(in_set.sum()))
    tally["the choice is worse by at most what is said"].append(
        float(truth[best] - truth.min() <= comparison.max_regret)
    )
    tally["worse by, truly"].append(float(truth[best] - truth.min()))
    tally["worse by at most"].append(comparison.max_regret)
    drawn = resample(scores, "mae", best, RESAMPLES, seed).drawn
    for name, held in judge_pairs(observed, drawn, truth, best).items():
        tally[name].append(held)


def judge_pairs(observed: np.ndarray, drawn: np.ndarray, truth: np.ndarray, best: int) -> dict[str, float]:
    """Whether the differences of all pairs lie in the intervals from which the shown ones follow. For comparison:
    differences to the chosen one in intervals made for each pair alone.
    """
    deviations = drawn - observed[:, None]
    first, second = np.triu_indices(len(observed), 1)
    apart = deviations[first] - deviations[second]
    errors = apart.std(axis=1, ddof=1)
    critical = float(np.quantile(np.abs(apart / errors[:, None]).max(axis=0), 0.95))
    off = np.abs((observed - truth)[first] - (observed - truth)[second])
    to_chosen = (first == best) | (second == best)
    return {
        "the differences of all pairs at once": float(np.all(off <= critical * errors)),
        "to the chosen one, ± 1.96 standard errors, each": float(np.mean((off <= 1.96 * errors)[to_chosen])),
        "to the chosen one, ± 1.96 standard errors, at once": float(np.all((off <= 1.96 * errors)[to_chosen])),
    }


def simulate(curve: np.ndarray, items: int, repeats: int) -> Tally:
    """All figures of each repeat."""
    truth, rng = true_errors(curve), np.random.default_rng(items)
    tally: Tally = defaultdict(list)
    for repeat in range(repeats):
        scores = drawn_scores(curve, items, rng)
        judge_pair(scores, truth, repeat, tally)
        judge_choice(scores, truth, repeat, tally)
    return tally


def simulate_leads(errors: np.ndarray, items: int, repeats: int) -> tuple[float, float]:
    """How often the interval of the lead over the best baseline covers the smallest true lead, and how often the
    interval of the one lead that looks smallest does. `errors` (5,) are the true errors of a model and four baselines.
    """
    truth, rng = true_errors(errors), np.random.default_rng(items)
    smallest, held = float((truth[1:] - truth[0]).min()), []
    for _ in range(repeats):
        model, *baselines = drawn_scores(errors, items, rng)
        leads = [lead for one in baselines if (lead := measure_lead(model, one, "baseline"))]
        both = bound_smallest_lead(leads), min(leads, key=lambda lead: lead.lower_by).interval
        held.append([covers(interval, smallest) for interval in both if interval])
    found = np.mean(held, axis=0)
    return float(found[0]), float(found[1])


def report(name: str, items: int, tally: Tally) -> None:
    """Print shares in percent, optimism in dollars and as a share of the true one."""
    mean = {key: float(np.mean(values)) for key, values in tally.items()}
    print(f"\n{name}, {items:,} items")
    for key, value in mean.items():
        if "optimism" in key:
            print(f"  {key:<52} ${value:6.3f}  {value / mean['true optimism']:5.2f}")
        elif key.startswith("worse by"):
            print(f"  {key:<52} ${value:6.3f}")
        elif key.startswith("number"):
            print(f"  {key:<52} {value:7.1f}")
        else:
            print(f"  {key:<52} {100 * value:6.1f} %")
    sys.stdout.flush()


def main() -> None:
    """Print the tables."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 500
    error = 100 * (0.95 * 0.05 / repeats) ** 0.5
    print(f"{repeats:,} repeats: a share of 95 % is known to ± {1.96 * error:.1f} points")
    if "leads" in sys.argv:
        for name, leads in LEADS.items():
            held, naive = simulate_leads(45.0 + np.array([0.0, *leads]), 600, repeats)
            print(f"lead over {name}: {100 * held:.1f} %; of the one that looks best: {100 * naive:.1f} %")
        return
    for name, curve in CURVES.items():
        for items in ITEMS:
            report(name, items, simulate(curve, items, repeats))


if __name__ == "__main__":
    main()
