"""A data folder: the items of a data set, cleaned and split, in Parquet files. It is complete or absent."""

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pricer.core.data_summary import DataSummary
from pricer.core.items import ItemSet, Split
from pricer.data.item_files import item_file, near_copies_in, prices_in, read_items
from pricer.errors import DataError

ROOT = Path("data")
"""Where data folders are, in the working directory."""
_FACTS = "data.json"
_MAX_FACTS = 10_000_000
# The end of the name of a folder that is being made. Nobody else's folder in `data` may be taken for one.
_UNFINISHED = ".unfinished"


@dataclass(frozen=True, slots=True)
class DataFacts:
    """What data.json says. `keys` are hashes of the content and the settings that lead to this folder. `content` has a
    hash of the items of each split, `files` the sha256 of each file. `fractions` are the shares that were cut off.
    """

    source: str
    keys: tuple[str, ...]
    settings: Mapping[str, Any]
    fingerprint: str
    content: Mapping[str, str]
    files: Mapping[str, str]
    fractions: Mapping[str, float]
    question: str | None
    lead: str | None
    summary: DataSummary


@dataclass(frozen=True, slots=True)
class DataFolder:
    """An opened data folder. Its files are as they were written."""

    path: Path
    facts: DataFacts

    @property
    def summary(self) -> DataSummary:
        """What the preparation did."""
        return self.facts.summary

    def items(self, limits: Mapping[Split, int | None]) -> ItemSet:
        """The items, at most `limits[split]` of each split."""
        count = {split: self.summary.items[split] for split in Split}
        kept = {split: min(limits.get(split) or count[split], count[split]) for split in Split}
        parts = {split: read_items(item_file(self.path, split), kept[split]) for split in Split}
        prices = prices_in(item_file(self.path, Split.TRAIN), kept[Split.TRAIN])
        held_out = [item_file(self.path, split) for split in (Split.VAL, Split.TEST)]
        shares = [[split, self.facts.content[split], kept[split]] for split in Split]
        return ItemSet(
            train=parts[Split.TRAIN],
            val=parts[Split.VAL],
            test=parts[Split.TEST],
            fingerprint=hashlib.sha256(json.dumps(shares).encode()).hexdigest()[:16],
            train_median=float(np.median(prices)) if len(prices) else float("nan"),
            max_train_price=float(prices.max()) if len(prices) else float("nan"),
            summary=self.summary,
            near_copies=frozenset(key for path in held_out for key in near_copies_in(path)),
            val_fraction=self.facts.fractions.get(Split.VAL),
            test_fraction=self.facts.fractions.get(Split.TEST),
            prompts_question=self.facts.question,
            prompts_lead=self.facts.lead,
            folder=self.path,
        )


def find_folder(key: str) -> DataFolder | None:
    """The data folder that a key leads to; None if there is none. A DataError if its files have changed."""
    for path in sorted(ROOT.glob(f"*/{_FACTS}")):
        folder = path.parent
        is_other = folder.name.startswith(".") or path.stat().st_size > _MAX_FACTS
        if is_other or key.encode() not in path.read_bytes():
            continue
        facts = _read_facts(folder)
        if key in facts.keys:
            _verify(folder, facts)
            return DataFolder(folder, facts)
    return None


def write_facts(folder: Path, facts: DataFacts) -> None:
    """Write data.json."""
    text = json.dumps(asdict(facts), indent=2, ensure_ascii=False)
    (folder / _FACTS).write_text(text + "\n", encoding="utf-8")


def add_key(folder: DataFolder, key: str) -> None:
    """Let another key lead to a folder."""
    fresh = folder.path / f".{_FACTS}"
    facts = replace(folder.facts, keys=(*folder.facts.keys, key))
    fresh.write_text(json.dumps(asdict(facts), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    fresh.replace(folder.path / _FACTS)


def _read_facts(folder: Path) -> DataFacts:
    try:
        record = json.loads((folder / _FACTS).read_bytes())
        summary = DataSummary.from_record(record["summary"])
        return DataFacts(**{**record, "keys": tuple(record["keys"]), "summary": summary})
    except (ValueError, TypeError, KeyError, RecursionError):
        raise _changed(folder / _FACTS) from None


def sha256_of(path: Path) -> str:
    """The file's sha256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _verify(folder: Path, facts: DataFacts) -> None:
    for name in (item_file(folder, split).name for split in Split):
        try:
            found = sha256_of(folder / name)
        except FileNotFoundError:
            found = None
        if found != facts.files.get(name):
            raise _changed(folder / name)


def _changed(path: Path) -> DataError:
    return DataError(f"{path} changed since it was written", f"delete the folder {path.parent}: it is made again")


@contextmanager
def build_folder(name: str) -> Iterator[tuple[Path, Callable[[str], Path]]]:
    """A temporary folder to fill, and the function that makes it the data folder with a name. If another process has
    made that folder meanwhile, that folder stays. What killed processes left is deleted.

    A DataError if the disk is full or the working directory cannot be written.
    """
    with ExitStack() as stack:
        try:
            ROOT.mkdir(exist_ok=True)
            with _locked(ROOT):  # nobody may take the new folder for a leftover before it is locked
                _delete_leftovers()
                scratch = Path(tempfile.mkdtemp(dir=ROOT, prefix=f".{name}-", suffix=_UNFINISHED))
                stack.callback(shutil.rmtree, scratch, ignore_errors=True)
                stack.enter_context(_locked(scratch))
            yield scratch, lambda final: _publish(scratch, ROOT / final)
        except OSError as error:
            raise _unwritable(error) from None


def _publish(scratch: Path, target: Path) -> Path:
    scratch.chmod(0o755)  # mkdtemp sets 0700, and other users could not read the folder
    for path in (*scratch.iterdir(), scratch):
        _sync(path)
    try:
        scratch.rename(target)
    except OSError:
        if not (target / _FACTS).is_file():
            raise
    _sync(target.parent)
    return target


def _unwritable(error: OSError) -> DataError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return DataError(
        f"the data folder {ROOT.absolute()} cannot be written: {reason}",
        "start pricer in a folder that can be written, and has room for a copy of the data",
    )


def _delete_leftovers() -> None:
    for folder in ROOT.glob(f".*{_UNFINISHED}/"):
        with contextlib.suppress(BlockingIOError), _locked(folder, wait=False):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _locked(folder: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder. Without `wait`, a BlockingIOError if another process holds it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise
        except OSError:
            pass  # some network file systems have no locks; one process at a time works there, too
        yield
    finally:
        os.close(handle)


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's list of names, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
