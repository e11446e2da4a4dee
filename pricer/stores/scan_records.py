"""What the last look at a repository found, kept in HF_HOME, so that it can be read without the network."""

import contextlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from pricer.core.checkpoints import Checkpoint
from pricer.stores.checkpoints import parse_manifest
from pricer.stores.files import read_json, write_json
from pricer.stores.hub_cache import home
from pricer.stores.repo_scan import RepoScan


def keep_scan(repo: str, scan: RepoScan, when: str) -> None:
    """Keep a scan, with its time. A disk that cannot be written costs only the work without the network."""
    lists = ("checkpoints", "untagged")
    kept: dict[str, Any] = {name: [one.to_json() for one in getattr(scan, name)] for name in lists}
    kept |= {"when": when, "has_manifests": scan.has_manifests, "notes": scan.notes, "tags": dict(scan.tags)}
    with contextlib.suppress(OSError):
        write_json(_record_file(repo), kept)


def read_scan(repo: str) -> tuple[RepoScan, str] | None:
    """The kept scan of a repository, and its time; None if there is none that can be read."""
    try:
        kept = read_json(_record_file(repo))
        checkpoints, untagged = (_read_list(kept[name]) for name in ("checkpoints", "untagged"))
        scan = RepoScan(checkpoints, dict(kept["tags"]), bool(kept["has_manifests"]), tuple(kept["notes"]))
        return replace(scan, untagged=untagged), str(kept["when"])
    except (OSError, ValueError, TypeError, KeyError):
        return None


def _read_list(records: list[dict[str, Any]]) -> tuple[Checkpoint, ...]:
    return tuple(parse_manifest(json.dumps(record)) for record in records)


def _record_file(repo: str) -> Path:
    return home() / "pricer" / f"models--{repo.replace('/', '--')}.json"
