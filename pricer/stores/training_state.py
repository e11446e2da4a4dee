"""Training states on disk: what the trainer needs to continue from a step (optimizer, scheduler, random state)."""

import json
import shutil
from pathlib import Path

from pricer.stores.files import sha256_of, write_json

# The trainer reads these files when it continues, and state.json holds their hashes. It can make all others again.
STATE_FILES = (
    "adapter_model.safetensors",
    "adapter_config.json",
    "manifest.json",
    "optimizer.pt",
    "scheduler.pt",
    "scaler.pt",
    "rng_state.pth",
    "trainer_state.json",
    "state.json",
)


class TrainingStates:
    """The folder that the trainer writes its states to: `checkpoint-500/` each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def mark_complete(self, state: Path) -> None:
        """Record that a state was written completely, with the sha256 of each file in it."""
        files = {file.name: sha256_of(file) for file in sorted(state.iterdir()) if file.name != "state.json"}
        write_json(state / "state.json", {"files": files})

    def newest(self) -> tuple[Path, int] | None:
        """The newest complete and undamaged state, with its step; None: training starts from the beginning."""
        return next(((folder, step) for step, folder in reversed(self._all()) if _is_complete(folder)), None)

    def delete_after(self, step: int) -> None:
        """Delete the states beyond a step: training continues from there and will write them again.

        A state half-written by a kill would count as the newest when the trainer deletes all but two.
        """
        for later, folder in self._all():
            if later > step:
                shutil.rmtree(folder)

    def delete_all(self) -> None:
        """Delete every state: training is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _all(self) -> list[tuple[int, Path]]:
        return sorted(
            (int(folder.name.removeprefix("checkpoint-")), folder)
            for folder in self.folder.glob("checkpoint-*")
            if folder.name.removeprefix("checkpoint-").isdigit()
        )


def _is_complete(folder: Path) -> bool:
    try:
        files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["files"]
        return all(sha256_of(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
