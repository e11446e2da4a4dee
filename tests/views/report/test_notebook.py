"""The report inside the notebook: the cell that shows it is run, and what it shows is opened in a browser."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Frame

from tests.notebook import output_of, read_notebook, run_cells

# What a notebook server lets pass: 1,000,000 bytes a second over 3 seconds (ServerApp.iopub_data_rate_limit).
LARGEST_OUTPUT = 3_000_000


@pytest.fixture(scope="module")
def shown(page_file: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The HTML that the cell puts into the notebook."""
    folder = tmp_path_factory.mktemp("session")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(folder))
        shutil.copy(page_file, folder / "report.html")
        notebook = read_notebook()
        notebook.cells = [cell for cell in notebook.cells if cell.id == "show"]
        run_cells(notebook, folder)
    return output_of(notebook, "show")


@pytest.fixture
def frame(browser: Browser, shown: str, tmp_path: Path) -> Iterator[tuple[Frame, list[str], list[str]]]:
    """The report in a page around it, once its charts are drawn; what the console said, and what was asked for."""
    file = tmp_path / "output.html"
    file.write_text(f"<!doctype html><meta charset=utf-8><body>{shown}</body>", encoding="utf-8")
    context = browser.new_context(viewport={"width": 1000, "height": 950}, color_scheme="light")
    page = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("request", lambda request: asked.append(request.url))
    page.goto(file.as_uri())
    page.frame_locator("#report").locator("html[data-drawn]").wait_for(state="attached")
    inside = next(frame for frame in page.frames if frame.parent_frame)
    yield inside, said, [url for url in asked if not url.startswith(("file:", "data:", "blob:", "about:"))]
    context.close()


def test_it_is_small_enough_for_a_notebook_server(shown: str, page_file: Path) -> None:
    assert page_file.stat().st_size > LARGEST_OUTPUT  # as it is, it would be dropped
    assert len(shown.encode()) < 0.9 * LARGEST_OUTPUT


def test_all_charts_are_drawn_in_a_frame_of_its_own(frame: tuple[Frame, list[str], list[str]]) -> None:
    inside, said, asked = frame

    drawn = inside.evaluate("[...document.querySelectorAll('.plot')].map((e) => !!e._fullLayout)")

    assert drawn == [True] * 10
    assert inside.title() == "lamps · pricer"
    assert (said, asked) == ([], [])


def test_the_slider_works_in_the_frame(frame: tuple[Frame, list[str], list[str]]) -> None:
    inside, _, _ = frame

    inside.locator("#smoothing").fill("0.5")

    assert inside.locator("#smoothing-value").inner_text() == "0.50"


def test_the_frame_cannot_reach_the_notebook(frame: tuple[Frame, list[str], list[str]]) -> None:
    inside, _, _ = frame

    assert inside.evaluate("window.origin") == "null"
    reached = "(() => { try { return parent.document.title; } catch (error) { return error.name; } })()"
    assert inside.evaluate(reached) == "SecurityError"
