"""A run's evaluations: the predictions of each candidate, their scores, and the metrics."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from pricer.core.calibration import Calibration
from pricer.core.cells import Shard
from pricer.core.checkpoints import Failure
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable
from pricer.core.predictions import Distribution, Prediction
from pricer.core.regression import EmbeddingRegression
from pricer.errors import RunError
from pricer.stores.answers import Failures, Line, parse_lines
from pricer.stores.files import (
    append_lines,
    locked,
    read_arrays,
    read_json,
    write_arrays,
    write_atomically,
    write_json,
    write_lines,
)
from pricer.stores.records import read_record, read_records

_PREDICTIONS, _EVALUATION = "predictions.jsonl", "evaluation.json"
# The columns of scores.npz and their types.
_COLUMNS: dict[str, Any] = {"item_id": np.str_, "price": np.float64, "imputed": np.float64, "has_price": np.bool_}


class EvaluationStore:
    """Stores each evaluation in a folder `<name>-<spec fingerprint>/`. A name is the key of a candidate: the id of a
    checkpoint, or the name of a baseline.

    Predictions are in `predictions.jsonl`, and those that a shard made in a file of its own. So every file has one
    writer, and shards never wait for each other.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fetched: dict[tuple[str, str], list[Path]] = {}

    @contextmanager
    def lock(self, shard: Shard | None = None) -> Iterator[None]:
        """Lock the evaluations while they are made. A RunError if another process makes them.

        Different shards can be answered at the same time. Without a `shard`, this process is the only one. Training can
        go on.
        """
        self._folder.mkdir(exist_ok=True)
        run = self._folder.parent.name
        with locked(
            self._folder, RunError(f"another process is scoring {run}", "wait for it to end"), shared=bool(shard)
        ):
            if shard is None:
                for path in self._folder.glob("shard-*.lock"):
                    path.unlink(missing_ok=True)  # no shard is being answered now
                yield
                return
            path = self._folder / f"shard-{shard.label}.lock"
            path.touch()
            hint = "wait for it to end, or answer another shard"
            with locked(path, RunError(f"another process is answering shard {shard} of {run}", hint)):
                yield

    def batch_tokens(self, spec: EvalSpec) -> int | None:
        """The maximum number of tokens in a batch for all evaluations under that spec; None if none has begun."""
        return self._batch_tokens().get(spec.fingerprint)

    def fix_batch_tokens(self, spec: EvalSpec, batch_tokens: int) -> int:
        """Set the maximum number of tokens in a batch for all evaluations under that spec. If another process has set
        it, that one stays. Returns the number that is set.
        """
        with self._brief_lock():
            known = {spec.fingerprint: batch_tokens, **self._batch_tokens()}
            write_json(self._folder / "batches.json", known)
        return known[spec.fingerprint]

    def _batch_tokens(self) -> dict[str, int]:
        path = self._folder / "batches.json"
        try:
            kept = read_json(path)
            if not all(isinstance(tokens, int) and tokens > 0 for tokens in kept.values()):
                raise ValueError("not every spec has a number of tokens")
            return kept
        except FileNotFoundError:
            return {}
        except (AttributeError, TypeError, ValueError) as error:
            raise _damaged(path, error, self._folder) from None

    def predictions(self, name: str, spec: EvalSpec) -> list[list[Prediction]]:
        """The saved batches of Predictions. An interrupted evaluation continues after them. If an item was answered
        more than once, only its first answer is returned.
        """
        folder, known = self._folder_of(name, spec), set[str]()
        batches = []
        fetched = self._fetched.get((name, spec.fingerprint), [])
        for path in (folder / _PREDICTIONS, *self.shard_files(name, spec), *fetched):
            try:
                for line in read_records(Line, path):
                    first = {one.item_id: one for one in reversed(line.batch) if one.item_id not in known}
                    known |= first.keys()
                    batches += [list(first.values())[::-1]] if first else []
            except ValueError as error:
                raise _damaged(path, error, folder) from None
        return batches

    def shard_files(self, name: str, spec: EvalSpec) -> list[Path]:
        """The files with the Predictions that shards have made, in the order of their names."""
        return sorted(self._folder_of(name, spec).glob("predictions-*.jsonl"))

    def add_predictions(
        self, name: str, spec: EvalSpec, batch: Sequence[Prediction], shard: Shard | None = None
    ) -> None:
        """Save one batch. If the process is killed, the batch is saved completely or not at all."""
        path = self._folder_of(name, spec) / (f"predictions-{shard.label}.jsonl" if shard else _PREDICTIONS)
        append_lines(path, [_as_record(batch)], durable=False)

    def set_predictions(self, name: str, spec: EvalSpec, batches: Sequence[Sequence[Prediction]]) -> None:
        """Replace all saved Predictions by these batches, in one file. A kill loses no Prediction."""
        write_lines(self._folder_of(name, spec) / _PREDICTIONS, map(_as_record, batches))
        for path in self.shard_files(name, spec):
            path.unlink(missing_ok=True)

    def add_fetched(self, name: str, spec: EvalSpec, path: Path) -> None:
        """Read a file of Predictions from elsewhere after the files here, for as long as this object lives. The file
        is not copied, so a later command does not read it.
        """
        self._fetched.setdefault((name, spec.fingerprint), []).append(path)

    def read_shard(self, spec: EvalSpec, shard: Shard) -> dict[str, bytes]:
        """The files of answers that a shard has made, by their paths in the run's folder: whole lines only."""
        found = {}
        for path in sorted(self._folder.glob(f"*-{spec.fingerprint}/predictions-{shard.label}.jsonl")):
            content = path.read_bytes()
            found[path.relative_to(self._folder.parent).as_posix()] = content[: content.rfind(b"\n") + 1]
        return found

    def keep_shard(self, name: str, spec: EvalSpec, shard: Shard, content: bytes) -> None:
        """Keep a file of answers that a shard has made elsewhere. It is not kept if its answers are here, or if the
        file here is as long, or longer.
        """
        path = self._folder_of(name, spec) / f"predictions-{shard.label}.jsonl"
        if path.exists() and path.stat().st_size >= len(content):
            return
        known = {one.item_id for batch in self.predictions(name, spec) for one in batch}
        if any(one.item_id not in known for batch in parse_lines(content) for one in batch):
            write_atomically(path, content)

    def read_files(self, name: str, spec: EvalSpec) -> dict[str, bytes]:
        """The files of one evaluation, by their names, to be sent. Those that were fetched come with them."""
        files = {path.name: path for path in sorted(self._folder_of(name, spec).glob("*"))}
        # These names come after those of shards: answers that were made here count first.
        fetched = enumerate(self._fetched.get((name, spec.fingerprint), []), start=1)
        files |= {f"predictions-fetched-{number:04}.jsonl": path for number, path in fetched}
        return {file: path.read_bytes() for file, path in files.items()}

    def write_files(self, name: str, spec: EvalSpec, files: Mapping[str, bytes]) -> None:
        """Replace the files of one evaluation by those that `read_files` has read elsewhere."""
        folder = self._folder_of(name, spec)
        # As in `add`: the evaluation comes last.
        for file in sorted(files, key=lambda file: (file == _EVALUATION, file)):
            write_atomically(folder / file, files[file])
        for path in self.shard_files(name, spec):
            if path.name not in files:
                path.unlink(missing_ok=True)

    def add(self, name: str, evaluation: Evaluation, table: ScoreTable, calibration: Calibration | None = None) -> None:
        """Save a complete evaluation, its scores and what its answers correct (None: nothing)."""
        folder = self._folder_of(name, evaluation.spec)
        # The evaluation comes last, so that a saved one always has the other files.
        write_arrays(folder / "scores.npz", **{column: getattr(table, column) for column in _COLUMNS})
        if calibration:
            write_json(folder / "calibration.json", asdict(calibration))
        else:  # one of earlier answers would stay
            (folder / "calibration.json").unlink(missing_ok=True)
        write_json(folder / _EVALUATION, asdict(evaluation))

    def find(self, name: str, spec: EvalSpec) -> Evaluation | None:
        """The evaluation of that name under that spec, or None."""
        path = self._folder_of(name, spec) / _EVALUATION
        return _read_evaluation(path) if path.exists() else None

    def scores(self, name: str, spec: EvalSpec) -> ScoreTable | None:
        """The scores of that name under that spec; None if there are none."""
        path = self._folder_of(name, spec) / "scores.npz"
        try:
            return ScoreTable(**read_arrays(path, **_COLUMNS), rule=spec.rule)
        except FileNotFoundError:
            return None
        except (KeyError, TypeError, ValueError) as error:
            raise _damaged(path, error, path) from None

    def calibration(self, name: str, spec: EvalSpec) -> Calibration | None:
        """The correction of intervals that the answers to validation items gave; None if they gave none."""
        path = self._folder_of(name, spec) / "calibration.json"
        try:
            return read_record(Calibration, path) if path.exists() else None
        except ValueError as error:
            raise _damaged(path, error, path) from None  # the predictions give it again

    def regression(self, spec: EvalSpec, size: int) -> EmbeddingRegression | None:
        """The regression on embeddings, of that size, of the items of that spec, which are training items. None if none
        is kept.
        """
        path = self._path_of_regression(spec)
        if not path.exists():
            return None
        try:
            regression = read_record(EmbeddingRegression, path)
            if (count := len(regression.weights)) != size:
                raise ValueError(f"weights has {count} numbers instead of {size}")
        except ValueError as error:
            raise _damaged(path, error, path) from None
        return regression

    def keep_regression(self, spec: EvalSpec, regression: EmbeddingRegression) -> None:
        """Keep the regression on embeddings of the items of that spec."""
        write_json(self._path_of_regression(spec), asdict(regression))

    def _path_of_regression(self, spec: EvalSpec) -> Path:
        return self._folder / f"regression-{spec.fingerprint}.json"

    def failures(self) -> list[Failure]:
        """The checkpoints that could not be scored when they were tried last."""
        path = self._folder / "failures.json"
        try:
            return list(read_record(Failures, path).failures) if path.exists() else []
        except ValueError as error:
            raise _damaged(path, error, path) from None

    def add_failure(self, failure: Failure) -> None:
        """Record why a checkpoint could not be scored. An earlier reason is replaced."""
        with self._brief_lock():
            others = [one for one in self.failures() if one.id != failure.id]
            write_json(self._folder / "failures.json", asdict(Failures((*others, failure))))

    def drop_failure(self, checkpoint_id: str) -> None:
        """Remove the record of a failure, if there is one: the checkpoint can be scored now."""
        path = self._folder / "failures.json"
        if not path.exists():
            return
        with self._brief_lock():
            found = self.failures()
            left = tuple(one for one in found if one.id != checkpoint_id)
            if not left:
                path.unlink(missing_ok=True)
            elif len(left) < len(found):
                write_json(path, asdict(Failures(left)))

    def all(self) -> list[Evaluation]:
        """Every evaluation, in the order of candidates."""
        found = [_read_evaluation(path) for path in self._folder.glob("*/evaluation.json")]
        return sorted(found, key=lambda e: (e.candidate.order, e.spec.fingerprint))

    @contextmanager
    def _brief_lock(self) -> Iterator[None]:
        """Lock the files that all shards edit, long enough to read one and write it again."""
        with locked(self._folder.parent.parent):
            yield

    def _folder_of(self, name: str, spec: EvalSpec) -> Path:
        return self._folder / f"{name}-{spec.fingerprint}"


def _as_record(batch: Sequence[Prediction]) -> dict[str, Any]:
    """A Line of this batch as JSON values. `asdict` copies every value, which takes six times as long."""
    return {
        "batch": [
            {**_fields(one), "distribution": None if one.distribution is None else _fields(one.distribution)}
            for one in batch
        ]
    }


def _fields(record: Prediction | Distribution) -> dict[str, Any]:
    return {name: getattr(record, name) for name in record.__slots__}


def _read_evaluation(path: Path) -> Evaluation:
    try:
        return read_record(Evaluation, path)
    except ValueError as error:
        raise _damaged(path, error, path.parent) from None


def _damaged(path: Path, error: Exception, remove: Path) -> RunError:
    return RunError(f"{path} is damaged: {error}", f"remove {remove}, and evaluate again")
