"""When does `eval.patience` stop a training, and what does it cost? Repeated on simulated checkpoints.

    python benchmarks/early_stopping.py [REPEATS]

One line for each curve of true errors, number of items, rule and patience: the share of trainings that are stopped, the
checkpoint of 20 at which they are, and by how much the best checkpoint until then is truly worse than the best of all
20. Two other rules are there for comparison.
"""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.core.checkpoints import Candidate
from pricer.core.comparison import Comparison, compare_to_best
from pricer.core.early_stopping import decide_stop
from tests.simulation import CURVES, drawn_scores, true_errors

ITEMS = (600, 2_000)
PATIENCE = (1, 2, 3)
CANDIDATES = [Candidate(f"step {step}", f"id {step}", step) for step in range(1, 21)]
RESAMPLES = 400
# Beside the shared curves: one that falls for seven checkpoints, and then rises by half.
ALL_CURVES = {**CURVES, "overtrained": 44 + 0.15 * (np.arange(20) - 7.0) ** 2}


def last_in_a_row(comparison: Comparison, patience: int) -> bool:
    """The rule of pricer."""
    return decide_stop(comparison, patience, "a") is not None


def all_since_the_best(comparison: Comparison, patience: int) -> bool:
    """Every checkpoint after the best one has to be clearly worse."""
    later = [one for one in comparison.differences if (one.candidate.step or 0) > (comparison.best.step or 0)]
    return len(later) >= patience and all(one.interval[0] > 0 for one in later)


def lower_means_alone(comparison: Comparison, patience: int) -> bool:
    """The usual rule: no new best for that many checkpoints."""
    return (comparison.differences[-1].candidate.step or 0) - (comparison.best.step or 0) >= patience


RULES: dict[str, Callable[[Comparison, int], bool]] = {
    "the last ones clearly worse": last_in_a_row,
    "all since the best clearly worse": all_since_the_best,
    "no new best": lower_means_alone,
}


def stop_training(curve: np.ndarray, items: int, rng: np.random.Generator) -> dict[tuple[str, int], tuple[int, int]]:
    """For each rule and patience that stops this training: the number of checkpoints until then, and the best one."""
    scores, stopped = drawn_scores(curve, items, rng), dict[tuple[str, int], tuple[int, int]]()
    means = [float(one.abs_error.mean()) for one in scores]
    for count in range(2, len(scores) + 1):
        best = int(np.argmin(means[:count]))
        comparison = compare_to_best(CANDIDATES[:count], scores[:count], "mae", best, RESAMPLES)
        assert comparison is not None
        for name, stops in RULES.items():
            for patience in PATIENCE:
                if (name, patience) not in stopped and stops(comparison, patience):
                    stopped[name, patience] = count, best
    return stopped


def main() -> None:
    """Print the lines."""
    repeats = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    for name, curve in ALL_CURVES.items():
        truth = true_errors(curve)
        for items in ITEMS:
            rng = np.random.default_rng(0)
            trainings = [stop_training(curve, items, rng) for _ in range(repeats)]
            for rule in RULES:
                for patience in PATIENCE:
                    found = [one[rule, patience] for one in trainings if (rule, patience) in one]
                    line = f"{name:<12} {items:>5} items  {rule:<32} patience {patience}: {len(found) / repeats:>4.0%}"
                    if found:
                        lost = np.mean([truth[best] - truth.min() for _, best in found])
                        line += f" at checkpoint {np.mean([count for count, _ in found]):.1f}, ${lost:.2f} lost"
                    print(line, flush=True)


if __name__ == "__main__":
    main()
