"""A metric is one entry of one table: what an added one shows up in, without any other edit."""

import importlib.util
import json
from dataclasses import asdict
from pathlib import Path
from types import ModuleType

import pytest
import typer.testing

import pricer.cli
from pricer.commands.parts.wandb_report import evaluation_report
from pricer.commands.pick import pick
from pricer.config import RunConfig
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import Evaluation, ScoreTable, evaluate
from pricer.core.items import Item
from pricer.core.metrics import METRICS, MetricDefinition
from pricer.stores.evaluations import EvaluationStore
from pricer.stores.records import parse_record
from pricer.stores.runs import Run, create_run
from pricer.views.tables import evaluation_table
from pricer.views.terminal_evaluations import show_evaluations
from tests.builders import SPEC, a_saved_checkpoint, an_item, predictions_of
from tests.views.test_model_card import LOCAL, card_of

ITEMS: list[Item] = [an_item(str(index), 100.0) for index in range(20)]


@pytest.fixture(autouse=True)
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    """The mean of squared errors in the table, which weighs one large error more than many small ones."""
    definition = MetricDefinition(
        name="mse",
        label="MSE",
        meaning="mean squared error",
        unit="number",
        better="lower",
        per_item=lambda table: table.abs_error**2,
    )
    monkeypatch.setitem(METRICS, "mse", definition)


def measured(step: int, answers: list[float]) -> tuple[Evaluation, ScoreTable]:
    _, checkpoint = a_saved_checkpoint(Path("out"), step)
    return evaluate(Candidate.of(checkpoint), SPEC, predictions_of(ITEMS, list(answers)), ITEMS)


def a_run() -> Run:
    """Step 1 is off by $5 everywhere, step 2 by $40 for one item of twenty: its MAE is lower, its MSE is not."""
    run = create_run(RunConfig(), "quickstart", None, {})
    for step, answers in ((1, [105.0] * 20), (2, [140.0] + [100.0] * 19)):
        evaluation, table = measured(step, answers)
        run.store.push(Path("out"), step)
        run.evaluations.add(evaluation.candidate.id or "", evaluation, table)
    return run


def fresh_cli() -> ModuleType:
    """The command line as a new process imports it."""
    spec = importlib.util.spec_from_file_location("fresh_cli", pricer.cli.__file__)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_an_evaluation_measures_it_and_its_json_has_it() -> None:
    evaluation, _ = measured(2, [140.0] + [100.0] * 19)

    assert evaluation.metric("mse").value == 80.0  # 40² / 20
    record = json.dumps(asdict(evaluation))
    assert json.loads(record)["metrics"][-1]["name"] == "mse"
    assert parse_record(Evaluation, record) == evaluation


def test_pick_chooses_and_compares_by_it() -> None:
    a_run()

    by_mae, by_mse = pick(None, "mae").selection, pick(None, "mse").selection

    assert (by_mae.candidate.step, by_mse.candidate.step) == (2, 1)
    assert by_mse.comparison is not None
    assert by_mse.comparison.others[0].worse_by == 55.0  # 80 − 25


def test_the_command_line_offers_it() -> None:
    a_run()
    cli = fresh_cli()
    runner = typer.testing.CliRunner()

    assert "mape|hit_rate|mse>" in runner.invoke(cli.app, ["pick", "--help"]).output.replace(" ", "").replace("\n", "")
    picked = runner.invoke(cli.app, ["pick", "--metric", "mse"])
    assert picked.exit_code == 0
    assert "best: step 1 " in picked.output


def test_the_tables_of_the_terminal_the_report_and_the_card_have_a_column_or_row(
    capsys: pytest.CaptureFixture[str],
) -> None:
    evaluation, _ = measured(2, [140.0] + [100.0] * 19)

    show_evaluations("a table", [evaluation])
    assert "MSE" in capsys.readouterr().out
    assert "MSE" in evaluation_table([evaluation]).columns
    _, checkpoint = a_saved_checkpoint(Path("out"), 2)
    assert "| MSE: mean squared error | 80.000 |" in card_of([evaluation], checkpoint, LOCAL).body


def test_wandb_shows_it() -> None:
    evaluation, _ = measured(2, [140.0] + [100.0] * 19)

    report = evaluation_report(SPEC, ITEMS, [evaluation], EvaluationStore(Path("evaluations")))

    assert report is not None
    assert report.points[2]["eval/mse"] == 80.0
