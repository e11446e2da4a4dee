"""HTML and control characters in texts."""

import pytest

from pricer.data.markup import strip_markup


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("A <b>brass</b> lamp", "A brass lamp"),
        ("<p>A lamp</p><p>of brass</p>", "A lamp\nof brass"),
        ("A lamp<br/>of brass", "A lamp\nof brass"),
        ('<div class="x"><a href=/y>A lamp</a></div>', "A lamp"),
        ("<ul> <li>14 inch</li> <li>red</li> </ul>", "14 inch\nred"),
        ("A lamp<!-- no --> of brass<script>x('</b>')</script>", "A lamp  of brass"),
        ("Nuts &amp; bolts, 5&quot; &#8482; &#x2122;", 'Nuts & bolts, 5" ™ ™'),
        ("&lt;p&gt;A lamp&lt;/p&gt;", "A lamp"),
        ("A\x00 lamp\x07", "A  lamp"),
        ("A lamp\r\nof brass\rcheap", "A lamp\nof brass\ncheap"),
        ("A\u200b lamp\ufeff of\u00ad brass", "A lamp of brass"),
        ("<p></p>", ""),
    ],
)
def test_markup_is_removed(text: str, clean: str) -> None:
    assert strip_markup(text) == clean


@pytest.mark.parametrize(
    "text",
    ["A lamp\n\nof brass\t", " 5 < x > 3 ", "a <b and c> d", "I <3 it >", "AT&T, R&D; Q&A", "&copy of", "<brass lamp>",
     "a\u200db (joined)", "size <10 or >20", "&notanentity;"],
)  # fmt: skip
def test_what_only_looks_like_markup_stays(text: str) -> None:
    assert strip_markup(text) == text


@pytest.mark.parametrize("piece", ["<", "<a ", "<a b=c ", '<a b="', "<!--", "<script>", "&amp", " <p", "\n<p "])
def test_broken_markup_takes_no_time(piece: str) -> None:
    text = piece * (200_000 // len(piece))

    assert len(strip_markup(text)) <= len(text)
