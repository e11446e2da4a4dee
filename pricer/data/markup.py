"""Remove what is no text: HTML tags and entities, control characters, invisible characters."""

import re
from html import unescape
from html.entities import html5

# Joiners stay: Persian, Indic scripts and emoji need them.
_INVISIBLE = re.compile("[\u00ad\u200b\u2060\ufeff]")
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u2028\u2029]+")
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_BLOCKS = (
    r"address|article|aside|blockquote|body|br|caption|dd|div|dl|dt|figcaption|figure|footer|"
    r"form|h1|h2|h3|h4|h5|h6|head|header|hr|html|img|li|main|nav|ol|option|p|pre|section|"
    r"select|table|tbody|td|tfoot|th|thead|title|tr|ul"
)
_INLINE = (
    r"a|abbr|b|big|button|center|cite|code|del|em|font|i|iframe|input|ins|kbd|label|link|"
    r"mark|meta|noscript|o:p|q|s|small|span|strike|strong|sub|sup|svg|tt|u|video|wbr"
)
# Only tags of HTML count, and attributes only with a value: in `a <b and c> d` there is no markup.
_ATTRIBUTES = r"""(?:\s+[\w:.-]+\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'<>]+))*\s*/?"""
_BLOCK_TAG = re.compile(rf"</?(?:{_BLOCKS}){_ATTRIBUTES}>", re.IGNORECASE)
_INLINE_TAG = re.compile(rf"</?(?:{_INLINE}){_ATTRIBUTES}>", re.IGNORECASE)
_HIDDEN = re.compile(r"(<!--|<script\b[^<>]*>|<style\b[^<>]*>)", re.IGNORECASE)


def strip_markup(text: str) -> str:
    """The text without HTML tags, control characters and invisible characters, and with HTML entities replaced. Tags of
    blocks, such as <p> and <br>, become a line break. A text without any of these is returned as it is.
    """
    clean = text
    # Entities first: product data often has escaped tags (&lt;p&gt;).
    if "&" in clean:
        clean = _ENTITY.sub(_replace_entity, clean)
    if "<" in clean and ">" in clean:
        clean = _remove_tags(clean)
    if not clean.isascii():
        clean = _INVISIBLE.sub("", clean)
    if not clean.isprintable():
        clean = _CONTROL.sub(" ", clean.replace("\r\n", "\n").replace("\r", "\n"))
    return text if clean == text else clean.strip()


def _replace_entity(found: re.Match[str]) -> str:
    # `unescape` would read the beginning of an unknown name: &notanentity; would become ¬anentity;
    is_known = found[0].startswith("&#") or found[0][1:] in html5
    return unescape(found[0]) if is_known else found[0]


def _remove_tags(text: str) -> str:
    text = _INLINE_TAG.sub("", _remove_hidden(text))
    blocks = _BLOCK_TAG.split(text)
    return text if len(blocks) == 1 else "\n".join(block.strip() for block in blocks if block.strip())


def _remove_hidden(text: str) -> str:
    """Remove comments, scripts and styles that have an end. One pattern for start and end would take quadratic time."""
    pieces = _HIDDEN.split(text)
    kept = pieces[:1]
    for start, piece in zip(pieces[1::2], pieces[2::2], strict=True):
        end = "-->" if start == "<!--" else "</script>" if start[1:7].lower() == "script" else "</style>"
        place = piece.lower().find(end)
        kept.append(start + piece if place < 0 else " " + piece[place + len(end) :])
    return "".join(kept)
