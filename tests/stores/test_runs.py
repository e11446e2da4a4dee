"""Run folders."""

from pathlib import Path

import pytest

from pricer.config import RunConfig, TrainConfig
from pricer.errors import ConfigError, RunError
from pricer.stores.runs import Run, create_run, find_run, runs_of

CONFIG = RunConfig(train=TrainConfig(seed=7))


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

    @pytest.mark.parametrize(
        ("stem", "name"), [("my config (1)", "my-config-1"), ("-x", "x"), ("ünï $(ls)", "n-ls"), ("()", "run")]
    )
    def test_an_automatic_name_can_be_pasted(self, stem: str, name: str) -> None:
        assert create_run(CONFIG, stem, None, {}).name == name

    def test_a_name_that_is_taken_is_refused(self) -> None:
        a_run("mine")

        with pytest.raises(RunError, match=r"^there is a run mine already$") as raised:
            a_run("mine")

        assert raised.value.hint == "pricer train --resume --run mine, or another --run NAME"

    def test_what_a_kill_left_before_the_run_began_is_taken_over(self) -> None:
        Path("runs/mine").mkdir(parents=True)
        Path("runs/mine/config.yaml").write_text("train: {seed: 1}")
        Path("runs/mine/confirmation.json").write_text("{}")

        assert a_run("mine").config() == CONFIG
        assert not Path("runs/mine/confirmation.json").exists()

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
        with a_run("mine").lock(), pytest.raises(RunError) as raised, find_run("mine").lock():
            pass

        assert raised.value.message == "another process is training mine"
        assert raised.value.hint == "wait for it to end, or train another run: --run NAME"
        with find_run("mine").lock(), a_run("other").lock():
            pass

    def test_a_run_is_scored_by_one_at_a_time_while_another_trains_it(self) -> None:
        run = a_run("mine")
        with run.lock(), run.evaluations.lock(), pytest.raises(RunError) as raised, find_run("mine").evaluations.lock():
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
        (run.training_states.folder / "checkpoint-5").mkdir(parents=True)

        run.finish()

        assert run.facts()["finished"] >= run.facts()["started"]
        assert not run.training_states.folder.exists()

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

        run.delete_metrics_after(2)

        assert list(run.metrics()) == [{"step": step, "text": "é"} for step in (1, 2, 2)]

    def test_a_damaged_line_is_named(self) -> None:
        run = a_run()
        (run.folder / "metrics.jsonl").write_text("{\n")

        with pytest.raises(RunError, match=r"^runs/quickstart/metrics.jsonl is damaged: not a JSON object .*line 1\)$"):
            list(run.metrics())


class TestDamagedRuns:
    def test_the_newest_undamaged_run_is_found_and_the_damaged_one_is_named(self) -> None:
        for name in ("old", "good", "hurt"):
            a_run(name)
        Path("runs/hurt/run.json").write_text('{"started"')
        notes: list[str] = []

        assert find_run(None, note=notes.append).name == "good"
        assert notes == ["runs/hurt/run.json cannot be read, so this run is left out"]

    def test_a_damaged_run_does_not_hide_the_run_of_a_repository(self) -> None:
        a_run("hurt")
        Path("runs/hurt/run.json").write_text("{}")
        create_run(CONFIG, "mine", None, {"repo": "ann/prices"})

        assert [run.name for run in runs_of("ann/prices")] == ["mine"]
