"""Where Items come from: a local file or a Hub data set, read through `datasets`, every row checked."""

import csv
import errno
import glob
import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pricer.config import DataConfig
from pricer.core.items import Item, ItemSet, Split, split_items
from pricer.errors import DataError

ASSETS = Path(__file__).parent.parent / "assets"
_LOADERS = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}
_SHOWN = 10


def load_items(config: DataConfig) -> ItemSet:
    """Read, check and split the items. DataError names every bad row (the first few) with its file and line."""
    path = local_path(config)
    where = str(path) if path else config.source
    rows = _read_file(path) if path else _read_hub(config)
    wanted = [config.description, config.price, config.title, config.category]
    missing = [column for column in wanted if column and column not in rows.column_names]
    if missing:
        raise DataError(
            f"{where} has no column {', '.join(missing)}; it has {', '.join(rows.column_names) or 'no columns'}",
            "name the columns in the config: data.description, data.price",
        )
    rows = rows.select_columns([column for column in wanted if column])
    try:
        items = list(_items(rows, config, path))
    except UnicodeDecodeError as error:  # the JSON loader hands bytes on without looking at them
        raise (_unreadable(path, error) if path else DataError(f"{where} is not UTF-8: {error}")) from None
    limits = {Split.TRAIN: config.train_limit, Split.VAL: config.val_limit, Split.TEST: config.test_limit}
    return split_items(items, config.val_fraction, config.test_fraction, limits, config.max_price)


def require(items: ItemSet, split: Split, config: DataConfig) -> tuple[Item, ...]:
    """The Items of a split; a DataError if it is empty."""
    if found := items.items(split):
        return found
    empty = f"the {split} split of {config.source} is empty"
    held_out = {Split.VAL: config.val_fraction, Split.TEST: config.test_fraction}
    if held_out.get(split) == 0:
        raise DataError(f"{empty}: data.{split}_fraction is 0", f"a data.{split}_fraction above 0")
    if items.too_dear:
        cost = "item costs" if items.too_dear == 1 else "items cost"
        raise DataError(
            f"{empty}: {items.too_dear:,} {cost} more than data.max_price",
            "a higher data.max_price, or more items below it",
        )
    setting = "data.train_limit" if split is Split.TRAIN else f"data.{split}_fraction"
    raise DataError(empty, f"more items, or another {setting}")


def local_path(config: DataConfig) -> Path | None:
    """The local file that `data.source` names, or None: it is a Hub data set."""
    source = config.source
    if source.startswith("builtin:"):
        path = ASSETS / f"{source.removeprefix('builtin:')}.jsonl"
        if not path.is_file() or path.parent != ASSETS:
            raise DataError(f"there is no embedded data set {source}", "data.source: builtin:computers")
        return path
    path = Path(source).expanduser()
    if path.suffix in _LOADERS:
        if not path.is_file():
            raise DataError(f"there is no file {path}", "data.source is relative to the folder you start pricer in")
        return path
    if path.exists():
        raise DataError(f"{path} is not a .csv, .jsonl or .parquet file", "convert it, or name the file inside it")
    return None


def _read_file(path: Path) -> Any:
    datasets = _quiet_datasets()
    if path.stat().st_size == 0:
        raise DataError(f"{path} is empty")
    options: dict[str, Any] = {}
    try:
        if path.suffix == ".csv":
            # Every cell as the text it is. Types guessed from the first 10,000 rows would refuse a row with cents after
            # them, and take a description of "12345" for a number, one of "None" for a missing one.
            text = {column: datasets.Value("string") for column in _csv_columns(path)}
            options = {"features": datasets.Features(text), "na_filter": False}
        elif path.suffix == ".jsonl":
            # One chunk: types are agreed on within a chunk, and the first to have cents must not be refused.
            options = {"chunksize": path.stat().st_size}
        # `data_files` is a glob pattern: a file may be called items[1].csv.
        files = glob.escape(str(path))
        return datasets.load_dataset(_LOADERS[path.suffix], data_files=files, split="train", **options)
    except DataError:
        raise
    except Exception as error:  # datasets wraps what pyarrow and pandas raise in its own kinds
        raise _unreadable(path, error) from None


def _quiet_datasets() -> Any:
    """The library, late because it is slow to import, and without its bars and logs: what went wrong is our error."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def _csv_columns(path: Path) -> list[str]:
    """The columns that have a name. A first row with more cells than names would silently shift them: a DataError."""
    with path.open(encoding="utf-8-sig", newline="") as file:
        reader = csv.reader(file)
        header = next((cells for cells in reader if cells), [])
        first = next((cells for cells in reader if cells), [])
        if len(first) > len(header):
            raise DataError(
                f"a row of {len(first)} cells under {len(header)} columns ({path}, line {reader.line_num})",
                "put text with a comma in it in double quotes",
            )
    if doubled := sorted({column for column in header if column and header.count(column) > 1}):
        raise DataError(f"{path} has two columns named {', '.join(doubled)}", "rename one of them")
    return [column for column in header if column]


def _unreadable(path: Path, error: Exception) -> DataError:
    """What is wrong with a file that the loader gave up on, with the line where one is to blame."""
    if unwritable := _unwritable_cache(error, path):
        return unwritable
    for line, problem in _broken_lines(path):
        return DataError(f"{problem} ({path}, line {line})", "mend or remove the line")
    cause = error.__cause__ or error
    message = str(cause).splitlines()[0] if str(cause) else type(cause).__name__
    # What datasets says of a file with a header and no rows, and of such a Parquet file.
    if "corresponds to no data" in message or "BatchSize must be greater than 0" in message:
        return DataError(f"{path} has no rows")
    return DataError(f"{path} cannot be read: {message}")


def _unwritable_cache(error: Exception, path: Path | None) -> DataError | None:
    """That the cache is to blame, which `datasets` reads local files through, too; None if it is not. Of the data only
    `path` is read, and nothing is written to it.
    """
    cause = error.__cause__ or error
    if not isinstance(cause, OSError):
        return None
    is_elsewhere = cause.filename is not None and str(cause.filename) != str(path)
    if not is_elsewhere and cause.errno not in (errno.ENOSPC, errno.EDQUOT):
        return None
    folder, variable = data_cache()
    return DataError(
        f"{folder}, which all data is read through, cannot be written: {cause.strerror or cause}",
        f"set {variable} to a folder that can be written, and has room",
    )


def _broken_lines(path: Path) -> Iterator[tuple[int, str]]:
    """The lines that the loader may have stumbled over. It does not say which, so the file is read again by line."""
    if path.suffix == ".parquet":
        return
    with path.open("rb") as file:
        kinds: dict[str, type] = {}
        for number, line in enumerate(file, start=1):
            try:
                text = line.decode("utf-8")
            except UnicodeDecodeError as error:
                yield number, f"not UTF-8: byte 0x{line[error.start]:02x} at column {error.start + 1}"
                continue
            if path.suffix == ".jsonl" and text.strip() and (problem := _json_problem(text, kinds)):
                yield number, problem


def _json_problem(line: str, kinds: dict[str, type]) -> str | None:
    """What is wrong with a line of JSON, or None. `kinds` collects the type that each column had so far."""
    try:
        record = json.loads(line)
    except ValueError as error:
        return f"broken JSON: {str(error).split(': line')[0]}"
    if not isinstance(record, dict):
        return f"a row is a JSON object, this is {line.strip()[:40]}"
    for name, value in record.items():
        if isinstance(value, float) and not math.isfinite(value):
            return f"{name} is {value}"
        kind = float if isinstance(value, int) and not isinstance(value, bool) else type(value)
        if value is not None and kinds.setdefault(name, kind) is not kind:
            return f"{name} is {value!r}, a {type(value).__name__} unlike the rows before"
    return None


def _read_hub(config: DataConfig) -> Any:
    datasets = _quiet_datasets()
    try:
        parts = datasets.load_dataset(config.source, revision=config.revision)
        return datasets.concatenate_datasets(list(parts.values()))
    except Exception as error:  # the network, the Hub and the file formats each raise their own kinds
        if unwritable := _unwritable_cache(error, None):
            raise unwritable from None
        message = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"the data set {config.source} cannot be loaded: {message}",
            "a local file ends in .csv, .jsonl or .parquet; a private data set needs `hf auth login`",
        ) from None


def _items(rows: Any, config: DataConfig, path: Path | None) -> Iterator[Item]:
    """Every row as an Item, or one DataError for all bad rows."""
    problems: list[tuple[int, str]] = []
    copies: dict[str, int] = {}
    for index, row in enumerate(_rows(rows)):
        problem = _problem(row, config)
        if problem:
            problems.append((index, problem))
            continue
        if not problems:
            yield _item(row, config, copies)
    if problems:
        shown = problems[:_SHOWN]
        places = _places(path, [index for index, _ in shown], config)
        lines = [f"{problem} ({place})" for (_, problem), place in zip(shown, places, strict=True)]
        if len(problems) > _SHOWN:
            lines.append(f"and {len(problems) - _SHOWN} more rows like these")
        raise DataError("\n".join(lines), "mend or remove these rows: pricer drops none by itself")


def _rows(rows: Any) -> Iterator[dict[str, Any]]:
    """Every row. By a thousand at a time, the library hands them over ten times as fast as one by one."""
    for batch in rows.iter(batch_size=1000):
        for values in zip(*batch.values(), strict=True):
            yield dict(zip(batch, values, strict=True))


def _problem(row: Mapping[str, Any], config: DataConfig) -> str | None:
    """What is wrong with a row, or None."""
    description = row[config.description]
    if description is None or (isinstance(description, str) and not description.strip()):
        return f"{config.description} is empty"
    if not isinstance(description, str):
        return f"{config.description} is {description!r}, not text"
    if config.unwrap and _unwrapped(description) is None:
        return f"{config.description} is not a prompt with a question, a description and `Price is $`"
    return _price_problem(config.price, row[config.price])


def _price_problem(column: str, price: Any) -> str | None:
    """What is wrong with a price, or None."""
    if price is None or price == "":
        return f"{column} is missing"
    number = _number(price)
    if number is None:
        return f"{column} is {price!r}, not a number"
    if not math.isfinite(number) or number <= 0:
        return f"{column} is {price!r}, not above zero"
    return None


def _number(value: Any) -> float | None:
    if isinstance(value, bool):
        return None
    try:
        return float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _item(row: Mapping[str, Any], config: DataConfig, copies: dict[str, int]) -> Item:
    description = row[config.description]
    if config.unwrap:
        description = _unwrapped(description)
    optional = {
        name: str(row[column]) if column and row[column] not in (None, "") else None
        for name, column in (("title", config.title), ("category", config.category))
    }
    item = Item(id="", description=description, price=float(row[config.price]), **optional)
    key = item_id(item)
    copies[key] = copies.get(key, 0) + 1
    # Copies keep one id each: every row is scored, none stands for another.
    item_key = key if copies[key] == 1 else f"{key}-{copies[key]}"
    return Item(item_key, item.description, item.price, item.title, item.category)


def item_id(item: Item) -> str:
    """A name for an Item that stays when rows are added or moved: a hash of what it says."""
    return hashlib.sha256(item.text.encode("utf-8", "surrogatepass")).hexdigest()[:12]


def _unwrapped(text: str) -> str | None:
    """The description inside a notebook prompt: what stands between the first blank line and the last lead."""
    lead = "Price is $"
    start, end = text.find("\n\n"), text.rfind(lead)
    description = text[start:end].strip() if 0 <= start < end else ""
    return description or None


def _places(path: Path | None, indices: list[int], config: DataConfig) -> list[str]:
    """Where rows stand: the line of a text file, else the row number, counted from 1."""
    if path is None:
        return [f"{config.source}, row {index + 1}" for index in indices]
    lines = _row_lines(path) if path.suffix != ".parquet" else {}
    return [f"{path}, line {lines[i]}" if i in lines else f"{path}, row {i + 1}" for i in indices]


def _row_lines(path: Path) -> dict[int, int]:
    """The line on which each row starts."""
    lines: dict[int, int] = {}
    with path.open(encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            filled = (number for number, line in enumerate(file, start=1) if line.strip())
            return dict(enumerate(filled))
        reader = csv.reader(file)
        before, row = 0, -1  # row -1 is the header
        for cells in reader:
            if cells:
                lines[row] = before + 1
                row += 1
            before = reader.line_num
    return lines


def data_cache() -> tuple[Path, str]:
    """The folder that `datasets` keeps what it has read in, and the variable of the environment that says so."""
    from huggingface_hub import constants

    if (named := os.environ.get("HF_DATASETS_CACHE")) is not None:
        return Path(named).absolute(), "HF_DATASETS_CACHE"
    return Path(constants.HF_HOME).absolute() / "datasets", "HF_HOME"
