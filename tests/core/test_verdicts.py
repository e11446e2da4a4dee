"""Verdicts from measurements: their outcomes, and an interval that holds although the best baseline was chosen."""

from dataclasses import replace

import numpy as np
import pytest

from pricer.core.checkpoints import Candidate
from pricer.core.comparison import Lead
from pricer.core.intervals import Coverage, CoverageReport
from pricer.core.items import Split
from pricer.core.metrics import Z95
from pricer.core.verdicts import bound_smallest_lead, judge_baselines, judge_curve, judge_intervals, judge_looks
from tests.builders import a_checkpoint, a_comparison, a_difference, a_spec, an_evaluation

TESTED = an_evaluation(200, 40.0, spec=a_spec(split=Split.TEST))
CHOSEN = an_evaluation(200, 40.0)
# Of the best at step 200, whose metric is 40.00, the corrected one is 41.25: it was chosen by $1.25 of luck.
COMPARED = a_comparison(
    a_difference(100, 3.0, (-1.0, 7.0), 0.25), a_difference(200, -3.0, (-7.0, 1.0), 0.75, is_best=True)
)


def a_lead(lower_by: float, error: float, name: str = "constant") -> Lead:
    """A lead with this standard error."""
    return Lead(name, lower_by, (lower_by - Z95 * error, lower_by + Z95 * error))


class TestBestBaseline:
    def test_the_lead_over_one_baseline_has_its_own_interval(self) -> None:
        assert bound_smallest_lead([Lead("constant", 20.0, (18.0, 22.0))]) == pytest.approx((18.0, 22.0))

    def test_of_several_the_lowest_ends_count_and_upper_ends_are_further_out(self) -> None:
        # The 1 − 0.025/2 quantile of the normal distribution is 2.2414. Lower ends: 20 − 1.96 · 1 = 18.04 and
        # 24 − 1.96 · 4 = 16.16. Upper ends: 20 + 2.24 · 1 = 22.24 and 24 + 2.24 · 4 = 32.97.
        found = bound_smallest_lead([a_lead(20.0, 1.0), a_lead(24.0, 4.0)])

        assert found == pytest.approx((24 - 4 * Z95, 20 + 2.2414), abs=1e-4)

    def test_the_optimism_of_the_choice_lowers_the_lead_and_widens_its_interval(self) -> None:
        # The standard errors 3 and 4 add up to √(3² + 4²) = 5.
        assert bound_smallest_lead([a_lead(20.0, 3.0)], optimism=4.0) == pytest.approx((16 - 5 * Z95, 16 + 5 * Z95))

    @pytest.mark.parametrize("leads", [[], [Lead("constant", 20.0, None)]])
    def test_nothing_is_known_without_leads_or_from_a_single_item(self, leads: list[Lead]) -> None:
        assert bound_smallest_lead(leads) is None

    @pytest.mark.parametrize("true", [(0.0,) * 4, (0.0, 1.0, 2.0, 3.0), (0.0, 0.0, 8.0, 8.0)])
    def test_the_interval_covers_the_true_lead_whichever_baseline_looks_best(self, true: tuple[float, ...]) -> None:
        # Four baselines with a standard error of 1, half of whose variance is the checkpoint's own and so shared.
        rng = np.random.default_rng(0)
        measured = np.array(true) + np.sqrt(0.5) * (rng.normal(size=(4000, 1)) + rng.normal(size=(4000, 4)))

        intervals = [bound_smallest_lead([a_lead(value, 1.0) for value in values]) for values in measured.tolist()]

        covered = np.mean([low <= min(true) <= high for low, high in filter(None, intervals)])
        naive = np.mean(np.abs(measured.min(axis=1) - min(true)) <= Z95)
        # 95 % of 4,000 are known to ± 0.7 %. The interval of the baseline that looks best covers less where they are
        # alike.
        assert covered >= 0.943
        if len(set(true)) == 1:
            assert naive < 0.93


class TestBaselines:
    @pytest.mark.parametrize(
        ("lower_by", "outcome"), [(20.0, "better"), (1.9, "alike"), (-1.9, "alike"), (-2.0, "worse")]
    )
    def test_a_model_is_better_only_if_it_beats_the_best_baseline(self, lower_by: float, outcome: str) -> None:
        leads = [a_lead(lower_by, 1.0, "ridge"), a_lead(300.0, 9.0, "median")]
        # 2.24 standard errors for the upper end of two baselines; −2 is not beyond.
        expected = "alike" if lower_by == -2.0 else outcome

        found = judge_baselines(TESTED, 200.0, leads)

        assert (found.outcome, found.baseline, found.lower_by, found.baselines) == (expected, "ridge", lower_by, 2)
        assert judge_baselines(TESTED, 200.0, leads[:1]).outcome == outcome

    def test_test_items_need_no_correction(self) -> None:
        found = judge_baselines(TESTED, 200.0, [a_lead(20.0, 1.0)])

        assert (found.choice, found.error, found.error_interval) == ("none", 40.0, (39.0, 41.0))
        assert (found.step, found.split, found.n, found.median_price) == (200, Split.TEST, 50, 200.0)

    def test_on_the_items_that_chose_the_checkpoint_error_and_lead_are_corrected(self) -> None:
        found = judge_baselines(CHOSEN, 200.0, [a_lead(2.5, 1.0)], comparison=COMPARED, was_chosen=True)

        # The interval of the lead is 1.25 ± 1.96 · √(1² + 1.25²) = 1.25 ± 3.14, where 2.5 ± 1.96 would be better.
        assert (found.choice, found.error, found.error_interval) == ("corrected", 41.25, (36.0, 48.5))
        assert (found.lower_by, found.outcome) == (1.25, "alike")
        assert found.interval == pytest.approx((1.25 - 3.137, 1.25 + 3.137), abs=1e-3)

    def test_a_choice_by_another_metric_cannot_be_corrected(self) -> None:
        found = judge_baselines(CHOSEN, 200.0, [a_lead(20.0, 1.0)], was_chosen=True)

        assert (found.choice, found.error, found.lower_by) == ("uncorrected", 40.0, 20.0)

    def test_items_that_may_have_been_trained_on_say_nothing(self) -> None:
        found = judge_baselines(TESTED, 200.0, [a_lead(20.0, 1.0)], is_held_out=False)

        assert (found.outcome, found.is_held_out, found.error) == ("unknown", False, 40.0)

    def test_without_a_baseline_nothing_is_said_but_the_error(self) -> None:
        found = judge_baselines(TESTED, 200.0, [])

        assert (found.outcome, found.baseline, found.lower_by, found.interval) == ("unknown", None, None, None)


class TestCurve:
    def test_the_best_is_the_last_and_the_one_before_is_clearly_worse(self) -> None:
        clear = a_comparison(
            a_difference(100, 3.0, (1.0, 5.0), 0.0), a_difference(200, -3.0, (-5.0, -1.0), 1.0, is_best=True)
        )

        found = judge_curve(CHOSEN, "mae", clear, scored=2)

        assert found is not None
        assert (found.outcome, found.best_step, found.other_step) == ("improving", 200, 100)
        assert (found.worse_by, found.interval) == (3.0, (1.0, 5.0))

    def test_the_best_is_the_last_and_the_one_before_may_be_the_best(self) -> None:
        found = judge_curve(CHOSEN, "mae", COMPARED, scored=2)

        assert found is not None
        assert (found.outcome, found.other_step, found.worse_by) == ("unclear", 100, 3.0)

    @pytest.mark.parametrize(("low", "outcome"), [(1.0, "over-trained"), (-1.0, "no clear change")])
    def test_an_earlier_checkpoint_is_the_best_and_the_last_one_is_compared_with_it(
        self, low: float, outcome: str
    ) -> None:
        comparison = a_comparison(
            a_difference(200, -1.0, (-3.0, 1.0), 0.9, is_best=True),
            a_difference(400, 4.0, (low, 7.0), 0.1),
            a_difference(300, 1.0, (-1.0, 3.0), 0.0),
        )

        found = judge_curve(CHOSEN, "mae", comparison, scored=3)

        assert found is not None
        assert (found.outcome, found.best_step, found.other_step, found.interval) == (outcome, 200, 400, (low, 7.0))

    def test_a_checkpoint_that_is_not_the_best_need_not_be_clearly_worse(self) -> None:
        # Some checkpoint is better than it, but the interval to the best of them contains 0.
        ruled_out = replace(a_difference(400, 4.0, (-1.0, 9.0), 0.0), may_be_best=False)
        best = a_difference(200, -4.0, (-9.0, 1.0), 1.0, is_best=True)
        before = replace(ruled_out, candidate=Candidate.of(a_checkpoint(100)))

        over_trained = judge_curve(CHOSEN, "mae", a_comparison(best, ruled_out), scored=2)
        improving = judge_curve(CHOSEN, "mae", a_comparison(before, best), scored=2)

        assert over_trained is not None
        assert improving is not None
        assert (over_trained.outcome, improving.outcome) == ("no clear change", "unclear")

    def test_later_checkpoints_without_a_score_forbid_to_train_longer(self) -> None:
        found = judge_curve(CHOSEN, "mae", COMPARED, scored=2, later=3)

        assert found is not None
        assert (found.outcome, found.later, found.worse_by) == ("unfinished", 3, None)

    @pytest.mark.parametrize(("dropped", "outcome"), [(0, "single"), (7, "raced")])
    def test_one_checkpoint_is_no_curve(self, dropped: int, outcome: str) -> None:
        found = judge_curve(CHOSEN, "mae", None, scored=1, dropped=dropped)

        assert found is not None
        assert (found.outcome, found.dropped) == (outcome, dropped)

    def test_checkpoints_that_were_not_compared_are_no_curve(self) -> None:
        assert judge_curve(CHOSEN, "mae", None, scored=2) is None


def coverage_of(level: float, share: float, interval: tuple[float, float]) -> CoverageReport:
    held = Coverage(share, interval, 10.0, 10.0)
    return CoverageReport(level, 200, 0, replace(held, share=0.5, interval=(0.4, 0.6)), held)


class TestIntervals:
    @pytest.mark.parametrize(
        ("inner", "outer", "outcome"),
        [
            ((0.75, 0.85), (0.92, 0.98), "hold"),
            ((0.70, 0.79), (0.92, 0.98), "too narrow"),
            ((0.75, 0.85), (0.90, 0.94), "too narrow"),
            ((0.81, 0.90), (0.92, 0.98), "too wide"),
            ((0.81, 0.90), (0.90, 0.94), "too narrow"),
        ],
    )
    def test_intervals_hold_if_the_shares_do_not_contradict_the_levels(
        self, inner: tuple[float, float], outer: tuple[float, float], outcome: str
    ) -> None:
        found = judge_intervals(Split.TEST, [coverage_of(0.8, 0.8, inner), coverage_of(0.95, 0.95, outer)])

        assert found is not None
        assert (found.outcome, found.n, found.is_corrected) == (outcome, 200, True)
        assert [(one.level, one.interval) for one in found.levels] == [(0.8, inner), (0.95, outer)]

    def test_raw_intervals_are_judged_where_none_were_corrected(self) -> None:
        found = judge_intervals(Split.TEST, [replace(coverage_of(0.8, 0.8, (0.7, 0.9)), conformal=None)])

        assert found is not None
        assert (found.outcome, found.levels[0].share, found.is_corrected) == ("too narrow", 0.5, False)

    @pytest.mark.parametrize(("n", "outcome"), [(99, "unknown"), (100, "hold")])
    def test_few_items_do_not_say_that_intervals_hold(self, n: int, outcome: str) -> None:
        found = judge_intervals(Split.TEST, [replace(coverage_of(0.8, 0.8, (0.7, 0.9)), n=n)])

        assert found is not None
        assert found.outcome == outcome

    def test_a_model_without_intervals_has_no_verdict_on_them(self) -> None:
        assert judge_intervals(Split.TEST, ()) is None


@pytest.mark.parametrize(
    ("is_scored", "before", "outcome"),
    [(True, 0, "first look"), (True, 2, "looked at before"), (False, 0, "not scored"), (False, 2, "not scored")],
)
def test_only_the_first_look_is_at_untouched_items(is_scored: bool, before: int, outcome: str) -> None:
    found = judge_looks(is_scored=is_scored, before=before, others=["step-000100"] * before)

    assert (found.outcome, found.before, found.others) == (outcome, before, ("step-000100",) * bool(before))
