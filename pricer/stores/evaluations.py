"""A run's evaluations: the predictions of each checkpoint, their scores, and the metrics."""

from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pricer.core.calibration import Calibration
from pricer.core.checkpoints import Failure
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable
from pricer.core.predictions import Prediction
from pricer.errors import RunError
from pricer.stores.files import append_lines, locked, read_arrays, read_json, write_arrays, write_json
from pricer.stores.records import read_record, read_records

# The columns of scores.npz and their types.
_COLUMNS: dict[str, Any] = {"item_id": np.str_, "price": np.float64, "imputed": np.float64, "has_price": np.bool_}


@dataclass(frozen=True, slots=True)
class _Line:
    """A line of predictions.jsonl."""

    batch: tuple[Prediction, ...]


@dataclass(frozen=True, slots=True)
class _Failures:
    """What failures.json holds."""

    failures: tuple[Failure, ...]


class EvaluationStore:
    """Stores each evaluation in a folder `<name>-<spec fingerprint>/`. A name is the id of a checkpoint, or a
    baseline's name.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def lock(self) -> AbstractContextManager[None]:
        """A context in which no other process can evaluate this run (but it may train). A RunError if one does."""
        self._folder.mkdir(exist_ok=True)
        busy = RunError(f"another process is scoring {self._folder.parent.name}", "wait for it to end")
        return locked(self._folder, busy)

    def batch_tokens(self, spec: EvalSpec) -> int | None:
        """The maximum number of tokens in a batch for all evaluations under that spec; None if none has begun."""
        return self._batch_tokens().get(spec.fingerprint)

    def fix_batch_tokens(self, spec: EvalSpec, batch_tokens: int) -> None:
        """Set the maximum number of tokens in a batch for all evaluations under that spec."""
        write_json(self._folder / "batches.json", {**self._batch_tokens(), spec.fingerprint: batch_tokens})

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
        """The saved batches of Predictions. An interrupted evaluation continues after them."""
        path = self._folder_of(name, spec) / "predictions.jsonl"
        try:
            return [list(line.batch) for line in read_records(_Line, path)]
        except ValueError as error:
            raise _damaged(path, error, path.parent) from None

    def add_predictions(self, name: str, spec: EvalSpec, batch: Sequence[Prediction]) -> None:
        """Save one batch. If the process is killed, the batch is saved completely or not at all."""
        path = self._folder_of(name, spec) / "predictions.jsonl"
        append_lines(path, [asdict(_Line(tuple(batch)))], durable=False)

    def drop_predictions(self, name: str, spec: EvalSpec) -> None:
        """Delete the Predictions saved so far."""
        (self._folder_of(name, spec) / "predictions.jsonl").unlink(missing_ok=True)

    def add(self, name: str, evaluation: Evaluation, table: ScoreTable, calibration: Calibration | None = None) -> None:
        """Save a complete evaluation, its scores and what its answers correct (None: nothing)."""
        folder = self._folder_of(name, evaluation.spec)
        # The evaluation comes last, so that a saved one always has the other files.
        write_arrays(folder / "scores.npz", **{column: getattr(table, column) for column in _COLUMNS})
        if calibration:
            write_json(folder / "calibration.json", asdict(calibration))
        else:  # one of earlier answers would stay
            (folder / "calibration.json").unlink(missing_ok=True)
        write_json(folder / "evaluation.json", asdict(evaluation))

    def find(self, name: str, spec: EvalSpec) -> Evaluation | None:
        """The evaluation of that name under that spec, or None."""
        path = self._folder_of(name, spec) / "evaluation.json"
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

    def failures(self) -> list[Failure]:
        """The checkpoints that could not be scored when they were tried last."""
        path = self._folder / "failures.json"
        try:
            return list(read_record(_Failures, path).failures) if path.exists() else []
        except ValueError as error:
            raise _damaged(path, error, path) from None

    def add_failure(self, failure: Failure) -> None:
        """Record why a checkpoint could not be scored. An earlier reason is replaced."""
        others = [one for one in self.failures() if one.id != failure.id]
        write_json(self._folder / "failures.json", asdict(_Failures((*others, failure))))

    def drop_failure(self, checkpoint_id: str) -> None:
        """Remove the record of a failure, if there is one: the checkpoint can be scored now."""
        found = self.failures()
        if left := tuple(one for one in found if one.id != checkpoint_id):
            if len(left) < len(found):
                write_json(self._folder / "failures.json", asdict(_Failures(left)))
        else:
            (self._folder / "failures.json").unlink(missing_ok=True)

    def all(self) -> list[Evaluation]:
        """Every evaluation, in the order of candidates."""
        found = [_read_evaluation(path) for path in self._folder.glob("*/evaluation.json")]
        return sorted(found, key=lambda e: (e.candidate.order, e.spec.fingerprint))

    def _folder_of(self, name: str, spec: EvalSpec) -> Path:
        return self._folder / f"{name}-{spec.fingerprint}"


def _read_evaluation(path: Path) -> Evaluation:
    try:
        return read_record(Evaluation, path)
    except ValueError as error:
        raise _damaged(path, error, path.parent) from None


def _damaged(path: Path, error: Exception, remove: Path) -> RunError:
    return RunError(f"{path} is damaged: {error}", f"remove {remove}, and evaluate again")
