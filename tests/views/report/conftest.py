"""A run for the reports of all tests, and a browser that opens them."""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from pricer.commands.parts.report_data import load_report
from pricer.stores.runs import Run
from pricer.views.report.page import run_page
from pricer.views.report.values import RunReport
from tests.repositories import use_cache
from tests.views.report.runs import a_whole_run, write_items

_BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="session")
def _project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        use_cache(folder / ".huggingface", patch)
        patch.chdir(folder)
        write_items(folder / "items.jsonl")
        a_whole_run(folder / "items.jsonl")
    return folder


@pytest.fixture
def whole(_project: Path, tmp_path: Path) -> Run:
    """A run that is trained, scored, picked and tested, in runs/ of the current folder; each test has its own copy."""
    shutil.copytree(_project / "runs", tmp_path / "runs")
    return Run(Path("runs/lamps"))


@pytest.fixture
def items(_project: Path) -> Path:
    """The file of its items."""
    return _project / "items.jsonl"


@pytest.fixture(scope="session")
def report(_project: Path, tmp_path_factory: pytest.TempPathFactory) -> RunReport:
    """What a report shows of that run."""
    with pytest.MonkeyPatch.context() as patch:
        use_cache(tmp_path_factory.mktemp("cache"), patch)
        return load_report(Run(_project / "runs" / "lamps"))


@pytest.fixture(scope="session")
def page_file(report: RunReport, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its page."""
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_bytes(run_page(report)[0])
    return path


def chromium() -> str:
    """Where a browser is. Without one a test is skipped, but in CI, where it would never be missed, it fails."""
    if found := next(filter(None, map(shutil.which, _BROWSERS)), None):
        return found
    missing = "no Chromium to open the page with: apt-get install chromium"
    if os.environ.get("CI") == "true":
        pytest.fail(missing)
    pytest.skip(missing)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """One browser for all tests. As root, Chromium has no sandbox."""
    path = chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, what it said on its console, what went wrong in it, and what it asked for besides itself."""

    page: Page
    said: list[str]
    asked: list[str]


@pytest.fixture(scope="session")
def opened(browser: Browser, page_file: Path) -> Iterator[Opened]:
    """The page of the run, once its charts are drawn: one for all tests that only look at it."""
    yield (window := _open(browser, page_file, 1280, is_phone=False))
    window.page.context.close()


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Opened]]:
    """Opens a file in a window of its own: `open_page(path, width, is_phone=False)`."""
    windows: list[Opened] = []

    def opener(path: Path, width: int, *, is_phone: bool) -> Opened:
        windows.append(_open(browser, path, width, is_phone=is_phone))
        return windows[-1]

    yield opener
    for window in windows:
        window.page.context.close()


@pytest.fixture
def fresh(open_page: Callable[..., Opened], page_file: Path) -> Opened:
    """The page of the run in a window of its own, for a test that changes it."""
    return open_page(page_file, 1280, is_phone=False)


@pytest.fixture
def on_phone(open_page: Callable[..., Opened], page_file: Path) -> Opened:
    """The same on a phone."""
    return open_page(page_file, 390, is_phone=True)


def _open(browser: Browser, file: Path, width: int, *, is_phone: bool) -> Opened:
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme="light", is_mobile=is_phone, has_touch=is_phone
    )
    window = Opened(context.new_page(), [], [])
    window.page.on("console", lambda message: window.said.append(message.text))
    window.page.on("pageerror", lambda error: window.said.append(str(error)))
    window.page.on("request", lambda request: window.asked.append(request.url))
    window.page.goto(file.as_uri())
    window.page.wait_for_selector("html[data-drawn]")
    window.asked.remove(file.as_uri())
    return window
