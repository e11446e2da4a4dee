"""The page in a real browser: it asks nobody, obeys no text, follows the colours, and fits a phone."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Page

from pricer.views.report.page import comparison_page
from pricer.views.report.values import RunReport
from tests.views.report.conftest import Opened
from tests.views.report.runs import CATEGORY, HOSTILE


def evaluated(page: Page, script: str, argument: Any = None) -> Any:
    """What a function of JavaScript returns in the page; `chart` is the element of a chart by its name."""
    return page.evaluate(
        f"(argument) => {{ const chart = (name) => document.querySelector(`[data-chart=${{name}}]`); {script} }}",
        argument,
    )


def settle_optimizer(page: Page) -> None:
    """Wait until what was asked for is drawn. (Playwright's own waiting evaluates text, which the page forbids.)"""
    page.evaluate(
        "new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => setTimeout(done, 30))))"
    )


def test_it_opens_without_a_word_and_asks_for_nothing(opened: Opened) -> None:
    drawn = evaluated(opened.page, "return [...document.querySelectorAll('.plot')].map((e) => !!e._fullLayout)")

    assert drawn
    assert all(drawn)
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith(("data:", "blob:"))] == []


def test_what_the_page_might_ask_for_is_refused(opened: Opened) -> None:
    answer = evaluated(
        opened.page,
        """return new Promise((resolve) => {
            document.addEventListener("securitypolicyviolation", (event) => resolve(event.effectiveDirective));
            const sent = () => setTimeout(() => resolve("nobody refused"), 1000);
            fetch("http://127.0.0.1:9/").then(sent, sent);
        })""",
    )

    assert answer == "connect-src"


def test_the_slider_smooths_the_curve(fresh: Opened) -> None:
    curve = "return Array.from(chart('training-loss')._fullData.find((t) => t.meta?.role === 'smoothed').y)"

    def at(weight: str) -> list[float]:
        fresh.page.locator("#smoothing").fill(weight)
        settle_optimizer(fresh.page)
        assert fresh.page.locator("#smoothing-value").inner_text() == f"{float(weight):.2f}"
        found: list[float] = evaluated(fresh.page, curve)
        return found

    raw, half = at("0"), at("0.5")

    assert raw[:3] == [3.0, 2.0, 1 + 2 / 3]
    # 3; (3/4 · … : weights 1 and 1/2 make (2 + 1.5)/1.5 = 7/3; weights 1, 1/2 and 1/4 make (5/3 + 1 + 3/4)/1.75.
    assert [round(value, 9) for value in half[:3]] == [3.0, round(7 / 3, 9), round((5 / 3 + 1 + 3 / 4) / 1.75, 9)]


def test_what_texts_say_stays_text(opened: Opened) -> None:
    table = opened.page.locator("section", has=opened.page.get_by_role("heading", name="Worst items"))
    said = table.locator("tbody td:last-child").all_inner_texts()

    # Those of the test split come first: they are $900 off.
    hostile = [text for text in said if any(mark in text for mark in ("<", "&lt;", "%{x}"))]
    assert hostile
    assert {text.replace("�", "\u202e") for text in hostile} <= set(HOSTILE)
    assert opened.page.get_by_role("cell", name=CATEGORY, exact=True).count() == 1
    assert opened.page.locator("main :is(script, img, svg[onload], a, b, u)").count() == 0
    assert opened.page.title() == "lamps · pricer"


def test_boxes_of_the_chart_show_markup_as_text(opened: Opened) -> None:
    boxes = evaluated(
        opened.page,
        """return (async () => {
            const place = chart("predicted-against-true"), boxes = [];
            for (const [curveNumber, trace] of place._fullData.entries()) {
                for (const [pointNumber, text] of Array.from(trace.text ?? []).entries()) {
                    if (text.includes("watts")) continue;
                    Plotly.Fx.hover(place, [{ curveNumber, pointNumber }]);
                    await new Promise((done) => setTimeout(done, 80));  // plotly draws no two boxes at once
                    const layer = place.querySelector(".hoverlayer");
                    boxes.push([layer.textContent, layer.querySelectorAll("a, image").length]);
                }
            }
            return boxes;
        })()""",
    )

    assert len(boxes) >= 5
    assert [links for _, links in boxes if links] == []
    assert all("true $" in text and "predicted $" in text for text, _ in boxes)
    starts = [description.split()[0] for description in HOSTILE]
    assert all(any(text.startswith(start[:5]) for start in starts) for text, _ in boxes)
    assert opened.page.title() == "lamps · pricer"


def test_the_rule_of_thumb_is_shown_on_request_and_colours_follow_the_mode_while_the_page_is_open(
    fresh: Opened,
) -> None:
    look = """const { _fullLayout: layout, _fullData: traces } = chart("training-loss");
        return [layout.paper_bgcolor, layout.font.color, traces.find((t) => t.meta?.role === "smoothed").line.color,
            getComputedStyle(document.body).backgroundColor];"""

    rule = "return chart('training-loss')._fullData.some((t) => t.visible === true && t.meta?.role === 'rule')"
    light = evaluated(fresh.page, look)
    rule_before = evaluated(fresh.page, rule)
    fresh.page.locator("#rule").check()
    fresh.page.emulate_media(color_scheme="dark")
    settle_optimizer(fresh.page)
    dark = evaluated(fresh.page, look)

    assert light == ["#ffffff", "#1b2430", "#2867d6", "rgb(244, 246, 249)"]
    assert dark == ["#171d26", "#e4e9f0", "#6ea8ff", "rgb(15, 20, 27)"]
    # What was asked for stays.
    assert (rule_before, evaluated(fresh.page, rule)) == (False, True)


def test_it_fits_a_phone(on_phone: Opened) -> None:
    widths = evaluated(
        on_phone.page,
        """const parts = [...document.querySelectorAll(".plot, .tile, figure")];
        const right = Math.max(...parts.map((part) => part.getBoundingClientRect().right));
        return [document.documentElement.scrollWidth, right, chart("training-loss")._fullLayout.dragmode];""",
    )

    assert widths[0] == 390
    assert widths[1] <= 390
    assert widths[2] is False  # a finger that drags scrolls the page
    assert on_phone.said == []


def test_on_a_phone_a_wide_table_scrolls_by_itself_and_its_first_column_stays(on_phone: Opened) -> None:
    section = on_phone.page.locator("section", has=on_phone.page.get_by_role("heading", name="Validation", exact=True))
    left, scrolled = section.locator(".frame").evaluate(
        """(frame) => {
            const first = () => frame.querySelector("tbody td").getBoundingClientRect().left;
            const before = first();
            frame.scrollLeft = frame.scrollWidth;
            return [first() - before, frame.scrollLeft];
        }"""
    )

    assert left == 0
    assert scrolled > 0
    assert evaluated(on_phone.page, "return document.documentElement.scrollWidth") == 390


BOXES = """const box = (part) => { const r = part.getBoundingClientRect(); return [r.left, r.top, r.right, r.bottom]; };
    return [...document.querySelectorAll(".plot")].map((plot) => ({
        plot: box(plot),
        legends: [...plot.querySelectorAll(".legend .legendtext")].map(box),
        tools: [...plot.querySelectorAll(".modebar-btn")].map(box).filter(([left, , right]) => right > left),
    }));"""


@pytest.mark.parametrize("is_phone", [True, False])
def test_at_390_pixels_every_legend_is_inside_its_chart_however_long_a_name_is(
    open_page: Callable[..., Opened], report: RunReport, tmp_path: Path, is_phone: bool
) -> None:
    names = "a run with a name of so many words that no phone has room for it", "x" * 70 + "&<b>"
    path = tmp_path / "comparison.html"
    path.write_bytes(comparison_page([replace(report, name=name) for name in names])[0])

    found = evaluated(open_page(path, 390, is_phone=is_phone).page, BOXES)

    legends = [(legend, chart["plot"]) for chart in found for legend in chart["legends"]]
    # Two charts have a legend: the loss and the error, each with a name for each run.
    assert len(legends) >= 4
    assert [legend for legend, plot in legends if legend[0] < plot[0] or legend[2] > plot[2]] == []
    assert [chart["tools"] for chart in found if chart["tools"]] == []


@pytest.mark.parametrize("width", [600, 1280])
def test_toolbars_lie_over_no_legend(open_page: Callable[..., Opened], page_file: Path, width: int) -> None:
    found = evaluated(open_page(page_file, width, is_phone=False).page, BOXES)

    assert all(chart["tools"] for chart in found)
    over = [
        (legend, tool)
        for chart in found
        for legend in chart["legends"]
        for tool in chart["tools"]
        if legend[0] < tool[2] and tool[0] < legend[2] and legend[1] < tool[3] and tool[1] < legend[3]
    ]
    assert over == []
