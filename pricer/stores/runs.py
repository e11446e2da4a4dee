"""Run folders: all files of one training, and how to read and write them."""

import contextlib
import itertools
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

from pricer.config import RunConfig
from pricer.config_file import load_config, to_yaml
from pricer.core.checkpoints import CheckpointStore
from pricer.core.halving import RaceRecord
from pricer.core.selection import Confirmation, PickRecord, Selection
from pricer.errors import RunError
from pricer.stores.checkpoints import FolderStore
from pricer.stores.evaluations import EvaluationStore
from pricer.stores.files import (
    append_lines,
    is_locked,
    locked,
    parse_json,
    read_json,
    read_lines,
    write_atomically,
    write_json,
    write_lines,
)
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.machine import look_at_disk
from pricer.stores.outbox import Outbox
from pricer.stores.records import read_record
from pricer.stores.training_states import TrainingStates

RUNS = Path("runs")
T = TypeVar("T")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


@dataclass(frozen=True, slots=True)
class _Confirmations:
    """What confirmation.json holds."""

    confirmations: tuple[Confirmation, ...]


class Run:
    """One run folder. Creating the object does not access the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.outbox = Outbox(folder / "outbox")
        self.evaluations = EvaluationStore(folder / "evaluations")
        self.training_states = TrainingStates(folder / "state")
        self._metrics = folder / "metrics.jsonl"

    @cached_property
    def store(self) -> CheckpointStore:
        """Where this run's checkpoints are kept: its repository if it has one, else its folder."""
        if self.repo is None:
            return FolderStore(self.folder)
        return HubStore(Hub(self.repo, before_commit=self.outbox.budget.take), self.folder)

    @property
    def repo(self) -> str | None:
        """The Hub repository of its checkpoints, or None."""
        repo = self.facts().get("repo") if _is_run(self.folder) else None
        return repo if isinstance(repo, str) else None

    def discard(self) -> None:
        """Remove the folder of a run that could not be started."""
        shutil.rmtree(self.folder)

    def clear(self) -> None:
        """Remove the remains of a failed start from a folder that is not a run yet."""
        for name in ("checkpoints", "evaluations", "outbox", "state"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        logs = ("checkpoints.jsonl", "metrics.jsonl", "tracking.jsonl")
        for name in (*logs, "selection.json", "confirmation.json", "race.json", "report.html", "stop.json"):
            (self.folder / name).unlink(missing_ok=True)

    def config(self) -> RunConfig:
        """The config as resolved when training started."""
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise RunError(f"there is no {path}", "the run was damaged: train another one")
        return load_config(path)

    def pin_config(self, config: RunConfig) -> None:
        """Save a resolved config, if the run is a Hub repository that is evaluated here. Without this, the next
        evaluation might resolve it differently, because the base may have a newer revision by then.
        """
        if self.facts().get("from_hub"):
            write_atomically(self.folder / "config.yaml", to_yaml(config))

    def lock(self) -> AbstractContextManager[None]:
        """A context in which no other process can train this run. A RunError if one does already."""
        hint = "wait for it to end, or train another run: --run NAME"
        return locked(self.folder, RunError(f"another process is training {self.name}", hint))

    @property
    def is_locked(self) -> bool:
        """Whether another process trains this run. False if the file system has no locks."""
        return is_locked(self.folder)

    def facts(self) -> dict[str, Any]:
        """The content of run.json: versions, device, seed, started, finished (None while unfinished)."""
        path = self.folder / "run.json"
        with contextlib.suppress(OSError, ValueError):
            facts = read_json(path)
            if isinstance(facts.get("started"), str):
                return facts
        raise RunError(f"{path} cannot be read", f"remove {self.folder}, or name another run: --run NAME")

    def record(self, **facts: Any) -> None:
        """Add or replace entries of run.json."""
        with locked(self.folder.parent):  # one process may train the run while another scores it
            write_json(self.folder / "run.json", {**self.facts(), **facts})

    def has_finished(self) -> bool:
        """Whether its training has ended. False while the run is not complete here."""
        return _is_run(self.folder) and bool(self.facts().get("finished"))

    def finish(self) -> None:
        """Record the end of training, and delete the training states."""
        self.record(finished=now())
        shutil.rmtree(self.training_states.folder, ignore_errors=True)

    def log(self, record: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        append_lines(self._metrics, [record], durable=False)

    def metrics(self) -> Iterator[dict[str, Any]]:
        """The lines of metrics.jsonl."""
        try:
            for record in read_lines(self._metrics):
                if not isinstance(record.get("step", 0), int):
                    raise ValueError(f"step is {record['step']!r}")
                yield record
        except ValueError as error:
            raise RunError(f"{self._metrics} is damaged: {error}", "remove the line") from None

    def last_step(self) -> int:
        """The step of the last complete line in metrics.jsonl, or 0. Earlier damaged lines are ignored."""
        text = self._metrics.read_bytes() if self._metrics.exists() else b""
        step = (parse_json(text.rpartition(b"\n")[0].rpartition(b"\n")[2]) or {}).get("step", 0)
        return step if isinstance(step, int) else 0

    def delete_metrics_after(self, step: int) -> None:
        """Delete the metrics after a step. Training continues from that step and writes them again."""
        write_lines(self._metrics, [line for line in self.metrics() if line.get("step", 0) <= step])

    def write_selection(self, selection: Selection) -> None:
        """Write selection.json."""
        write_json(self.folder / "selection.json", asdict(selection.record))

    def selection(self) -> PickRecord | None:
        """The last choice of `pricer pick`, or None."""
        return self._read("selection.json", PickRecord, f"pricer pick --run {self.name}")

    def add_confirmation(self, confirmation: Confirmation) -> None:
        """Add a confirmation to confirmation.json. Earlier ones are kept."""
        every = _Confirmations((*self.confirmations(), confirmation))
        write_json(self.folder / "confirmation.json", asdict(every))

    def confirmations(self) -> list[Confirmation]:
        """The confirmations of its picks, the newest last."""
        found = self._read("confirmation.json", _Confirmations, "remove it, and confirm again")
        return list(found.confirmations) if found else []

    def write_race(self, race: RaceRecord) -> None:
        """Write race.json."""
        write_json(self.folder / "race.json", asdict(race))

    def race(self) -> RaceRecord | None:
        """The last finished race of its checkpoints, or None."""
        return self._read("race.json", RaceRecord, "remove it, and race again")

    def _read(self, name: str, kind: type[T], hint: str) -> T | None:
        """A record of the run's folder; None if there is none, a RunError with that hint if it is damaged."""
        path = self.folder / name
        try:
            return read_record(kind, path) if path.exists() else None
        except ValueError as error:
            raise RunError(f"{path} is damaged: {error}", hint) from None


def create_run(config: RunConfig, stem: str, name: str | None, facts: Mapping[str, Any]) -> Run:
    """A new run folder: `name`, which must be free, or the first free one of `stem`, `stem-2`, `stem-3` …"""
    refuse_name(name)
    RUNS.mkdir(exist_ok=True)
    with locked(RUNS):  # two processes that start together must not take the same name
        refuse_name(name)
        folder = RUNS / (name or free_name(stem))
        Run(folder).clear()
        write_atomically(folder / "config.yaml", to_yaml(config))
        write_json(folder / "run.json", {"id": uuid4().hex, **facts, "started": now(), "finished": None})
    return Run(folder)


def free_name(stem: str) -> str:
    """The first name of `stem`, `stem-2`, `stem-3` … that is free. Spaces, brackets and the like become dashes, so that
    a command with the name can be pasted.
    """
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)[:80].strip("-._") or "run"
    names = itertools.chain([stem], (f"{stem}-{number}" for number in itertools.count(2)))
    return next(name for name in names if not _is_run(RUNS / name))


def refuse_name(name: str | None) -> None:
    """Raise a RunError if a new run cannot have that name. None is allowed: it stands for an automatic name."""
    if name is None:
        return
    if not _NAME.fullmatch(name):
        raise RunError(f"{name!r} cannot name a run", "letters, digits, dots, dashes and underscores")
    if _is_run(RUNS / name):
        raise RunError(f"there is a run {name} already", f"pricer train --resume --run {name}, or another --run NAME")


def check_runs_folder() -> None:
    """Raise a RunError if no run can be written here."""
    disk = look_at_disk(RUNS)
    if disk.obstacle:
        raise RunError(disk.problem, f"remove or rename {disk.obstacle}")
    if disk.problem:
        raise RunError(f"{disk.folder} cannot be written: {disk.problem}", "start pricer in another folder")


def runs_here() -> list[Run]:
    """The runs of this folder by name, damaged ones included; a RunError if there is none."""
    if runs := _every_run():
        return runs
    raise RunError("there is no run here yet (no runs/*/run.json)", "pricer train")


def find_run(
    name: str | None, *, repo: str | None = None, trained: bool = False, note: Callable[[str], object] = lambda _: None
) -> Run:
    """The run with that name, or else of that `repo`, or else the newest run. With `trained`, runs that were trained
    here are preferred. A RunError if there is no such run. `note` gets a message for each run with a damaged run.json.
    """
    if name is not None:
        known = {run.name: run for run in _every_run()}
        if name in known:
            return known[name]
        raise RunError(f"there is no run {name}", f"runs here: {', '.join(known)}" if known else "pricer train")
    if repo is not None:
        if present := runs_of(repo):
            return present[-1]
        hint = f"pricer eval --repo {repo} --all-checkpoints"
        raise RunError(f"no checkpoint of {repo} has been evaluated here", hint)
    runs, problems = _undamaged(runs_here())
    if not runs:
        raise problems[-1]
    for problem in problems:
        note(f"{problem.message}, so this run is left out")
    candidates = [run for run in runs if not (trained and run.facts().get("from_hub"))]
    return (candidates or runs)[-1]


def runs_of(repo: str) -> list[Run]:
    """The runs here of a Hub repository, the newest last, without damaged runs."""
    return [run for run in _undamaged(_every_run())[0] if run.repo == repo]


def _every_run() -> list[Run]:
    return [Run(path.parent) for path in sorted(RUNS.glob("*/run.json"))]


def _undamaged(runs: Sequence[Run]) -> tuple[list[Run], list[RunError]]:
    """The runs whose run.json can be read, the newest last; and the problems of the others."""
    started: list[tuple[str, str, Run]] = []
    problems = []
    for run in runs:
        try:
            started.append((run.facts()["started"], run.name, run))
        except RunError as problem:
            problems.append(problem)
    return [run for _, _, run in sorted(started, key=lambda found: found[:2])], problems


def now() -> str:
    """The time in UTC, to the microsecond, so that runs sort by it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def _is_run(folder: Path) -> bool:
    # A folder without a run.json is left over from a failed start, and may be replaced.
    return (folder / "run.json").exists()
