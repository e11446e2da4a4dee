"""What this machine knows of a repository: its checkpoints and its pick, kept in the run's folder."""

import contextlib
from pathlib import Path
from typing import Any

from pricer.core.checkpoints import BEST
from pricer.stores.checkpoints import FolderStore
from pricer.stores.files import append_lines, read_json, write_json, write_lines
from pricer.stores.repo_scan import RepoScan

# In the run's folder: the commit of the Hub's tag at the last look.
_HUB_TAGS = Path("checkpoints") / "hub_tags.json"


def replace_known(folder: Path, repo: str, scan: RepoScan) -> list[str]:
    """Record a scan in the folder of a repository that is only scored here. Checkpoints that the repository lost are
    forgotten here. Returns notes for the user.
    """
    store = FolderStore(folder)
    gone = sorted(
        {checkpoint.name for checkpoint in store.checkpoints()} - {checkpoint.name for checkpoint in scan.found}
    )
    gone = [name for name in gone if not any(name in note for note in scan.notes)]
    write_lines(store.log, [checkpoint.to_json() for checkpoint in scan.found])
    notes = [f"{', '.join(gone)}: in {repo} at the last look, not any more: left out"] if gone else []
    return [*notes, *_take_best(store, folder, repo, scan)]


def add_known(folder: Path, repo: str, scan: RepoScan) -> list[str]:
    """Add a scan to the folder of a run that was trained here, which may still be training. What the repository lacks
    stays. Returns notes for the user.
    """
    store = FolderStore(folder)
    known = {checkpoint.id: checkpoint.commit for checkpoint in store.checkpoints()}
    new = [checkpoint for checkpoint in scan.found if known.get(checkpoint.id) != checkpoint.commit]
    if new:
        append_lines(store.log, [checkpoint.to_json() for checkpoint in new])
    lacking = known.keys() - {checkpoint.id for checkpoint in scan.found}
    names = [c.name for c in store.checkpoints() if c.id in lacking and c.commit]
    notes = [f"{', '.join(names)}: no tag in {repo} that can be used, only known here"] if names else []
    return [*notes, *_take_best(store, folder, repo, scan)]


def _take_best(store: FolderStore, folder: Path, repo: str, scan: RepoScan) -> list[str]:
    """Take over the Hub's tag `best`, unless it has not changed since the last look and another pick was made here."""
    commit, here = scan.tags.get(BEST), store.tagged_id(BEST)
    seen = _read_seen(folder)
    names = {checkpoint.id: checkpoint.name for checkpoint in store.checkpoints()}
    picked = "no checkpoint is picked" if here is None else f"{names.get(here, here[:7])} stays picked here"
    if commit is None:
        return [f"{repo} has no tag {BEST}: {picked}"] if here else []
    write_json(folder / _HUB_TAGS, {BEST: commit})
    held = [checkpoint for checkpoint in scan.found if checkpoint.commit == commit]
    if len(held) != 1:
        what = "several checkpoints in folders" if held else "no checkpoint"
        return [f"the tag {BEST} of {repo} is at a commit with {what}: {picked}"]
    (best,) = held
    if here == best.id:
        return []
    if here is not None and seen == commit:
        return [f"{repo} still has {best.name} as {BEST}: {picked}"]
    store.set_tags({BEST: best.id})
    return [] if here is None else [f"{best.name} is {BEST} now, as in {repo}; it was {names.get(here, here[:7])}"]


def _read_seen(folder: Path) -> Any:
    with contextlib.suppress(OSError, ValueError):
        return read_json(folder / _HUB_TAGS).get(BEST)
    return None
