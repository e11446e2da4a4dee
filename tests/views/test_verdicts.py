"""The sentences of verdicts, word for word: a reader without statistics must know from them what to do."""

from typing import Any

import pytest

from pricer.core.items import Split
from pricer.core.units import PriceUnit
from pricer.core.verdicts import (
    CoveredLevel,
    CurveVerdict,
    CutVerdict,
    IntervalVerdict,
    LookVerdict,
    Verdict,
)
from pricer.views.verdicts import describe_verdict, verdict_records
from tests.builders import a_baseline_verdict

DOLLARS, ENERGY, HOUSES = PriceUnit(), PriceUnit("kWh", 1), PriceUnit("€", -2)


def said(verdict: Verdict, unit: PriceUnit = DOLLARS) -> str:
    return describe_verdict(verdict, unit)


class TestBaseline:
    def test_a_better_model_is_to_be_used(self) -> None:
        assert said(a_baseline_verdict(baselines=4, baseline="tf-idf + ridge")) == (
            "Use the model: on 50 test items, it is off by $40.00 on average (38.00 to 42.00), which is 20.0% of the "
            "median price; that is $20.00 less (18.00 to 22.00) than tf-idf + ridge, the best of 4 simpler methods."
        )

    def test_a_worse_model_is_not_to_be_used(self) -> None:
        # A model for houses with an error of €63,416, where ridge regression has one of €45,552.
        worse = a_baseline_verdict(
            outcome="worse",
            n=146,
            error=63_416.0,
            error_interval=(52_216.0, 74_616.0),
            median_price=163_000.0,
            baselines=4,
            baseline="tf-idf + ridge",
            lower_by=-17_864.0,
            interval=(-26_504.0, -9_224.0),
        )

        assert said(worse, HOUSES) == (
            "Do not use the model, because tf-idf + ridge, the best of 4 simpler methods, is better: on 146 test "
            "items, the model is off by €63,416 on average (52,216 to 74,616), which is 38.9% of the median price; "
            "that is €17,864 more (9,224 to 26,504) than that method."
        )

    @pytest.mark.parametrize(
        ("lower_by", "interval", "gap"),
        [
            (0.5, (-1.0, 2.0), "0.50 kWh less (−1.00 to 2.00)"),
            (-0.5, (-2.0, 1.0), "0.50 kWh more (−1.00 to 2.00)"),
            (0.0, None, "0.00 kWh less"),
        ],
    )
    def test_a_model_that_may_be_no_better_is_not_to_be_used(
        self, lower_by: float, interval: tuple[float, float] | None, gap: str
    ) -> None:
        assert said(a_baseline_verdict(outcome="alike", lower_by=lower_by, interval=interval), ENERGY) == (
            "Do not use the model, because it is not clearly better than constant, a simpler method: on 50 test items, "
            "the model is off by 40.00 kWh on average (38.00 to 42.00), which is 20.0% of the median price; that is "
            f"{gap} than that method."
        )

    @pytest.mark.parametrize(
        ("choice", "where"),
        [
            ("corrected", "on 50 validation items, corrected for the choice of the checkpoint, it is off by"),
            ("uncorrected", "on 50 validation items, which chose the checkpoint and so flatter it, it is off by"),
        ],
    )
    def test_items_that_chose_the_checkpoint_are_said_to_have_done_so(self, choice: Any, where: str) -> None:
        assert where in said(a_baseline_verdict(split=Split.VAL, choice=choice))

    @pytest.mark.parametrize(
        ("changes", "why"),
        [
            ({"is_held_out": False}, "it may have been trained on items that it was scored on"),
            ({"baseline": None, "lower_by": None}, "no simpler method was scored on the same items"),
        ],
    )
    def test_what_cannot_be_judged_is_not_recommended(self, changes: dict[str, Any], why: str) -> None:
        assert said(a_baseline_verdict(outcome="unknown", n=1, error_interval=None, **changes)) == (
            f"It is not known whether to use the model, because {why}: on 1 test item, it is off by $40.00 on average, "
            "which is 20.0% of the median price."
        )


@pytest.mark.parametrize(
    ("outcome", "changes", "sentence"),
    [
        (
            "improving",
            {"other_step": 200},
            "Train longer: the last checkpoint, step 1,200, is the best, and the one before it, step 200, is worse by "
            "$3.50 (1.00 to 6.00).",
        ),
        (
            "unclear",
            {"other_step": 200, "interval": (-1.0, 8.0)},
            "It is not clear whether longer training helps: the last checkpoint, step 1,200, is the best, but the one "
            "before it, step 200, may be as good: it is worse by $3.50 (−1.00 to 8.00).",
        ),
        (
            "over-trained",
            {"other_step": 2_000},
            "Training went on for too long: after the best checkpoint, step 1,200, the model got worse, and the last "
            "one, step 2,000, is worse by $3.50 (1.00 to 6.00).",
        ),
        (
            "no clear change",
            {"other_step": 2_000, "metric": "hit_rate", "worse_by": 0.035, "interval": (-0.01, 0.08)},
            "Training was long enough: after the best checkpoint, step 1,200, there is no clear change, and the last "
            "one, step 2,000, is worse by 3.50 points (−1.00 to 8.00) in hits.",
        ),
        (
            "unfinished",
            {"later": 2},
            "Score the other checkpoints: step 1,200 is the best, and the last one that was scored, but 2 later "
            "checkpoints had no score.",
        ),
        ("single", {}, "Nothing is known of longer or shorter training, because only one checkpoint was scored."),
        (
            "raced",
            {"dropped": 7},
            "Nothing is known of longer or shorter training, because 7 checkpoints dropped out of a race.",
        ),
    ],
)
def test_the_curve_says_whether_to_train_longer(outcome: Any, changes: dict[str, Any], sentence: str) -> None:
    facts: dict[str, Any] = {"metric": "mae", "scored": 8, "best_step": 1_200}
    if "other_step" in changes:
        facts |= {"worse_by": 3.5, "interval": (1.0, 6.0)}

    assert said(CurveVerdict(outcome, **(facts | changes))) == sentence


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            CutVerdict(128, Split.TEST, train=0.031, scored=0.0002, left_out=100, rows=10_000),
            "3.1% of the training descriptions and less than 0.1% of the test descriptions are cut at 128 tokens "
            "(prompt.max_length), so the model does not see their end.",
        ),
        (
            CutVerdict(None, Split.VAL, train=None, scored=0.25, left_out=0, rows=0),
            "25.0% of the validation descriptions are cut at prompt.max_length, so the model does not see their end.",
        ),
        (
            CutVerdict(1_024, Split.TEST, train=0.5, scored=0.0, left_out=1_200, rows=10_000),
            "50.0% of the training descriptions are cut at 1,024 tokens (prompt.max_length), so the model does not see "
            "their end, and 12.0% of the rows of the data were left out.",
        ),
        (
            CutVerdict(128, Split.TEST, train=0.0, scored=0.0, left_out=1_200, rows=10_000),
            "12.0% of the rows of the data were left out.",
        ),
    ],
)
def test_what_the_model_does_not_see_is_said_by_its_share(verdict: CutVerdict, sentence: str) -> None:
    assert said(verdict) == sentence


LEVELS = (CoveredLevel(0.8, 0.803, (0.77, 0.832), 393.81), CoveredLevel(0.95, 0.954, (0.934, 0.968), 680.0))


@pytest.mark.parametrize(
    ("outcome", "is_corrected", "says"),
    [
        ("hold", True, "Its price intervals hold: of 628 test items, 80.3%"),
        (
            "unknown",
            True,
            "Its price intervals may or may not hold, because there are too few items to tell: of 628 test",
        ),
        ("too narrow", True, "Its price intervals are too narrow: of 628 test items, only 80.3%"),
        ("too wide", False, "Its price intervals, which were not corrected, are wider than they need to be: of 628 "),
    ],
)
def test_intervals_say_how_many_prices_they_have(outcome: Any, is_corrected: bool, says: str) -> None:
    sentence = said(IntervalVerdict(outcome, Split.TEST, 628, LEVELS, is_corrected))

    assert sentence.startswith(says)
    assert sentence.endswith(
        "80.3% (77.0 to 83.2) have their price in the 80% interval, which is $393.81 wide on average, and 95.4% (93.4 "
        "to 96.8) in the 95% interval."
    )


@pytest.mark.parametrize(
    ("verdict", "sentence"),
    [
        (
            LookVerdict("first look", 0, ()),
            "This error can be published: the test items were scored for this checkpoint alone.",
        ),
        (
            LookVerdict("looked at before", 3, ("step-000020", "step-000060")),
            "The test items were also scored 3 times for step-000020, step-000060, so the error on new items may be "
            "higher.",
        ),
        (
            LookVerdict("not scored", 0, ()),
            "None of this was checked on items that took no part in the choice: pricer pick --confirm scores the test "
            "items, and says whether the price intervals hold.",
        ),
        (
            LookVerdict("looked at before", 5, ("step-000020", "step-000040", "step-000060", "step-000080")),
            "The test items were also scored 5 times for 4 checkpoints, so the error on new items may be higher.",
        ),
        (
            LookVerdict("not scored", 1, ("step-000020",)),
            "None of this was checked on items that took no part in the choice: pricer pick --confirm scores the test "
            "items, which were scored once for step-000020, and says whether the price intervals hold.",
        ),
    ],
)
def test_the_test_items_are_untouched_or_not(verdict: LookVerdict, sentence: str) -> None:
    assert said(verdict) == sentence


def test_json_has_the_topic_the_sentence_and_the_facts() -> None:
    verdict = LookVerdict("first look", 0, ())

    assert verdict_records([verdict], DOLLARS) == [
        {"topic": "test", "says": said(verdict), "outcome": "first look", "before": 0, "others": ()}
    ]
