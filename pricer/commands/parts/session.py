"""Evaluation sessions: all checkpoints predict the same prompts in the same batches. An interrupted one continues."""

import threading
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, partial
from pathlib import Path
from typing import Any, Protocol

from pricer.commands.parts.setup import Setup, load_base_of
from pricer.commands.parts.watcher import ScoringProgress, Watcher
from pricer.core.calibration import calibrate
from pricer.core.checkpoints import Candidate, Checkpoint, Failure
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Item, Split
from pricer.core.predictions import Prediction
from pricer.errors import CheckpointError, HubError, PricerError
from pricer.ml.batches import find_batch_tokens, make_batches
from pricer.ml.devices import device_name, peak_memory
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

# Maximum share of the whole work for the search for a batch size.
_MEASURING_SHARE = 0.05


class Scorer(Protocol):
    """A base in memory that predicts prices, without an adapter or with one at a time."""

    def use(self, adapter: Path) -> None:
        """Predict with this adapter from now on."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in the order of the prompts, which form one batch."""

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> Any:
        """The output of the last layer at the last token of each prompt, (prompts, hidden size). Call it before the
        first adapter is used.
        """


@dataclass(frozen=True, slots=True)
class EvaluationSession:
    """Everything that the checkpoints under one EvalSpec share: a prompt for each item, in batches of at most
    `batch_tokens` tokens. `load` returns the scorer and loads it once. `fetch` returns the folder of an adapter.

    The prompts, `batch_tokens` and the saved predictions determine the batches. `batch_tokens` is kept with the
    evaluations, so an interrupted session continues with the same batches. `errors` says why checkpoints could not be
    scored, by their ids.
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
        stop: int | None = None,
        evaluated: Collection[str] = (),
    ) -> Iterator[tuple[Checkpoint, list[Prediction] | None]]:
        """Yield each checkpoint with its Predictions for the first `stop` items (None: all), or with None if its id is
        in `evaluated`. While the caller works with one checkpoint, the adapter of the next one is fetched.

        A checkpoint that is missing or damaged, or does not fit the base, is left out: `leave_out` records why.
        """
        ids = {prompt.item_id for prompt in self.prompts[:stop]}
        failed = self._failed_for_good()
        # A local store verifies every adapter. A remote store fetches only adapters that have predictions to make.
        is_remote = self.run.store.is_remote
        needed = [
            c
            for c in checkpoints
            if c.id not in failed and (not is_remote or (c.id not in evaluated and not ids <= self._saved(c).keys()))
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
                    predictions = self._predict(checkpoint, folder, progress, stop)
            except (CheckpointError, HubError) as error:
                if isinstance(error, HubError) and error.transient:
                    raise
                self.leave_out(checkpoint, error, is_whole=folder is not None or checkpoint.id in failed)
                progress.reach(checkpoint.name, len(ids))
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

    def _failed_for_good(self) -> dict[str, CheckpointError]:
        """The errors of adapters that failed on this base before, by checkpoint id. The id changes with the files, so
        trying again would only take the time to load the base.
        """
        return {
            one.id: CheckpointError(one.reason)
            for one in self.run.evaluations.failures()
            if one.id is not None and one.base_revision == self.spec.base_revision
        }

    def _predict(
        self, checkpoint: Checkpoint, adapter: Path | None, progress: ScoringProgress, stop: int | None
    ) -> list[Prediction]:
        """Read the saved predictions, and make the missing ones in batches. Each batch is saved at once: after a kill,
        all of it is there or none. No model is loaded if no prediction is missing.
        """
        found, prompts = self._saved(checkpoint), self.prompts[:stop]
        missing = [prompt for prompt in prompts if prompt.item_id not in found]
        done = len(prompts) - len(missing)
        progress.reach(checkpoint.name, done)
        if missing:
            assert adapter is not None  # it was fetched because a prediction is missing
            scorer = self.load()
            scorer.use(adapter)
            for _, predictions in predict_batches(scorer, missing, self.batch_tokens):
                self.run.evaluations.add_predictions(checkpoint.id, self.spec, predictions)
                found |= {prediction.item_id: prediction for prediction in predictions}
                done += len(predictions)
                progress.reach(checkpoint.name, done)
        return [found[prompt.item_id] for prompt in prompts]

    def _has_correction(self, evaluation: Evaluation) -> bool:
        """Whether the answers behind an evaluation can correct intervals. Those of a baseline need not."""
        return self.spec.split is Split.VAL and bool(evaluation.estimators)

    def _saved(self, checkpoint: Checkpoint) -> dict[str, Prediction]:
        batches = self.run.evaluations.predictions(checkpoint.id, self.spec)
        return {prediction.item_id: prediction for batch in batches for prediction in batch}

    def finish(self, name: str, candidate: Candidate, predictions: Sequence[Prediction]) -> Evaluation:
        """Score one Prediction per item. Save the metrics and the scores under `name`, and what the answers of a
        checkpoint to validation items say of its intervals.
        """
        evaluation, table = evaluate(candidate, self.spec, predictions, self.items)
        calibration = None
        if self._has_correction(evaluation):
            by_id = {prediction.item_id: prediction for prediction in predictions}
            calibration = calibrate([by_id[item.id] for item in self.items], self.items, self.spec.decimals)
        self.run.evaluations.add(name, evaluation, table, calibration)
        return evaluation


@contextmanager
def open_session(
    run: Run, setup: Setup, spec: EvalSpec, items: Sequence[Item], checkpoints: int, watcher: Watcher
) -> Iterator[EvaluationSession]:
    """Open a session under a spec of this setup. `items` are the items of the spec's split or data, and `checkpoints`
    is the number of checkpoints to score. While it is open, no other process scores this run.
    """
    items = items[: spec.limit]
    prompts = setup.prompts(items)
    if cut := sum(prompt.cut for prompt in prompts):
        watcher.note(f"{cut:,} of {len(items):,} descriptions were cut to {setup.template.max_length} tokens")
    with run.evaluations.lock():
        run.record(**{f"cut_{spec.split}": cut / len(items)})
        load = cache(partial(load_scorer, setup, run))
        batch_tokens = run.evaluations.batch_tokens(spec)
        if batch_tokens is None:
            # Measured before any adapter is used, on the untuned base.
            max_tokens = int(_MEASURING_SHARE * checkpoints * sum(len(prompt.ids) for prompt in prompts))
            measure = partial(find_batch_tokens, prompts, max_tokens, load)
            batch_tokens = settle_batch_tokens(run, setup, measure, watcher)
            run.evaluations.fix_batch_tokens(spec, batch_tokens)
        elif setup.config.eval.batch_tokens not in ("auto", batch_tokens):
            watcher.note(f"this evaluation has begun with batches of up to {batch_tokens:,} tokens and keeps them")
        yield EvaluationSession(run, spec, items, prompts, batch_tokens, load, cache(run.store.fetch), watcher)
        if load.cache_info().currsize:
            run.record(peak_memory_eval=peak_memory(setup.precision.device))


def settle_batch_tokens(run: Run, setup: Setup, measure: Callable[[], int | None], watcher: Watcher) -> int:
    """The maximum number of tokens in a batch. With `eval.batch_tokens: auto` it is measured once per device and kept
    in run.json. `measure` returns None if measuring is not worth the time.
    """
    if setup.config.eval.batch_tokens != "auto":
        return setup.batch_tokens
    device, known = device_name(setup.precision), run.facts().get("batch_tokens", {})
    if device in known:
        return int(known[device])
    batch_tokens = measure() or setup.batch_tokens
    run.record(batch_tokens={**known, device: batch_tokens})
    watcher.note(f"batches of up to {batch_tokens:,} tokens")
    return batch_tokens


def predict_batches(
    scorer: Scorer, prompts: Sequence[TokenizedPrompt], batch_tokens: int
) -> Iterator[tuple[list[int], list[Prediction]]]:
    """Predict in batches of similar length: the indices of each batch's prompts, and their Predictions."""
    for batch in make_batches([len(prompt.ids) for prompt in prompts], batch_tokens):
        yield batch, scorer.predict([prompts[index] for index in batch])


def fetch_ahead(fetch: Callable[[Checkpoint], Path], checkpoints: Sequence[Checkpoint]) -> Iterator[Callable[[], Path]]:
    """Yield a function for each checkpoint. It returns the folder of the checkpoint, or raises the error of its fetch.
    The next one is fetched while the caller works with the current one.
    """

    def start(checkpoint: Checkpoint) -> Future[Path]:
        future = Future[Path]()

        def run() -> None:
            try:
                future.set_result(fetch(checkpoint))
            except Exception as error:
                future.set_exception(error)

        # Unlike the threads of an executor this is a daemon, so a download that hangs does not keep the process alive.
        threading.Thread(target=run, daemon=True).start()
        return future

    fetches = map(start, checkpoints)
    current = next(fetches, None)
    while current:
        current.exception()  # waits for the end of this fetch, so that only one more is under way
        following = next(fetches, None)
        yield current.result
        current = following


def load_scorer(setup: Setup, run: Run | None = None) -> Scorer:
    """Load the base, ready for adapters. With a `run`, weights are dequantized or not as that run did before."""
    from pricer.ml.predict import CheckpointPredictor, TreeDecoder

    base = load_base_of(setup, run)
    # The greedy answer alone needs no distribution, which would take more computation.
    price_tokens = None if setup.config.eval.estimator == "greedy" else setup.price_tokens
    decoder = TreeDecoder(
        base,
        setup.tokenizer,
        setup.template.price_format,
        setup.encoder.answer_tokens,
        price_tokens,
        setup.config.eval.residual_mass,
    )
    return CheckpointPredictor(base, decoder)
