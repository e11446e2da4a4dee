"""The outbox: checkpoints and training states on disk that wait for the Hub."""

import contextlib
import re
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal, cast

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError
from pricer.stores.checkpoints import read_manifest
from pricer.stores.commit_budget import CommitBudget
from pricer.stores.files import link_or_copy, new_folder

Kind = Literal["checkpoint", "state", "end"]
_NOTHING: Mapping[str, bytes] = MappingProxyType({})
_ENTRY = re.compile(r"(\d{6,})-(checkpoint|state|end)-(\d{6,})")


@dataclass(frozen=True, slots=True)
class Entry:
    """One delivery: a folder that does not change any more."""

    folder: Path
    number: int
    kind: Kind
    step: int

    @property
    def name(self) -> str:
        """Its name in messages."""
        if self.kind == "end":
            return "the end of the run"
        return f"step {self.step:,}" if self.kind == "checkpoint" else f"the training state of step {self.step:,}"


class Outbox:
    """A folder of entries, oldest first. An entry is complete or absent."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.budget = CommitBudget(folder / "commits.jsonl")
        self._pick = folder / "pick"

    def put(self, kind: Kind, step: int, files: Iterable[Path], copies: Mapping[str, bytes] = _NOTHING) -> None:
        """Add an entry of these files, which nobody may write into afterwards, and of `copies`: contents by name."""
        number = max((entry.number for entry in self.entries()), default=0) + 1
        with new_folder(self.folder / f"{number:06d}-{kind}-{step:06d}") as target:
            for file in files:
                link_or_copy(file, target / file.name)
            for name, content in copies.items():
                (target / name).write_bytes(content)

    def thin_states(self) -> None:
        """Let at most two training states wait: the oldest, which may be on its way, and the newest. States are large,
        and while the Hub cannot be reached they must not fill the disk.
        """
        for between in [entry for entry in self.entries() if entry.kind == "state"][1:-1]:
            self.drop(between)

    def entries(self) -> list[Entry]:
        """What is to be delivered, oldest first."""
        found = [
            Entry(folder, int(match[1]), cast(Kind, match[2]), int(match[3]))
            for folder in self.folder.glob("*-*-*")
            if (match := _ENTRY.fullmatch(folder.name))
        ]
        return sorted(found, key=lambda entry: entry.number)

    def checkpoints(self) -> dict[Checkpoint, Path]:
        """The checkpoints that wait, with their folders, oldest first. Damaged ones are left out."""
        waiting = {}
        for entry in self.entries():
            if entry.kind == "checkpoint":
                with contextlib.suppress(CheckpointError):  # or it was delivered after it was listed
                    waiting[read_manifest(entry.folder)] = entry.folder
        return waiting

    def requeue(self, entry: Entry) -> None:
        """Move an entry behind all others."""
        last = max(other.number for other in self.entries())
        entry.folder.replace(entry.folder.with_name(f"{last + 1:06d}-{entry.kind}-{entry.step:06d}"))

    def drop(self, entry: Entry) -> None:
        """Remove an entry."""
        # Rename it first: a kill half-way would otherwise leave an entry that looks damaged, and is never delivered.
        gone = entry.folder.with_name(f".{entry.folder.name}.gone")
        shutil.rmtree(gone, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            entry.folder.replace(gone)
        shutil.rmtree(gone, ignore_errors=True)

    def clear(self) -> None:
        """Remove every entry. The record of commits stays: the Hub counts them, whatever becomes of the entries."""
        for entry in self.entries():
            self.drop(entry)
        self.sweep()

    @property
    def pick_waits(self) -> bool:
        """Whether the newest pick is not on the Hub, or not completely."""
        return self._pick.exists()

    def keep_pick(self) -> None:
        """Record that the pick has to go to the Hub."""
        self.folder.mkdir(parents=True, exist_ok=True)
        self._pick.touch()

    def drop_pick(self) -> None:
        """Record that the Hub has the pick."""
        self._pick.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove incomplete entries that a kill left. No other process may use the outbox meanwhile."""
        for folder in self.folder.glob(".*"):
            shutil.rmtree(folder, ignore_errors=True)
