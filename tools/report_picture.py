"""docs/report.png: parts of the report of a real run, as a browser shows them.

    python -m tools.report_picture runs/quickstart/report.html

Needs `pip install -e ".[dev]"` and Chromium or Chrome.
"""

import shutil
import sys
from pathlib import Path

from playwright.sync_api import sync_playwright

PICTURE = Path(__file__).parent.parent / "docs" / "report.png"
# Of the whole page, the charts that show the choice and what it is worth; their texts stay as they are.
SHOWN = ("Error on validation items", "Predicted against true price", "Error by price", "How far the intervals hold")
HIDE_THE_REST = """shown => {
    const text = document.body.innerText;
    for (const title of shown) if (!text.includes(title)) throw new Error(`the report has no chart "${title}"`);
    for (const element of document.querySelectorAll("section, section > *, figure, details, .tile, hr"))
        if (element.tagName != "H2" && !shown.some(title => element.innerText.includes(title)))
            element.style.display = "none";
}"""


def main() -> None:
    """Open the report that the command line names, hide all but a few charts, and write the picture."""
    browser_path = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1000, "height": 800})
        page.goto(Path(sys.argv[1]).resolve().as_uri())
        page.wait_for_timeout(3_000)  # plotly draws
        page.evaluate(HIDE_THE_REST, list(SHOWN))
        page.wait_for_timeout(1_000)
        page.screenshot(path=PICTURE, full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
