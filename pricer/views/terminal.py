"""The only place that prints: the answer to stdout, everything else to stderr. Colours and bars only on a terminal."""

import json
import math
import os
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.errors import PricerError
from pricer.redaction import redact

if TYPE_CHECKING:  # every error message imports this file, and so does `pricer doctor` without numpy
    from rich.console import Console

    from pricer.core.machine_checks import Finding
    from pricer.core.units import PriceUnit
    from pricer.views.tables import Table

_VERDICTS = {"ok": "OK", "warning": "warning", "failed": "FAILED", "unknown": "–"}

_CHART_HEIGHT = 10
# Width of a curve in columns. A narrower one is unreadable, a wider one shows nothing more.
_NARROWEST, _WIDEST = 40, 100
_PRICE_TICKS = 5
# Characters of a text in a table that stay on any terminal.
_SHORTEST_TEXT = 18


def error(problem: PricerError) -> None:
    """Print an error: what is wrong, a line for each fact, and below it what to do."""
    lines = [f"error: {line}" for line in harmless(problem.message).splitlines()]
    lines += [f" hint: {line}" for line in harmless(problem.hint).splitlines()]
    print("\n".join(lines), file=sys.stderr)


def note(text: str) -> None:
    """Print a note for the user to stderr."""
    print(harmless(text), file=sys.stderr)


def line(text: str) -> None:
    """Print a line of the answer to stdout."""
    print(harmless(text))


def items(texts: Iterable[str]) -> None:
    """Print a list of sentences of the answer to stdout. On a terminal, they are broken between words."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else sys.maxsize
    for text in texts:
        print(textwrap.fill(harmless(text), width, initial_indent="- ", subsequent_indent="  ", break_on_hyphens=False))


def record(values: dict[str, Any], *, indent: int | None = 2) -> None:
    """Print the answer as JSON to stdout, on one line if `indent` is None."""
    # A stdout that is not UTF-8 would print `?` for some letters. JSON can escape them instead.
    has_all = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(values, indent=indent, ensure_ascii=not has_all))


def record_in_ascii(values: dict[str, Any]) -> None:
    """Print values with text from outside as JSON, in ASCII and without tokens."""
    line(json.dumps(values, indent=2))


def harmless(text: str) -> str:
    """A text from outside without tokens and without control characters."""
    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in redact(text))
    return "".join(shown)


def table(title: str, content: "Table", *, spared: Iterable[str] = ()) -> None:
    """Print a table of the answer to stdout. If the terminal is too narrow, `spared` columns are left out one by one,
    in their order, and a note says so. After that long texts are shortened; numbers never are.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    columns, rows = content.columns, [list(map(harmless, row)) for row in content.rows]
    console, kept = _stdout(), list(range(len(columns)))
    for name in spared:
        if _width([columns, *rows], kept) <= console.width:
            break
        kept.remove(columns.index(name))
    rows = _shorten_texts(columns, rows, [index for index in kept if content.is_text[index]], kept, console.width)
    console.width = max(console.width, _width([columns, *rows], kept))  # the terminal wraps what does not fit
    drawn = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index in kept:
        drawn.add_column(columns[index], justify="left" if content.is_text[index] else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(row[index]) for index in kept))
    with console.capture() as captured:  # to a pipe that nobody reads, rich would exit with a code of its own
        console.print(drawn)
    print(captured.get(), end="")
    if len(kept) < len(columns):
        left_out = ", ".join(name for index, name in enumerate(columns) if index not in kept)
        note(f"no room for {left_out} in {console.width} columns")


def _shorten_texts(
    columns: Sequence[str], rows: Sequence[list[str]], texts: Sequence[int], kept: Sequence[int], width: int
) -> list[list[str]]:
    """The rows with shorter texts, as far as the `kept` columns do not fit into a width. `texts` are their columns of
    texts, of which the last is shortened first.
    """
    rows = [list(row) for row in rows]
    for index in reversed(texts):
        longest = max((len(row[index]) for row in rows), default=0)
        room = max(longest - max(_width([columns, *rows], kept) - width, 0), _SHORTEST_TEXT)
        for row in rows:
            row[index] = row[index] if len(row[index]) <= room else f"{row[index][: room - 1]}…"
    return rows


def _width(rows: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    """Width of a table of the `kept` columns: three characters between two columns, and one at each end."""
    return sum(max(len(row[index]) for row in rows) for index in kept) + 3 * len(kept) - 1


def _stdout() -> "Console":
    from rich.console import Console

    # Without a terminal rich assumes 80 columns and cuts cells. A table in a file may be wider.
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140, highlight=False)


def curve(
    caption: Sequence[str],
    points: Sequence[tuple[int, float]],
    mark: tuple[int, float],
    level: float | None,
    unit: "PriceUnit",
) -> None:
    """Draw errors by step on stdout, below the caption: at least two points in order, one of them marked, and a line
    at `level`. Draws nothing without a terminal, or if the terminal is too narrow or cannot show the characters.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    if width < _NARROWEST or not _is_drawable():
        return
    try:
        drawn = _draw(points, mark, level, width, unit)
    except (ImportError, OSError):
        return  # plotext is partly compiled. If it cannot be loaded, the table has the same numbers.
    in_one_line = "   ".join(caption)
    print("\n".join([*([in_one_line] if len(in_one_line) <= width else caption), drawn]))


def _is_drawable() -> bool:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown") and encoding == "utf8"


def _draw(
    points: Sequence[tuple[int, float]], mark: tuple[int, float], level: float | None, width: int, unit: "PriceUnit"
) -> str:
    import plotext

    steps, prices = zip(*points, strict=True)
    shown = prices if level is None else (*prices, level)
    lowest, highest = min(shown), max(shown)
    margin = 0 if lowest < highest else 1  # an empty range cannot be drawn
    price_ticks = _round_ticks(lowest, highest)
    # Label as many steps as there is room for.
    named = steps[:: math.ceil(len(steps) * (len(f"{steps[-1]:,}") + 4) / width)]
    # plotext has one figure per process, which keeps earlier drawings and settings.
    figure = plotext.figure.clear()
    plotext.terminal.limit(width=False, height=False)
    figure.theme("colorless")  # keep the terminal's own background
    figure.plot_size(width, _CHART_HEIGHT)
    figure.axes(False, axis=(0, 1), side=1)
    figure.ruler(1, 0).lim(lowest - margin, highest + margin)
    figure.ruler(1, 0).ticks(price_ticks, [unit.mark(f"{tick:,.10g}") for tick in price_ticks])
    figure.ruler(0, 0).ticks(named, [f"{step:,}" for step in named])

    def signal(x: Sequence[int], y: Sequence[float], shape: str, colour: str) -> Any:
        return figure.signal(x, y, marker=plotext.marker(shape, pixel=plotext.pixel(foreground=colour)))

    if level is not None:  # drawn first, so that the curve is on top
        figure.draw(signal([steps[0], steps[-1]], [level, level], "┈", "orange").lines())
    figure.draw(signal(steps, prices, "braille", "blue+").lines())
    figure.draw(signal([mark[0]], [mark[1]], "●", "green+"))
    return str(figure.build().string(colorless=bool(os.environ.get("NO_COLOR")))).rstrip("\n")


def _round_ticks(lowest: float, highest: float) -> list[float]:
    """Round amounts within a range for the axis: multiples of 1, 2 or 5 times a power of ten."""
    span = (highest - lowest) or 1.0
    power = 10 ** math.floor(math.log10(span / _PRICE_TICKS))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / _PRICE_TICKS)
    first = math.ceil(lowest / size)
    return [round(number * size, 10) for number in range(first, math.floor(highest / size) + 1)] or [lowest]


def findings(found: Iterable["Finding"], *, as_json: bool) -> bool:
    """Print each finding of `pricer doctor` as it arrives, then the verdict. Returns whether training can work."""
    from pricer.core.machine_checks import is_fit

    all_found = []
    for finding in found:
        all_found.append(finding)
        if not as_json:
            text = " ".join(finding.text.split())  # a quoted message may have several lines
            todo = f" → {finding.hint}" if finding.hint else ""
            line(f"{finding.name:<14} {_VERDICTS[finding.status]:<8} {text}{todo}")
    fit = is_fit(all_found)
    if as_json:
        record_in_ascii({"fit": fit, "checks": [asdict(finding) for finding in all_found]})
    else:
        failed = ", ".join(finding.name for finding in all_found if finding.status == "failed")
        line("training can work here" if fit else f"training cannot work here: {failed}")
    return fit
