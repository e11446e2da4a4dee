"""Run folders: everything one training leaves behind, and where each part of it lies."""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np

from pricer.config import RunConfig
from pricer.config_file import load_config, to_yaml
from pricer.core.confirmation import Confirmation
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.halving import RaceRecord
from pricer.core.pick_record import PickRecord
from pricer.core.predictions import Prediction
from pricer.core.scores import Scores
from pricer.core.selection import Selection
from pricer.errors import RunError
from pricer.stores.budget import CommitBudget
from pricer.stores.checkpoints import FolderStore, Soups
from pricer.stores.files import (
    append_lines,
    is_locked,
    last_line,
    locked,
    read_arrays,
    read_lines,
    sha256_of,
    write_arrays,
    write_atomically,
    write_json,
)
from pricer.stores.hub import Hub
from pricer.stores.hub_checkpoints import HubStore
from pricer.stores.machine import look_at_disk
from pricer.stores.outbox import Outbox

RUNS = Path("runs")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Run:
    """One run folder. Creating the object touches nothing; `create_run` and `find_run` do."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.name = folder.name
        self.outbox = Outbox(folder / "outbox")
        self.soups = Soups(folder / "soups")
        self._metrics = folder / "metrics.jsonl"

    @cached_property
    def store(self) -> "FolderStore | HubStore":
        """Where this run's checkpoints are kept: its repository if it has one, else its folder."""
        repo = self.repo
        if repo is None:
            return FolderStore(self.folder / "checkpoints", self.folder / "checkpoints.jsonl", self.soups)
        return self.hub_store(Hub(repo, budget=self.commit_budget))

    @property
    def repo(self) -> str | None:
        """The repository on the Hub that its checkpoints go to, or None."""
        repo = self.facts().get("repo") if _is_run(self.folder) else None
        return repo if isinstance(repo, str) else None

    @property
    def commit_budget(self) -> CommitBudget:
        """What counts the commits that are made for this run."""
        return CommitBudget(self.folder / "outbox" / "commits.jsonl")

    def hub_store(self, hub: Hub) -> HubStore:
        """Its checkpoints in a repository, with the config and the facts of the run beside each."""
        beside = [self.folder / "config.yaml", self.folder / "run.json"]
        run_id = self.facts().get("id") if _is_run(self.folder) else None
        log = self.folder / "checkpoints.jsonl"
        return HubStore(hub, self.folder / "checkpoints", log, self.soups, beside, run_id)

    def clear(self) -> None:
        """Remove what is in a folder that is not a run yet: what a kill or an error left of one must not become part of
        another.
        """
        for name in ("checkpoints", "soups", "evaluations", "outbox", "state"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        logs = ("checkpoints.jsonl", "metrics.jsonl", "tracking.jsonl")
        for name in (*logs, "selection.json", "confirmation.json", "race.json", "report.html"):
            (self.folder / name).unlink(missing_ok=True)

    def config(self) -> RunConfig:
        """The config as resolved when training started."""
        path = self.folder / "config.yaml"
        if not path.is_file():
            raise RunError(f"there is no {path}", "the run was damaged: train another one")
        return load_config(path)

    def put_state(self, state: Path, step: int, *, keep_all: bool) -> None:
        """Leave a training state in the outbox, with all that another machine needs to go on from it."""
        own = [self.folder / name for name in ("config.yaml", "run.json", "metrics.jsonl")]
        self.outbox.put_state(
            step,
            [state / name for name in STATE_FILES if (state / name).is_file()],
            [path for path in own if path.is_file()],
            keep_all=keep_all,
        )

    def pin(self, config: RunConfig) -> None:
        """Keep a config as it was settled, if the run is a repository that is evaluated here: what its next evaluation
        resolved anew (the base's revision, for one) could be something else.
        """
        if self.facts().get("attached"):
            write_atomically(self.folder / "config.yaml", to_yaml(config))

    def held(self) -> AbstractContextManager[None]:
        """While open, no other process trains this run; a RunError if one does."""
        return _alone(
            self.folder,
            f"another process is training {self.name}",
            "wait for it to end, or train another run: --run NAME",
        )

    @property
    def is_held(self) -> bool:
        """Whether another process trains this run, as far as its file system can tell."""
        return is_locked(self.folder)

    def scored_alone(self) -> AbstractContextManager[None]:
        """While open, no other process scores this run (one may train it); a RunError if one does."""
        folder = self.folder / "evaluations"
        folder.mkdir(exist_ok=True)
        return _alone(folder, f"another process is scoring {self.name}", "wait for it to end")

    def facts(self) -> dict[str, Any]:
        """What run.json says: versions, device, seed, started, finished (None while unfinished)."""
        path = self.folder / "run.json"
        try:
            facts = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            facts = None
        if not isinstance(facts, dict) or not isinstance(facts.get("started"), str):
            raise RunError(f"{path} cannot be read", f"remove {self.folder}, or name another run: --run NAME")
        return facts

    def record(self, **facts: Any) -> None:
        """Add or replace entries of run.json. One process may train the run while another scores it."""
        with locked(self.folder.parent, wait=True):
            write_json(self.folder / "run.json", {**self.facts(), **facts})

    def finish(self) -> None:
        """Note the end of training, and drop the training state, which is of no use any more."""
        self.record(finished=now())
        shutil.rmtree(self.state_folder, ignore_errors=True)

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

    def reached(self) -> int:
        """The newest step in metrics.jsonl; 0: none yet."""
        step = (last_line(self._metrics) or {}).get("step", 0)
        return step if isinstance(step, int) else 0

    def forget_after(self, step: int) -> None:
        """Drop metrics and training states beyond a step: training goes on from there and will write them again.

        A state half-written by a kill would count as the newest when the trainer drops all but two.
        """
        for later, folder in self._states():
            if later > step:
                shutil.rmtree(folder)
        kept = [json.dumps(line, ensure_ascii=False) + "\n" for line in self.metrics() if line.get("step", 0) <= step]
        write_atomically(self._metrics, "".join(kept))

    @property
    def state_folder(self) -> Path:
        """Where the trainer keeps what it needs to go on: optimizer, scheduler, random state."""
        return self.folder / "state"

    def mark_whole(self, state: Path) -> None:
        """Record that a training state was written completely, with the sha256 of each file in it."""
        files = {file.name: sha256_of(file) for file in sorted(state.iterdir()) if file.name != "state.json"}
        write_json(state / "state.json", {"files": files})

    def newest_state(self) -> tuple[Path, int] | None:
        """The newest training state that is whole, with its step; None: training starts from the beginning."""
        return next(((folder, step) for step, folder in reversed(self._states()) if _is_whole(folder)), None)

    def _states(self) -> list[tuple[int, Path]]:
        return sorted(
            (int(folder.name.removeprefix("checkpoint-")), folder)
            for folder in self.state_folder.glob("checkpoint-*")
            if folder.name.removeprefix("checkpoint-").isdigit()
        )

    def batch_tokens(self, spec: EvalSpec) -> int | None:
        """The maximum number of tokens in a batch that evaluations under that spec began with; None: none has begun."""
        return self._batch_tokens().get(spec.fingerprint)

    def keep_batch_tokens(self, spec: EvalSpec, batch_tokens: int) -> None:
        """Fix the batches of all evaluations under that spec."""
        kept = {**self._batch_tokens(), spec.fingerprint: batch_tokens}
        write_json(self.folder / "evaluations" / "batches.json", kept)

    def _batch_tokens(self) -> dict[str, int]:
        path = self.folder / "evaluations" / "batches.json"
        try:
            kept = json.loads(path.read_text(encoding="utf-8"))
            return {fingerprint: _positive(batch_tokens) for fingerprint, batch_tokens in kept.items()}
        except FileNotFoundError:
            return {}
        except (AttributeError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}", f"remove {path.parent}, and evaluate again") from None

    def predictions(self, name: str, spec: EvalSpec) -> list[list[Prediction]]:
        """The Predictions saved so far, as the batches they were saved in."""
        path = self._evaluation_folder(name, spec) / "predictions.jsonl"
        try:
            return [[Prediction.from_json(record) for record in line["batch"]] for line in read_lines(path)]
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}", f"remove {path.parent}, and evaluate again") from None

    def add_predictions(self, name: str, spec: EvalSpec, batch: Sequence[Prediction]) -> None:
        """Save one batch: all of it or, if killed, none."""
        folder = self._evaluation_folder(name, spec)
        append_lines(folder / "predictions.jsonl", [{"batch": [asdict(p) for p in batch]}], durable=False)

    def drop_predictions(self, name: str, spec: EvalSpec) -> None:
        """Forget the Predictions saved so far."""
        (self._evaluation_folder(name, spec) / "predictions.jsonl").unlink(missing_ok=True)

    def add_evaluation(self, name: str, evaluation: Evaluation, scores: Scores) -> None:
        """Save the result of an evaluation whose predictions are complete, and the scores it sums up."""
        folder = self._evaluation_folder(name, evaluation.spec)
        write_arrays(folder / "scores.npz", price=scores.price, charged=scores.charged, answered=scores.answered)
        write_json(folder / "evaluation.json", evaluation.to_json())

    def scores(self, name: str, spec: EvalSpec) -> Scores | None:
        """The scores behind the evaluation of that name under that spec; None: there are none, as of an evaluation from
        before they were kept.
        """
        path = self._evaluation_folder(name, spec) / "scores.npz"
        try:
            return Scores(**read_arrays(path, price=np.float64, charged=np.float64, answered=np.bool_))
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"{path} is damaged: {error}", f"remove {path}, and evaluate again") from None

    def evaluation(self, name: str, spec: EvalSpec) -> Evaluation | None:
        """The evaluation of that name under that spec, or None."""
        path = self._evaluation_folder(name, spec) / "evaluation.json"
        return _read_evaluation(path) if path.exists() else None

    def evaluations(self) -> list[Evaluation]:
        """All evaluations of the run, the earliest step first, baselines before them, soups behind their last step."""
        found = [_read_evaluation(path) for path in self.folder.glob("evaluations/*/evaluation.json")]
        return sorted(found, key=lambda e: (e.step or 0, e.members, e.name, e.spec.fingerprint))

    def write_selection(self, selection: Selection) -> None:
        """Write selection.json."""
        write_json(self.folder / "selection.json", selection.to_json())

    def selection(self) -> PickRecord | None:
        """What `pricer pick` chose last, or None."""
        path = self.folder / "selection.json"
        try:
            return PickRecord.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error}", f"pricer pick --run {self.name}") from None

    def add_confirmation(self, confirmation: Confirmation) -> None:
        """Add to confirmation.json: what was once seen of the test split stays on record."""
        every = [one.to_json() for one in [*self.confirmations(), confirmation]]
        write_json(self.folder / "confirmation.json", {"confirmations": every})

    def confirmations(self) -> list[Confirmation]:
        """The confirmations of its picks, the newest last."""
        path = self.folder / "confirmation.json"
        if not path.exists():
            return []
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
            return [Confirmation.from_json(one) for one in record["confirmations"]]
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error}", "remove it, and confirm again") from None

    def write_race(self, race: RaceRecord) -> None:
        """Write race.json."""
        write_json(self.folder / "race.json", race.to_json())

    def race(self) -> RaceRecord | None:
        """The newest finished race of its checkpoints, or None."""
        path = self.folder / "race.json"
        try:
            return RaceRecord.from_json(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else None
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise RunError(f"{path} is damaged: {error}", "remove it, and race again") from None

    def _evaluation_folder(self, name: str, spec: EvalSpec) -> Path:
        return self.folder / "evaluations" / f"{name}-{spec.fingerprint}"


# What the trainer reads when it goes on, and what says what that is. All else in its folder can be made again.
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


def create_run(config: RunConfig, stem: str, name: str | None, facts: Mapping[str, Any]) -> Run:
    """A new run folder: `name`, which must be free, or the first free one of `stem`, `stem-2`, `stem-3` …"""
    refuse_name(name)
    RUNS.mkdir(exist_ok=True)
    with locked(RUNS, wait=True):  # two that start together must not take the same name
        refuse_name(name)
        folder = RUNS / (name or free_name(stem))
        Run(folder).clear()
        write_atomically(folder / "config.yaml", to_yaml(config))
        write_json(folder / "run.json", {"id": uuid4().hex, **facts, "started": now(), "finished": None})
    return Run(folder)


def free_name(stem: str) -> str:
    """The first of `stem`, `stem-2`, `stem-3` … that no run has."""
    return next(name for name in _names(stem) if not _is_run(RUNS / name))


def refuse_name(name: str | None) -> None:
    """Raise a RunError if a new run cannot have that name. None, a name to be found, is no problem."""
    if name is None:
        return
    if not _NAME.fullmatch(name):
        raise RunError(f"{name!r} cannot name a run", "letters, digits, dots, dashes and underscores")
    if _is_run(RUNS / name):
        raise RunError(f"there is a run {name} already", f"pricer train --resume --run {name}, or another --run NAME")


def refuse_place() -> None:
    """Raise a RunError if no run can be written here."""
    disk = look_at_disk(RUNS)
    if disk.obstacle:
        raise RunError(disk.problem, f"remove or rename {disk.obstacle}")
    if disk.problem:
        raise RunError(f"{disk.folder} cannot be written: {disk.problem}", "start pricer in another folder")


def runs_here() -> list[Run]:
    """The runs of this folder by name; a RunError if there is none."""
    if runs := _every_run():
        return runs
    raise RunError("there is no run here yet (no runs/*/run.json)", "pricer train")


def find_run(name: str | None, *, trained: bool = False) -> Run:
    """The run of that name, or the newest one (if `trained`, the newest that was trained here); a RunError if there is
    none.
    """
    if name is None:
        runs = runs_here()
        candidates = [run for run in runs if not (trained and run.facts().get("attached"))]
        return max(candidates or runs, key=lambda run: (run.facts()["started"], run.name))
    known = {run.name: run for run in _every_run()}
    if name in known:
        return known[name]
    names = ", ".join(known)
    raise RunError(f"there is no run {name}", f"runs here: {names}" if names else "pricer train")


def runs_of(repo: str) -> list[Run]:
    """The runs here that belong to a repository on the Hub, the newest last."""
    found = [run for run in _every_run() if run.repo == repo]
    return sorted(found, key=lambda run: (run.facts()["started"], run.name))


def run_here(name: str | None, repo: str | None) -> Run:
    """The run of that name (None: the newest), or the one that belongs to a repository; a RunError if there is none."""
    if repo is None:
        return find_run(name)
    if present := runs_of(repo):
        return present[-1]
    raise RunError(f"no checkpoint of {repo} has been evaluated here", f"pricer eval --repo {repo} --all-checkpoints")


def _every_run() -> list[Run]:
    return [Run(path.parent) for path in sorted(RUNS.glob("*/run.json"))]


def now() -> str:
    """The time in UTC, to the microsecond, so that runs sort by it."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


@contextmanager
def _alone(folder: Path, message: str, hint: str) -> Iterator[None]:
    try:
        with locked(folder, wait=False):
            yield
    except BlockingIOError:
        raise RunError(message, hint) from None


def _positive(value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ValueError(f"{value!r} is no number of tokens")
    return value


def _is_run(folder: Path) -> bool:
    # A run is there once it has its run.json: what a kill left behind before that is taken over.
    return (folder / "run.json").exists()


def _names(stem: str) -> Iterable[str]:
    yield stem
    number = 2
    while True:
        yield f"{stem}-{number}"
        number += 1


def _read_evaluation(path: Path) -> Evaluation:
    try:
        return Evaluation.from_json(json.loads(path.read_text(encoding="utf-8")))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path} is damaged: {error}", f"remove {path.parent}, and evaluate again") from None


def _is_whole(folder: Path) -> bool:
    try:
        files = json.loads((folder / "state.json").read_text(encoding="utf-8"))["files"]
        return all(sha256_of(folder / name) == digest for name, digest in files.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False
