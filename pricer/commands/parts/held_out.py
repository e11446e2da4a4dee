"""Adapters of other trainers: find the splits that they were trained on, so that none of these items is scored."""

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pricer.config import RunConfig
from pricer.core.held_out import HeldOutCheck, Training, find_training, judge_held_out
from pricer.data.source_files import is_hub_name
from pricer.stores.hub import Hub
from pricer.stores.repo_card import read_claims
from pricer.stores.runs import Run

if TYPE_CHECKING:  # setup imports torch, and a pick runs without torch
    from pricer.commands.parts.setup import Setup

_SETTING = "data.trained_splits"


def settle_training(hub: Hub, config: RunConfig, note: Callable[[str], object]) -> tuple[RunConfig, str]:
    """The config with `data.trained_splits` settled for the adapters of a repository, and a clause on how it is known,
    or why it is not: the fact `trained_on` of its run.
    """
    data = config.data
    if data.trained_splits is not None:
        return config, f"{_SETTING} is unknown" if data.trained_splits == "unknown" else f"as {_SETTING} says"
    claims, notes = read_claims(hub, data.source)
    for text in notes:
        note(text)
    on_hub = is_hub_name(data.source) and not Path(data.source).exists()
    training = find_training(claims, hub.repo, data.source, data.subset, on_hub=on_hub)
    update: dict[str, Any] = {
        "trained_splits": "unknown" if training.splits is None else list(map(str, training.splits))
    }
    if not data.keep_splits:
        note("data.keep_splits: false is not followed: joined splits would put items that were trained on among others")
        update["keep_splits"] = True
    return config.model_copy(update={"data": data.model_copy(update=update)}), training.reason


def record_held_out(run: Run, setup: "Setup") -> HeldOutCheck | None:
    """Whether the held-out items of a setup were held out for the run's adapters, as a fact of run.json. None for a run
    of pricer, whose splits are its own.
    """
    reason = run.facts().get("trained_on")
    if not isinstance(reason, str):
        return None
    data, summary = setup.config.data, setup.items.summary
    trained = None if data.trained_splits in (None, "unknown") else tuple(data.trained_splits)
    training = Training(trained, reason)
    if summary is None:
        found = judge_held_out(training, data.source, ())
    else:
        found = judge_held_out(training, data.source, summary.own_splits, summary.items, summary.near_copies)
    run.record(held_out=asdict(found))
    return found


def judge_other_data(run: Run, source: str) -> HeldOutCheck | None:
    """The same about all items of other data (`--data`), which may be those that the adapters were trained on."""
    reason, data = run.facts().get("trained_on"), run.config().data
    if not isinstance(reason, str):
        return None
    if source == data.source and data.trained_splits and data.trained_splits != "unknown":
        splits = " and ".join(data.trained_splits)
        return HeldOutCheck(
            False,
            f"not held out: the adapters were trained on {splits} of {source}, {reason}, and all its items are scored; "
            "without --data, only items outside of it are",
        )
    return HeldOutCheck(False, f"not known to be held out: the adapters may have been trained on items of {source}")
