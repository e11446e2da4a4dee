"""Opens `data.source`: which files it has, their splits and columns, and the rows in them."""

import hashlib
from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from pricer.config import DataConfig
from pricer.core.items import Split
from pricer.data.attributes import described_columns
from pricer.data.csv_rows import read_csv_columns, read_csv_rows
from pricer.data.hub_data import download_hub_files, find_hub_files
from pricer.data.hub_streams import open_stream
from pricer.data.json_rows import read_json_columns, read_json_rows
from pricer.data.parquet_rows import read_parquet_columns, read_parquet_rows
from pricer.data.rows import Row, Source, SourceFile, list_columns
from pricer.data.source_files import find_files, require_one_kind
from pricer.data.text_files import unreadable
from pricer.errors import DataError

# Columns of ready-made prompts, which data.layout knows.
_PROMPT_COLUMNS = ("text", "prompt", "completion", "messages")


@dataclass(frozen=True, slots=True)
class _Files:
    """A Source of files on this disk. `hashes` has the sha256 of each file."""

    files: tuple[SourceFile, ...]
    columns: tuple[str, ...]
    fingerprint: str
    revision: str | None
    kind: str
    hashes: tuple[str, ...]
    config: DataConfig

    def rows(self) -> Generator[Row]:
        """Every row. A DataError at the end of a file that is not what it was when the source was opened."""
        for index, (file, expected) in enumerate(zip(self.files, self.hashes, strict=True)):
            yield from _read_rows(self.kind, file, index, self.config)
            if _hash_file(file) != expected:
                raise DataError(f"{file.name} changed while it was read", "start again when nothing writes to it")


def open_source(config: DataConfig) -> Source:
    """Open the source of a config. A DataError if a file is missing, broken or unlike the others; a ConfigError if
    `data.encoding` or `data.delimiter` cannot be used.
    """
    files = find_files(config.source)
    if files is not None:
        return _open_files(_join_held_out(files, config), None, config)
    found = find_hub_files(config)
    if not found.are_readable:
        if config.val_source or config.test_source:
            problem = f"{config.source} is in a format that cannot be joined with files of this machine"
            raise DataError(problem, "data.val_source: null, data.test_source: null")
        return open_stream(found, config)
    return _open_files(_join_held_out(download_hub_files(found, config), config), found.revision, config)


def _open_files(files: tuple[SourceFile, ...], revision: str | None, config: DataConfig) -> Source:
    kind = require_one_kind(config.source, files)
    columns = [_read_columns(kind, file, config) for file in files]
    _require_same_columns(files, columns, config)
    others = [frozenset(each) for each in columns[1:]]
    common = tuple(name for name in columns[0] if all(name in each for each in others))
    hashes = tuple(_hash_file(file) for file in files)
    return _Files(files, common, _fingerprint(files, hashes), revision, kind, hashes, config)


def _join_held_out(files: tuple[SourceFile, ...], config: DataConfig) -> tuple[SourceFile, ...]:
    """The files of the source, and those of `data.val_source` and `data.test_source`. A file that is named there, too,
    counts only there.
    """
    held_out: set[Path] = set()
    for split, source in ((Split.VAL, config.val_source), (Split.TEST, config.test_source)):
        if source is None:
            continue
        found = find_files(source)
        if found is None:
            raise DataError(f"there is no file or folder {source}", f"data.{split}_source names local files")
        named = {file.path.resolve() for file in found}
        if both := held_out & named:
            problem = f"{min(both)} is in data.val_source and in data.test_source"
            raise DataError(problem, "other files for one of them, or null: what is missing is cut from train")
        held_out |= named
        files = tuple(file for file in files if file.path.resolve() not in named)
        if twice := next((file for file in files if file.split is split), None):
            raise DataError(
                f"{split} items are both in {twice.name} and in data.{split}_source, {source}",
                f"data.{split}_source: null, or another pattern as data.source",
            )
        files += tuple(replace(file, split=split) for file in found)
    if config.keep_splits and all(file.split in (Split.VAL, Split.TEST) for file in files):
        raise DataError(
            f"{config.source} has no file to train on: by their names, all hold validation or test items",
            "data.keep_splits: false splits all items anew",
        )
    return files


def _require_same_columns(files: Sequence[SourceFile], columns: Sequence[tuple[str, ...]], config: DataConfig) -> None:
    optional = (config.title, config.category, config.split_column, config.time_column)
    used = (*described_columns(config.description), config.price, *optional, *_PROMPT_COLUMNS)
    for name in dict.fromkeys(used):
        having = [file for file, each in zip(files, columns, strict=True) if name in each]
        if name is None or len(having) in (0, len(files)):
            continue
        lacking, there = next(pair for pair in zip(files, columns, strict=True) if name not in pair[1])
        raise DataError(
            f"{lacking.name} has no column {name}, unlike {having[0].name}; it has {list_columns(there)}",
            "all files of a source need the same columns",
        )


def _read_columns(kind: str, file: SourceFile, config: DataConfig) -> tuple[str, ...]:
    if kind == "parquet":
        return read_parquet_columns(file)
    return read_csv_columns(file, config) if kind == "csv" else read_json_columns(file, config)


def _read_rows(kind: str, file: SourceFile, index: int, config: DataConfig) -> Generator[Row]:
    if kind == "parquet":
        return read_parquet_rows(file, index)
    return read_csv_rows(file, index, config) if kind == "csv" else read_json_rows(file, index, config)


def _hash_file(file: SourceFile) -> str:
    try:
        with file.path.open("rb") as data:
            return hashlib.file_digest(data, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(file, error) from None


def _fingerprint(files: Sequence[SourceFile], hashes: Sequence[str]) -> str:
    parts = sorted(f"{file.split or '-'} {each}" for file, each in zip(files, hashes, strict=True))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
