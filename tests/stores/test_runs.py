"""Run folders."""

import json
from pathlib import Path

import pytest

from pricer.config import RunConfig, TrainConfig
from pricer.core.predictions import Prediction
from pricer.core.selection import select
from pricer.errors import ConfigError, RunError
from pricer.stores.runs import Run, create_run, find_run
from tests.builders import SPEC, a_distribution, a_spec, an_evaluation, some_scores

CONFIG = RunConfig(train=TrainConfig(seed=7))
BATCH = [Prediction("a", "227.00", 227.0, a_distribution()), Prediction("b", "café, no idea", None)]


def a_run(name: str | None = None) -> Run:
    return create_run(CONFIG, "quickstart", name, {"seed": 7})


class TestCreatingAndFinding:
    def test_a_new_run_has_its_config_and_its_facts(self) -> None:
        run = a_run()

        assert (run.name, run.folder) == ("quickstart", Path("runs/quickstart"))
        assert run.config() == CONFIG
        assert run.facts()["seed"] == 7
        assert run.facts()["finished"] is None

    def test_runs_of_one_config_are_numbered(self) -> None:
        assert [a_run().name for _ in range(3)] == ["quickstart", "quickstart-2", "quickstart-3"]

    def test_a_name_that_is_taken_is_refused(self) -> None:
        a_run("mine")

        with pytest.raises(RunError, match=r"^there is a run mine already$") as raised:
            a_run("mine")

        assert raised.value.hint == "pricer train --resume --run mine, or another --run NAME"

    def test_what_a_kill_left_before_the_run_began_is_taken_over(self) -> None:
        Path("runs/mine").mkdir(parents=True)
        Path("runs/mine/config.yaml").write_text("train: {seed: 1}")

        assert a_run("mine").config() == CONFIG

    @pytest.mark.parametrize("name", ["", ".", "..", "../x", "a/b", "/x", "-x", ".x", "a b", "a\n", "é", "a" * 101])
    def test_a_name_that_could_lead_elsewhere_is_refused(self, name: str) -> None:
        with pytest.raises(RunError, match="cannot name a run") as raised:
            a_run(name)

        assert raised.value.hint == "letters, digits, dots, dashes and underscores"
        assert not Path("runs").exists()

    @pytest.mark.parametrize("name", ["a", "A1", "llama-3.2_3b", "a..", "a" * 100])
    def test_a_plain_name_is_taken(self, name: str) -> None:
        assert find_run(a_run(name).name).folder == Path("runs") / name

    def test_a_run_is_held_by_one_at_a_time_and_then_free_again(self) -> None:
        with a_run("mine").held(), pytest.raises(RunError) as raised, find_run("mine").held():
            pass

        assert raised.value.message == "another process is training mine"
        assert raised.value.hint == "wait for it to end, or train another run: --run NAME"
        with find_run("mine").held(), a_run("other").held():
            pass

    def test_a_run_is_scored_by_one_at_a_time_while_another_trains_it(self) -> None:
        run = a_run("mine")
        with run.held(), run.scored_alone(), pytest.raises(RunError) as raised, find_run("mine").scored_alone():
            pass

        assert raised.value.message == "another process is scoring mine"

    def test_a_run_without_its_config_is_damaged(self) -> None:
        run = a_run()
        (run.folder / "config.yaml").unlink()

        with pytest.raises(RunError, match=r"^there is no runs/quickstart/config\.yaml$"):
            run.config()

    def test_without_a_name_the_newest_run_is_found(self) -> None:
        for name in ("b", "c", "a"):
            a_run(name)

        assert find_run(None).name == "a"

    def test_a_run_stays_newest_by_its_start_whatever_is_recorded_later(self) -> None:
        first, second = a_run("first"), a_run("second")

        first.finish()

        assert find_run(None).name == second.name

    def test_without_runs_the_hint_is_to_train(self) -> None:
        for name, message in ((None, "there is no run here yet (no runs/*/run.json)"), ("x", "there is no run x")):
            with pytest.raises(RunError) as raised:
                find_run(name)
            assert (raised.value.message, raised.value.hint) == (message, "pricer train")

    @pytest.mark.parametrize("name", ["other", "", ".", "..", "../outside", "mine/../mine", "runs/mine", "*"])
    def test_only_a_name_in_the_runs_folder_is_found(self, name: str) -> None:
        a_run("mine")
        a_run("yours")
        Path("outside").mkdir()
        Path("outside/run.json").write_text("{}")

        with pytest.raises(RunError) as raised:
            find_run(name)

        assert raised.value.message == f"there is no run {name}"
        assert raised.value.hint == "runs here: mine, yours"

    def test_a_damaged_run_does_not_hide_the_others(self) -> None:
        a_run("mine")
        Path("runs/broken").mkdir()
        Path("runs/broken/run.json").write_text("{")

        assert find_run("mine").name == "mine"


class TestFacts:
    def test_facts_are_added_and_replaced(self) -> None:
        run = a_run()

        run.record(device="cpu", seed=8)

        assert {**run.facts(), "started": "", "id": ""} == {
            "id": "",
            "seed": 8,
            "started": "",
            "finished": None,
            "device": "cpu",
        }

    def test_a_finished_run_says_when_and_keeps_no_training_state(self) -> None:
        run = a_run()
        (run.state_folder / "checkpoint-5").mkdir(parents=True)

        run.finish()

        assert run.facts()["finished"] >= run.facts()["started"]
        assert not run.state_folder.exists()

    @pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"started": 5}'])
    def test_damaged_facts_are_named(self, content: str) -> None:
        run = a_run()
        (run.folder / "run.json").write_text(content)

        with pytest.raises(RunError, match=r"^runs/quickstart/run.json cannot be read$"):
            run.facts()
        with pytest.raises(RunError, match=r"^runs/quickstart/run.json cannot be read$"):
            find_run(None)

    def test_a_damaged_config_is_named(self) -> None:
        run = a_run()
        (run.folder / "config.yaml").write_text("train: {sed: 1}")

        with pytest.raises(ConfigError, match=r"train.sed is not a setting \(runs/quickstart/config.yaml, line 1\)"):
            run.config()


class TestMetrics:
    def test_lines_come_back_in_order(self) -> None:
        run = a_run()

        run.log({"step": 1, "loss": 2.5})
        run.log({"step": 2, "loss": 2.25})

        assert list(run.metrics()) == [{"step": 1, "loss": 2.5}, {"step": 2, "loss": 2.25}]

    def test_lines_after_a_step_are_forgotten(self) -> None:
        run = a_run()
        for step in (1, 2, 2, 3):
            run.log({"step": step, "text": "é"})

        run.forget_after(2)

        assert list(run.metrics()) == [{"step": step, "text": "é"} for step in (1, 2, 2)]

    def test_forgetting_without_lines_leaves_none(self) -> None:
        run = a_run()

        run.forget_after(2)

        assert list(run.metrics()) == []

    def test_a_damaged_line_is_named(self) -> None:
        run = a_run()
        (run.folder / "metrics.jsonl").write_text("{\n")

        with pytest.raises(RunError, match=r"^runs/quickstart/metrics.jsonl is damaged: not a JSON object .*line 1\)$"):
            list(run.metrics())


class TestTrainingState:
    def state(self, run: Run, step: int, *, whole: bool = True) -> Path:
        folder = run.state_folder / f"checkpoint-{step}"
        folder.mkdir(parents=True)
        (folder / "optimizer.pt").write_bytes(b"momentum")
        if whole:
            run.mark_whole(folder)
        return folder

    def test_a_run_that_saved_no_state_has_none(self) -> None:
        assert a_run().newest_state() is None

    def test_the_newest_is_the_highest_step_not_the_last_name(self) -> None:
        run = a_run()
        for step in (900, 1000, 50):
            self.state(run, step)

        assert run.newest_state() == (run.state_folder / "checkpoint-1000", 1000)

    def test_a_state_that_was_not_finished_does_not_count(self) -> None:
        run = a_run()
        self.state(run, 5)
        self.state(run, 10, whole=False)

        assert run.newest_state() == (run.state_folder / "checkpoint-5", 5)

    @pytest.mark.parametrize("damage", ["changed", "removed", "torn record", "no record of files"])
    def test_a_state_that_was_damaged_does_not_count(self, damage: str) -> None:
        run = a_run()
        folder = self.state(run, 10)
        match damage:
            case "changed":
                (folder / "optimizer.pt").write_bytes(b"other")
            case "removed":
                (folder / "optimizer.pt").unlink()
            case "torn record":
                (folder / "state.json").write_text('{"files"')
            case _:
                (folder / "state.json").write_text("{}")

        assert run.newest_state() is None

    def test_states_beyond_the_one_to_go_on_from_are_dropped(self) -> None:
        run = a_run()
        for step, whole in ((5, True), (10, True), (15, False)):
            self.state(run, step, whole=whole)

        run.forget_after(10)

        assert sorted(folder.name for folder in run.state_folder.iterdir()) == ["checkpoint-10", "checkpoint-5"]

    def test_other_folders_are_no_states(self) -> None:
        run = a_run()
        for name in ("checkpoint-", "checkpoint-best", "checkpoint-5.tmp", "runs"):
            (run.state_folder / name).mkdir(parents=True)

        assert run.newest_state() is None


class TestEvaluations:
    def test_predictions_come_back_as_the_batches_they_were_saved_in(self) -> None:
        run = a_run()

        run.add_predictions("step-000005", SPEC, BATCH)
        run.add_predictions("step-000005", SPEC, BATCH[:1])

        assert run.predictions("step-000005", SPEC) == [BATCH, BATCH[:1]]

    def test_predictions_of_another_name_or_spec_are_others(self) -> None:
        run = a_run()
        run.add_predictions("step-000005", SPEC, BATCH)

        assert run.predictions("step-000010", SPEC) == []
        assert run.predictions("step-000005", a_spec(limit=2)) == []

    def test_a_batch_that_was_torn_by_a_kill_is_not_there(self) -> None:
        run = a_run()
        run.add_predictions("step-000005", SPEC, BATCH)
        (path,) = run.folder.glob("evaluations/*/predictions.jsonl")
        path.write_bytes(path.read_bytes() + b'{"batch": [{"item_id": "c"')

        assert run.predictions("step-000005", SPEC) == [BATCH]

    def test_dropped_predictions_are_gone_and_may_be_dropped_again(self) -> None:
        run = a_run()
        run.add_predictions("step-000005", SPEC, BATCH)

        run.drop_predictions("step-000005", SPEC)
        run.drop_predictions("step-000005", SPEC)

        assert run.predictions("step-000005", SPEC) == []

    @pytest.mark.parametrize("line", ["{", "{}", '{"batch": 5}', '{"batch": [{"id": 1}]}', '{"batch": ["a"]}', "[]"])
    def test_damaged_predictions_are_named(self, line: str) -> None:
        run = a_run()
        folder = run.folder / "evaluations" / f"step-000005-{SPEC.fingerprint}"
        folder.mkdir(parents=True)
        (folder / "predictions.jsonl").write_text(f"{line}\n")

        with pytest.raises(RunError, match=f"^{folder}/predictions.jsonl is damaged: ") as raised:
            run.predictions("step-000005", SPEC)

        assert raised.value.hint == f"remove {folder}, and evaluate again"

    def test_an_evaluation_comes_back_under_its_name_and_spec_alone(self) -> None:
        run, evaluation = a_run(), an_evaluation(5, 40.0)

        run.add_evaluation("rev", evaluation, some_scores())

        assert run.evaluation("rev", SPEC) == evaluation
        assert run.evaluation("rev", a_spec(limit=2)) is None
        assert run.evaluation("other", SPEC) is None

    def test_scores_come_back_with_their_evaluation(self) -> None:
        run = a_run()
        run.add_evaluation("rev", an_evaluation(5, 40.0), some_scores(40.0, n=3))

        scores = run.scores("rev", SPEC)

        assert scores is not None
        assert scores.abs_error.tolist() == [40.0, 40.0, 40.0]
        assert run.scores("other", SPEC) is None

    def test_damaged_scores_are_named(self) -> None:
        run = a_run()
        run.add_evaluation("rev", an_evaluation(5, 40.0), some_scores())
        (path,) = run.folder.glob("evaluations/*/scores.npz")
        path.write_bytes(b"junk")

        with pytest.raises(RunError, match=f"^{path} is damaged: ") as raised:
            run.scores("rev", SPEC)

        assert raised.value.hint == f"remove {path}, and evaluate again"

    def test_all_evaluations_come_baselines_first_then_by_step(self) -> None:
        run = a_run()
        for evaluation in (an_evaluation(1000, 40.0), an_evaluation(None, 90.0), an_evaluation(200, 50.0)):
            run.add_evaluation(evaluation.name, evaluation, some_scores())

        assert [evaluation.candidate.step for evaluation in run.evaluations()] == [None, 200, 1000]

    @pytest.mark.parametrize("content", ["", "{", "{}", "[]", '{"spec": {"split": "val"}}', "5"])
    def test_a_damaged_evaluation_is_named(self, content: str) -> None:
        run = a_run()
        run.add_evaluation("rev", an_evaluation(5, 40.0), some_scores())
        (path,) = run.folder.glob("evaluations/*/evaluation.json")
        path.write_text(content)

        for read in (run.evaluations, lambda: run.evaluation("rev", SPEC)):
            with pytest.raises(RunError, match=f"^{path} is damaged: ") as raised:
                read()
            assert raised.value.hint == f"remove {path.parent}, and evaluate again"

    def test_a_selection_is_written_for_other_programs(self) -> None:
        run, selection = a_run(), select([an_evaluation(5, 40.0)], "mae")

        run.write_selection(selection)

        assert json.loads((run.folder / "selection.json").read_text())["candidate"]["id"] == selection.candidate.id
