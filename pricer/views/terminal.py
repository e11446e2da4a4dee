"""The only place that prints. stdout is the answer, stderr everything else; no colour or bars off a terminal."""

import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.errors import PricerError
from pricer.redaction import redact

if TYPE_CHECKING:  # this file is on the way of every error message, and of `pricer doctor` where numpy is missing
    from rich.console import Console

    from pricer.core.machine_checks import Finding
    from pricer.views.tables import Table

_VERDICTS = {"ok": "OK", "warning": "warning", "failed": "FAILED", "unknown": "–"}

_CHART_HEIGHT = 10
# Columns. Below the first a curve says nothing, beyond the second nothing more.
_NARROWEST, _WIDEST = 40, 100
_PRICE_TICKS = 5


def error(problem: PricerError) -> None:
    """An error as the user sees it: what is wrong, a line for each fact, and below it what to do."""
    lines = [f"error: {line}" for line in harmless(problem.message).splitlines()]
    lines += [f" hint: {line}" for line in harmless(problem.hint).splitlines()]
    print("\n".join(lines), file=sys.stderr)


def note(text: str) -> None:
    """Something the user should know, on stderr."""
    print(harmless(text), file=sys.stderr)


def line(text: str) -> None:
    """A line of the answer, on stdout."""
    print(harmless(text))


def record(values: dict[str, Any], *, indent: int | None = 2) -> None:
    """The answer as JSON, on stdout; on one line where `indent` is None."""
    # A stdout that lacks some letters would print `?` for them. JSON can escape them instead.
    has_all = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json.dumps(values, indent=indent, ensure_ascii=not has_all))


def record_in_ascii(values: dict[str, Any]) -> None:
    """The same for values that quote a stranger: in ASCII, and without tokens."""
    line(json.dumps(values, indent=2))


def harmless(text: str) -> str:
    """The text without tokens and without anything that a terminal would obey: it may quote a stranger."""
    shown = (c if c.isprintable() or c in "\n\t" else c.encode("unicode_escape").decode() for c in redact(text))
    return "".join(shown)


def table(title: str, content: "Table", *, spared: Iterable[str] = ()) -> None:
    """A table of the answer, on stdout. Where the terminal is too narrow, the `spared` columns are left out, the first
    one first; stderr says so.
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
    drawn = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index in kept:
        drawn.add_column(columns[index], justify="left" if content.is_text[index] else "right", no_wrap=True)
    for row in rows:
        drawn.add_row(*(Text(row[index]) for index in kept))
    console.print(drawn)
    if len(kept) < len(columns):
        left_out = ", ".join(name for index, name in enumerate(columns) if index not in kept)
        note(f"no room for {left_out} in {console.width} columns")


def _width(rows: Sequence[Sequence[str]], kept: Sequence[int]) -> int:
    """Characters that a table of the `kept` columns takes, with three between two of them and one at either end."""
    return sum(max(len(row[index]) for row in rows) for index in kept) + 3 * len(kept) - 1


def _stdout() -> "Console":
    from rich.console import Console

    # Off a terminal rich takes 80 columns and cuts cells; a table in a file may be as wide as it is.
    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 140, highlight=False)


def curve(
    caption: Sequence[str], points: Sequence[tuple[int, float]], mark: tuple[int, float], level: float | None
) -> None:
    """Draw dollars by step (at least two points, in order), one of them marked, with a line at `level`, on stdout below
    the parts of the caption. Nothing is drawn off a terminal, and on one that is narrow or knows no more than letters.
    """
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    if width < _NARROWEST or not _is_drawable():
        return
    try:
        drawn = _draw(points, mark, level, width)
    except (ImportError, OSError):
        return  # plotext is partly compiled; where it does not load, the table says the same
    in_one_line = "   ".join(caption)
    print("\n".join([*([in_one_line] if len(in_one_line) <= width else caption), drawn]))


def _is_drawable() -> bool:
    encoding = (sys.stdout.encoding or "").lower().replace("-", "")
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown") and encoding == "utf8"


def _draw(points: Sequence[tuple[int, float]], mark: tuple[int, float], level: float | None, width: int) -> str:
    import plotext

    steps, prices = zip(*points, strict=True)
    shown = prices if level is None else (*prices, level)
    lowest, highest = min(shown), max(shown)
    margin = 0 if lowest < highest else 1  # a range of nothing has no middle
    price_ticks = _round_ticks(lowest, highest)
    # As many steps have their number below as there is room for.
    named = steps[:: math.ceil(len(steps) * (len(f"{steps[-1]:,}") + 4) / width)]
    # One figure for the whole process: it keeps what was drawn and set before.
    figure = plotext.figure.clear()
    plotext.terminal.limit(width=False, height=False)
    figure.theme("colorless")  # the terminal's own background, which nobody else can know
    figure.plot_size(width, _CHART_HEIGHT)
    figure.axes(False, axis=(0, 1), side=1)
    figure.ruler(1, 0).lim(lowest - margin, highest + margin)
    figure.ruler(1, 0).ticks(price_ticks, [f"${tick:,.10g}" for tick in price_ticks])
    figure.ruler(0, 0).ticks(named, [f"{step:,}" for step in named])

    def signal(x: Sequence[int], y: Sequence[float], shape: str, colour: str) -> Any:
        return figure.signal(x, y, marker=plotext.marker(shape, pixel=plotext.pixel(foreground=colour)))

    if level is not None:  # first: what is drawn later is on top
        figure.draw(signal([steps[0], steps[-1]], [level, level], "┈", "orange").lines())
    figure.draw(signal(steps, prices, "braille", "blue+").lines())
    figure.draw(signal([mark[0]], [mark[1]], "●", "green+"))
    return str(figure.build().string(colorless=bool(os.environ.get("NO_COLOR")))).rstrip("\n")


def _round_ticks(lowest: float, highest: float) -> list[float]:
    """Amounts within a range, as many as there is room for: multiples of 1, 2 or 5 times a power of ten."""
    span = (highest - lowest) or 1.0
    power = 10 ** math.floor(math.log10(span / _PRICE_TICKS))
    size = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= span / _PRICE_TICKS)
    first = math.ceil(lowest / size)
    return [round(number * size, 10) for number in range(first, math.floor(highest / size) + 1)] or [lowest]


def findings(found: Iterable["Finding"], *, as_json: bool) -> bool:
    """Each finding of `pricer doctor` as soon as it is there, and the verdict; returns whether training can work."""
    from pricer.core.machine_checks import is_fit

    all_found = []
    for finding in found:
        all_found.append(finding)
        if not as_json:
            text = " ".join(finding.text.split())  # one line, whatever was quoted
            todo = f" → {finding.hint}" if finding.hint else ""
            line(f"{finding.name:<14} {_VERDICTS[finding.status]:<8} {text}{todo}")
    fit = is_fit(all_found)
    if as_json:
        record_in_ascii({"fit": fit, "checks": [asdict(finding) for finding in all_found]})
    else:
        failed = ", ".join(finding.name for finding in all_found if finding.status == "failed")
        line("training can work here" if fit else f"training cannot work here: {failed}")
    return fit
