"""Checkpoints in a folder, each with its manifest and verified whenever it is fetched; and soups, which lie in a folder
wherever the checkpoints are kept.
"""

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from pricer.core.checkpoints import Checkpoint, soup_name
from pricer.errors import CheckpointError
from pricer.stores.files import append_lines, new_folder, read_json, read_lines, sha256_of, write_json

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
PARTS = (ADAPTER, ADAPTER_CONFIG, MANIFEST)
"""The files that a checkpoint consists of."""


class Soups:
    """Averages of a run's checkpoints: `folder/soup-004500-005000/` each, adapter and manifest."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def all(self) -> list[Checkpoint]:
        """Every soup, sorted by its last step, the smaller first."""
        return in_order(read_manifest(path.parent) for path in self._folder.glob(f"soup-*/{MANIFEST}"))

    @contextmanager
    def new(self, steps: Sequence[int]) -> Iterator[Path]:
        """A folder for the average of the checkpoints at these steps. It appears as a whole when the block ends well,
        and replaces an older one.
        """
        with new_folder(self._folder / soup_name(steps)) as folder:
            yield folder

    def fetch(self, soup: Checkpoint) -> Path:
        """Its folder, verified; a CheckpointError if the soup is not there or was changed."""
        return verified_folder(soup, self._folder / soup.name)


class FolderStore:
    """A CheckpointStore on disk: `folder/step-005000/` each, and `log`, which has a line for every confirmed push."""

    is_remote = False

    def __init__(self, folder: Path, log: Path, soups: Soups) -> None:
        self.location = str(folder)
        self._folder = folder
        self._log = log
        self._soups = soups

    def checkpoints(self) -> list[Checkpoint]:
        """Every complete checkpoint, sorted by step; a step pushed again replaces what it was before."""
        return read_log(self._log)

    def soups(self) -> list[Checkpoint]:
        """Every soup, sorted by its last step."""
        return self._soups.all()

    def new_soup(self, steps: Sequence[int]) -> AbstractContextManager[Path]:
        """A folder for the average of the checkpoints at these steps."""
        return self._soups.new(steps)

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Keep a copy of the adapter and manifest in `folder`. Pushing the same one again changes nothing."""
        checkpoint = read_checkpoint(folder, step)
        known = checkpoint in self.checkpoints()
        # Pushing again restores a folder that was removed or changed.
        if not (known and self._holds(checkpoint)):
            with new_folder(self._folder / checkpoint.name) as target:
                for name in PARTS:
                    shutil.copyfile(folder / name, target / name)
        if not known:
            append_lines(self._log, [checkpoint.to_json()])
        return checkpoint

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """The folder of a checkpoint or soup, after its manifest and the sha256 of its adapter were verified."""
        if checkpoint.members:
            return self._soups.fetch(checkpoint)
        return verified_folder(checkpoint, self._folder / checkpoint.name)

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Let `name` mean this checkpoint, or soup, whatever it meant before."""
        if checkpoint not in [*self.checkpoints(), *self.soups()]:
            raise CheckpointError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not in {self.location}")
        write_tags(self._folder, {name: checkpoint.id})

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint, or soup, that `name` means, or None."""
        return find_tagged(self._folder, name, [*self.checkpoints(), *self.soups()])

    def publish_card(self, render: Callable[[str], str], message: str) -> str | None:  # noqa: ARG002
        """None: nobody else sees this folder, so it needs no model card."""
        return None

    def _holds(self, checkpoint: Checkpoint) -> bool:
        try:
            self.fetch(checkpoint)
        except CheckpointError:
            return False
        return True


def in_order(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Checkpoints and soups sorted by their step, of a soup its last one; the smaller soup first."""
    return sorted(checkpoints, key=lambda checkpoint: (checkpoint.step, len(checkpoint.members)))


def read_log(path: Path) -> list[Checkpoint]:
    """The checkpoints and soups of a log, in order; a later line replaces an earlier one of the same name."""
    try:
        by_name = {c.name: c for c in map(Checkpoint.from_json, read_lines(path))}
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged: {error}") from None
    return in_order(by_name.values())


def find_tagged(folder: Path, name: str, known: Iterable[Checkpoint]) -> Checkpoint | None:
    """The checkpoint among those `known` that a tag in `folder` means; None: there is no such tag, or no such one."""
    checkpoint_id = _read_tags(folder).get(name)
    return next((checkpoint for checkpoint in known if checkpoint.id == checkpoint_id), None)


def write_tags(folder: Path, ids: dict[str, str]) -> None:
    """Set tags in `folder`: their names, and the ids of the checkpoints they mean. Others stay as they are."""
    write_json(folder / "tags.json", {**_read_tags(folder), **ids})


def _read_tags(folder: Path) -> dict[str, str]:
    path = folder / "tags.json"
    if not path.exists():
        return {}
    try:
        return read_json(path)
    except ValueError:
        raise CheckpointError(f"{path} is not JSON", "remove it, and run `pricer pick` again") from None


def read_manifest(folder: Path) -> Checkpoint:
    """The checkpoint that the manifest in `folder` describes; a CheckpointError if there is no valid manifest."""
    path = folder / MANIFEST
    try:
        return Checkpoint.from_json(read_json(path))
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint in {folder} (no {MANIFEST})") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a manifest: {error}") from None


def write_manifest(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the manifest beside the adapter."""
    write_json(folder / MANIFEST, checkpoint.to_json())


def read_checkpoint(folder: Path, step: int) -> Checkpoint:
    """The checkpoint in `folder`, verified; a CheckpointError if it is of another step."""
    checkpoint = read_manifest(folder)
    verify(checkpoint, folder)
    if checkpoint.step != step:
        raise CheckpointError(f"{folder} holds step {checkpoint.step}, not {step}")
    return checkpoint


def verified_folder(checkpoint: Checkpoint, folder: Path) -> Path:
    """The folder, after its manifest and adapter were verified; a CheckpointError if they are not this checkpoint's."""
    found = read_manifest(folder)
    if found != checkpoint:
        raise CheckpointError(
            f"{folder} holds {found.id[:12]}, not {checkpoint.id[:12]}",
            "the folder was changed by hand: put the checkpoint back",
        )
    verify(checkpoint, folder)
    return folder


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
