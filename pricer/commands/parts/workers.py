"""A worker: a process that holds a base, on this machine or another one, and answers the cells that it is given."""

import socket
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pricer
from pricer.commands.parts.scorers import ScorerParts
from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.settling import Machine
from pricer.config import ModelConfig
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.errors import CheckpointError, ModelError, first_line
from pricer.ml.base import dense_bytes, load_base, load_tokenizer
from pricer.ml.devices import Precision, choose_precision, device_name, gpu_here
from pricer.ml.predict import CheckpointPredictor
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.bases import find_base
from pricer.stores.checkpoints import ADAPTER, ADAPTER_CONFIG, verify
from pricer.stores.runs import Run


@dataclass(frozen=True, slots=True)
class WorkerMachine:
    """The machine of a worker: what a training would be set up for, its device in words, and its version of pricer."""

    machine: Machine
    device: str
    version: str


@dataclass(frozen=True, slots=True)
class SentAdapter:
    """A checkpoint's adapter on its way to a worker. `place` is its folder where it was fetched, for messages."""

    checkpoint: Checkpoint
    place: str
    files: Mapping[str, bytes]


def pack_adapter(checkpoint: Checkpoint, folder: Path) -> SentAdapter:
    """Read a fetched adapter, to send it."""
    return SentAdapter(
        checkpoint, str(folder), {name: (folder / name).read_bytes() for name in (ADAPTER, ADAPTER_CONFIG)}
    )


@dataclass(frozen=True, slots=True)
class ScoringJob:
    """What the answers of all candidates are scored on: see EvaluationSession."""

    spec: EvalSpec
    items: Sequence[Item]
    batch_tokens: int


@dataclass(frozen=True, slots=True)
class Loaded:
    """What a worker has loaded: its device in words, and whether 4-bit weights are dequantized there."""

    device: str
    is_dense: bool


class Worker:
    """Answers cells. Its caller sends one call after another, and `load` first.

    A new Worker knows nothing, so one that replaces a dead one is told everything again.
    """

    def __init__(self) -> None:
        self._scorer: CheckpointPredictor | None = None
        self._prompts: Sequence[TokenizedPrompt] = ()
        # The id of the adapter in use, and why the last one that was sent cannot be used.
        self._adapter: str | None = None
        self._problem: Exception | None = None

    def describe(self, model: ModelConfig) -> WorkerMachine:
        """The machine, and how it computes with this base."""
        precision = choose_precision(model)
        gpu = gpu_here() if precision.device == "cuda" else None
        return WorkerMachine(Machine(precision, gpu), device_name(precision), pricer.__version__)

    def load(self, parts: ScorerParts, prompts: Sequence[TokenizedPrompt], dense: Mapping[str, bool]) -> Loaded:
        """Load the base. `prompts` are those of all items. `dense` says for known devices whether weights are
        dequantized. The base comes from this machine's disk or cache, or is downloaded.
        """
        self._scorer = self._adapter = self._problem = None  # the base before makes room
        found = choose_precision(parts.model)
        if found != parts.precision:
            raise ModelError(
                f"a worker computes on {_describe(found)}, and the first one on {_describe(parts.precision)}",
                "answers would differ: use nodes of one kind",
            )
        try:
            base, device = find_base(parts.model), device_name(found)
        except ModelError as error:
            raise ModelError(f"on the node {socket.gethostname()}, {error.message}", error.hint) from None
        model = load_base(base.folder, found, dense=dense.get(device))
        self._scorer, self._prompts = parts.build(model, load_tokenizer(base.folder)), prompts
        return Loaded(device, not dense_bytes(model))

    def use(self, adapter: SentAdapter) -> None:
        """Answer with this adapter from now on. If that fails, `answer` raises why: nobody waits for this call."""
        # No adapter is in use until all is done. A failure must not leave the weights of the one before under this id.
        self._adapter = self._problem = None
        try:
            self._use(adapter)
            self._adapter = adapter.checkpoint.id
        except OSError as error:
            self._problem = ModelError(
                f"on the node {socket.gethostname()}, {adapter.checkpoint.name} cannot be used: {first_line(error)}",
                f"see whether the disk of {tempfile.gettempdir()} is full there",
            )
        except Exception as error:
            self._problem = error

    def _use(self, adapter: SentAdapter) -> None:
        with tempfile.TemporaryDirectory(prefix="pricer-") as name:
            folder = Path(name)
            try:
                for file, content in adapter.files.items():
                    (folder / file).write_bytes(content)
                verify(adapter.checkpoint, folder)
                self._loaded.use(folder)
            except CheckpointError as error:
                # The place where a user finds the adapter, not the copy that is gone.
                raise CheckpointError(error.message.replace(name, adapter.place), error.hint) from None

    def answer(self, adapter: str | None, indices: Sequence[int]) -> list[Prediction]:
        """Answer a batch: the Predictions for the prompts at these indices. `adapter` is the id of the adapter that is
        in use; None: the base without one.
        """
        if self._problem is not None:
            raise self._problem
        assert adapter == self._adapter  # calls are answered in their order
        return self._loaded.predict([self._prompts[index] for index in indices])

    def score(self, job: ScoringJob, candidate: Candidate, files: Mapping[str, bytes]) -> dict[str, bytes]:
        """Score the answers of a candidate to all items. `files` has the saved answers, by their names. Returns all
        files of the evaluation, as this candidate would have been scored by the caller.
        """
        nothing: Any = None  # everything is answered
        with tempfile.TemporaryDirectory(prefix="pricer-") as folder:
            run, key = Run(Path(folder)), candidate.key
            run.evaluations.write_files(key, job.spec, files)
            session = EvaluationSession(
                run, job.spec, job.items, self._prompts, job.batch_tokens, nothing, nothing, nothing
            )
            session.finish_saved(candidate)
            return run.evaluations.read_files(key, job.spec)

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> Any:
        """Embed one batch of prompts with the base, before the first adapter is used: (prompts, hidden size)."""
        return self._loaded.embed(prompts, batch_tokens)

    @property
    def _loaded(self) -> CheckpointPredictor:
        assert self._scorer is not None  # `load` comes first
        return self._scorer


def _describe(precision: Precision) -> str:
    return f"{precision.device} in {precision.label}"
