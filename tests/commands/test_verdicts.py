"""The verdicts of a run, from its records to the first lines of `pricer pick`, `pricer eval` and a report."""

import re
from dataclasses import asdict, replace

import numpy as np
import pytest

from pricer.commands.parts.verdicts import judge_scored
from pricer.commands.pick import pick
from pricer.commands.report import report
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable
from pricer.core.halving import Dropout, RaceRecord
from pricer.core.held_out import HeldOutCheck
from pricer.core.intervals import Coverage, CoverageReport
from pricer.core.items import Split
from pricer.core.metrics import measure_all
from pricer.core.selection import Confirmation
from pricer.core.verdicts import BaselineVerdict, CurveVerdict, LookVerdict
from pricer.stores.runs import Run
from pricer.views.verdicts import describe_verdict
from tests.builders import SPEC, a_checkpoint, a_run, a_score_table, a_spec
from tests.commands.sessions import FakeScorer
from tests.repositories import Cli

pytestmark = pytest.mark.usefixtures("in_memory")

TEST = a_spec(split=Split.TEST)
RIDGE, MEDIAN = "tf-idf + ridge", "train median"
# 50 items. The errors around their mean have the standard deviation 7 · √(50/49), so that of the mean is 7/√49 = 1.
SPREAD = np.tile([7.0, -7.0], 25)


def score(run: Run, who: int | str, errors: np.ndarray, spec: EvalSpec = SPEC) -> Evaluation:
    """Keep the evaluation of the checkpoint at a step, or of a baseline, with these errors on items of $200."""
    candidate = Candidate(who) if isinstance(who, str) else Candidate.of(a_checkpoint(who))
    table = a_score_table(200 + errors, 200.0)
    table = ScoreTable(table.item_id, table.price, table.imputed, table.has_price, spec.rule)
    evaluation = Evaluation(candidate, spec, measure_all(table))
    run.evaluations.add(candidate.key, evaluation, table)
    return evaluation


def said(run: Run) -> list[str]:
    """The sentences of `pricer pick`."""
    result = pick(run.name, "mae")
    return [describe_verdict(one, result.selection.chosen.spec.price_unit) for one in result.verdicts]


def a_good_run() -> Run:
    """The error falls from $60 to $40. On test items it is $44, where ridge has $64 and the median $150."""
    run = a_run([100, 200, 300])
    for step, error in {100: 60.0, 200: 50.0, 300: 40.0}.items():
        score(run, step, np.full(50, error))
    score(run, RIDGE, 60 + SPREAD)
    score(run, 300, np.full(50, 44.0), TEST)
    score(run, RIDGE, 64 + SPREAD, TEST)
    score(run, MEDIAN, 150 + SPREAD, TEST)
    return run


def test_a_good_run() -> None:
    # $64 − $44 = $20, from 20 − 1.96 to 20 + 2.24 because the better of two baselines was taken.
    assert said(a_good_run()) == [
        "Use the model: on 50 test items, it is off by $44.00 on average (44.00 to 44.00), which is 22.0% of the "
        "median price; that is $20.00 less (18.04 to 22.24) than tf-idf + ridge, the best of 2 simpler methods.",
        "Train longer: the last checkpoint, step 300, is the best, and the one before it, step 200, is worse by $10.00 "
        "(10.00 to 10.00).",
        "This error can be published: the test items were scored for this checkpoint alone.",
    ]


def test_a_run_whose_model_is_worse_than_ridge_regression() -> None:
    houses = a_spec(unit="€", decimals=-2, hit_error=None)
    run = a_run([100, 200])
    score(run, 100, np.full(50, 70.0), houses)
    score(run, 200, np.full(50, 63.0), houses)
    score(run, RIDGE, 45 + SPREAD, houses)

    # Nothing is left to chance between €63 and €70, so the choice needs no correction. €63 − €45 = €18 ± 1.96.
    assert said(run) == [
        "Do not use the model, because tf-idf + ridge, a simpler method, is better: on 50 validation items, "
        "corrected for the choice of the checkpoint, the model is off by €63 on average (63 to 63), which is 31.5% of "
        "the median price; that is €18 more (16 to 20) than that method.",
        "Train longer: the last checkpoint, step 200, is the best, and the one before it, step 100, is worse by €7 "
        "(7 to 7).",
        "None of this was checked on items that took no part in the choice: pricer pick --confirm scores the test "
        "items, and says whether the price intervals hold.",
    ]


def test_an_over_trained_run() -> None:
    run = a_run([100, 200, 300])
    for step, error in {100: 60.0, 200: 40.0, 300: 45.0}.items():
        score(run, step, np.full(50, error))

    assert said(run)[:2] == [
        "It is not known whether to use the model, because no simpler method was scored on the same items: on 50 "
        "validation items, corrected for the choice of the checkpoint, it is off by $40.00 on average (40.00 to "
        "40.00), which is 20.0% of the median price.",
        "Training went on for too long: after the best checkpoint, step 200, the model got worse, and the last one, "
        "step 300, is worse by $5.00 (5.00 to 5.00).",
    ]


def test_a_run_with_one_checkpoint() -> None:
    run = a_run([100])
    score(run, 100, 40 + SPREAD)
    score(run, RIDGE, np.full(50, 40.0))

    # One checkpoint was not chosen from several: its error is as it was measured. 40 ± 1.96, and 0 ± 1.96.
    assert said(run)[:2] == [
        "Do not use the model, because it is not clearly better than tf-idf + ridge, a simpler method: on 50 "
        "validation items, the model is off by $40.00 on average (38.04 to 41.96), which is 20.0% of the median price; "
        "that is $0.00 less (−1.96 to 1.96) than that method.",
        "Nothing is known of longer or shorter training, because only one checkpoint was scored.",
    ]


def test_looks_at_the_test_items_before_are_counted() -> None:
    run = a_good_run()
    score(run, 100, np.full(50, 70.0), TEST)
    score(run, 100, np.full(50, 70.0), a_spec(split=Split.TEST, limit=20))

    assert said(run)[-1] == (
        "The test items were also scored 2 times for step-000100, so the error on new items may be higher."
    )

    # A confirmation knows which looks were before it.
    tested = run.evaluations.find(a_checkpoint(300).id, TEST)
    assert tested is not None
    metric = tested.metric("mae")
    run.add_confirmation(Confirmation("2026", tested.candidate, TEST.fingerprint, metric, look=1, before=()))
    assert said(run)[-1].startswith("This error can be published")


def test_cut_descriptions_and_rows_that_were_left_out_are_said_where_the_run_knows_them() -> None:
    run = a_good_run()
    run.record(cut_train=0.031, cut_val=0.5, cut_test=0.02)

    assert said(run)[2] == (
        "3.1% of the training descriptions and 2.0% of the test descriptions are cut at prompt.max_length, so the "
        "model does not see their end."
    )
    run.record(cut_train="<b>", cut_test=7)  # a repository can have anything there
    assert not any("cut at" in sentence for sentence in said(run))

    # 4 + 4 of 80 rows are 10 %.
    summary: dict[str, object] = {name: [] for name in ("own_splits", "price_quantiles", "price_bands", "warnings")}
    counts = {"rows": 80, "rejected": {"no price": 4}, "dropped": {"duplicate": 4}, "items": {}, "near_copies": {}}
    rest = {"revision": None, "near_duplicate_groups": 0, "items_in_groups": 0, "largest_group": 0}
    prices = dict.fromkeys(("train_median", "min_price", "max_price", "max_train_price"), 1.0)
    run.record(data={**summary, **counts, **rest, **prices, "price_in_description": 0})
    assert said(run)[2] == "10.0% of the rows of the data were left out."
    for damage in ("<b>", 0):  # 8 of no rows
        run.record(data={**run.facts()["data"], "rows": damage})
        assert not any("rows of the data" in sentence for sentence in said(run))


def test_intervals_that_are_too_narrow_on_the_test_items_of_the_confirmation() -> None:
    run = a_good_run()
    tested = run.evaluations.find(a_checkpoint(300).id, TEST)
    assert tested is not None
    held = Coverage(0.6, (0.46, 0.72), 50.0, 50.0)
    report_80 = CoverageReport(0.8, 50, 0, held, held)
    run.add_confirmation(
        Confirmation("2026", tested.candidate, TEST.fingerprint, tested.metric("mae"), 1, (), (report_80,))
    )

    assert said(run)[2] == (
        "Its price intervals are too narrow: of 50 test items, only 60.0% (46.0 to 72.0) have their price in the 80% "
        "interval, which is $50.00 wide on average."
    )


def test_a_pick_by_another_metric_has_no_corrected_error() -> None:
    run = a_run([100, 200])
    score(run, 100, np.full(50, 60.0))
    score(run, 200, np.full(50, 50.0))

    baseline, curve, _ = pick(None, "rmsle").verdicts

    assert isinstance(baseline, BaselineVerdict)
    assert isinstance(curve, CurveVerdict)
    assert (baseline.choice, baseline.error, curve.metric) == ("uncorrected", 50.0, "rmsle")


def test_checkpoints_that_were_trained_since_the_last_score_are_to_be_scored() -> None:
    run = a_run([100, 200, 300, 400])
    score(run, 100, np.full(50, 60.0))
    score(run, 200, np.full(50, 50.0))

    assert said(run)[1] == (
        "Score the other checkpoints: step 200 is the best, and the last one that was scored, but 2 later checkpoints "
        "had no score."
    )


def test_what_a_race_left_out_is_not_corrected_for() -> None:
    run = a_run([100, 200, 300])
    for step in (200, 300):
        score(run, step, np.full(50, 60.0 - step / 10))
    out = Dropout(100, a_checkpoint(100).id, n=20, leader=300, margin=1.0)
    run.write_race(RaceRecord(SPEC.fingerprint, 0.3, a_checkpoint(300).id, (out,), 0.7))

    baseline, *_ = pick(None, "mae").verdicts
    alone, *_ = judge_scored(run, "300", [run.evaluations.all()[-1]], ())

    assert isinstance(baseline, BaselineVerdict)
    assert baseline.choice == "uncorrected"
    assert alone == baseline


def test_items_that_may_have_been_trained_on_say_nothing_else() -> None:
    run = a_good_run()
    run.record(held_out=asdict(HeldOutCheck(False, "items that the trainer may have seen")))
    tested = [e for e in run.evaluations.all() if e.spec == TEST and e.candidate.step == 300]
    narrow = CoverageReport(0.8, 50, 0, Coverage(0.6, (0.46, 0.72), 50.0, 50.0), None)

    for verdicts in (pick(None, "mae").verdicts, judge_scored(run, "300", tested, (narrow,))):
        assert [type(one) for one in verdicts] == [BaselineVerdict]


class TestOfAnEvaluation:
    def test_all_checkpoints_on_validation_items_are_judged_as_pick_would(self) -> None:
        run = a_good_run()
        scored = [e for e in run.evaluations.all() if e.spec == SPEC]

        assert judge_scored(run, "all", scored, ()) == pick(None, "mae").verdicts

    def test_test_items_choose_no_checkpoint_so_the_picked_one_is_judged(self) -> None:
        run = a_good_run()
        score(run, 100, np.full(50, 30.0), TEST)  # better by chance
        tested = [e for e in run.evaluations.all() if e.spec == TEST]
        assert judge_scored(run, "all", tested, ()) == ()
        pick(None, "mae")

        baseline, looks = judge_scored(run, "all", tested, ())

        assert isinstance(baseline, BaselineVerdict)
        assert isinstance(looks, LookVerdict)
        assert (baseline.step, baseline.error, looks.before) == (300, 44.0, 1)

    def test_other_data_that_were_trained_on_say_nothing(self) -> None:
        run, spec = a_run([100]), replace(SPEC, split="data")
        evaluations = [score(run, RIDGE, np.full(50, 60.0), spec), score(run, 100, np.full(50, 10.0), spec)]

        (trained,) = judge_scored(run, "last", evaluations, (), is_held_out=False)
        (held_out,) = judge_scored(run, "last", evaluations, (), is_held_out=True)

        assert isinstance(trained, BaselineVerdict)
        assert isinstance(held_out, BaselineVerdict)
        assert (trained.outcome, held_out.outcome, held_out.lower_by) == ("unknown", "better", 50.0)

    def test_the_pick_alone_is_corrected_for_its_choice(self) -> None:
        run = a_good_run()
        last = [e for e in run.evaluations.all() if e.spec == SPEC and e.candidate.step == 300]
        (before,) = judge_scored(run, "300", last, ())
        pick(None, "mae")
        (after,) = judge_scored(run, "300", last, ())

        assert isinstance(before, BaselineVerdict)
        assert isinstance(after, BaselineVerdict)
        assert (before.choice, after.choice) == ("none", "corrected")


class TestShown:
    def test_pick_begins_with_the_verdict(self) -> None:
        run = a_good_run()

        printed, record = Cli("pick"), Cli("pick", "--json").json()

        sentences = said(run)
        assert printed.out.splitlines()[:5] == [
            "quickstart, step 300 (95% intervals in brackets):",
            *(f"- {sentence}" for sentence in sentences),
            "",
        ]
        assert [one["says"] for one in record["verdicts"]] == sentences
        assert [one["topic"] for one in record["verdicts"]] == ["baseline", "curve", "test"]
        assert record["verdicts"][0]["lower_by"] == 20.0

    def test_the_page_of_a_report_has_it_above_the_tiles(self) -> None:
        run = a_good_run()
        sentences = said(run)

        page = report([], None, lambda _: None, pictures=False).page.read_text()

        listed = page[page.index('<ul class="verdicts">') : page.index('class="tiles"')]
        assert [line.removeprefix("<li>").removesuffix("</li>") for line in listed.splitlines()[1:4]] == sentences


@pytest.mark.usefixtures("in_memory")
def test_eval_of_all_checkpoints_begins_with_the_verdict_and_json_has_it(run: Run) -> None:
    printed, record = Cli("eval", "--all-checkpoints"), Cli("eval", "--all-checkpoints", "--json").json()

    first, *sentences = printed.out.split("\n\n")[0].splitlines()
    assert first == "quickstart, step 6 (95% intervals in brackets):"
    assert sentences == [f"- {one['says']}" for one in record["verdicts"]]
    assert [one["topic"] for one in record["verdicts"]][:2] == ["baseline", "curve"]
    cut = re.search(r"(\d+) of 12 descriptions were cut to 128 tokens", printed.err)
    assert run.facts()["cut_val"] == (int(cut[1]) / 12 if cut else 0)


@pytest.mark.usefixtures("in_memory")
def test_a_confirmed_pick_begins_with_the_verdict_on_test_items(run: Run) -> None:
    Cli("eval", "--all-checkpoints")

    confirmed = Cli("pick", "--confirm")

    assert " on 8 test items, " in confirmed.out.splitlines()[1]
    assert confirmed.out.index("ranking by mae") > confirmed.out.index("This error can be published")
    assert confirmed.out.splitlines()[-1].startswith("confirmed: MAE ")


@pytest.mark.usefixtures("in_memory")
def test_a_confirmation_that_fails_costs_no_ranking(run: Run, scorer: FakeScorer) -> None:
    Cli("eval", "--all-checkpoints")
    scorer.fail_at = len(scorer.asked)

    stopped = Cli("pick", "--confirm")

    assert " on 12 validation items, corrected for the choice" in stopped.out.splitlines()[1]
    assert "ranking by mae" in stopped.out
    assert "confirmed" not in stopped.out


def test_a_damaged_pick_costs_eval_its_verdict_alone(run: Run) -> None:
    (run.folder / "selection.json").write_text("{")

    result = Cli("eval", "--checkpoint", "last")

    assert (result.code, "step-000006" in result.out) == (0, True)
    assert re.search(
        "no verdict: runs/quickstart/selection.json is damaged: .*; pricer pick --run quickstart", result.err
    )


def test_scores_of_other_items_cost_eval_its_verdict_alone(run: Run) -> None:
    Cli("eval", "--all-checkpoints")
    spec = run.evaluations.all()[-1].spec
    path = run.folder / "evaluations" / f"{run.store.checkpoints()[1].id}-{spec.fingerprint}" / "scores.npz"
    columns = dict(np.load(path))
    np.savez(path, **{name: column[:5] for name, column in columns.items()})

    result = Cli("eval", "--all-checkpoints")

    assert (result.code, "step-000006" in result.out) == (0, True)
    assert "no verdict: step-000004 was scored on other items than step-000002, or in another order" in result.err
