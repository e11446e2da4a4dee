"""An evaluation session: what is the same for all checkpoints under one EvalSpec, and the scoring of checkpoints."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

from pricer.commands.parts.batch_size import settle_batch_tokens
from pricer.commands.parts.setup import Setup, load_base_of
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.data.reading import require
from pricer.ml.batches import batches_of
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

_ALL = slice(None)


class Scorer(Protocol):
    """A base in memory that answers prompts, by itself or with one adapter at a time."""

    def use(self, adapter: Path) -> None:
        """Answer with this adapter from now on."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch."""

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> Any:
        """The last layer at the last token of each prompt, (prompts, hidden size). Only before the first adapter."""

    def average(self, adapters: Sequence[Path], target: Path) -> None:
        """Write the average of these adapters into a folder."""


@dataclass(frozen=True, slots=True)
class EvaluationSession:
    """What is the same for every checkpoint under one EvalSpec: a prompt for each item, in batches of at most
    `batch_tokens` tokens. `load` returns the scorer and loads it once; `fetch` returns the folder of an adapter.

    Batches follow from the prompts, the token budget and the answers that are saved. The budget is kept with the
    evaluations, so an interrupted session continues with the batches it would have made.
    """

    run: Run
    spec: EvalSpec
    items: Sequence[Item]
    prompts: Sequence[TokenizedPrompt]
    batch_tokens: int
    load: Callable[[], Scorer]
    fetch: Callable[[Checkpoint], Path]

    def find(self, name: str) -> Evaluation | None:
        """The finished evaluation of that name, with the scores behind it; None if there is none."""
        evaluation = self.run.evaluations.find(name, self.spec)
        has_scores = self.run.evaluations.scores(name, self.spec) is not None
        return evaluation if evaluation and evaluation.is_complete and has_scores else None

    def with_scorers(
        self, checkpoints: Sequence[Checkpoint], part: slice = _ALL
    ) -> Iterator[tuple[Checkpoint, Callable[[], Scorer]]]:
        """Each checkpoint, and a function that returns the scorer with its adapter, to answer a part of the items.
        While the caller works with one checkpoint, the adapter of the next is fetched.
        """
        # A store that costs no download verifies every adapter, even one whose answers are saved.
        needed = [c for c in checkpoints if not self.run.store.is_remote or not self._is_answered(c, part)]
        adapters = fetch_ahead(self.fetch, needed)
        for checkpoint in checkpoints:
            adapter = next(adapters) if checkpoint in needed else None
            yield checkpoint, partial(self._scorer_with, adapter)

    def answer(
        self,
        checkpoint: Checkpoint,
        scorer: Callable[[], Scorer],
        progress: ScoringProgress,
        part: slice = _ALL,
    ) -> list[Prediction]:
        """A Prediction for each item of a part, in their order. Saved ones are read. The others are asked in batches,
        and each batch is saved at once, all of it or, if killed, none. `scorer` is called only if one is missing.
        """
        found = self._saved(checkpoint)
        prompts = self.prompts[part]
        left = [prompt for prompt in prompts if prompt.item_id not in found]
        progress.add(checkpoint.name, len(prompts) - len(left))
        if left:
            predict = scorer().predict
            for batch in batches_of([len(prompt.ids) for prompt in left], self.batch_tokens):
                predictions = predict([left[index] for index in batch])
                self.run.evaluations.add_predictions(checkpoint.id, self.spec, predictions)
                found |= {prediction.item_id: prediction for prediction in predictions}
                progress.add(checkpoint.name, len(batch))
        return [found[prompt.item_id] for prompt in prompts]

    def finish(self, name: str, candidate: Candidate, predictions: Sequence[Prediction]) -> Evaluation:
        """Score a Prediction for each item, and save the metrics and the scores under that name."""
        evaluation, table = evaluate(candidate, self.spec, predictions, self.items)
        self.run.evaluations.add(name, evaluation, table)
        return evaluation

    def _scorer_with(self, adapter: Path | None) -> Scorer:
        assert adapter is not None  # an answer is missing, so it was fetched
        scorer = self.load()
        scorer.use(adapter)
        return scorer

    def _saved(self, checkpoint: Checkpoint) -> dict[str, Prediction]:
        batches = self.run.evaluations.predictions(checkpoint.id, self.spec)
        return {prediction.item_id: prediction for batch in batches for prediction in batch}

    def _is_answered(self, checkpoint: Checkpoint, part: slice) -> bool:
        return {prompt.item_id for prompt in self.prompts[part]} <= self._saved(checkpoint).keys()


@contextmanager
def open_session(
    run: Run, setup: Setup, split: Split, limit: int | None, checkpoints: int, watcher: Watcher
) -> Iterator[EvaluationSession]:
    """A session over the first `limit` items (None: all) of a split, in which so many `checkpoints` are to be scored.
    While it is open, no other process scores this run.
    """
    items = require(setup.items, split, setup.config.data)[:limit]
    spec, prompts = setup.spec(split, limit), setup.prompts(items)
    if cut := sum(prompt.cut for prompt in prompts):
        watcher.note(f"{cut:,} of {len(items):,} descriptions were cut to {setup.template.max_length} tokens")
    with run.evaluations.lock():
        load = cache(partial(load_scorer, setup, run))
        batch_tokens = run.evaluations.batch_tokens(spec)
        if batch_tokens is None:
            # Before any adapter is used: the trial is of the base as it is.
            batch_tokens = settle_batch_tokens(run, setup, prompts, checkpoints, load, watcher.note)
            run.evaluations.fix_batch_tokens(spec, batch_tokens)
        elif setup.config.eval.batch_tokens not in ("auto", batch_tokens):
            watcher.note(f"this evaluation has begun with batches of up to {batch_tokens:,} tokens and keeps them")
        yield EvaluationSession(run, spec, items, prompts, batch_tokens, load, cache(run.store.fetch))
        if load.cache_info().currsize:
            from pricer.ml.devices import peak_memory

            run.record(peak_memory_eval=peak_memory(setup.precision.device))


def score_checkpoints(
    session: EvaluationSession, checkpoints: Sequence[Checkpoint], watcher: Watcher
) -> list[Evaluation]:
    """The Evaluation of each checkpoint: read if it exists, else made."""
    known = {checkpoint.id: session.find(checkpoint.id) for checkpoint in checkpoints}
    progress = ScoringProgress(watcher, list(known.values()).count(None) * len(session.items))
    evaluations = []
    for checkpoint, scorer in session.with_scorers(checkpoints):
        evaluation = known[checkpoint.id]
        if evaluation is None:
            predictions = session.answer(checkpoint, scorer, progress)
            evaluation = session.finish(checkpoint.id, Candidate.of(checkpoint), predictions)
        watcher.scored(evaluation)
        evaluations.append(evaluation)
    return evaluations


def fetch_ahead(fetch: Callable[[Checkpoint], Path], checkpoints: Sequence[Checkpoint]) -> Iterator[Path]:
    """The folder of each checkpoint. The next one is fetched while the caller works with the present one."""
    fetches = [_Fetch(fetch, checkpoint) for checkpoint in checkpoints]
    for index, current in enumerate(fetches):
        if index == 0:
            current.start()
        folder = current.result()
        if index + 1 < len(fetches):
            fetches[index + 1].start()
        yield folder


class _Fetch(threading.Thread):
    """One fetch in the background. A daemon, so that a download that hangs does not keep the process alive."""

    def __init__(self, fetch: Callable[[Checkpoint], Path], checkpoint: Checkpoint) -> None:
        super().__init__(daemon=True)
        self._fetch = fetch
        self._checkpoint = checkpoint
        self._outcome: Path | Exception | None = None

    def run(self) -> None:
        try:
            self._outcome = self._fetch(self._checkpoint)
        except Exception as error:  # raised where it is waited for
            self._outcome = error

    def result(self) -> Path:
        """Wait for the folder; raises what the fetch raised."""
        self.join()
        assert self._outcome is not None
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome


def load_scorer(setup: Setup, run: Run | None = None) -> Scorer:
    """The base in memory, ready for adapters. With a `run`, its weights are laid out as that run had them before."""
    from pricer.ml.predict import CheckpointPredictor, TreeDecoder

    base = load_base_of(setup, run)
    decoder = TreeDecoder(
        base,
        setup.tokenizer,
        setup.template.price_format,
        setup.encoder.answer_length,
        setup.price_tokens,
        setup.config.eval.residual_mass,
    )
    return CheckpointPredictor(base, decoder)
