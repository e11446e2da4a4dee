"""The page as text: what is in it, in each state of a run, and that it is whole by itself."""

import hashlib
import json
import re
from base64 import b64encode
from dataclasses import replace

from pricer.views.report.page import run_page
from pricer.views.report.values import RunReport, TrainingLog
from tests.views.report.runs import CATEGORY, HOSTILE


def text_of(report: RunReport) -> str:
    return run_page(report)[0].decode()


def headings(page: str) -> list[str]:
    return re.findall(r"<h2>(.*?)</h2>", page)


def tiles(page: str) -> list[tuple[str, str]]:
    return re.findall(r'class="tile [a-z]*"><h3>(.*?)</h3><p class="number">(.*?)<', page)


def test_a_whole_run_has_everything(report: RunReport) -> None:
    page = text_of(report)

    assert headings(page) == [
        "The number to publish",
        "Training",
        "Validation",
        "Over-training",
        "Behind the number",
        "By true price and category",
        "Worst items",
        "The run",
    ]
    assert [name for name, _ in tiles(page)] == ["Test error", "Validation error", "Compared", "Hits", "Training loss"]
    by_price = page[page.index("<h2>By true price and category</h2>") :]
    assert "No method can promise it for a band of the true price" in by_price
    assert re.findall(r"<th[^>]*>(in \d+%)</th>", by_price) == ["in 80%", "in 95%"] * 2
    # Each of the five bands and of the categories has both shares, with their intervals.
    assert re.search(r"<td[^>]*>\d+\.\d% \(\d+\.\d to \d+\.\d\)</td>", by_price)


def test_the_number_to_publish_stands_apart_from_the_one_that_chose(report: RunReport) -> None:
    assert report.tested is not None
    assert report.held_out is not None
    page = text_of(report)

    test, val = (e.metric("mae").value for e in (report.tested.evaluation, report.held_out.chosen))
    assert test != val
    assert tiles(page)[:2] == [("Test error", f"${test:,.2f}"), ("Validation error", f"${val:,.2f}")]
    assert "that took part in the choice: not the number to publish" in page


def test_the_page_counts_how_often_the_test_split_was_looked_at(report: RunReport) -> None:
    assert report.tested is not None
    again = replace(report, tested=replace(report.tested, other_looks=("step-000020", "step-000020", "step-000060")))

    assert "step-000040 on 182 test items, looked at once: the number to publish" in text_of(report)
    # Two looks at step 20, one at step 60, and this one.
    assert (
        "step-000040 on 182 test items, looked at 4 times, also for step-000020, step-000060: not an untouched number"
    ) in text_of(again)


def test_without_the_test_split_the_command_for_it_is_named(report: RunReport) -> None:
    page = text_of(replace(report, tested=None))

    assert tiles(page)[0] == ("Test error", "not scored yet")
    assert "pricer pick --confirm --run lamps" in page
    assert "The number to publish" not in headings(page)


def test_a_run_in_training_has_its_curves_and_says_how_far_it_is(report: RunReport) -> None:
    early = replace(report, held_out=None, tested=None, details=None, status="epoch 1.20 of 3: still training")

    content, charts = run_page(early)
    page = content.decode()

    assert headings(page) == ["Training", "Over-training", "The run"]
    assert '<p class="subtitle">epoch 1.20 of 3: still training</p>' in page
    assert [chart.name for chart in charts][-1] == "overtraining"


def test_a_run_that_has_logged_nothing_has_a_page(report: RunReport) -> None:
    content, charts = run_page(
        replace(report, held_out=None, tested=None, details=None, training=TrainingLog(), notes=("not <yet>",))
    )
    page = content.decode()

    assert (headings(page), charts) == (["The run"], [])
    assert '<p class="notice">not &lt;yet&gt;</p>' in page


def test_a_run_that_was_trained_elsewhere_has_its_errors(report: RunReport) -> None:
    page = text_of(replace(report, training=TrainingLog()))

    assert "Training" not in headings(page)
    assert "Validation" in headings(page)


def test_without_the_data_there_are_errors_but_no_descriptions(report: RunReport) -> None:
    assert report.details is not None
    breakdown = replace(report.details.breakdown, coverage=())

    content, charts = run_page(replace(report, details=replace(report.details, texts=None, breakdown=breakdown)))
    page = content.decode()

    assert "(the data could not be read)" in page
    assert "A lamp of" not in page
    assert "coverage" not in [chart.name for chart in charts]


def test_the_page_loads_nothing_and_runs_only_its_own_two_scripts(report: RunReport) -> None:
    page = text_of(report)

    policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="(.*?)">', page)
    scripts = re.findall(r"<script>(.*?)</script>", page, flags=re.DOTALL)
    digests = [f"'sha256-{b64encode(hashlib.sha256(script.encode()).digest()).decode()}'" for script in scripts]
    # But for the script that is plotly, and what is text: the data of the charts, and tables.
    text = r'<table.*?</table>|<script type="application/json".*?</script>'
    outside = re.sub(text, "", page.replace(scripts[0], ""), flags=re.DOTALL)
    assert len(scripts) == 2
    assert policy == [
        f"default-src 'none'; script-src {' '.join(digests)}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'none'; base-uri 'none'; form-action 'none'"
    ]
    assert re.findall(r"""(?:src|href)\s*=|@import|url\(""", outside) == []


def test_no_text_becomes_markup(report: RunReport) -> None:
    page = text_of(report)
    body = page[page.index("<main>") : page.index('<script type="application/json"')]

    assert set(re.findall(r"<([a-z0-9]+)", body)) <= {
        *("main", "header", "section", "h1", "h2", "h3", "p", "small", "div", "figure", "figcaption", "label", "input"),
        *("output", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "noscript", "ul", "li"),
    }
    assert not any(text in page for text in (*HOSTILE[:5], CATEGORY))
    assert "&lt;img src=x onerror=document.title=&#39;taken&#39;&gt; What does this cost?" in body
    assert "train &lt;i&gt;median&lt;/i&gt;" in body


def test_the_data_of_the_charts_are_json(report: RunReport) -> None:
    content, charts = run_page(report)
    page = content.decode()
    (text,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.DOTALL)

    data = json.loads(text)

    assert list(data["charts"]) == [chart.name for chart in charts]
    assert "<" not in text
    # 60 values in 8 bytes each are 640 characters of base64.
    assert len(data["charts"]["training-loss"]["data"][1]["y"]["bdata"]) == 640
