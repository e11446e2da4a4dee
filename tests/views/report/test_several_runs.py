"""Several runs over each other: what can be compared is, and what cannot is refused."""

import re
from dataclasses import replace

import pytest

from pricer.views.report.page import comparison_page
from pricer.views.report.values import RunReport, TrainingLog, same_items


@pytest.fixture
def other(report: RunReport) -> RunReport:
    """The same run under another name, with another learning rate."""
    settings = tuple((name, "0.5" if name == "train.learning_rate" else value) for name, value in report.settings)
    return replace(report, name="chairs", settings=settings)


def test_runs_are_laid_over_each_other_in_their_own_colours(report: RunReport, other: RunReport) -> None:
    page, charts = comparison_page([report, other])

    assert [chart.name for chart in charts] == [
        "training-loss",
        "learning-rate",
        "tokens-per-second",
        "validation-error",
    ]
    lines = [trace for trace in charts[0].traces if trace["mode"] == "lines" and trace.get("visible", True)]
    assert [(line["name"], line["line"]["color"]) for line in lines] == [("lamps", "blue"), ("chairs", "purple")]
    assert b"<h1>2 runs</h1>" in page


def test_only_the_settings_that_differ_are_side_by_side(report: RunReport, other: RunReport) -> None:
    page, _ = comparison_page([report, other])

    table = page.decode().split("Settings that differ")[1].split("</section>")[0]
    assert re.findall(r"<td.*?>(.*?)</td>", table) == ["train.learning_rate", "0.0001", "0.5"]


def test_errors_on_other_items_are_named_and_not_drawn(report: RunReport, other: RunReport) -> None:
    assert other.held_out is not None
    elsewhere = replace(other, held_out=replace(other.held_out, prices=(1.0, 2.0)))

    page, charts = comparison_page([report, elsewhere])

    assert [trace["name"] for trace in charts[-1].traces if "name" in trace] == ["lamps"]
    assert b"chairs was scored on other items than lamps: the two errors cannot be compared" in page


def test_the_same_items_are_known_by_their_prices_whatever_the_training_items(
    report: RunReport, other: RunReport
) -> None:
    held_out = other.held_out
    assert held_out is not None
    spec = replace(held_out.chosen.spec, data_fingerprint="trained on fewer")
    fewer = replace(other, held_out=replace(held_out, chosen=replace(held_out.chosen, spec=spec)))

    assert same_items([report, fewer]) == ([report, fewer], [])


def test_runs_without_evaluations_are_compared_by_their_losses(report: RunReport, other: RunReport) -> None:
    _, charts = comparison_page([replace(report, held_out=None), replace(other, held_out=None)])

    assert [chart.name for chart in charts] == ["training-loss", "learning-rate", "tokens-per-second"]


def test_runs_without_anything_have_a_page(report: RunReport, other: RunReport) -> None:
    empty = [replace(one, held_out=None, tested=None, training=TrainingLog()) for one in (report, other)]

    page, charts = comparison_page(empty)

    assert charts == []
    assert b"<h2>Side by side</h2>" in page
