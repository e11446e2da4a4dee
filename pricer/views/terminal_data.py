"""Print the answers of `pricer init` and `pricer data`."""

import math
import shutil
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING

from pricer.views import data_tables, terminal
from pricer.views.formatting import shorten
from pricer.views.tables import Table

if TYPE_CHECKING:  # views must not import commands
    from pricer.commands.data import Prepared
    from pricer.commands.init import Initialised
    from pricer.core.prompt_facts import PromptFacts

_SHOWN_LINES = 8
_SHORTEST_BAR = 5


def prepared(result: "Prepared", *, as_json: bool) -> None:
    """Print what the preparation of a data set did, or everything as JSON."""
    summary, unit = result.summary, result.unit
    if as_json:
        values = {"folder": str(result.folder), "source": result.source, "unit": unit.symbol, **asdict(summary)}
        values |= {"prompts": asdict(result.prompts), "tokens": result.tokens and asdict(result.tokens)}
        terminal.record_in_ascii(values)
        return
    kept = sum(summary.items.values())
    terminal.line(f"{result.source}: {summary.rows:,} rows, {kept:,} items")
    left_out = data_tables.left_out_table(summary)
    if left_out.rows:
        _table("Rows left out", left_out, spared=("share",))
        terminal.line(f"each is listed in {result.folder / 'rejected.jsonl'}")
    _table("Splits", data_tables.splits_table(summary), spared=("from", "near-copies"))
    for line in (data_tables.describe_splits(summary), *result.held_out, data_tables.describe_near_duplicates(summary)):
        terminal.line(line)
    _table("Prices", data_tables.prices_table(summary, unit))
    terminal.line(data_tables.describe_prices(summary, unit))
    if summary.categories:
        _table("Categories", data_tables.categories_table(summary))
    _prompts(result.prompts, result)
    for warning in result.warnings:
        terminal.note(f"warning: {warning}")
    if result.tokens:
        terminal.line(f"\n{result.tokens.count:,} training tokens are kept in the folder.")
    terminal.line(f"\nfolder: {result.folder}")
    terminal.note(f"next: {result.next_command}")


def _prompts(facts: "PromptFacts", result: "Prepared") -> None:
    _table(f"Tokens of prompt and completion, {facts.base}", data_tables.lengths_table(facts))
    terminal.line(data_tables.describe_lengths(facts))
    terminal.line(data_tables.describe_cut(facts))
    _table(f"Prices as tokens: {facts.price_format}", data_tables.written_prices_table(facts, result.unit))
    for note in result.notes:
        terminal.line(note)
    for number, sample in enumerate(facts.samples, start=1):
        terminal.line(f"\nSample prompt {number}, {sample.tokens:,} tokens, completion {sample.completion}")
        lines = [f"  {shorten(line, 300)}" for line in sample.prompt.splitlines() if line.strip()]
        hidden = len(lines) - _SHOWN_LINES
        shown = lines if hidden <= 0 else [*lines[: _SHOWN_LINES - 1], f"  … {hidden:,} more lines", lines[-1]]
        terminal.line("\n".join(shown))


def initialised(result: "Initialised") -> None:
    """Print what `pricer init` recognised, the files that it wrote, and the next command."""
    width = max(len(name) for name, _ in result.recognised)
    for name, value in result.recognised:
        terminal.line(f"{name:<{width}}  {shorten(value, 400)}")
    terminal.line(f"written: {', '.join(str(path) for path in result.written)}")
    if result.folder:
        terminal.line(f"data folder: {result.folder}")
    if result.problem:
        hint = f"\n hint: {result.problem.hint}" if result.problem.hint else ""
        terminal.note(f"not ready to train: {result.problem.message}{hint}")
    terminal.note(f"next: {result.next_command}")


def _table(title: str, content: Table, spared: tuple[str, ...] = ()) -> None:
    terminal.line("")
    if not content.columns[-1]:
        content = _fit_bars(content)
    terminal.table(title, content, spared=spared)


def _fit_bars(content: Table) -> Table:
    """The table of a histogram with bars that fit into the terminal and that its encoding has."""
    others = [
        max(map(len, cells)) for cells in zip(content.columns[:-1], *(row[:-1] for row in content.rows), strict=True)
    ]
    longest = max(len(row[-1]) for row in content.rows)
    room = shutil.get_terminal_size().columns - sum(others) - 3 * len(others) - 2
    if room < _SHORTEST_BAR:
        return Table(content.columns[:-1], [row[:-1] for row in content.rows])
    mark = "█" if (sys.stdout.encoding or "").lower().startswith("utf") else "#"
    scale = min(1.0, room / longest)
    rows = [[*row[:-1], mark * math.ceil(scale * len(row[-1]))] for row in content.rows]
    return Table(content.columns, rows, content.text_last)
