"""Prices in cents, in kWh and in hundreds of thousands of euros: the unit is right from the file to the report."""

import json
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from pricer.stores.runs import Run, runs_here
from tests.repositories import Cli

SMALL = (
    "--set adapter.r=4 --set train.batch_size=40 --set train.epochs=0.5 --set train.checkpoint_every=1 "
    "--set train.val_items=4 --set data.val_limit=12 --set data.test_limit=12 --set data.val_fraction=0.2 "
    "--set data.test_fraction=0.2"
)


@dataclass(frozen=True, slots=True)
class Market:
    """A data set: its unit, its prices, and what is expected of a run on it."""

    unit: str
    prices: list[float]
    decimals: int
    question: str
    lead: str
    mark: str
    """What every amount has: the sign before its number, or the unit after it."""


N = 160
MARKETS = {
    "cents": Market(
        unit="$",
        prices=[0.02 + 0.003 * number for number in range(N)],  # $0.02 to $0.50
        decimals=2,
        question="What does this cost to the nearest cent?",
        lead="Price in $0.01:",
        mark="$0.",
    ),
    "energy": Market(
        unit="kWh",
        prices=[3.0 + 0.5 * number for number in range(N)],  # 3 to 82.5 kWh, the lower quartile 23
        decimals=1,
        question="How many kWh is this, to the nearest 0.1?",
        lead="Value in 0.1 kWh:",
        mark=" kWh",
    ),
    "houses": Market(
        unit="€",
        prices=[120_000.0 + 2_500.0 * number for number in range(N)],  # a median of €318,750
        decimals=-2,
        question="What does this cost to the nearest €100?",
        lead="Price in €100:",
        mark="€",
    ),
}


def run_through(name: str) -> tuple[Market, Run, str]:
    """Train, score, pick and report. Returns all that was printed."""
    market = MARKETS[name]
    rows = [{"description": f"A thing of size {n % 17}, weight {n}", "price": p} for n, p in enumerate(market.prices)]
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    # The prices in kWh have a lower quartile above 10, so whole units would do.
    stated = {"data.unit": market.unit} | ({"data.decimals": 1} if name == "energy" else {})
    settings = " ".join(f"--set {key}={value}" for key, value in stated.items())
    commands = [
        f"train --run {name} --set data.source=items.jsonl {settings} {SMALL}",
        "eval --all-checkpoints",
        "pick --confirm",
        "eval --checkpoint best --split test",
        "report",
        "runs",
    ]
    printed = ""
    for command in commands:
        result = Cli(*command.split())
        assert result.code == 0, result.err
        printed += result.out + result.err
    (run,) = runs_here()
    return market, run, printed


@pytest.mark.parametrize("name", MARKETS)
def test_the_unit_is_right_from_the_file_to_the_report(name: str) -> None:
    market, run, printed = run_through(name)

    config = yaml.safe_load((run.folder / "config.yaml").read_text())
    assert (config["data"]["unit"], config["data"]["decimals"]) == (market.unit, market.decimals)
    assert (config["prompt"]["question"], config["prompt"]["lead"]) == (market.question, market.lead)
    assert (config["prompt"]["price_format"], config["eval"]["hit_error"]) == ("padded", None)
    page = (run.folder / "report.html").read_text()
    page = page[: page.index("<script>")]  # plotly.js comes after it
    for text in (printed, page):
        assert market.mark in text
        if market.unit != "$":
            assert "$" not in text
        assert "dollar" not in text
    assert "within 20 % of the price" in page
    lowest, highest = min(market.prices), max(market.prices)
    for evaluation in run.evaluations.all():
        assert (evaluation.spec.unit, evaluation.spec.decimals) == (market.unit, market.decimals)
        assert lowest < evaluation.spec.fallback < highest
    prediction = Cli("predict", "--json", "A thing of size 3, weight 40").json()
    assert prediction["unit"] == market.unit
    # Two steps teach nothing, but every answer is a whole number of steps that fits into the digits.
    for end in prediction["raw_interval_80"]:
        steps = end * 10.0**market.decimals
        assert steps == pytest.approx(round(steps))
        assert steps < 10 ** config["prompt"]["price_width"]


def test_prices_that_would_be_written_as_zero_are_refused_before_anything_is_made() -> None:
    rows = [{"description": f"A part of size {n}", "price": 0.01 * (n + 1)} for n in range(N)]
    Path("parts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")

    command = "train --set data.source=parts.jsonl --set data.decimals=0 --set data.train_limit=60"

    result = Cli(*command.split())

    assert result.code == 1
    assert "of 60 training prices would be written as 0, the lowest of them $0.0" in result.err
    assert "hint: data.decimals: 2, or data.min_price: 0.51 leaves them out" in result.err
    assert not Path("runs").exists()


def test_prices_with_many_decimals_are_shown_with_two_and_the_reason_for_their_decimals_is_said_once() -> None:
    rows = [{"description": f"A part of size {n}", "price": (n + 1) / 7} for n in range(N)]
    Path("parts.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    Path("parts.yaml").write_text("data: {source: parts.jsonl}\n", encoding="utf-8")

    prepared, planned = Cli("data", "parts.yaml"), Cli("train", "parts.yaml", "--dry-run")

    assert "Prices are $0.14 to $22.86; " in prepared.out  # 1/7 and 160/7
    assert "data.decimals: 2, because whole units" in prepared.out
    assert (planned.out + planned.err).count("whole units would change the lower quartile") == 1
