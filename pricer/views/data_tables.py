"""The tables of a prepared data set, for the terminal and for its card."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pricer.core.units import PriceUnit
from pricer.views.formatting import share, shorten
from pricer.views.tables import Table

if TYPE_CHECKING:
    from pricer.core.data_summary import DataSummary
    from pricer.core.prompt_facts import PromptFacts

# Characters of the longest bar, and of a category's name.
_BAR, _NAME = 30, 40
SPLIT_NAMES = {"train": "training", "val": "validation", "test": "test"}


def splits_table(summary: "DataSummary") -> Table:
    """The items of each split, where they come from, and how many have a near-copy among the training items."""
    rows = [
        [
            SPLIT_NAMES.get(split, split),
            f"{count:,}",
            "" if split == "train" else f"{summary.near_copies.get(split, 0):,}",
            "its own" if split in summary.own_splits else "cut",
        ]
        for split, count in summary.items.items()
    ]
    return Table(["split", "items", "near-copies", "from"], rows, text_last=True)


def left_out_table(summary: "DataSummary") -> Table:
    """The rows that are no items, by reason, the most frequent first."""
    reasons = [
        (verb, reason, count)
        for verb, counts in (("rejected", summary.rejected), ("dropped", summary.dropped))
        for reason, count in sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
        if count
    ]
    rows = [[f"{verb}: {reason}", f"{count:,}", share(count / summary.rows)] for verb, reason, count in reasons]
    return Table(["left out", "rows", "share"], rows)


def prices_table(summary: "DataSummary", unit: PriceUnit) -> Table:
    """The histogram of prices."""
    bands = [(f"{unit.exact(low)} to {unit.exact(high)}", count) for low, high, count in summary.price_bands]
    return _histogram("price", bands)


def lengths_table(facts: "PromptFacts") -> Table:
    """The histogram of token lengths."""
    return _histogram("tokens", [(f"{low:,} to {high:,}", count) for low, high, count in facts.lengths.bands])


def categories_table(summary: "DataSummary") -> Table:
    """The largest categories."""
    return _histogram("category", [(shorten(name, _NAME), count) for name, count in summary.categories.items()])


def written_prices_table(facts: "PromptFacts", unit: PriceUnit) -> Table:
    """Prices as completions and tokens."""
    rows = [
        [unit.rounded(each.price), each.completion, " ".join(f"[{token}]" for token in each.tokens)]
        for each in facts.prices
    ]
    return Table(["price", "completion", "tokens"], rows, text_last=True)


def describe_splits(summary: "DataSummary") -> str:
    """A sentence about the origin of the splits."""
    own = [SPLIT_NAMES.get(split, split) for split in summary.items if split in summary.own_splits]
    cut = [SPLIT_NAMES.get(split, split) for split in summary.items if split not in summary.own_splits]
    if not own and summary.by_time:
        return "The splits are cut by time: the newest items are for testing, those before them for validation."
    if not own:
        return "The splits are cut by a hash of the texts: an item keeps its split when others are added that differ."
    kept = f"The source has its own {_join(own)} split{'s' * (len(own) > 1)}"
    held_out = [name for name in cut if name != "training"]
    origin = own[-1] if summary.divided else "training"
    return f"{kept}; {_join(held_out)} items are cut from its {origin} items." if held_out else f"{kept}."


def describe_near_duplicates(summary: "DataSummary") -> str:
    """A sentence about near-duplicates."""
    if not summary.near_duplicate_groups:
        return "No two texts are nearly the same."
    copies = {SPLIT_NAMES[split]: count for split, count in summary.near_copies.items() if count}
    leak = "".join(
        f" {count:,} {name} items have a near-copy among the training items." for name, count in copies.items()
    )
    count = summary.near_duplicate_groups
    groups = f"{count:,} groups of near-duplicates hold" if count > 1 else "1 group of near-duplicates holds"
    return f"{groups} {summary.items_in_groups:,} items, the largest {summary.largest_group:,}.{leak}"


def describe_prices(summary: "DataSummary", unit: PriceUnit) -> str:
    """A sentence about the range of prices and the training median."""
    lowest, highest = unit.rounded(summary.min_price), unit.rounded(summary.max_price)
    return (
        f"Prices are {lowest} to {highest}; the median of the training items is {unit.rounded(summary.train_median)}."
    )


def describe_lengths(facts: "PromptFacts") -> str:
    """A sentence about token lengths."""
    lengths = facts.lengths
    shares = f"{lengths.median:,} tokens (median), {lengths.q99:,} (99 %) or {lengths.longest:,} (longest)"
    return f"Prompt and completion take {shares}."


def describe_cut(facts: "PromptFacts") -> str:
    """A sentence about the maximum length and the share that it cuts."""
    cut = f"{share(facts.lengths.cut)} of the descriptions are cut" if facts.lengths.cut else "no description is cut"
    return f"With prompt.max_length {facts.max_length:,}, {cut}."


def _histogram(name: str, bands: Sequence[tuple[str, int]]) -> Table:
    most = max((count for _, count in bands), default=1) or 1
    rows = [[label, f"{count:,}", "█" * max(round(_BAR * count / most), count > 0)] for label, count in bands]
    return Table([name, "items", ""], rows, text_last=True)


def _join(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
