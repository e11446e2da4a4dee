"""A Hub data set in a format that only `datasets` can read, such as Arrow, as a Source."""

import hashlib
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pricer.config import DataConfig
from pricer.core.items import name_split
from pricer.data.hub_data import HubFiles, import_datasets
from pricer.data.hub_problems import hub_problems
from pricer.data.parquet_rows import simplify_value
from pricer.data.rows import Row, Source, SourceFile
from pricer.errors import DataError


@dataclass(frozen=True, slots=True)
class _Stream:
    """A Source that reads through the network. `parts` has the splits of `datasets`; each counts as a file."""

    files: tuple[SourceFile, ...]
    columns: tuple[str, ...]
    fingerprint: str
    revision: str
    parts: tuple[Any, ...]
    config: DataConfig

    def rows(self) -> Generator[Row]:
        """Every row."""
        for index, part in enumerate(self.parts):
            with hub_problems(self.config):
                for number, values in enumerate(part, start=1):
                    yield Row({name: simplify_value(value) for name, value in values.items()}, index, number)


def open_stream(found: HubFiles, config: DataConfig) -> Source:
    """Open a data set with `datasets`. Its commit stands for its content."""
    with hub_problems(config):
        parts: Mapping[str, Any] = import_datasets().load_dataset(
            config.source, name=config.subset, revision=found.revision, streaming=True
        )
        columns = [tuple(next(iter(part), ())) for part in parts.values()]
    files = tuple(
        SourceFile(Path(config.source) / name, f"{config.source}, split {name}", name_split(name), "row")
        for name in parts
    )
    if empty := next((file for file, names in zip(files, columns, strict=True) if not names), None):
        raise DataError(f"{empty.name} has no rows")
    common = tuple(name for name in columns[0] if all(name in names for names in columns[1:]))
    state = f"{found.revision} {config.subset}"
    fingerprint = hashlib.sha256(state.encode()).hexdigest()
    return _Stream(files, common, fingerprint, found.revision, tuple(parts.values()), config)
