"""Reads the rows of a local file or a Hub data set with `datasets`, and finds the broken lines of a file."""

import csv
import errno
import glob
import json
import math
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pricer.config import DataConfig
from pricer.errors import DataError, first_line

ASSETS = Path(__file__).parent.parent / "assets"
_LOADERS = {".csv": "csv", ".jsonl": "json", ".parquet": "parquet"}


def read_rows(config: DataConfig) -> Any:
    """All rows of `data.source` as a `datasets.Dataset`; a DataError if it cannot be read."""
    path = local_path(config)
    return _read_file(path) if path else _read_hub(config)


def local_path(config: DataConfig) -> Path | None:
    """The local file that `data.source` names; None if it names a Hub data set."""
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
            # Keep every cell as text. `datasets` would guess types from the first 10,000 rows: it would refuse a later
            # price with cents, read the description "12345" as a number, and read "None" as missing.
            text = {column: datasets.Value("string") for column in _csv_columns(path)}
            options = {"features": datasets.Features(text), "na_filter": False}
        elif path.suffix == ".jsonl":
            # Read in one chunk: types are guessed per chunk, and a price with cents in a later chunk would be refused.
            options = {"chunksize": path.stat().st_size}
        # `data_files` is a glob pattern, but a file may be called items[1].csv.
        files = glob.escape(str(path))
        return datasets.load_dataset(_LOADERS[path.suffix], data_files=files, split="train", **options)
    except DataError:
        raise
    except Exception as error:  # datasets wraps the errors of pyarrow and pandas in its own classes
        raise unreadable(path, error) from None


def _quiet_datasets() -> Any:
    """Import `datasets`, without its progress bars and logs: pricer reports errors itself."""
    import datasets

    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)
    return datasets


def _csv_columns(path: Path) -> list[str]:
    """The columns that have a name. A DataError if the first row has more cells than the header, because the cells
    would be in the wrong columns.
    """
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


def unreadable(path: Path, error: Exception) -> DataError:
    """The error for a file that could not be loaded. It names the broken line, if there is one."""
    if unwritable := _unwritable_cache(error, path):
        return unwritable
    for line, problem in _broken_lines(path):
        return DataError(f"{problem} ({path}, line {line})", "mend or remove the line")
    cause = error.__cause__ or error
    message = first_line(cause)
    # Messages of `datasets` for a file without rows: text and Parquet.
    if "corresponds to no data" in message or "BatchSize must be greater than 0" in message:
        return DataError(f"{path} has no rows")
    return DataError(f"{path} cannot be read: {message}")


def _unwritable_cache(error: Exception, path: Path | None) -> DataError | None:
    """The error for a cache that cannot be written; None if `error` has another cause. `path` is the data file, which
    `datasets` copies into its cache.
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
    """Yield the broken lines of a text file, with the problem. The loader does not name them, so this reads the file
    again.
    """
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
    """The problem of a line of JSON, or None. `kinds` has the type of each column in earlier lines, and is updated."""
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
    except Exception as error:  # the network, the Hub and the file formats each have their own errors
        if unwritable := _unwritable_cache(error, None):
            raise unwritable from None
        raise DataError(
            f"the data set {config.source} cannot be loaded: {first_line(error)}",
            "a local file ends in .csv, .jsonl or .parquet; a private data set needs `hf auth login`",
        ) from None


def locate_rows(path: Path | None, indices: Sequence[int], config: DataConfig) -> list[str]:
    """The place of each row: the line in a text file, else the row number. Both count from 1."""
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
    """The cache folder of `datasets`, and the environment variable that sets it."""
    from huggingface_hub import constants

    if (named := os.environ.get("HF_DATASETS_CACHE")) is not None:
        return Path(named).absolute(), "HF_DATASETS_CACHE"
    return Path(constants.HF_HOME).absolute() / "datasets", "HF_HOME"
