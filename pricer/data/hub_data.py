"""A Hub data set: its commit, its files by split, and their download."""

import json
import logging
import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

from pricer.config import DataConfig
from pricer.core.items import name_split
from pricer.data.hub_problems import hub_problems
from pricer.data.rows import SourceFile, list_columns, shorten
from pricer.data.source_files import file_kind, source_file
from pricer.errors import DataError

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True, slots=True)
class HubFiles:
    """The files of one configuration of a data set at one commit: their paths in the repository, by the name of their
    split.
    """

    revision: str
    splits: Mapping[str, tuple[str, ...]]

    @property
    def are_readable(self) -> bool:
        """Whether pricer's own readers can read all files."""
        return all(file_kind(path) for paths in self.splits.values() for path in paths)


def find_hub_files(config: DataConfig) -> HubFiles:
    """The files of the data set `config.source`. A branch or a tag is resolved to its commit first. Both the commit and
    its files are kept in HF_HOME, so that a data set that was downloaded before can be read without the network.
    """
    with hub_problems(config):
        revision = config.revision or "main"
        commit = revision if _COMMIT.fullmatch(revision) else _find_commit(config.source, revision)
        record = _record_file(config, commit)
        if (known := _read_record(record)) is None:
            known = HubFiles(commit, _ask_files(config, commit))
            _write_record(record, asdict(known))
        return known


def download_hub_files(found: HubFiles, config: DataConfig) -> tuple[SourceFile, ...]:
    """Every file, downloaded into the cache of the Hub unless it is there."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    disable_progress_bars()
    files = []
    with hub_problems(config):
        for split, paths in found.splits.items():
            for path in paths:
                local = hf_hub_download(config.source, path, repo_type="dataset", revision=found.revision)
                files.append(source_file(Path(local), f"{config.source}/{path}", name_split(split)))
    return tuple(files)


def import_datasets() -> Any:
    """The library `datasets`, without its progress bars and logs."""
    import datasets

    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
    datasets.disable_progress_bars()
    datasets.logging.set_verbosity(datasets.logging.CRITICAL)  # errors are reported by pricer
    return datasets


def _find_commit(repo: str, revision: str) -> str:
    """The commit of a branch or a tag; while the Hub is switched off, the one at the last look from this machine."""
    from huggingface_hub.errors import OfflineModeIsEnabled

    record = _records() / f"{_file_name(repo)}@{quote(revision, safe='')}.json"
    try:
        commit = _ask_commit(repo, revision)
    except OfflineModeIsEnabled:
        if (known := _read_commit(record)) is None:
            raise
        return known
    _write_record(record, {"commit": commit})
    return commit


def _ask_commit(repo: str, revision: str) -> str:
    from huggingface_hub import HfApi

    commit = HfApi().dataset_info(repo, revision=revision).sha
    if commit is None:
        raise DataError(f"the Hub names no commit for {repo} at {revision}", "data.revision: a commit hash")
    return commit


def _ask_files(config: DataConfig, commit: str) -> dict[str, tuple[str, ...]]:
    """The files of each split, as `datasets` finds them: by the data set's card, else by their names."""
    import_datasets()
    from datasets.data_files import DataFilesDict, get_data_patterns, sanitize_patterns

    repo = config.source
    base = f"hf://datasets/{repo}@{commit}"
    chosen = _choose_subset(_ask_subsets(repo, commit), config)
    folder = f"{base}/{chosen['data_dir']}" if chosen.get("data_dir") else base
    named = chosen.get("data_files")
    patterns = sanitize_patterns(named) if named is not None else get_data_patterns(folder)
    found = DataFilesDict.from_patterns(patterns, base_path=folder)
    splits = {str(split): [each.removeprefix(f"{base}/") for each in addresses] for split, addresses in found.items()}
    # A card may name any address, also a file on this machine.
    if foreign := next((path for paths in splits.values() for path in paths if not _is_inside(path)), None):
        raise DataError(f"the card of {repo} names a file outside of it: {shorten(foreign, 100)}")
    return _keep_one_kind(splits)


def _keep_one_kind(splits: Mapping[str, Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """The files of the most frequent kind, without documents beside them. All files if most are of a kind that only
    `datasets` can read.
    """
    kinds = Counter(file_kind(path) for paths in splits.values() for path in paths if PurePosixPath(path).suffix)
    best = max(kinds, key=lambda kind: (kinds[kind], kind is not None), default=None)
    kept = {split: tuple(path for path in paths if best in (None, file_kind(path))) for split, paths in splits.items()}
    return {split: paths for split, paths in kept.items() if paths}


def _is_inside(path: str) -> bool:
    return "://" not in path and not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts


def _ask_subsets(repo: str, commit: str) -> dict[str, dict[str, Any]]:
    """The configurations that the data set's card names. A DataError if the data set needs code."""
    from datasets.utils.metadata import MetadataConfigs
    from huggingface_hub import DatasetCard, DatasetCardData, HfApi, hf_hub_download

    names = {each.rfilename for each in HfApi().dataset_info(repo, revision=commit).siblings or ()}
    if f"{repo.rpartition('/')[2]}.py" in names:
        raise DataError(
            f"{repo} is loaded by code of its own, which pricer does not run",
            "the Hub may have its rows as Parquet files: data.revision: refs/convert/parquet",
        )
    card = DatasetCardData()
    if "README.md" in names:
        card = DatasetCard.load(hf_hub_download(repo, "README.md", repo_type="dataset", revision=commit)).data
    return dict(MetadataConfigs.from_dataset_card_data(card))


def _choose_subset(subsets: Mapping[str, dict[str, Any]], config: DataConfig) -> dict[str, Any]:
    """The settings of the subset to read; empty if the data set names none."""
    names = list_columns(subsets)
    if config.subset is not None:
        if config.subset not in subsets and (subsets or config.subset != "default"):
            has = f"it has {names}" if subsets else "it has no subsets"
            raise DataError(
                f"{config.source} has no subset {config.subset}; {has}", "data.subset: one of these, or null"
            )
        return subsets.get(config.subset, {})
    if len(subsets) > 1:
        defaults = [name for name, settings in subsets.items() if name == "default" or settings.get("default")]
        if len(defaults) != 1:
            raise DataError(f"{config.source} has several subsets: {names}", f"data.subset: {next(iter(subsets))}")
        return subsets[defaults[0]]
    return next(iter(subsets.values()), {})


def _record_file(config: DataConfig, commit: str) -> Path:
    subset = re.sub(r"[^\w.-]", "_", config.subset or "")
    return _records() / f"{_file_name(config.source)}-{commit}-{subset}.json"


def _records() -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HOME) / "pricer"


def _file_name(repo: str) -> str:
    return repo.replace("/", "--")


def _read_commit(file: Path) -> str | None:
    try:
        commit = json.loads(file.read_bytes())["commit"]
    except (OSError, ValueError, TypeError, KeyError):
        return None
    return commit if isinstance(commit, str) and _COMMIT.fullmatch(commit) else None


def _read_record(file: Path) -> HubFiles | None:
    try:
        record = json.loads(file.read_bytes())
        return HubFiles(record["revision"], {split: tuple(paths) for split, paths in record["splits"].items()})
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None


def _write_record(file: Path, record: dict[str, Any]) -> None:
    with suppress(OSError):  # without it, the next start asks the Hub again
        file.parent.mkdir(parents=True, exist_ok=True)
        temporary = file.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps(record), encoding="utf-8")
        temporary.replace(file)
