"""`pricer pick`: what a pick leaves behind, and what it refuses."""

import json
from dataclasses import asdict

import numpy as np
import pytest

from pricer.commands.pick import pick
from pricer.core.items import Split
from pricer.errors import RunError
from tests.builders import a_run, a_score_table, a_spec, add_evaluation, an_evaluation

TEST = a_spec(split=Split.TEST)


pytestmark = pytest.mark.usefixtures("in_memory")


class TestPick:
    def test_the_best_checkpoint_is_tagged_and_the_selection_written(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])

        picked = pick(None, "mae")

        best = run.store.tagged("best")
        assert best is not None
        assert (picked.selection.candidate.step, best.step, picked.unscored) == (200, 200, ())
        assert json.loads((run.folder / "selection.json").read_text()) == json.loads(
            json.dumps(asdict(picked.selection.record))
        )

    def test_a_better_checkpoint_moves_the_tag(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0)])
        pick(None, "mae")
        add_evaluation(run, an_evaluation(200, 40.0))

        pick(None, "mae")

        best = run.store.tagged("best")
        assert best is not None
        assert best.step == 200

    def test_checkpoints_without_an_evaluation_are_reported(self) -> None:
        a_run([100, 200, 300], [an_evaluation(200, 40.0)])

        picked = pick("quickstart", "mae")

        assert (picked.selection.candidate.step, picked.unscored) == (200, (100, 300))

    def test_weights_that_are_no_longer_kept_cannot_be_chosen(self) -> None:
        a_run([100], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])

        assert pick(None, "mae").selection.candidate.step == 100

    def test_the_metric_is_the_one_asked_for(self) -> None:
        a_run([100, 200], [an_evaluation(100, 50.0, hit_rate=0.9), an_evaluation(200, 40.0, hit_rate=0.5)])

        assert pick(None, "hit_rate").selection.candidate.step == 100

    def test_the_scores_of_the_run_say_how_sure_the_choice_is(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])

        comparison = pick(None, "mae").selection.comparison

        # $10 on each of the items, always: there is no doubt.
        assert comparison is not None
        assert [(one.candidate.step, one.worse_by, one.interval, one.p_best) for one in comparison.differences] == [
            (100, 10.0, (10.0, 10.0), 0.0),
            (200, -10.0, (-10.0, -10.0), 1.0),
        ]
        assert (comparison.corrected, comparison.corrected_interval, comparison.more_items) == (
            40.0,
            (40.0, 40.0),
            None,
        )
        assert json.loads((run.folder / "selection.json").read_text())["comparison"]["resamples"] == 10_000

    def test_evaluations_whose_scores_are_gone_are_to_be_made_again(self) -> None:
        run = a_run([100, 200], [an_evaluation(100, 50.0), an_evaluation(200, 40.0)])
        next(run.folder.glob(f"evaluations/{an_evaluation(100, 50.0).candidate.id}-*/scores.npz")).unlink()

        with pytest.raises(RunError, match="the scores of step-000100 are missing") as raised:
            pick(None, "mae")

        assert raised.value.hint == "pricer eval --all-checkpoints"
        assert not (run.folder / "selection.json").exists()

    def test_one_checkpoint_needs_no_scores(self) -> None:
        run = a_run([100], [an_evaluation(100, 50.0)])
        next(run.folder.glob("evaluations/*/scores.npz")).unlink()

        assert pick(None, "mae").selection.comparison is None

    @pytest.mark.parametrize("price", [np.full(49, 100.0), np.arange(1.0, 51.0)])
    def test_scores_on_other_items_are_refused_by_name(self, price: np.ndarray) -> None:
        run = a_run([100, 200], [an_evaluation(200, 40.0)])
        other = an_evaluation(100, 50.0)
        run.evaluations.add(other.candidate.id or "", other, a_score_table(price + 50, price))

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
