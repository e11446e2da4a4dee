"""`pricer report` on the command line: what it writes, what it says, and what it refuses."""

import builtins
from pathlib import Path
from typing import Any

import pytest

from pricer.stores.runs import Run
from tests.repositories import Cli
from tests.views.report.conftest import chromium
from tests.views.report.runs import a_trained_run

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_newest_run_is_reported_into_its_folder(whole: Run) -> None:
    result = Cli("report")

    assert (result.code, result.out, result.err) == (0, "runs/lamps/report.html\n", "")
    assert (whole.folder / "report.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_a_run_can_be_named_either_way_and_the_page_put_elsewhere(whole: Run) -> None:
    assert Cli("report", "--run", "lamps", "--output", "one.html").out == "one.html\n"
    assert Cli("report", "lamps", "--output", "two.html").out == "two.html\n"
    assert Path("one.html").read_bytes() == Path("two.html").read_bytes()
    assert not (whole.folder / "report.html").exists()


def test_several_runs_are_laid_over_each_other(whole: Run, items: Path) -> None:
    a_trained_run(items, "chairs")

    result = Cli("report", "lamps", "chairs")

    assert (result.code, result.out) == (0, "runs/comparison.html\n")
    assert result.err == ("chairs: No checkpoint has been evaluated yet: pricer eval --all-checkpoints --run chairs\n")
    assert "<h1>2 runs</h1>" in Path("runs/comparison.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lamps", "--run", "lamps"], "name the runs, or give --run, not both"),
        (["lamps", "lamps"], "name each run once"),
    ],
)
def test_wrong_usage(whole: Run, arguments: list[str], message: str) -> None:
    result = Cli("report", *arguments)

    assert result.code == 2
    assert message in result.err


def test_an_unknown_run_is_named_with_those_there_are(whole: Run) -> None:
    result = Cli("report", "lamps", "tables")

    assert (result.code, result.out) == (1, "")
    assert result.err == "error: there is no run tables\n hint: runs here: lamps\n"


def test_a_folder_is_no_place_for_the_page(whole: Run) -> None:
    result = Cli("report", "--output", "runs")

    assert result.err == "error: runs is a folder\n hint: --output runs/report.html\n"


def test_without_kaleido_the_page_is_written_and_the_error_says_what_to_install(
    whole: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name.split(".", maxsplit=1)[0] == "kaleido":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)

    result = Cli("report", "--png")

    assert (result.code, result.out) == (1, "runs/lamps/report.html\n")
    assert result.err == ('error: pictures need kaleido, which is not installed\n hint: pip install "pricer[png]"\n')


@pytest.mark.parametrize(
    ("browser", "error"),
    [
        ("/nowhere", "pictures are drawn by Chrome or Chromium, and there is none"),
        ("/bin/false", "/bin/false did not draw the pictures: The browser seemed to close immediately after starting."),
    ],
)
def test_without_a_browser_the_page_is_written_and_the_error_says_so(
    whole: Run, monkeypatch: pytest.MonkeyPatch, browser: str, error: str
) -> None:
    monkeypatch.setenv("BROWSER_PATH", browser)

    result = Cli("report", "--png")

    assert (result.code, result.out) == (1, "runs/lamps/report.html\n")
    assert result.err.startswith(f"error: {error}\n hint: ")
    assert (whole.folder / "report.html").is_file()


def test_pictures_lie_beside_the_page(whole: Run) -> None:
    chromium()

    result = Cli("report", "--png")

    assert (result.code, result.err) == (0, "")
    names = [
        "training-loss",
        "validation-error",
        "difference-to-best",
        "overtraining",
        "predicted-against-true",
        "error-by-price",
        "coverage",
    ]
    assert result.out.splitlines() == ["runs/lamps/report.html", *(f"runs/lamps/report/{name}.png" for name in names)]
    assert {(whole.folder / "report" / f"{name}.png").read_bytes()[:8] for name in names} == {PNG}
