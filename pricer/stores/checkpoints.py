"""Checkpoints in a run's folder. Every fetch verifies the files."""

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from pricer.core.checkpoints import Checkpoint, Failure
from pricer.errors import CheckpointError
from pricer.stores.files import (
    append_lines,
    new_folder,
    parse_json,
    read_json,
    sha256_of,
    whole_lines,
    write_json,
    write_lines,
)
from pricer.stores.records import parse_record

ADAPTER = "adapter_model.safetensors"
ADAPTER_CONFIG = "adapter_config.json"
MANIFEST = "manifest.json"
PARTS = (ADAPTER, ADAPTER_CONFIG, MANIFEST)
"""The files that a checkpoint consists of."""


class FolderStore:
    """A CheckpointStore in a run's folder. Each checkpoint has a folder, such as `checkpoints/step-005000/`, and
    `checkpoints.jsonl` has a line for every confirmed push.
    """

    is_remote = False

    def __init__(self, run_folder: Path) -> None:
        self.folder = run_folder / "checkpoints"
        self.location = str(self.folder)
        self.log = run_folder / "checkpoints.jsonl"
        self._tags = self.folder / "tags.json"

    def checkpoints(self) -> list[Checkpoint]:
        """Every checkpoint whose push was confirmed, sorted by step. A step pushed again replaces the older one."""
        found = [checkpoint for _, checkpoint in self._read_log() if isinstance(checkpoint, Checkpoint)]
        return sort_checkpoints({checkpoint.name: checkpoint for checkpoint in found}.values())

    def damaged(self) -> list[Failure]:
        """The lines of the log that cannot be read."""
        return [
            Failure(f"line {number} of {self.log}", f"{error} (if the line is of no use, remove it)")
            for number, error in self._read_log()
            if isinstance(error, ValueError)
        ]

    def push(self, folder: Path, step: int) -> Checkpoint:
        """Keep a copy of the adapter and manifest in `folder`. Pushing the same one again restores a damaged copy."""
        checkpoint = read_checkpoint(folder, step)
        self.keep(checkpoint, folder, shutil.copyfile)
        if checkpoint not in self.checkpoints():
            append_lines(self.log, [checkpoint.to_json()])
        return checkpoint

    def keep(self, checkpoint: Checkpoint, folder: Path, copy: Callable[[Path, Path], object]) -> None:
        """Copy the parts of a checkpoint from `folder`, unless an undamaged copy is here. The manifest may be missing
        there.
        """
        if self.find(checkpoint) is None:
            with new_folder(self.folder / checkpoint.name) as target:
                for name in PARTS:
                    if name != MANIFEST or (folder / MANIFEST).exists():
                        copy(folder / name, target / name)
                    else:
                        write_manifest(target, replace(checkpoint, commit=None))

    def fetch(self, checkpoint: Checkpoint) -> Path:
        """The folder of a checkpoint, verified: its manifest and both hashes in it."""
        folder = self.folder / checkpoint.name
        found = read_manifest(folder)
        if found != checkpoint:
            raise CheckpointError(
                f"{folder} holds {found.id[:12]}, not {checkpoint.id[:12]}",
                "the folder was changed by hand: put the checkpoint back",
            )
        verify(checkpoint, folder)
        return folder

    def find(self, checkpoint: Checkpoint) -> Path | None:
        """Its folder, verified; None if it is missing or damaged."""
        try:
            return self.fetch(checkpoint)
        except CheckpointError:
            return None

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        """Set the tag `name` to this checkpoint. An existing tag is moved."""
        if checkpoint not in self.checkpoints():
            raise CheckpointError(f"{checkpoint.name} ({checkpoint.id[:12]}) is not in {self.location}")
        self.set_tags({name: checkpoint.id})

    def set_tags(self, ids: dict[str, str]) -> None:
        """Set tags. `ids` maps names to checkpoint ids. Other tags are not changed."""
        write_json(self._tags, {**self._read_tags(), **ids})

    def clear_log(self) -> None:
        """Forget all pushes. Copies and tags stay."""
        write_lines(self.log, [])

    def tagged(self, name: str) -> Checkpoint | None:
        """The checkpoint that `name` means; None: there is no such tag, or no such checkpoint."""
        tagged_id = self.tagged_id(name)
        return next((c for c in self.checkpoints() if c.id == tagged_id), None)

    def tagged_id(self, name: str) -> str | None:
        """The id of the checkpoint that `name` means; None: there is no such tag."""
        return self._read_tags().get(name)

    def publish_pick(
        self,
        checkpoint: Checkpoint,  # noqa: ARG002
        render: Callable[[str, bytes | None], Mapping[str, bytes] | None],  # noqa: ARG002
    ) -> str | None:
        """None: nobody else sees this folder, so it needs no model card."""
        return None

    def _read_log(self) -> Iterator[tuple[int, Checkpoint | ValueError]]:
        """The number of each line with its checkpoint, or with the problem that makes it unreadable."""
        for number, line in whole_lines(self.log):
            try:
                yield number, parse_manifest(line)
            except ValueError as error:
                yield number, error

    def _read_tags(self) -> dict[str, str]:
        try:
            return read_json(self._tags)
        except FileNotFoundError:
            return {}
        except ValueError:
            raise CheckpointError(f"{self._tags} is not JSON", "remove it, and run `pricer pick` again") from None


def sort_checkpoints(checkpoints: Iterable[Checkpoint]) -> list[Checkpoint]:
    """Checkpoints sorted by step."""
    return sorted(checkpoints, key=lambda checkpoint: checkpoint.step)


def read_manifest(folder: Path) -> Checkpoint:
    """The checkpoint that the manifest in `folder` describes; a CheckpointError if there is no valid manifest."""
    path = folder / MANIFEST
    try:
        return parse_manifest(path.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"there is no checkpoint in {folder} (no {MANIFEST})") from None
    except ValueError as error:
        raise CheckpointError(f"{path} is not a manifest: {error}") from None


def parse_manifest(text: str | bytes) -> Checkpoint:
    """The checkpoint that the text of a manifest describes; a ValueError of one line if it is not one, or was changed
    by hand.
    """
    record = parse_json(text)
    if record is None:
        raise ValueError("not a JSON object")
    return _parse(record)


def _parse(manifest: dict[str, Any]) -> Checkpoint:
    stated = manifest.pop("id", None)
    checkpoint = parse_record(Checkpoint, json.dumps(manifest))
    if stated not in (None, checkpoint.id):
        raise ValueError(f"id is {str(stated)[:100]!r}, its contents make it {checkpoint.id}")
    return checkpoint


def write_manifest(folder: Path, checkpoint: Checkpoint) -> None:
    """Write the manifest beside the adapter."""
    write_json(folder / MANIFEST, checkpoint.to_json())


def read_checkpoint(folder: Path, step: int) -> Checkpoint:
    """Read and verify the checkpoint in `folder`. A CheckpointError if it has another step."""
    checkpoint = read_manifest(folder)
    verify(checkpoint, folder)
    if checkpoint.step != step:
        raise CheckpointError(f"{folder} holds step {checkpoint.step}, not {step}")
    return checkpoint


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
