"""The training states in a run's folder: what the trainer needs to continue."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from pricer.core.ranks import RANDOM_STATE, is_random_state
from pricer.stores.checkpoints import PARTS
from pricer.stores.files import read_json, sha256_of, write_json

STATE_RECORD = "state.json"
STATE_FILES = (
    *PARTS,
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    RANDOM_STATE,
    "trainer_state.json",
    STATE_RECORD,
)
"""The files of a training state that the trainer reads when it continues, and the record of their hashes. A state of
several processes also has the random states of the others.
"""


def pick_state_files(names: Iterable[str]) -> list[str]:
    """Those of the names that belong to a training state: the files of STATE_FILES in their order, and random states
    of processes.
    """
    found = set(names)
    others = sorted(name for name in found if is_random_state(name) and name != RANDOM_STATE)
    return [*(name for name in STATE_FILES if name in found), *others]


class TrainingStates:
    """The folder that the trainer writes its states to: `checkpoint-500/` each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def at(self, step: int) -> Path:
        """The folder of the state at a step."""
        return self.folder / f"checkpoint-{step}"

    def mark_complete(self, state: Path) -> None:
        """Record that a state was written completely, with the sha256 of each file in it."""
        files = {file.name: sha256_of(file) for file in sorted(state.iterdir()) if file.name != STATE_RECORD}
        write_json(state / STATE_RECORD, {"files": files})

    def newest(self) -> tuple[Path, int] | None:
        """The newest complete and undamaged state, with its step; None: training starts from the beginning."""
        return next(((folder, step) for step, folder in reversed(self._all()) if _is_complete(folder)), None)

    def delete_after(self, step: int) -> None:
        """Delete the states beyond a step, from which training continues."""
        # The trainer deletes all states but the newest two. It would count an incomplete later state as the newest.
        for later, folder in self._all():
            if later > step:
                shutil.rmtree(folder)

    def _all(self) -> list[tuple[int, Path]]:
        named = ((folder.name.removeprefix("checkpoint-"), folder) for folder in self.folder.glob("checkpoint-*"))
        return sorted((int(step), folder) for step, folder in named if step.isdigit())


def _is_complete(state: Path) -> bool:
    try:
        files = read_json(state / STATE_RECORD)["files"]
        return all(sha256_of(state / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
