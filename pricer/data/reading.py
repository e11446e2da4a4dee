"""Items: read from a local file or a Hub data set, every row checked, and split."""

import hashlib
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pricer.config import DataConfig
from pricer.core.defaults import held_out_fractions
from pricer.core.items import Item, ItemSet, Split, split_items
from pricer.data.attributes import described_columns, read_description
from pricer.data.sources import local_path, locate_rows, read_rows, unreadable
from pricer.errors import DataError

# Maximum number of bad rows that an error names one by one.
_MAX_NAMED = 10


def load_items(config: DataConfig) -> ItemSet:
    """Read, check and split the items. If there are bad rows, a DataError names the first ones with file and line."""
    path = local_path(config)
    where = str(path) if path else config.source
    rows = read_rows(config)
    wanted = [*described_columns(config.description), config.price, config.title, config.category]
    missing = [column for column in wanted if column and column not in rows.column_names]
    if missing:
        raise DataError(
            f"{where} has no column {', '.join(missing)}; it has {', '.join(rows.column_names) or 'no columns'}",
            "name the columns in the config: data.description, data.price",
        )
    rows = rows.select_columns([column for column in wanted if column])
    try:
        items = list(_items(rows, config, path))
    except UnicodeDecodeError as error:  # the JSON loader does not check the encoding
        raise (unreadable(path, error) if path else DataError(f"{where} is not UTF-8: {error}")) from None
    limits = {Split.TRAIN: config.train_limit, Split.VAL: config.val_limit, Split.TEST: config.test_limit}
    val, test = held_out_fractions(len(items), config.val_fraction, config.test_fraction)
    return split_items(items, val, test, limits, config.max_price)


def require(items: ItemSet, split: Split, config: DataConfig) -> tuple[Item, ...]:
    """The Items of a split. An empty split is a DataError."""
    if found := items.items(split):
        return found
    empty = f"the {split} split of {config.source} is empty"
    held_out = {Split.VAL: config.val_fraction, Split.TEST: config.test_fraction}
    if held_out.get(split) == 0:
        raise DataError(f"{empty}: data.{split}_fraction is 0", f"a data.{split}_fraction above 0")
    if items.items_above_max_price:
        cost = "item costs" if items.items_above_max_price == 1 else "items cost"
        raise DataError(
            f"{empty}: {items.items_above_max_price:,} {cost} more than data.max_price",
            "a higher data.max_price, or more items below it",
        )
    setting = "data.train_limit" if split is Split.TRAIN else f"data.{split}_fraction"
    raise DataError(empty, f"more items, or another {setting}")


def _items(rows: Any, config: DataConfig, path: Path | None) -> Iterator[Item]:
    """Yield every row as an Item, or raise one DataError for all bad rows."""
    problems: list[tuple[int, str]] = []
    copies: dict[str, int] = {}
    for index, row in enumerate(_rows(rows)):
        if problem := _problem(row, config):
            problems.append((index, problem))
        elif not problems:
            yield _item(row, config, copies)
    if problems:
        shown = problems[:_MAX_NAMED]
        places = locate_rows(path, [index for index, _ in shown], config)
        lines = [f"{problem} ({place})" for (_, problem), place in zip(shown, places, strict=True)]
        if len(problems) > _MAX_NAMED:
            lines.append(f"and {len(problems) - _MAX_NAMED} more rows like these")
        raise DataError("\n".join(lines), "mend or remove these rows: pricer drops none by itself")


def _rows(rows: Any) -> Iterator[dict[str, Any]]:
    """Yield every row. Reading a thousand rows at a time from `datasets` is ten times as fast as one by one."""
    for batch in rows.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _problem(row: Mapping[str, Any], config: DataConfig) -> str | None:
    """What is wrong with a row, or None."""
    description = read_description(row, config.description)
    if description is None or (isinstance(description, str) and not description.strip()):
        return f"{', '.join(described_columns(config.description))} is empty"
    if not isinstance(description, str):
        return f"{config.description} is {description!r}, not text"
    if config.unwrap and _unwrapped(description) is None:
        return f"{config.description} is not a prompt with a question, a description and `Price is $`"
    return _price_problem(config.price, row[config.price])


def _price_problem(column: str, price: Any) -> str | None:
    """What is wrong with a price, or None."""
    if price is None or price == "":
        return f"{column} is missing"
    try:
        number = None if isinstance(price, bool) else float(price)
    except (TypeError, ValueError, OverflowError):
        number = None
    if number is None:
        return f"{column} is {price!r}, not a number"
    return None if 0 < number < math.inf else f"{column} is {price!r}, not above zero"


def _item(row: Mapping[str, Any], config: DataConfig, copies: dict[str, int]) -> Item:
    description = read_description(row, config.description)
    if config.unwrap:
        description = _unwrapped(description)
    optional = {
        name: str(row[column]) if column and row[column] not in (None, "") else None
        for name, column in (("title", config.title), ("category", config.category))
    }
    item = Item(id="", description=description, price=float(row[config.price]), **optional)
    key = item_id(item)
    copies[key] = copies.get(key, 0) + 1
    # Copies of a text get different ids, so that every row is scored.
    key = key if copies[key] == 1 else f"{key}-{copies[key]}"
    return Item(key, item.description, item.price, item.title, item.category)


def item_id(item: Item) -> str:
    """An Item's id: a hash of its text, which does not change when rows are added or moved."""
    return hashlib.sha256(item.text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _unwrapped(text: str) -> str | None:
    """The description inside a notebook's prompt: the text between the first blank line and the last `Price is $`."""
    lead = "Price is $"
    start, end = text.find("\n\n"), text.rfind(lead)
    description = text[start:end].strip() if 0 <= start < end else ""
    return description or None
