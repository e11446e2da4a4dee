"""When a training is stopped early: by hand, and on simulated training curves."""

import numpy as np
import pytest

from pricer.core.checkpoints import Candidate
from pricer.core.comparison import Difference, compare_to_best
from pricer.core.early_stopping import EarlyStop, decide_stop
from pricer.core.evaluation import ScoreTable
from tests.builders import a_comparison, a_difference, a_score_table
from tests.simulation import CURVES, drawn_scores

BEST = a_difference(200, -1.0, (-2.0, -0.5), 0.9, is_best=True)
EARLIER, CLOSE = a_difference(100, 5.0, (4.0, 6.0), 0.0), a_difference(300, 1.0, (-0.1, 2.1), 0.1)
CLOSE_AT_500 = a_difference(500, 1.0, (-0.1, 2.1), 0.1)


def clearly_worse(step: int) -> Difference:
    return a_difference(step, 3.0, (0.1, 5.9), 0.0)


@pytest.mark.parametrize(
    ("differences", "patience", "stops"),
    [
        ([EARLIER, BEST], 1, None),
        ([EARLIER, BEST, clearly_worse(300)], 1, EarlyStop(200, 300, 1, "5pec")),
        ([EARLIER, BEST, clearly_worse(300)], 2, None),
        ([BEST, clearly_worse(300), clearly_worse(400)], 2, EarlyStop(200, 400, 2, "5pec")),
        # One of the last two may be as good.
        ([BEST, clearly_worse(300), clearly_worse(400), CLOSE_AT_500], 2, None),
        ([BEST, clearly_worse(300), a_difference(400, 1.0, (0.0, 2.0), 0.1)], 1, None),
        # The neighbour of the best is as good, which does not matter: the last two are not.
        ([BEST, CLOSE, clearly_worse(400), clearly_worse(500)], 2, EarlyStop(200, 500, 2, "5pec")),
        ([BEST, CLOSE, clearly_worse(400), clearly_worse(500)], 3, None),
        # A checkpoint before the best does not count.
        ([clearly_worse(100), BEST], 1, None),
        ([clearly_worse(100), BEST, clearly_worse(300)], 2, None),
    ],
)
def test_training_stops_when_enough_checkpoints_in_a_row_are_clearly_worse_than_the_best(
    differences: list[Difference], patience: int, stops: EarlyStop | None
) -> None:
    assert decide_stop(a_comparison(*differences), patience, "5pec") == stops


def stopped_after(tables: list[ScoreTable], patience: int) -> int | None:
    """The number of checkpoints after which a training stops that is looked at after each one; None: it does not."""
    candidates = [Candidate(f"step {step}", f"id {step}", step) for step in range(1, len(tables) + 1)]
    for count in range(2, len(tables) + 1):
        means = [table.abs_error.mean() for table in tables[:count]]
        comparison = compare_to_best(candidates[:count], tables[:count], "mae", int(np.argmin(means)), resamples=500)
        assert comparison is not None
        if decide_stop(comparison, patience, "5pec"):
            return count
    return None


def test_a_curve_that_turns_up_is_stopped_when_patience_ends() -> None:
    # 200 items; the errors are $50, $40, $30, $40 … with $1 more or less in turn.
    swing = (-1.0) ** np.arange(200)
    tables = [a_score_table(100 + error + swing) for error in (50.0, 40.0, 30.0, 40.0, 50.0, 60.0, 70.0)]

    assert [stopped_after(tables, patience) for patience in (1, 2, 3, 4, 5)] == [4, 5, 6, 7, None]


# Falls for seven checkpoints, then rises to half as much again.
OVERTRAINED = 44 + 0.15 * (np.arange(20) - 7.0) ** 2


@pytest.mark.parametrize(("curve", "stopped"), [(CURVES["equal"], 0), (CURVES["plateau"], 0), (OVERTRAINED, 5)])
def test_noise_stops_no_training_and_overtraining_does(curve: np.ndarray, stopped: int) -> None:
    # The errors of 600 items vary by $70, the difference of two equally good checkpoints by $22: a rule that only
    # compares means would stop all of these trainings.
    rng = np.random.default_rng(0)
    counts = [stopped_after(drawn_scores(curve, 600, rng), 2) for _ in range(5)]

    assert len([count for count in counts if count is not None]) == stopped


def test_the_reason_is_a_clause() -> None:
    assert EarlyStop(1_200, 1_300, 1, "5pec").reason == (
        "step 1,200 is the best, and the newest checkpoint is clearly worse"
    )
    assert EarlyStop(1_200, 1_400, 2, "5pec").reason == (
        "step 1,200 is the best, and the newest 2 checkpoints are all clearly worse"
    )


@pytest.mark.parametrize(
    "values",
    [
        *((5, 5, 1, "a"), (-1, 5, 1, "a"), (1, 10**12, 1, "a"), (1, 2, 2, "a"), (1, 2, 0, "a")),
        *((1, 2, 1, "a b"), (1, 2, 1, "a" * 65), (1, 2, 1, "")),
    ],
)
def test_what_no_watch_can_have_decided_is_refused(values: tuple[int, int, int, str]) -> None:
    with pytest.raises(ValueError, match=r"between these steps|no fingerprint"):
        EarlyStop(*values)


def test_a_fact_that_cannot_be_read_is_none() -> None:
    stop = {"best": 4, "newest": 8, "worse": 2, "spec_fingerprint": "5pec"}

    assert EarlyStop.from_fact(stop) == EarlyStop(4, 8, 2, "5pec")
    for fact in (None, "stopped", {}, {**stop, "more": 1}, {**stop, "best": "4"}, {**stop, "spec_fingerprint": 5}):
        assert EarlyStop.from_fact(fact) is None
