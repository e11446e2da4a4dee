"""Text that nothing takes for markup."""

import pytest

from pricer.core.metrics import Metric
from pricer.views.report.wording import box, dollars, escaped, figure, half, label, shortened


def test_text_between_tags_and_in_attributes_is_no_markup() -> None:
    assert escaped("<a href=\"x\">'&'</a>") == "&lt;a href=&quot;x&quot;&gt;&#x27;&amp;&#x27;&lt;/a&gt;"


def test_what_plotly_would_make_bold_or_a_link_is_neither() -> None:
    assert label('<b>5" & <a href="x">y</a>') == '&lt;b&gt;5" &amp; &lt;a href="x"&gt;y&lt;/a&gt;'


def test_an_entity_in_a_text_is_shown_as_it_was_written() -> None:
    assert label("&lt;b&gt;") == "&amp;lt;b&amp;gt;"


def test_marks_that_turn_text_around_are_shown_as_unknown() -> None:
    assert escaped("a\u202eb\x1b[0m") == "a�b�[0m"


def test_blanks_that_do_not_break_stay() -> None:
    assert escaped("27\u00a0inch\u3000screen") == "27\u00a0inch\u3000screen"


def test_a_box_has_the_beginning_in_short_lines() -> None:
    lines = box("A lamp <b> " + "of many words " * 20).split("<br>")

    # The mark for more and at most 110 characters before escaping, in lines of 44.
    assert lines[0] == "A lamp &lt;b&gt; of many words of many words of"
    assert [len(line) <= 50 for line in lines] == [True, True, True]
    assert lines[-1].endswith("…")


def test_a_text_without_a_blank_is_cut_into_lines_too() -> None:
    assert [len(line) for line in box("x" * 200).split("<br>")] == [44, 44, 22]


def test_short_is_short_and_on_one_line() -> None:
    assert shortened("a\n b", 5) == "a b"
    assert shortened("abcdef", 5) == "abcd…"


@pytest.mark.parametrize(
    ("name", "value", "interval", "text"),
    [
        ("mae", 1234.5, (1200.0, 1269.0), "$1,234.50 ± 34.50"),
        ("median_ae", 3.0, None, "$3.00"),
        ("r2", None, None, "–"),
        ("rmsle", 0.38, None, "0.380"),
        ("hit_rate", 0.708, (0.6, 0.8), "70.8%"),
    ],
)
def test_metrics_are_shown_in_their_units(
    name: str, value: float | None, interval: tuple[float, float] | None, text: str
) -> None:
    assert figure(Metric(name, value, interval, 10, "lower")) == text


def test_amounts() -> None:
    assert (dollars(-3.5), dollars(None), half(None), half((1.0, 4.0))) == ("−$3.50", "–", "", " ± 1.50")
