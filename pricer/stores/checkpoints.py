"""The folder store: checkpoints kept in a folder, each with its manifest, verified whenever they are fetched; and
soups, which lie in a folder wherever the checkpoints are.
"""

import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pricer.core.checkpoints import Checkpoint, soup_name, tag_name
from pricer.errors import CheckpointError
from pricer.stores.files import append_lines, new_folder, read_lines, sha256_of, write_json

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"


class Soups:
    """Averages of a run's checkpoints: `folder/soup-004500-005000/` each, adapter and manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Checkpoint]:
        """Every soup, by its last step, the smaller first."""
        found = [read_manifest(path.parent) for path in self._folder.glob(f"soup-*/{MANIFEST}")]
        return sorted(found, key=by_last_step)

    @contextmanager
    def new(self, steps: Sequence[int]) -> Iterator[Path]:
        """A folder to put the average of the checkpoints at these steps into: it is there as a whole or not at all, and
        takes the place of an older one.
        """
        with new_folder(self._folder / soup_name(steps)) as folder:
            yield folder

    def fetch(self, soup: Checkpoint) -> Path:
        """Its folder, verified like that of a checkpoint."""
        return whole(soup, self._folder / soup.name, "it was")


class FolderStore:
    """A CheckpointStore on disk: `folder/step-005000/` each, and `log`, which has a line for every confirmed push.
    `soups` are made of them.
    """

    def __init__(self, folder: Path, log: Path, soups: Soups) -> None:
        self._folder = folder
        self._log = log
        self._soups = soups

    def checkpoints(self) -> list[Checkpoint]:
        """Every whole checkpoint, oldest step first; a step pushed again replaces what it was before."""
        return read_log(self._log)

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Keep a copy of the adapter and manifest in `folder`. Pushing the same one again changes nothing."""
        checkpoint = read_manifest(folder)
        verify(checkpoint, folder)
        if checkpoint.step != step:
            raise CheckpointError(f"{folder} holds step {checkpoint.step}, not {step}")
        known = checkpoint in self.checkpoints()
        # A folder that is gone or was changed is put back by pushing again.
        if not (known and self._holds(checkpoint)):
            with new_folder(self._folder / checkpoint.name) as target:
                for name in (ADAPTER, ADAPTER_CONFIG, MANIFEST):
                    shutil.copyfile(folder / name, target / name)
        if not known:
            append_lines(self._log, [checkpoint.to_json()])
        return checkpoint

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """The folder of a checkpoint or soup, after its manifest and the sha256 of its adapter were verified."""
        if checkpoint.members:
            return self._soups.fetch(checkpoint)
        return whole(checkpoint, self._folder / tag_name(checkpoint.step), f"{self._log} says")

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Let `name` mean this checkpoint, or soup, whatever it meant before."""
        path = self._folder / "tags.json"
        write_json(path, {**read_tags(path), name: checkpoint.id})

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint, or soup, that `name` means, or None."""
        revision = read_tags(self._folder / "tags.json").get(name)
        if revision is None:
            return None
        trained = next((c for c in self.checkpoints() if c.id == revision), None)
        return trained or next((c for c in self.soups() if c.id == revision), None)

    def soups(self) -> list[Checkpoint]:
        """Every soup, by its last step."""
        return self._soups.all()

    def _holds(self, checkpoint: Checkpoint) -> bool:
        try:
            self.fetch(checkpoint)
        except CheckpointError:
            return False
        return True


def by_last_step(checkpoint: Checkpoint) -> tuple[int, int]:
    """What checkpoints and soups are sorted by: the step, or last one, and the smaller first."""
    return checkpoint.step, len(checkpoint.members)


def whole(checkpoint: Checkpoint, folder: Path, said: str) -> Path:
    """The folder, if the checkpoint is in it as a whole and no other one; else a CheckpointError. `said` names who said
    which one it is.
    """
    found = read_manifest(folder)
    if found != checkpoint:
        raise CheckpointError(
            f"{folder} holds {found.id[:12]}, {said} {checkpoint.id[:12]}",
            "the folder was changed by hand: put the checkpoint back",
        )
    verify(checkpoint, folder)
    return folder


def read_log(path: Path) -> list[Checkpoint]:
    """The checkpoints of a log, and its soups, oldest step first; what stands there again replaces what was before."""
    try:
        by_name = {c.name: c for c in map(Checkpoint.from_json, read_lines(path))}
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return sorted(by_name.values(), key=by_last_step)


def read_tags(path: Path) -> dict[str, str]:
    """What each tag means, as revisions; none if there is no file."""
    if not path.exists():
        return {}
    try:
        tags = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        tags = None
    if not isinstance(tags, dict):
        raise CheckpointError(f"{path} is not JSON", "remove it, and run `pricer pick` again")
    return tags


def read_manifest(folder: Path) -> Checkpoint:
    """What the checkpoint in `folder` says it is; a CheckpointError if it does not say."""
    path = folder / MANIFEST
    try:
        return Checkpoint.from_json(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint in {folder} (no {MANIFEST})") from None
    except (ValueError, AttributeError) as error:
        raise CheckpointError(f"{path} is not a manifest: {error}") from None


def write_manifest(folder: Path, checkpoint: Checkpoint) -> None:
    """Say beside the adapter what it is."""
    write_json(folder / MANIFEST, checkpoint.to_json())


def verify(checkpoint: Checkpoint, folder: Path) -> None:
    """Raise a CheckpointError unless the adapter in `folder` is the one that the manifest describes."""
    stated = {ADAPTER: checkpoint.adapter_sha256, ADAPTER_CONFIG: checkpoint.adapter_config_sha256}
    for name, digest in stated.items():
        path = folder / name
        if not path.is_file():
            raise CheckpointError(f"{checkpoint.name} has no {name} ({folder})")
        found = sha256_of(path)
        if found != digest:
            raise CheckpointError(
                f"{checkpoint.name} is not what its manifest says: {path} has sha256 {found[:12]}…, "
                f"the manifest {digest[:12]}…",
                "the file was changed or damaged: restore it, or train again from an earlier step",
            )
