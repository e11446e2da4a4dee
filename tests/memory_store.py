"""A CheckpointStore in memory: for tests of what uses a store, without the disk's or the Hub's particulars."""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from pricer.core.checkpoints import Checkpoint, Failure
from pricer.errors import CheckpointError
from pricer.stores.checkpoints import PARTS, read_checkpoint, sort_checkpoints


class MemoryStore:
    """Keeps the files of each checkpoint under its name, and writes them out when they are fetched. Where it
    has a `repo`, it publishes picks: the checkpoint is kept in `published`, what was written about it in `pages`.
    """

    location = "memory"

    def __init__(self, *, is_remote: bool = False, repo: str | None = None) -> None:
        self.is_remote = is_remote
        self.pages: dict[str, bytes] = {}
        self.published: Checkpoint | None = None
        self._repo = repo
        self._kept: dict[str, tuple[Checkpoint, dict[str, bytes]]] = {}
        self._tags: dict[str, Checkpoint] = {}

    def checkpoints(self) -> list[Checkpoint]:
        return sort_checkpoints(checkpoint for checkpoint, _ in self._kept.values())

    def damaged(self) -> list[Failure]:
        return []

    def push(self, folder: Path, step: int) -> Checkpoint:
        checkpoint = read_checkpoint(folder, step)
        self._keep(checkpoint, folder)
        return checkpoint

    def fetch(self, checkpoint: Checkpoint) -> Path:
        kept, files = self._kept.get(checkpoint.name, (None, {}))
        if kept != checkpoint:
            raise CheckpointError(f"{checkpoint.name} is not here")
        folder = Path(tempfile.mkdtemp()) / checkpoint.name
        folder.mkdir()
        for name, content in files.items():
            (folder / name).write_bytes(content)
        return folder

    def tag(self, checkpoint: Checkpoint, name: str) -> None:
        self.fetch(checkpoint)
        self._tags[name] = checkpoint

    def tagged(self, name: str) -> Checkpoint | None:
        return self._tags.get(name)

    def publish_pick(
        self, checkpoint: Checkpoint, render: Callable[[str, bytes | None], Mapping[str, bytes] | None]
    ) -> str | None:
        if self._repo is None:
            return None
        pages = render(self._repo, self.pages.get("README.md"))
        if pages is None:
            return None
        self.fetch(checkpoint)
        self.pages |= pages
        self.published = checkpoint
        return self._repo

    def _keep(self, checkpoint: Checkpoint, folder: Path) -> None:
        self._kept[checkpoint.name] = checkpoint, {name: (folder / name).read_bytes() for name in PARTS}
