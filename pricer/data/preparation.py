"""From the rows of a source to a data folder: cleaned, without repeated items, split. And from there to the items."""

import hashlib
import json
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pricer.config import DataConfig
from pricer.core.items import Item, ItemSet, Split
from pricer.data.acceptance import Progress, accept_rows, find_source_layout
from pricer.data.folder import DataFacts, DataFolder, build_folder, find_folder, open_published, sha256_of, write_facts
from pricer.data.item_files import ROW_GROUP, item_file, prices_in, write_items
from pricer.data.near_duplicates import find_groups
from pricer.data.rejects import Rejects
from pricer.data.rows import Source
from pricer.data.selection import number_copies, select_rows
from pricer.data.source_files import is_hub_name
from pricer.data.sources import open_source
from pricer.data.splits import NUMBERS, assign_splits, find_near_copies, list_trained, place_groups
from pricer.data.spool import Accepted, Spool
from pricer.data.summary import Chosen, summarize
from pricer.errors import DataError

# A change of what the steps do makes other folders.
_VERSION = 1
# Settings that change nothing in a data folder. The content stands for the files, a limit is applied when the items are
# read, and decimals when prices are written.
_NOT_IN_KEY = {"source", "val_source", "test_source", "revision", "train_limit", "val_limit", "test_limit", "decimals"}


def load_items(config: DataConfig, progress: Progress | None = None) -> ItemSet:
    """The items of a config, from its data folder, which is made first if there is none."""
    limits = {Split.TRAIN: config.train_limit, Split.VAL: config.val_limit, Split.TEST: config.test_limit}
    return prepare_data(config, progress).items(limits)


def require(items: ItemSet, split: Split, config: DataConfig) -> Sequence[Item]:
    """The Items of a split. An empty split is a DataError."""
    if found := items.items(split):
        return found
    empty = f"the {split} split of {config.source} is empty"
    trained = () if config.trained_splits in (None, "unknown") else config.trained_splits
    if split is not Split.TRAIN and trained and not items.val and not items.test:
        raise DataError(
            f"every item of {config.source} is in a split that was trained on ({', '.join(trained)}): none is held out",
            "score other items: --data FILE; or name held-out items: --set data.val_source=FILE",
        )
    shares = {Split.VAL: config.val_fraction, Split.TEST: config.test_fraction}
    if shares.get(split) == 0:
        raise DataError(f"{empty}: data.{split}_fraction is 0", f"a data.{split}_fraction above 0")
    dropped = items.summary.dropped if items.summary else {}
    if dropped:
        reasons = ", ".join(f"{reason} {n:,}" for reason, n in dropped.items())
        raise DataError(f"{empty}; rows left out by rules of the config: {reasons}", "other limits, or more items")
    setting = "data.train_limit" if split is Split.TRAIN else f"data.{split}_fraction"
    raise DataError(empty, f"more items, or another {setting}")


def training_prices(items: ItemSet) -> np.ndarray:
    """The prices of the training items, in their order. From a data folder, no item is read."""
    if items.folder is None:
        return np.array([item.price for item in items.train], dtype=np.float64)
    return prices_in(item_file(items.folder, Split.TRAIN), len(items.train))


def prepare_data(config: DataConfig, progress: Progress | None = None) -> DataFolder:
    """The data folder of a config, which is made if there is none with this content and these settings. A DataError if
    the data cannot be used, or the files of the folder have changed since they were written.
    """
    progress = progress or (lambda *_: None)
    source = open_source(config)
    key = _key(source, config)
    if folder := find_folder(key):
        return _at_revision(folder, source.revision)
    name = _name(config.source)
    with build_folder(name) as (scratch, publish):
        final_key = _build(scratch, source, config, key, progress)
        path = publish(f"{name}-{final_key[:8]}")
    # It may have been there already, under the final key alone: with shares that the config gave.
    return _at_revision(open_published(path, (final_key, key)), source.revision)


def _at_revision(folder: DataFolder, revision: str | None) -> DataFolder:
    """The data folder with the commit that its content was read from just now. The folder may have been made from a
    copy on disk, or from another commit with the same content.
    """
    summary = replace(folder.summary, revision=revision)
    return replace(folder, facts=replace(folder.facts, summary=summary))


def _key(source: Source, config: DataConfig, fractions: Mapping[str, float] | None = None) -> str:
    """A hash of the content and of every setting that changes the result. `fractions` replace those of the config."""
    settings = config.model_dump(mode="json", exclude=_NOT_IN_KEY)
    settings |= {f"{split}_fraction": share for split, share in (fractions or {}).items()}
    record = [_VERSION, source.fingerprint, settings]
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode("utf-8", "surrogatepass")).hexdigest()


def _name(source: str) -> str:
    """The name of a source as a part of a folder's name."""
    is_hub = is_hub_name(source) and not Path(source).exists()
    name = source if is_hub else Path(source.removeprefix("builtin:")).name.split(".")[0]
    return re.sub(r"[^A-Za-z0-9]+", "-", name).strip("-")[:40] or "items"


def _build(folder: Path, source: Source, config: DataConfig, key: str, progress: Progress) -> str:
    """Write all files of a data folder. Returns the key that names it."""
    work = folder / "work"
    work.mkdir()
    layout = find_source_layout(source, config)
    with (
        closing(Rejects(folder / "rejected.jsonl", source.files)) as rejects,
        closing(Spool(work, sign=config.near_duplicates == "together")) as spool,
    ):
        tally = accept_rows(source, layout, config, spool, rejects, progress)
        rows = spool.finish()
        kept, left_out = select_rows(rows, config)
        for reason, indices in left_out.items():
            _drop(reason, indices, rows, rejects)
    chosen = _choose(rows, kept, config, progress)
    progress("writing splits", f"{len(chosen.rows):,} items")
    content = _write_splits(folder, rows, chosen)
    summary = summarize(rows, chosen, tally, rejects, layout, config, source.revision)
    fractions = {str(split): share for split, share in chosen.assignment.fractions.items()}
    final_key = _key(source, config, fractions)
    write_facts(
        folder,
        DataFacts(
            source=config.source,
            keys=tuple(dict.fromkeys((final_key, key))),
            settings=config.model_dump(mode="json"),
            fingerprint=source.fingerprint,
            content=content,
            files={path.name: sha256_of(path) for path in sorted(folder.iterdir()) if path.is_file()},
            fractions=fractions,
            question=layout.question,
            lead=layout.lead,
            summary=summary,
        ),
    )
    del rows  # its columns are mapped from files in `work`
    shutil.rmtree(work)
    return final_key


def _drop(reason: str, indices: np.ndarray, rows: Accepted, rejects: Rejects) -> None:
    for part in _parts(indices):
        texts = rows.texts.take(part).to_pylist()
        for values, row in zip(texts, part.tolist(), strict=True):
            shown = {name: cell for name, cell in values.items() if cell is not None}
            rejects.drop(reason, int(rows.file[row]), int(rows.line[row]), {**shown, "price": float(rows.price[row])})


def _choose(rows: Accepted, kept: np.ndarray, config: DataConfig, progress: Progress) -> Chosen:
    """Group the kept rows, and give each its split."""
    groups = None
    if rows.signatures is not None:
        progress("comparing for near-duplicates", f"{len(kept):,} items")
        groups = find_groups(rows.signatures, kept, config.near_duplicate_similarity)
    places = place_groups(rows.place[kept], rows.second[kept], groups)
    times = rows.time[kept] if config.time_column else None
    own = rows.split[kept]
    trained = list_trained(config.trained_splits, own)
    assignment = assign_splits(own, places, config.val_fraction, config.test_fraction, times, trained)
    # Where near-duplicates are ignored, texts with the same words are still copies.
    copies = np.unique(places, return_inverse=True)[1] if groups is None else groups
    return Chosen(kept, assignment, groups, find_near_copies(assignment.numbers, copies))


def _write_splits(folder: Path, rows: Accepted, chosen: Chosen) -> dict[str, str]:
    """Write the file of each split, sorted by place. Returns the hashes of their contents."""
    ids, copies = number_copies(rows, chosen.rows)
    order = np.lexsort((copies, ids, rows.place[chosen.rows]))
    content = {}
    for split, number in NUMBERS.items():
        mine = order[chosen.assignment.numbers[order] == number]
        groups = (_columns(rows, chosen, part, ids, copies) for part in _parts(mine))
        content[str(split)] = write_items(item_file(folder, split), split, groups)
    return content


def _columns(rows: Accepted, chosen: Chosen, part: np.ndarray, ids: np.ndarray, copies: np.ndarray) -> dict[str, Any]:
    """The columns of some chosen rows, as they stand in a split's file."""
    indices = chosen.rows[part]
    texts = rows.texts.take(indices)
    pairs = zip(ids[part].tolist(), copies[part].tolist(), strict=True)
    return {
        **{name: texts[name] for name in texts.column_names},
        # Copies of a text get different ids, so that every row is scored.
        "id": [f"{number:012x}" if not copy else f"{number:012x}-{copy + 1}" for number, copy in pairs],
        "price": rows.price[indices],
        "near_copy": chosen.near_copy[part],
        "place": rows.place[indices],
    }


def _parts(indices: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(indices), ROW_GROUP):
        yield indices[start : start + ROW_GROUP]
