"""Held-out items for adapters of other trainers: what a repository claims, and what follows for the scored items."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pricer.core.items import Split

_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Claim:
    """One statement of a repository about the data that its adapters were trained on.

    `dataset` is the id of a Hub data set; None: the statement names none. `splits` are the splits that were trained on;
    empty: the statement names none. `where` is the place of the statement, for example `README.md`. `subset` is the
    subset of the data set; None: the statement names none.
    """

    dataset: str | None
    splits: tuple[Split, ...]
    where: str
    subset: str | None = None


@dataclass(frozen=True, slots=True)
class Training:
    """The splits of a source that the adapters of a repository were trained on; None: unknown. `reason` is a clause
    that says how it is known, or why it is not.
    """

    splits: tuple[str, ...] | None
    reason: str


@dataclass(frozen=True, slots=True)
class HeldOutCheck:
    """Whether the scored items are known to be held out, and a sentence about it."""

    known: bool
    text: str

    @classmethod
    def from_fact(cls, fact: Any) -> "HeldOutCheck | None":
        """The check that run.json has as `held_out`; None if it has none that can be read."""
        if isinstance(fact, dict) and isinstance(fact.get("known"), bool) and isinstance(fact.get("text"), str):
            return cls(fact["known"], fact["text"])
        return None


def find_training(claims: Sequence[Claim], repo: str, source: str, subset: str | None, *, on_hub: bool) -> Training:
    """The splits of `source` (`data.source`) that the claims of a repository name. `on_hub`: it is a Hub data set.

    They are known only if a claim names the same data set, and a split of it. Several claims are put together: an item
    is held out only if it is in none of their splits.
    """
    named = list(dict.fromkeys(claim.dataset for claim in claims if claim.dataset))
    shown = ", ".join(named[:_SHOWN]) + (f" and {len(named) - _SHOWN} more" if len(named) > _SHOWN else "")
    if not named:
        return Training(None, f"{repo} names no Hub data set that its adapters were trained on")
    if not on_hub:
        return Training(None, f"{repo} names {shown}, and {source} may have the same items")
    own = [claim for claim in claims if _is_about(claim, source, subset)]
    if not any(claim.dataset for claim in own):
        return Training(None, f"{repo} names {shown}, and not {source}{f', subset {subset}' if subset else ''}")
    found = {split for claim in own for split in claim.splits}
    if not found:
        return Training(None, f"{repo} names {source}, and no split of it")
    where = dict.fromkeys(claim.where for claim in own if claim.splits)
    return Training(tuple(str(split) for split in Split if split in found), f"as {' and '.join(where)} of {repo} says")


def _is_about(claim: Claim, source: str, subset: str | None) -> bool:
    """Whether a claim can be about this data set. The Hub ignores case in names."""
    is_same = claim.dataset is None or claim.dataset.casefold() == source.casefold()
    return is_same and (claim.subset is None or subset is None or claim.subset == subset)


def judge_held_out(training: Training, source: str, own_splits: Sequence[str]) -> HeldOutCheck:
    """Judge whether the scored items were held out. `own_splits` are the splits that the source has."""
    if training.splits is not None:
        if not training.splits:
            return HeldOutCheck(True, f"held out: the adapters were trained on no item of {source}, {training.reason}")
        splits = " and ".join(training.splits)
        return HeldOutCheck(
            True,
            f"held out: the adapters were trained on {splits} of {source}, {training.reason}; none of it is scored",
        )
    unknown = f"not known to be held out: {training.reason}"
    if {Split.VAL, Split.TEST}.isdisjoint(own_splits):
        return HeldOutCheck(
            False,
            f"{unknown}. {source} has no held-out split of its own, so the adapters may have been trained on the items "
            "that are scored, and their errors on new items may be higher. If you know better, set data.trained_splits",
        )
    return HeldOutCheck(
        False,
        f"{unknown}. The split train of {source} is assumed, and none of it is scored. If you know better, set "
        "data.trained_splits",
    )
