"""What of evaluations and picks is shown on W&B, and that it disturbs neither them nor a training."""

from pathlib import Path

import pytest
import typer.testing

from pricer.cli import app
from pricer.commands import train
from pricer.commands.evaluate import Evaluated, evaluate_run
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.commands.parts.wandb_report import evaluation_report, pick_report, send
from pricer.commands.pick import pick
from pricer.config import RunConfig, TrackingConfig
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.errors import HubError
from pricer.stores.evaluations import EvaluationStore
from pricer.stores.runs import Run, create_run, find_run
from pricer.stores.wandb import Report
from tests.builders import a_checkpoint, a_distribution, a_spec, an_evaluation, an_item, predictions_of
from tests.commands.conftest import CONFIG, Listener
from tests.loopback_hub import Repo
from tests.wandb_files import curve, sessions, table

OFFLINE = TrackingConfig(mode="offline", project="lamps")
EVAL = ("eval/mae", "eval/median_ae", "eval/rmsle", "eval/hit_rate", "eval/no_price")


@pytest.fixture(autouse=True)
def no_login(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens there


def scored(which: str, split: Split = Split.VAL, limit: int | None = None) -> tuple[Evaluated, list[str]]:
    notes: list[str] = []
    result = evaluate_run(find_run(None), which, split, limit, Listener())
    send(result.run, result.report, notes.append, "the evaluation stands")
    return result, notes


def test_training_evaluations_and_the_pick_are_one_run() -> None:
    config = CONFIG.model_copy(update={"tracking": OFFLINE})
    run = train.start(config, "quickstart", None, Listener()).run
    one, notes = scored("4")
    rest, _ = scored("all")
    again = scored("all"), scored("last"), scored("last", Split.TEST)
    picked = pick(None, "mae")
    for _ in range(2):
        send(run, pick_report(picked.selection), notes.append, "the pick stands")

    assert notes == [note for _, found in again for note in found] == []
    training, first, second, last = sessions(run.folder)
    assert {found.identity for found in (training, first, second, last)} == {
        ("lamps", "quickstart", run.facts()["tracking_id"])
    }
    rows = training.rows + first.rows + second.rows + last.rows
    assert [row["_step"] for row in rows] == list(range(len(rows)))
    for name in ("loss", "learning_rate", "grad_norm", "tokens_per_second", "epoch"):
        assert [step for step, _ in curve(training.rows, name)] == [1, 2, 3, 4, 5, 6]
    errors = {e.candidate.step: e.metric("mae").value for e in rest.evaluations if e.candidate.step}
    for name in EVAL:
        assert [step for step, _ in curve(first.rows, name)] == [4]
        assert [step for step, _ in curve(second.rows, name)] == [2, 6]
    assert dict(curve(rows, "eval/mae")) == errors
    baselines = {f"eval/baseline/{e.name}": e.metric("mae").value for e in one.evaluations if e.candidate.step is None}
    assert len(baselines) == 4
    assert first.summary.items() >= baselines.items()
    assert (last.rows, last.summary["best_step"], last.summary["best_mae"]) == (
        [],
        picked.selection.candidate.step,
        picked.selection.chosen.metric("mae").value,
    )
    assert picked.selection.comparison is not None
    for compared in picked.selection.comparison.differences:
        place = f"pick/{compared.candidate.name}/"
        said = [last.summary[place + name] for name in ("worse_by", "worse_by_low", "worse_by_high", "may_be_best")]
        assert said == [compared.worse_by, *compared.interval, compared.may_be_best]
    # The table of the only one, and then that of the best of all, unless that is the same.
    best = picked.selection.candidate.step
    tables = curve(rows, "eval/predictions")
    assert [step for step, _ in tables] == [4, best][: 1 if best == 4 else 2]
    shown = table(run.folder, tables[0][1])
    assert shown["columns"] == ["item", "description", "price", "predicted", "abs error", "80 % from", "80 % to"]
    assert len(shown["data"]) == 12
    errors_shown = [row[4] for row in shown["data"]]
    assert sum(errors_shown) / 12 == pytest.approx(errors[4])


NOTHING = EvaluationStore(Path("evaluations"))


def test_a_part_of_the_items_is_another_curve() -> None:
    spec = a_spec(limit=10)

    report = evaluation_report(spec, [], [an_evaluation(5, 50.0, spec=spec)], NOTHING)

    assert report is not None
    assert report.points == {
        5: {"eval-10/mae": 50.0, "eval-10/median_ae": 0.25, "eval-10/rmsle": 0.25, "eval-10/hit_rate": 0.5,
            "eval-10/no_price": 0.0}
    }  # fmt: skip


def test_the_test_split_is_no_curve() -> None:
    spec = a_spec(split=Split.TEST)

    assert evaluation_report(spec, [], [an_evaluation(5, 50.0, spec=spec)], NOTHING) is None


def a_run(mode: str = "offline", tracking_id: str | None = "one") -> Run:
    config = RunConfig(tracking=TrackingConfig.model_validate({"mode": mode, "project": "lamps"}))
    return create_run(config, "mine", None, {"tracking_id": tracking_id} if tracking_id else {})


REPORT = Report("5bec", {5: {"eval/mae": 50.0}}, {"best_step": 5})


def saved(run: Run, step: int, spec: EvalSpec, items: list[Item], predictions: list[Prediction]) -> Evaluation:
    checkpoint = a_checkpoint(step)
    run.evaluations.add_predictions(checkpoint.id, spec, predictions)
    evaluation, table = evaluate(Candidate.of(checkpoint), spec, predictions, items)
    run.evaluations.add(checkpoint.id, evaluation, table)
    return evaluation


class TestTheTable:
    def rows(self, items: list[Item], predictions: list[Prediction]) -> list[tuple[str | float | None, ...]]:
        run, spec = a_run(), a_spec(estimator="median")
        report = evaluation_report(spec, items, [saved(run, 5, spec, items, predictions)], run.evaluations)
        assert report is not None
        assert report.table is not None
        return list(report.table.rows)

    def test_a_worse_checkpoint_scored_alone_does_not_replace_it(self) -> None:
        run, items = a_run(), [an_item("a", 90.0)]
        spec, other = a_spec(), a_spec(limit=1)
        errors = {5: 10.0, 10: 20.0, 15: 5.0}
        steps = []
        for step, error in errors.items():
            saved(run, step, other, items, predictions_of(items, [90.0]))  # exact, but under another spec
            one = saved(run, step, spec, items, predictions_of(items, [90.0 + error]))
            report = evaluation_report(spec, items, [one], run.evaluations)
            assert report is not None
            assert report.table is not None
            assert list(report.points) == [step]
            steps.append((report.table.step, report.table.rows[0][4]))

        assert steps == [(5, 10.0), (5, 10.0), (15, 5.0)]

    def test_a_row_has_the_answer_its_error_and_its_interval(self) -> None:
        items = [an_item("a", 90.0, "A lamp\n\n of brass"), an_item("b", 60.0), an_item("c", 70.0)]
        predictions = [
            Prediction("a", "100", 100.0, a_distribution(100.0)),
            Prediction("b", "none", None, a_distribution(100.0, no_price=0.9)),
            Prediction("c", "80", 80.0),
        ]

        # One without a price is charged as the train median, $100; of a greedy answer there is no interval.
        assert self.rows(items, predictions) == [
            ("a", "A lamp of brass", 90.0, 100.0, 10.0, 50.0, 150.0),
            ("b", "A lamp", 60.0, None, 40.0, None, None),
            ("c", "A lamp", 70.0, 80.0, 10.0, None, None),
        ]

    def test_descriptions_are_cut_and_rows_limited(self) -> None:
        items = [an_item(str(n), 10.0, "x" * 500) for n in range(600)]

        rows = self.rows(items, predictions_of(items, [20.0] * 600))

        assert [row[0] for row in rows] == [str(n) for n in range(500)]
        assert {row[1] for row in rows} == {"x" * 199 + "…"}

    def test_there_is_none_where_the_answers_are_gone(self) -> None:
        run, items = a_run(), [an_item("a", 90.0)]
        one = saved(run, 5, a_spec(), items, predictions_of(items, [95.0]))
        (path,) = run.folder.glob("evaluations/*/predictions.jsonl")
        path.unlink()
        report = evaluation_report(a_spec(), items, [one], run.evaluations)

        assert report is not None
        assert (report.table, report.points[5]["eval/mae"]) == (None, 5.0)


class TestSend:
    def notes(self, run: Run, report: Report | None = REPORT) -> list[str]:
        notes: list[str] = []
        send(run, report, notes.append, "the pick stands")
        return notes

    def test_off_nothing_is_sent(self) -> None:
        run = a_run("off")

        assert self.notes(run) == []
        assert {path.name for path in run.folder.iterdir()} == {"config.yaml", "run.json"}

    def test_nothing_new_starts_nothing(self) -> None:
        run = a_run()

        assert self.notes(run, Report("5bec", {}, {})) == self.notes(run, None) == []
        assert not (run.folder / "wandb").exists()

    def test_a_run_that_was_not_tracked_before_gets_a_w_and_b_run_that_is_recorded(self) -> None:
        run = a_run(tracking_id=None)

        assert self.notes(run) == self.notes(run) == []

        (only,) = sessions(run.folder)
        assert only.identity == ("lamps", "mine", run.facts()["tracking_id"])

    def test_a_training_in_progress_is_not_disturbed(self) -> None:
        run = a_run()

        with run.lock():
            assert self.notes(run) == [
                "not on W&B yet, where mine is being trained: do this again when training is over"
            ]
        assert not (run.folder / "wandb").exists()

    def test_another_spec_is_said_to_be_left_out(self) -> None:
        run = a_run()
        self.notes(run)

        assert self.notes(run, Report("07e4", {10: {"eval/mae": 40.0}}, {})) == [
            "not on W&B: eval/mae began there under another spec, which is not comparable"
        ]
        assert len(sessions(run.folder)) == 1

    @pytest.mark.parametrize(
        ("name", "content", "why"),
        [
            ("tracking.jsonl", "nonsense\n", "not a JSON object (runs/mine/tracking.jsonl, line 1)"),
            ("tracking.jsonl", "{}\n", "'run'"),
            ("config.yaml", "a: 1\n", "a is not a section (runs/mine/config.yaml, line 1)"),
        ],
    )
    def test_what_is_damaged_is_one_note(self, name: str, content: str, why: str) -> None:
        run = a_run()
        (run.folder / name).write_text(content)

        assert self.notes(run) == [f"tracking stopped, the pick stands: {why}"]

    def test_a_dead_network_is_one_note_and_the_next_attempt_sends_it_all(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.stores.wandb._PATIENCE", 1.0)
        monkeypatch.setenv("WANDB_API_KEY", "0a1b2c3d4e" * 4)
        run = a_run("online")

        (note,) = self.notes(run)

        assert note.startswith("tracking stopped, the pick stands: ")
        assert not (run.folder / "tracking.jsonl").exists()


def test_the_answer_comes_before_w_and_b_and_the_exit_code_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    # The fake notes where it was called: after the answer. What the Hub refused is told all the same.
    run = a_run()
    said: list[str] = []
    monkeypatch.setattr("pricer.commands.parts.wandb_report.send", lambda *args: said.append(f"sent {args[-1]}"))
    monkeypatch.setattr("pricer.views.terminal_pick.picked", lambda result, as_json, confirmed: said.append("picked"))
    picked = type(
        "Picked", (), {"run": run, "selection": _selection(), "problem": HubError("refused"), "unscored": ()}
    )()
    monkeypatch.setattr("pricer.commands.pick.pick", lambda *_: picked)

    result = typer.testing.CliRunner().invoke(app, ["pick", "--json"])

    assert said == ["picked", "sent the pick stands"]
    assert (result.exit_code, result.stderr) == (1, "error: refused\n")


def _selection() -> object:
    from pricer.core.selection import select

    return select([an_evaluation(5, 50.0)], "mae")


@pytest.mark.parametrize(
    ("overrides", "mode"), [([], "off"), (["tracking.mode=offline"], "offline"), (["tracking.project=mine"], "off")]
)
def test_a_repository_does_not_decide_what_this_machine_shows(pushed: Repo, overrides: list[str], mode: str) -> None:
    run = open_hub_run("ann/prices", GivenConfig(None, overrides), Listener().note)

    assert run.config().tracking.mode == mode


def test_the_w_and_b_run_of_an_attached_repository_stays_the_same(pushed: Repo) -> None:
    run = open_hub_run("ann/prices", GivenConfig(None, ["tracking.mode=offline"]), Listener().note)
    send(run, REPORT, pytest.fail, "")
    tracking_id = run.facts()["tracking_id"]

    again = open_hub_run("ann/prices", GivenConfig(None, []), Listener().note)

    assert (again.facts()["tracking_id"], again.config().tracking.mode) == (tracking_id, "offline")
