"""A repository as the Hub's cache on this machine has it, for work without the network."""

import re
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from pricer.errors import HubError
from pricer.stores.checkpoints import ADAPTER, MANIFEST, parse_manifest
from pricer.stores.files import sha256_of
from pricer.stores.hub import Hub, Refs, RemoteCommit, RemoteFile
from pricer.stores.hub_cache import find_snapshots
from pricer.stores.hub_client import offline_variable

_SHA256 = re.compile(r"[0-9a-f]{64}")


class CachedRepo:
    """The snapshots of a repository in the cache, read like the repository itself. A file that was not downloaded is
    missing. Commit titles are unknown. A HubError if the cache has nothing of the repository.

    `as_of` is the time of the last download.
    """

    def __init__(self, repo: str) -> None:
        self.repo = repo
        found = find_snapshots(repo)
        if found is None:
            variable = offline_variable()
            raise HubError(
                f"{repo} was not downloaded to this machine, and the Hub is switched off ({variable})",
                f"unset {variable}, or run `hf download {repo}` first",
            )
        self._snapshots = {snapshot.commit_hash: snapshot for snapshot in found.revisions}
        self._newest = max(found.revisions, key=lambda snapshot: (snapshot.last_modified, snapshot.commit_hash))
        self.as_of = datetime.fromtimestamp(self._newest.last_modified, UTC).isoformat(timespec="minutes")

    def refs(self) -> Refs:
        """`main`, or else the newest snapshot; and a tag for each snapshot that holds a checkpoint of pricer."""
        named = {ref: snapshot.commit_hash for snapshot in self._snapshots.values() for ref in snapshot.refs}
        own = {name: commit for commit in self._snapshots if (name := self._checkpoint_name(commit))}
        # The cache does not tell tags from branches.
        tags = {name: commit for name, commit in named.items() if name != "main"}
        return Refs({"main": named.get("main", self._newest.commit_hash)}, {**own, **tags})

    def commits(self) -> list[RemoteCommit]:
        """None: the cache keeps no history."""
        return []

    def all_files(self, commit: str) -> dict[str, RemoteFile]:
        """Every file of a snapshot."""
        return {path: self._describe(path, file) for path, file in self._files(commit).items()}

    def files(self, commit: str, paths: list[str]) -> dict[str, RemoteFile]:
        """The files of a snapshot among `paths`."""
        return {path: self._describe(path, file) for path, file in self._files(commit).items() if path in paths}

    def read(self, commit: str, path: str, limit: int) -> bytes | None:
        """The content of a small file; None if the snapshot has none of that name."""
        file = self.files(commit, [path]).get(path)
        return None if file is None else self.download(commit, file, limit).read_bytes()

    def download(self, commit: str, file: RemoteFile, limit: int) -> Path:
        """The file in the cache. A HubError beyond `limit` bytes."""
        if file.size > limit:
            raise HubError(f"{self.repo} has a {file.path} of {file.size:,} bytes, which is too large")
        return Path(self._files(commit)[file.path].file_path)

    def _files(self, commit: str) -> dict[str, Any]:
        """huggingface_hub's description of each file of a snapshot, by the path in the repository."""
        if (snapshot := self._snapshots.get(commit)) is None:
            return {}
        return {Path(file.file_path).relative_to(snapshot.snapshot_path).as_posix(): file for file in snapshot.files}

    def _describe(self, path: str, file: Any) -> RemoteFile:
        # The cache names a file that is in LFS by its sha256, where the disk has links.
        name = Path(file.blob_path).name
        described = RemoteFile(path, file.size_on_disk, name if _SHA256.fullmatch(name) else None, name)
        if described.sha256 is None and path.rpartition("/")[2] == ADAPTER:
            digest = sha256_of(Path(file.file_path))
            return replace(described, sha256=digest, blob=digest)
        return described

    def _checkpoint_name(self, commit: str) -> str | None:
        """The name of pricer's checkpoint in a snapshot, None if it holds none."""
        files = self._files(commit)
        if MANIFEST not in files or ADAPTER not in files:
            return None
        try:
            return parse_manifest(Path(files[MANIFEST].file_path).read_bytes()).name
        except (OSError, ValueError):
            return None


RepoReader: TypeAlias = Hub | CachedRepo
"""What a repository is read from."""
