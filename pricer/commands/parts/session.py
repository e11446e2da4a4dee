"""Evaluation sessions: all candidates answer the same prompts in the same batches. An interrupted one continues."""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

from pricer.commands.parts.fetching import fetch_ahead
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.calibration import calibrate
from pricer.core.cells import Cell, Segment, Shard
from pricer.core.checkpoints import Candidate, Checkpoint, Failure
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.errors import CheckpointError, HubError, PricerError
from pricer.ml.batches import make_batches
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

UNTUNED = "untuned base"
"""The name of the base without an adapter."""


class Scorer(Protocol):
    """A base in memory that predicts prices, without an adapter or with one at a time."""

    def use(self, adapter: Path) -> None:
        """Predict with this adapter from now on."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in the order of the prompts, which form one batch."""

    def embed(
        self, prompts: Sequence[TokenizedPrompt], batch_tokens: int, reach: Callable[[int], object] | None = None
    ) -> Any:
        """The output of the last layer at the last token of each prompt, (prompts, hidden size). Call it before the
        first adapter is used. `reach` receives the number of prompts that are embedded so far.
        """


@dataclass(frozen=True, slots=True)
class EvaluationSession:
    """Everything that the candidates under one EvalSpec share: a prompt for each item, in batches of at most
    `batch_tokens` tokens. `load` returns the scorer and loads it once. `fetch` returns the folder of an adapter. A
    candidate is a checkpoint, or None: the untuned base.

    The work consists of cells, each of one candidate and one batch. The prompts and `batch_tokens` alone determine the
    batches, so every process that works on this evaluation has the same cells. `batch_tokens` is kept with the
    evaluations. `errors` says why checkpoints could not be scored, by their ids. With a `shard`, answers are saved in
    the file of that shard.
    """

    run: Run
    spec: EvalSpec
    items: Sequence[Item]
    prompts: Sequence[TokenizedPrompt]
    batch_tokens: int
    load: Callable[[], Scorer]
    fetch: Callable[[Checkpoint], Path]
    watcher: Watcher
    errors: dict[str, PricerError] = field(default_factory=dict)
    shard: Shard | None = None

    @property
    def whole(self) -> Segment:
        """The segment of all items."""
        return Segment(0, len(self.items))

    def batches(self, segment: Segment) -> list[tuple[int, ...]]:
        """The positions of the items of a segment in batches of similar length, the longest items first."""
        lengths = [len(prompt.ids) for prompt in self.prompts[segment.start : segment.stop]]
        return [tuple(segment.start + index for index in batch) for batch in make_batches(lengths, self.batch_tokens)]

    def cells(self, candidates: Sequence[Checkpoint | None], segment: Segment) -> list[Cell]:
        """All cells of these candidates on a segment, candidate by candidate."""
        batches = self.batches(segment)
        return [Cell(candidate_key(candidate), batch) for candidate in candidates for batch in batches]

    def missing(self, cells: Sequence[Cell], known: Mapping[str, Collection[str]] = MappingProxyType({})) -> list[Cell]:
        """The cells that are not answered, without the items that are. Cells of a checkpoint that cannot be scored are
        left out. `known` has for some names the ids of the items that are answered, so that they are not read again.
        """
        answered = dict(known)
        failed = self.failed_for_good().keys() | self.errors.keys()
        left = []
        for cell in cells:
            if cell.name not in answered:
                answered[cell.name] = self._saved(cell.name).keys()
            ids = answered[cell.name]
            indices = tuple(index for index in cell.indices if self.prompts[index].item_id not in ids)
            if indices and cell.name not in failed:
                left.append(Cell(cell.name, indices))
        return left

    def save(self, cell: Cell, predictions: Sequence[Prediction]) -> None:
        """Save the answers of a cell: if the process is killed, all of them or none. A ValueError unless they are one
        Prediction per item, in the order of the cell.
        """
        if [prediction.item_id for prediction in predictions] != [self.prompts[i].item_id for i in cell.indices]:
            raise ValueError(f"{len(predictions)} predictions do not answer a cell of {len(cell.indices)} items")
        self.run.evaluations.add_predictions(cell.name, self.spec, predictions, self.shard)

    def answer(self, cells: Sequence[Cell], adapter: Path | None, reach: Callable[[int], object]) -> None:
        """Answer cells of one candidate, and save each at once. No model is loaded if there are no cells. `adapter` is
        None for the untuned base, which must come before the first adapter. `reach` receives the number of answers.
        """
        if not cells:
            return
        scorer, done = self.load(), 0
        if adapter is not None:
            scorer.use(adapter)
        for cell in cells:
            self.save(cell, scorer.predict([self.prompts[index] for index in cell.indices]))
            done += len(cell.indices)
            reach(done)

    def answer_base(self) -> list[Prediction]:
        """The Predictions of the untuned base for all items. Those that are missing are made now."""
        progress = ScoringProgress(self.watcher, len(self.items))
        return self._complete(None, None, self.whole, partial(progress.reach, UNTUNED))

    def find(self, name: str) -> Evaluation | None:
        """The finished evaluation with this name if its scores, and the correction of intervals that validation items
        give, are kept. Otherwise None.
        """
        kept, spec = self.run.evaluations, self.spec
        evaluation = kept.find(name, spec)
        if evaluation is None or not evaluation.is_complete or kept.scores(name, spec) is None:
            return None
        return evaluation if not self._has_correction(evaluation) or kept.calibration(name, spec) else None

    def predict(
        self,
        checkpoints: Sequence[Checkpoint],
        progress: ScoringProgress,
        segment: Segment,
        evaluated: Collection[str] = (),
    ) -> Iterator[tuple[Checkpoint, list[Prediction] | None]]:
        """Yield each checkpoint with its Predictions for the items up to the end of a segment, or with None if its id
        is in `evaluated`. The items before the segment must be answered. While the caller works with one checkpoint,
        the adapter of the next one is fetched.

        A checkpoint that is missing or damaged, or does not fit the base, is left out: `leave_out` records why.
        """
        # Those that were left out while cells were filled are not tried again.
        checkpoints = [checkpoint for checkpoint in checkpoints if checkpoint.id not in self.errors]
        failed = self.failed_for_good()
        # A local store verifies every adapter. A remote store fetches only adapters that have predictions to make.
        is_remote = self.run.store.is_remote
        needed = [
            c
            for c in checkpoints
            if c.id not in failed
            and (not is_remote or (c.id not in evaluated and self.missing(self.cells([c], segment))))
        ]
        adapters = fetch_ahead(self.fetch, needed)
        for checkpoint in checkpoints:
            folder = None
            try:
                if checkpoint.id in failed:
                    raise failed[checkpoint.id]
                folder = next(adapters)() if checkpoint in needed else None
                predictions = None
                if checkpoint.id not in evaluated:
                    reach = partial(progress.reach, checkpoint.name)
                    predictions = self._complete(checkpoint, folder, segment, reach)
            except (CheckpointError, HubError) as error:
                if isinstance(error, HubError) and error.transient:
                    raise
                self.leave_out(checkpoint, error, is_whole=folder is not None or checkpoint.id in failed)
                progress.reach(checkpoint.name, segment.stop)
                continue
            if folder is not None:
                self.run.evaluations.drop_failure(checkpoint.id)
            yield checkpoint, predictions

    def leave_out(self, checkpoint: Checkpoint, error: PricerError, *, is_whole: bool = False) -> None:
        """Record that a checkpoint cannot be scored, and say so. `is_whole`: its files are as they were saved."""
        self.errors[checkpoint.id] = error
        base_revision = self.spec.base_revision if is_whole else None
        self.run.evaluations.add_failure(Failure(checkpoint.name, error.message, checkpoint.id, base_revision))
        self.watcher.note(f"{checkpoint.name} cannot be scored: {error.message}")

    def failed_for_good(self) -> dict[str, CheckpointError]:
        """The errors of adapters that failed on this base before, by checkpoint id. The id changes with the files, so
        trying again would only take the time to load the base.
        """
        return {
            one.id: CheckpointError(one.reason)
            for one in self.run.evaluations.failures()
            if one.id is not None and one.base_revision == self.spec.base_revision
        }

    def _complete(
        self, candidate: Checkpoint | None, adapter: Path | None, segment: Segment, reach: Callable[[int], object]
    ) -> list[Prediction]:
        """Answer what is missing on a segment, and return the Predictions for the items up to its end."""
        name = candidate_key(candidate)
        found = self._saved(name)
        cells = self.missing(self.cells([candidate], segment), {name: found.keys()})
        there = segment.stop - sum(len(cell.indices) for cell in cells)
        reach(there)
        if cells:
            self.answer(cells, adapter, lambda done: reach(there + done))
            found = self._saved(name)
        return [found[prompt.item_id] for prompt in self.prompts[: segment.stop]]

    def _has_correction(self, evaluation: Evaluation) -> bool:
        """Whether the answers behind an evaluation can correct intervals. Those of a baseline need not."""
        return self.spec.split is Split.VAL and bool(evaluation.estimators)

    def _saved(self, name: str) -> dict[str, Prediction]:
        batches = self.run.evaluations.predictions(name, self.spec)
        return {prediction.item_id: prediction for batch in batches for prediction in batch}

    def finish(self, name: str, candidate: Candidate, predictions: Sequence[Prediction]) -> Evaluation:
        """Score one Prediction per item. Save under `name` the Predictions in one file, batch by batch, whoever made
        them in whatever order; the metrics and the scores; and what the answers of a checkpoint to validation items say
        of its intervals.
        """
        evaluation, table = evaluate(candidate, self.spec, predictions, self.items)
        by_id = {prediction.item_id: prediction for prediction in predictions}
        self._save_ordered(name, by_id, [self.whole])
        ordered = [by_id[item.id] for item in self.items]
        calibration = calibrate(ordered, self.items, self.spec.decimals) if self._has_correction(evaluation) else None
        self.run.evaluations.add(name, evaluation, table, calibration)
        return evaluation

    def finish_saved(self, candidate: Candidate) -> Evaluation:
        """As `finish`, with the saved Predictions, of which there must be one per item."""
        found = self._saved(candidate.key)
        return self.finish(candidate.key, candidate, [found[prompt.item_id] for prompt in self.prompts])

    def gather(self, name: str, segments: Sequence[Segment]) -> None:
        """Put the answers on these segments into one file, as one process would have saved them."""
        self._save_ordered(name, self._saved(name), [*segments, self.whole])

    def _save_ordered(self, name: str, found: Mapping[str, Prediction], segments: Sequence[Segment]) -> None:
        """Save Predictions (by item id) in one file: a line for each batch of each segment, without repetitions."""
        left, batches = dict(found), []
        for batch in (batch for segment in segments for batch in self.batches(segment)):
            ids = [self.prompts[index].item_id for index in batch]
            batches.append([left.pop(item_id) for item_id in ids if item_id in left])
        self.run.evaluations.set_predictions(name, self.spec, [batch for batch in batches if batch])


def candidate_key(candidate: Checkpoint | None) -> str:
    """The name that the answers of a checkpoint, or of the untuned base (None), are kept under."""
    return candidate.id if candidate else Candidate(UNTUNED).key
