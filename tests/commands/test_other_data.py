"""`pricer eval --data`: a run's checkpoints on items of another file, without the data that they were trained on."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pricer.commands import pick
from pricer.commands.evaluate import evaluate_on_data, evaluate_run
from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
from pricer.commands.parts.report_data import load_summary
from pricer.core.items import Split, hash_place
from pricer.data.preparation import load_items
from pricer.errors import DataError, RunError
from pricer.stores.runs import Run
from tests.commands.conftest import Listener
from tests.data.item_files import jsonl
from tests.loopback_hub import Repo
from tests.repositories import Cli

PRICES = (1200.0, 1500.0, 1900.0, 2500.0)


@pytest.fixture
def lamps() -> str:
    """Four items. A file of this name is the test split of a data set."""
    jsonl(*({"description": f"A lamp of {price:g} watts", "price": price} for price in PRICES))
    Path("items.jsonl").rename("test.jsonl")
    return "test.jsonl"


@pytest.fixture
def elsewhere(monkeypatch: pytest.MonkeyPatch, lamps: str) -> None:
    """A machine that has the lamps, and not the run's own data."""

    def only_lamps(config: Any, *rest: Any) -> Any:
        assert config.source == lamps, "the training data were read"
        return load_items(config, *rest)

    for module in ("setup", "other_data"):
        monkeypatch.setattr(f"pricer.commands.parts.{module}.load_items", only_lamps)


@pytest.mark.usefixtures("elsewhere")
def test_real_checkpoints_are_scored_on_every_item_of_a_file(trained: Path, lamps: str) -> None:
    listener = Listener()

    result = evaluate_on_data(Run(trained), "last", lamps, None, listener)

    assert [e.name for e in result.evaluations] == ["train median", "untuned base", "step-000006"]
    assert {e.metric("mae").n for e in result.evaluations} == {4}
    answers = Run(trained).store.checkpoints()[-1].answers
    assert answers is not None
    assert result.spec.fallback == answers.train_median
    errors = [abs(price - answers.train_median) for price in PRICES]
    assert result.evaluations[0].metric("mae").value == pytest.approx(sum(errors) / 4)
    assert result.breakdown is not None
    assert result.breakdown.calibrated_on is None
    assert "left out, because they need the training items: tf-idf + ridge, base embeddings + ridge" in listener.notes
    # Once more, and everything is read.
    again = Listener()
    assert evaluate_on_data(Run(trained), "last", lamps, None, again).evaluations == result.evaluations
    assert again.done == []


@pytest.mark.usefixtures("elsewhere")
def test_other_data_are_never_mixed_with_the_runs_own(run: Run, lamps: str, monkeypatch: pytest.MonkeyPatch) -> None:
    other = evaluate_on_data(run, "all", lamps, None, Listener())
    with pytest.raises(RunError, match="chosen on the run's own validation items, and not on other data"):
        pick.pick(None, "mae")
    monkeypatch.setattr("pricer.commands.parts.setup.load_items", load_items)
    own = evaluate_run(run, "all", Split.VAL, None, Listener())

    picked = pick.pick(None, "mae").selection

    assert other.spec.split == "data"
    assert {e.candidate.name for e in picked.ranking} == {f"step-{step:06d}" for step in (2, 4, 6)}
    assert picked.spec_fingerprint == own.spec.fingerprint != other.spec.fingerprint
    shown = load_summary(run)
    assert shown.held_out is not None
    assert shown.held_out.chosen.spec == own.spec
    assert shown.tested is None


@pytest.mark.usefixtures("elsewhere")
def test_a_limit_takes_the_first_items_and_beyond_the_file_means_all(run: Run, lamps: str) -> None:
    whole = evaluate_on_data(run, "last", lamps, None, Listener())

    assert evaluate_on_data(run, "last", lamps, 9, Listener()).spec == whole.spec
    assert evaluate_on_data(run, "last", lamps, 3, Listener()).n == 3


@pytest.mark.usefixtures("elsewhere")
def test_rows_that_are_left_out_are_said(run: Run, lamps: str) -> None:
    with Path(lamps).open("a") as file:
        file.write(json.dumps({"description": "A lamp of 1200 watts", "price": 1200}) + "\n")
    listener = Listener()

    assert evaluate_on_data(run, "last", lamps, None, listener).n == 4

    (note,) = (note for note in listener.notes if note.startswith("left out: 1"))
    assert note.startswith("left out: 1 of 5 rows (duplicate 1); ")


@pytest.mark.usefixtures("elsewhere")
def test_prices_that_the_run_cannot_write_are_said(run: Run, lamps: str) -> None:
    with Path(lamps).open("a") as file:
        file.write(json.dumps({"description": "A lamp of pure gold", "price": 20000}) + "\n")
    listener = Listener()

    evaluate_on_data(run, "last", lamps, None, listener)

    # Prices of this run have four digits.
    assert "the highest price that this run can write is $9,999; 1 of these 5 items cost more" in listener.notes


@pytest.mark.usefixtures("elsewhere")
@pytest.mark.parametrize(
    ("known", "trained", "note"),
    [
        (None, None, "whether the run was trained on some of these items is unknown: its data folder is not here"),
        ([], 0, "the run was trained on none of these 4 items"),
        # The third row was left out by data.train_limit.
        (
            [1200.0, 1500.0, 1900.0],
            2,
            "the run was trained on 2 of these 4 items: its error on new items is higher",
        ),
    ],
)
def test_items_that_the_run_was_trained_on_are_counted(
    run: Run, lamps: str, known: list[float] | None, trained: int | None, note: str
) -> None:
    if known is not None:
        # The same words in capitals are the same item.
        places = [hash_place(f"A LAMP of {price:g}  watts") for price in known]
        Path("own").mkdir()
        pq.write_table(pa.table({"place": pa.array(places, pa.float64())}), "own/train.parquet")
    run.record(data_folder="own", items={"train": 2})
    listener = Listener()

    result = evaluate_on_data(run, "last", lamps, None, listener)

    assert result.trained == trained
    assert note in listener.notes


@pytest.mark.usefixtures("scorer")
def test_a_repository_is_scored_on_other_data(pushed: Repo, lamps: str) -> None:
    run = open_hub_run("ann/prices", GivenConfig(None, ()), lambda _: None)

    result = evaluate_on_data(run, "all", lamps, None, Listener())

    assert [e.name for e in result.evaluations[1:]] == ["step-000002", "step-000004", "step-000006"]
    assert result.trained is None


def test_a_file_without_a_usable_item_is_a_data_error(run: Run) -> None:
    source = jsonl({"description": "A lamp", "price": 99.0})
    path = run.folder / "config.yaml"
    path.write_text(path.read_text().replace("max_price: null", "max_price: 50"))

    with pytest.raises(DataError, match=r"items\.jsonl has no item that can be scored"):
        evaluate_on_data(run, "last", source, None, Listener())


@pytest.mark.usefixtures("elsewhere", "trained")
def test_the_command_names_the_data(lamps: str) -> None:
    table = Cli("eval", "--data", lamps)
    record = json.loads(Cli("eval", "--data", lamps, "--json").out)

    assert "quickstart: 4 items of test.jsonl, by the median" in table.out
    assert "pricer pick" not in table.out + table.err
    assert (record["data"], record["trained"], record["n"]) == (lamps, None, 4)
    assert record["evaluations"][-1]["spec"]["split"] == "data"
