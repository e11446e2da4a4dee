"""Text from outside as Markdown that the Hub shows as it is."""

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

# Characters that have no meaning for Markdown inside a code span.
_PLAIN = re.compile(r"[\w ./:@+,-]+", re.ASCII)

# Characters with a meaning for HTML or mathematics.
_BLOCK = re.compile(r"[&<>$\\]")
# Those and the ones with a meaning for Markdown within a line, such as the marks of a bare address.
_INLINE = re.compile(r"[&<>$\\`*_\[\]|~!#@{}]|:(?=//)|(?<=www)\.", re.IGNORECASE)


def one_line(text: str) -> str:
    """One line of visible characters: no line breaks, no control characters, no change of the writing direction."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def code(text: str) -> str:
    """Any text as code, within a line or a table cell.

    A code span cannot hold every text: the Hub renders mathematics before Markdown, even in code spans, and a pipe ends
    a table cell. If a text has other than plain characters, what has a meaning is therefore written as entities.
    """
    text = one_line(text)
    return f"`{text}`" if _PLAIN.fullmatch(text) else f"<code>{_as_entities(_INLINE, text)}</code>"


def plain(text: str) -> str:
    """Any text as words within a line, for example behind the first words of a paragraph."""
    return _as_entities(_INLINE, one_line(text))


def code_block(text: str) -> str:
    """Any text of several lines as a block of code. Markdown has no meaning in `<pre>`: HTML has, and mathematics."""
    return f"<pre>{chr(10).join(_as_entities(_BLOCK, one_line(line)) for line in text.splitlines())}</pre>"


def _as_entities(special: re.Pattern[str], text: str) -> str:
    return special.sub(lambda found: f"&#{ord(found[0])};", text)


def render_markdown(template: str, filters: Mapping[str, Callable[..., object]], **values: object) -> str:
    """The text of a Markdown template of this folder. Jinja escapes only HTML, not Markdown: in a template, text from
    outside goes through `code` or another of the `filters`.
    """
    environment = Environment(  # noqa: S701
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"code": code, "plain": plain, "number": lambda count: f"{count:,}", **filters}
    return environment.get_template(template).render(values)


def python_literal(text: str) -> str:
    """A Python string literal for `text` without special characters of Markdown or of the Hub's mathematics: it has no
    line break, no backtick, no $$ and no two backslashes in a row. The delimiters of mathematics are listed in
    https://huggingface.co/docs/hub/model-cards, "Can I write LaTeX in my model card?".
    """
    escaped = "".join(
        {"\n": "\\n", '"': '\\"'}.get(c)
        or (c if c.isprintable() and c not in "\\`" and not (c == "$" and before == "$") else _escape(c))
        for before, c in zip(" " + text, text, strict=False)
    )
    return f'"{escaped}"'


def _escape(c: str) -> str:
    code = ord(c)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
