"""Data that a run was not trained on: their items, and how many of them the run knows from its training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pricer.config import DataConfig
from pricer.core.data_summary import explain_summary
from pricer.core.items import Item, Split, hash_place
from pricer.core.prices import PriceFormat
from pricer.data.acceptance import Progress
from pricer.data.item_files import item_file, places_in
from pricer.data.preparation import load_items
from pricer.errors import DataError
from pricer.stores.runs import Run

# What the run's config says about its own files, splits and samples. Its columns and rules for cleaning apply.
_OWN = {
    **dict.fromkeys(("val_source", "test_source", "revision", "subset", "split_column", "time_column")),
    **dict.fromkeys(("train_limit", "val_limit", "test_limit", "max_per_category", "max_per_price_band")),
    **dict.fromkeys(("val_fraction", "test_fraction"), 0.0),
    "keep_splits": False,
    "near_duplicates": "ignore",
}


@dataclass(frozen=True, slots=True)
class OtherData:
    """Labelled items, sorted by their place, a hash that changes with any of them, and `notes` on what was left out.
    `revision` is the commit of a Hub data set, None for local files.
    """

    items: Sequence[Item]
    fingerprint: str
    notes: Sequence[str]
    revision: str | None = None


def load_other_data(config: DataConfig, source: str, progress: Progress | None = None) -> OtherData:
    """All items of a source (as in `data.source`), read and cleaned as the run's config says."""
    found = load_items(config.model_copy(update={**_OWN, "source": source}), progress)
    if not found.train:
        raise DataError(f"{source} has no item that can be scored")
    revision = found.summary.revision if found.summary else None
    return OtherData(found.train, found.fingerprint, explain_summary(found.summary, found.folder), revision)


def count_trained(run: Run, items: Sequence[Item]) -> int | None:
    """The number of items with the words of an item that the run was trained on, whatever their prices. None if the
    run's data folder is not on this machine.
    """
    facts = run.facts()
    try:
        path = item_file(Path(facts["data_folder"]), Split.TRAIN)
        known = frozenset(places_in(path, facts["items"]["train"]).tolist())  # data.train_limit takes the first ones
    except (OSError, TypeError, ValueError, KeyError):
        return None
    return sum(hash_place(item.text) in known for item in items)


def explain_trained(trained: int | None, n: int) -> str:
    """A line about the items that the run was trained on."""
    if trained is None:
        return "whether the run was trained on some of these items is unknown: its data folder is not here"
    if trained == 0:
        return f"the run was trained on none of these {n:,} items"
    return f"the run was trained on {trained:,} of these {n:,} items: its error on new items is higher"


def explain_beyond(items: Sequence[Item], style: PriceFormat) -> list[str]:
    """A line about the items that cost more than the highest price that the run can write; empty if there are none."""
    if style.width is None:
        return []
    highest = style.price_unit.from_steps(10**style.width - 1)
    beyond = sum(item.price > highest for item in items)
    written = f"the highest price that this run can write is {style.price_unit.exact(highest)}"
    return [f"{written}; {beyond:,} of these {len(items):,} items cost more"] if beyond else []
