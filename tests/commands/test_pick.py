"""`pricer pick`: what is comparable, and what a pick leaves behind."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from pricer.commands.pick import comparable, pick
from pricer.config import RunConfig
from pricer.core.evaluation import Evaluation
from pricer.core.items import Split
from pricer.core.scores import Scores
from pricer.errors import RunError
from pricer.stores.runs import Run, create_run
from tests.builders import SPEC, a_saved_checkpoint, a_spec, an_evaluation, some_scores

SMALL, LARGE = a_spec(limit=10), a_spec(limit=200)
TEST = a_spec(split=Split.TEST)


def a_run(steps: list[int], evaluations: list[Evaluation]) -> Run:
    """A run with checkpoints and evaluations, as training and scoring leave it."""
    run = create_run(RunConfig(), "quickstart", None, {})
    for step in steps:
        run.store.push(a_saved_checkpoint(Path("out"), step)[0], step)
    for evaluation in evaluations:
        mae = evaluation.metric("mae")
        run.evaluations.add(evaluation.revision or evaluation.name, evaluation, some_scores(mae.value, mae.n))
    return run


class TestComparable:
    def test_evaluations_under_one_spec_are_all_comparable(self) -> None:
        evaluations = [an_evaluation(100, 50.0), an_evaluation(200, 40.0)]

        assert comparable(evaluations) == evaluations

    def test_of_two_specs_that_cover_all_the_one_with_most_items_counts(self) -> None:
        small = [an_evaluation(step, 1.0, spec=SMALL, n=10) for step in (100, 200)]
        large = [an_evaluation(step, 2.0, spec=LARGE, n=200) for step in (100, 200)]

        assert comparable([*small, *large]) == large
        assert comparable([*large, *small]) == large

    def test_a_spec_that_covers_all_counts_before_a_larger_one_that_does_not(self) -> None:
        small = [an_evaluation(step, 1.0, spec=SMALL, n=10) for step in (100, 200)]

        assert comparable([*small, an_evaluation(100, 2.0, spec=LARGE, n=200)]) == small

    @pytest.mark.parametrize(("estimator", "chosen"), [("auto", 1), ("median", 1), ("greedy", 0)])
    def test_of_two_estimators_the_one_of_the_run_counts(self, estimator: str, chosen: int) -> None:
        by_estimator = [
            [an_evaluation(step, 1.0, spec=a_spec(estimator=own)) for step in (100, 200)]
            for own in ("greedy", "median")
        ]

        for evaluations in ([*by_estimator[0], *by_estimator[1]], [*by_estimator[1], *by_estimator[0]]):
            assert comparable(evaluations, estimator) == by_estimator[chosen]

    def test_checkpoints_under_different_specs_are_refused(self) -> None:
        mixed = [
            an_evaluation(100, 50.0, spec=SMALL, n=10),
            an_evaluation(200, 40.0, spec=SMALL, n=10),
            an_evaluation(300, 30.0, spec=SPEC),
        ]

        with pytest.raises(RunError) as raised:
            comparable(mixed)

        assert raised.value.message == (
            "no one spec covers every evaluated checkpoint, and different specs are not comparable "
            "(10 items: steps 100, 200; all items: steps 300)"
        )
        assert raised.value.hint == "pricer eval --all-checkpoints"

    def test_evaluations_on_test_items_are_left_out(self) -> None:
        held_out = [an_evaluation(100, 50.0), an_evaluation(200, 40.0)]

        assert comparable([*held_out, an_evaluation(300, 1.0, spec=TEST)]) == held_out

    def test_without_validation_evaluations_all_are_left_to_be_refused(self) -> None:
        on_test = [an_evaluation(100, 50.0, spec=TEST)]

        assert comparable(on_test) == on_test
        assert comparable([]) == []


class TestPick:
    def test_the_best_checkpoint_is_tagged_and_the_selection_written(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])

        picked = pick(None, "mae")

        best = run.store.tagged("best")
        assert best is not None
        assert (picked.selection.step, best.step, picked.run.name, picked.unscored) == (200, 200, "quickstart", ())
        assert json.loads((run.folder / "selection.json").read_text()) == json.loads(
            json.dumps(picked.selection.to_json())
        )

    def test_a_better_checkpoint_moves_the_tag(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0)])
        pick(None, "mae")
        later = an_evaluation(200, 40.0)
        run.evaluations.add(later.revision or "", later, some_scores(40.0))

        pick(None, "mae")

        best = run.store.tagged("best")
        assert best is not None
        assert best.step == 200

    def test_checkpoints_without_an_evaluation_are_reported(self) -> None:
        a_run([100, 200, 300], [an_evaluation(200, 40.0)])

        picked = pick("quickstart", "mae")

        assert (picked.selection.step, picked.unscored) == (200, (100, 300))

    def test_weights_that_are_no_longer_kept_cannot_be_chosen(self) -> None:
        a_run([100], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])

        assert pick(None, "mae").selection.step == 100

    def test_the_metric_is_the_one_asked_for(self) -> None:
        a_run([100, 200], [an_evaluation(100, 50.0, hit_rate=0.9), an_evaluation(200, 40.0, hit_rate=0.5)])

        assert pick(None, "hit_rate").selection.step == 100

    def test_the_scores_of_the_run_say_how_sure_the_choice_is(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])

        evidence = pick(None, "mae").selection.evidence

        # $10 on each of the items, always: there is no doubt.
        assert evidence is not None
        assert [(one.step, one.behind, one.interval, one.p_best) for one in evidence.standings] == [
            (100, 10.0, (10.0, 10.0), 0.0),
            (200, 0.0, None, 1.0),
        ]
        assert (evidence.corrected, evidence.corrected_interval, evidence.more_items) == (40.0, (40.0, 40.0), None)
        assert json.loads((run.folder / "selection.json").read_text())["evidence"]["resamples"] == 10_000

    def test_the_earliest_of_equals_is_the_rules_to_take(self) -> None:
        noise = np.random.default_rng(0).normal(0, 5, 50)
        run = a_run([100, 200], [an_evaluation(200, 40.0)])
        close, price = an_evaluation(100, 40.1), np.full(50, 100.0)
        scores = Scores(price, 140.1 + noise - noise.mean(), np.ones(50, dtype=np.bool_))
        run.evaluations.add(close.revision or "", close, scores)

        assert pick(None, "mae").selection.step == 200
        assert pick(None, "mae", rule="earliest").selection.step == 100
        best = run.store.tagged("best")
        assert best is not None
        assert best.step == 100

    def test_evaluations_from_before_scores_were_kept_are_to_be_made_again(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])
        next(run.folder.glob(f"evaluations/{an_evaluation(100, 50.0).revision}-*/scores.npz")).unlink()

        with pytest.raises(RunError, match="what step-000100 was charged for each item was not kept") as raised:
            pick(None, "mae")

        assert raised.value.hint == "pricer eval --all-checkpoints"
        assert not (run.folder / "selection.json").exists()

    def test_one_checkpoint_needs_no_scores(self) -> None:
        run = a_run([100], [an_evaluation(100, 50.0)])
        next(run.folder.glob("evaluations/*/scores.npz")).unlink()

        assert pick(None, "mae", rule="earliest").selection.evidence is None

    @pytest.mark.parametrize("price", [np.full(49, 100.0), np.arange(1.0, 51.0)])
    def test_scores_on_other_items_are_refused_by_name(self, price: np.ndarray) -> None:
        run = a_run([100, 200], [an_evaluation(200, 40.0)])
        other = an_evaluation(100, 50.0)
        scores = Scores(price, price + 50, np.ones(len(price), dtype=np.bool_))
        run.evaluations.add(other.revision or "", other, scores)

        with pytest.raises(RunError, match="step-000100 was scored on other items than step-000200"):
            pick(None, "mae")

    def test_the_test_split_never_chooses(self) -> None:
        run = a_run([100], [an_evaluation(100, 50.0, spec=TEST)])

        with pytest.raises(RunError, match="a checkpoint is not chosen on the test split"):
            pick(None, "mae")

        assert run.store.tagged("best") is None
        assert not (run.folder / "selection.json").exists()

    def test_a_run_without_evaluations_says_how_to_get_them(self) -> None:
        a_run([100], [an_evaluation(None, 1.0)])

        with pytest.raises(RunError, match="no checkpoint has been evaluated yet") as raised:
            pick(None, "mae")

        assert raised.value.hint == "pricer eval --all-checkpoints"

    def test_picking_imports_nothing_heavy(self) -> None:
        heavy = ["torch", "transformers", "trl", "peft", "datasets", "huggingface_hub", "bitsandbytes", "sklearn"]
        code = f"import sys, pricer.commands.pick; print([m for m in {heavy} if m in sys.modules])"

        ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert ran.stdout == "[]\n"
