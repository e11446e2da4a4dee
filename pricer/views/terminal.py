"""The only place that prints. stdout is the answer, stderr everything else; no colour or bars off a terminal."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from pricer.errors import PricerError
from pricer.redaction import redact

if TYPE_CHECKING:  # this file is on the way of every error message, and of `pricer doctor` where numpy is missing
    from rich.console import Console

    from pricer.core.machine_checks import Finding

_VERDICTS = {"ok": "OK", "warning": "warning", "failed": "FAILED", "unknown": "–"}


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


def drawing(text: str) -> None:
    """Lines that were drawn here, with their colours, on stdout."""
    print(text)


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


def table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    text_last: bool = False,
    spared: Iterable[str] = (),
) -> None:
    """A table of the answer, on stdout. The first column is text, and with `text_last` the last one; the others are
    numbers. Where the terminal is too narrow, the `spared` columns are left out, the first one first; stderr says so.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    console, kept, cells = _stdout(), list(range(len(columns))), [list(map(harmless, row)) for row in rows]
    for name in spared:
        if _width([columns, *cells], kept) <= console.width:
            break
        kept.remove(columns.index(name))
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for index in kept:
        is_text = index == 0 or (text_last and index == len(columns) - 1)
        table.add_column(columns[index], justify="left" if is_text else "right", no_wrap=True)
    for row in cells:
        table.add_row(*(Text(row[index]) for index in kept))
    console.print(table)
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
