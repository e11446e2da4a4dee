"""Go through all rows of a source once: accept them, reject them, or leave them out by a rule."""

import itertools
import math
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field

from pricer.config import DataConfig
from pricer.core.items import name_split
from pricer.data.attributes import described_columns
from pricer.data.cleaning import CANNOT_BE_READ, Cleaned, Drop, clean, quote
from pricer.data.layouts import Layout, Rejection, find_layout
from pricer.data.numbers import NOT_A_NUMBER, Price, read_price
from pricer.data.rejects import MAX_NAMED, Rejects
from pricer.data.rows import Row, Source, list_columns
from pricer.data.splits import NO_SPLIT, NUMBERS, is_date, parse_time
from pricer.data.spool import Spool
from pricer.errors import DataError

NO_SPLIT_NAMED, NO_TIME = "no split", "no time"

Progress = Callable[[str, str], None]
"""Receives what is being done, and how far it is or how much there is to do."""
# Rows that say which layout a source has.
_FIRST_ROWS = 200
_REPORT_EVERY = 5_000
# A share of rows below this may begin or end with their price by chance.
_MAX_STATING_PRICE, _MIN_STATING_PRICE = 0.5, 5


@dataclass(slots=True)
class Tally:
    """Counts of the rows that were read, and of what the accepted ones have in common."""

    rows: int = 0
    accepted: int = 0
    had_markup: int = 0
    shows_price: int = 0
    states_price: int = 0
    ambiguous: int = 0
    other_mark: int = 0
    currencies: Counter[str] = field(default_factory=Counter)
    # The place of the first row whose time is a date (True) or a number (False).
    times: dict[bool, str] = field(default_factory=dict)

    def count(self, cleaned: Cleaned) -> None:
        """Count an accepted row."""
        self.accepted += 1
        self.had_markup += cleaned.had_markup
        self.shows_price += cleaned.shows_price
        self.states_price += cleaned.states_price
        self.ambiguous += cleaned.price.is_ambiguous
        if cleaned.price.currency:
            self.currencies[cleaned.price.currency] += 1


def find_source_layout(source: Source, config: DataConfig) -> Layout:
    """The layout of a source, from its columns and first rows."""
    extra = (config.title, config.category, config.time_column, config.split_column if config.keep_splits else None)
    if missing := [column for column in extra if column and column not in source.columns]:
        raise DataError(
            f"{config.source} has no column {', '.join(missing)}; it has {list_columns(source.columns)}",
            "name the columns in the config: data.title, data.category, data.split_column, data.time_column",
        )
    with closing(source.rows()) as rows:
        first = [row.values for row in itertools.islice(rows, _FIRST_ROWS) if not row.problem]
    layout = find_layout(config, source.columns, first, config.source)
    shown = {"data.description": described_columns(config.description), "data.title": (config.title,)}
    if naming := [setting for setting, names in shown.items() if layout.name == "columns" and config.price in names]:
        raise DataError(
            f"{naming[0]} names the price column, {config.price}, so the model would read every price",
            f"take {config.price} out of {naming[0]}",
        )
    return layout


def accept_rows(
    source: Source, layout: Layout, config: DataConfig, spool: Spool, rejects: Rejects, progress: Progress
) -> Tally:
    """Read all rows into the spool and the rejects. A DataError if too many rows are rejected, or if the descriptions
    begin or end with their prices.
    """
    tally = Tally()
    is_strict = config.on_bad_row == "error"
    with closing(source.rows()) as rows:
        for row in rows:
            tally.rows += 1
            if tally.rows % _REPORT_EVERY == 0:
                progress("reading rows", f"{tally.rows:,}")
            _accept(row, source, layout, config, spool, rejects, tally)
            if is_strict and rejects.rejected.total() == MAX_NAMED:
                break
    if not tally.rows:
        raise DataError(f"{config.source} has no rows")
    rejects.refuse(tally.rows, config.max_rejected, is_strict=is_strict, hint=_hint(tally, rejects, config))
    _refuse_stated_prices(tally, config)
    if len(tally.times) > 1:
        raise DataError(
            f"{config.time_column} has dates ({tally.times[True]}) and numbers ({tally.times[False]}), which have no "
            "common order",
            "write all of them the same way, for example 2024-01-31",
        )
    return tally


def _accept(
    row: Row, source: Source, layout: Layout, config: DataConfig, spool: Spool, rejects: Rejects, tally: Tally
) -> None:
    found = _read(row, source, layout, config)
    if isinstance(found, Rejection):
        rejects.reject(row, found)
        if found.reason == NOT_A_NUMBER and _is_price_elsewhere(row, layout, config):
            tally.other_mark += 1
    elif isinstance(found, Drop):
        rejects.drop(found.reason, row.file, row.line, row.values)
    else:
        cleaned, split, time = found
        tally.count(cleaned)
        if config.time_column:
            is_dated = is_date(row.values[config.time_column])
            tally.times.setdefault(is_dated, source.files[row.file].place(row.line))
        spool.add(cleaned, row, split, time)


def _read(
    row: Row, source: Source, layout: Layout, config: DataConfig
) -> tuple[Cleaned, int, float] | Rejection | Drop:
    """The cleaned row with the number of its own split and its time, or why it is left out."""
    if row.problem:
        return Rejection(CANNOT_BE_READ, row.problem)
    cells = layout.read(row.values)
    if isinstance(cells, Rejection):
        return cells
    split = source.files[row.file].split if config.keep_splits else None
    if config.keep_splits and config.split_column:
        named = row.values.get(config.split_column)
        split = name_split(named) if isinstance(named, str) else None
        if split is None:
            return Rejection(NO_SPLIT_NAMED, f"{config.split_column} is {quote(named)}, not train, val or test")
    time = None
    if config.time_column:
        time = parse_time(row.values.get(config.time_column))
        if time is None:
            what = quote(row.values.get(config.time_column))
            return Rejection(NO_TIME, f"{config.time_column} is {what}, neither a number nor a date like 2024-01-31")
    found = clean(cells, config, layout.price)
    if not isinstance(found, Cleaned):
        return found
    return found, NO_SPLIT if split is None else NUMBERS[split], math.nan if time is None else time


def _is_price_elsewhere(row: Row, layout: Layout, config: DataConfig) -> bool:
    """Whether a price that cannot be read is one with the other decimal mark."""
    cells = layout.read(row.values)
    return isinstance(cells, Rejection) or isinstance(read_price(cells.price, _other_mark(config), config.unit), Price)


def _hint(tally: Tally, rejects: Rejects, config: DataConfig) -> str:
    is_most = tally.other_mark > 0.5 * rejects.rejected.total()
    return f'data.decimal_mark: "{_other_mark(config)}" reads them' if is_most else ""


def _other_mark(config: DataConfig) -> str:
    return "," if config.decimal_mark == "." else "."


def _refuse_stated_prices(tally: Tally, config: DataConfig) -> None:
    """Raise a DataError if most descriptions begin or end with their price: a model would copy it."""
    count = tally.states_price
    if count >= _MIN_STATING_PRICE and count > _MAX_STATING_PRICE * tally.accepted:
        raise DataError(
            f"{count:,} of {tally.accepted:,} descriptions of {config.source} begin or end with their own price",
            "data.layout: prompts, if they are whole prompts; otherwise take the price out of them",
        )
