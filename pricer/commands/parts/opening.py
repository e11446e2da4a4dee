"""Open evaluation sessions: settle the batches, and load the base when it is needed."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, partial

from pricer.commands.parts.ray_workers import RayWorkers
from pricer.commands.parts.scorers import choose_parts
from pricer.commands.parts.session import EvaluationSession, Scorer
from pricer.commands.parts.setup import Setup, load_base_of
from pricer.commands.parts.watcher import Watcher
from pricer.core.cells import Shard
from pricer.core.evaluation import EvalSpec
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.ml.batches import find_batch_tokens, make_batches
from pricer.ml.devices import device_name, peak_memory
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

# Maximum share of the whole work for the search for a batch size.
_MEASURING_SHARE = 0.05


@contextmanager
def open_session(
    run: Run,
    setup: Setup,
    spec: EvalSpec,
    items: Sequence[Item],
    checkpoints: int,
    watcher: Watcher,
    shard: Shard | None = None,
    workers: RayWorkers | None = None,
) -> Iterator[EvaluationSession]:
    """Open a session under a spec of this setup. `items` are the items of the spec's split or data, and `checkpoints`
    is the number of checkpoints to score. While it is open, no other process scores this run; with a `shard`, other
    processes can answer other shards. With `workers`, these load the base instead of this process.
    """
    items = items[: spec.limit]
    prompts = setup.prompts(items)
    if cut := sum(prompt.cut for prompt in prompts):
        watcher.note(f"{cut:,} of {len(items):,} descriptions were cut to {setup.template.max_length} tokens")
    with run.evaluations.lock(shard):
        run.record(**{f"cut_{spec.split}": cut / len(items)})
        load_here = cache(partial(load_scorer, setup, run, prompts))
        load: Callable[[], Scorer] = load_here
        if workers:
            load = partial(workers.load, choose_parts(setup, prompts), run, prompts)
        batch_tokens = run.evaluations.batch_tokens(spec)
        if batch_tokens is None and (shard or workers):
            # Each shard would measure another number, and all workers would wait for the one that measures.
            known = read_batch_tokens(run, setup, workers.host.device if workers else None) or setup.batch_tokens
            batch_tokens = run.evaluations.fix_batch_tokens(spec, known)
        elif batch_tokens is None:
            # Measured before any adapter is used, on the untuned base.
            max_tokens = int(_MEASURING_SHARE * checkpoints * sum(len(prompt.ids) for prompt in prompts))
            measure = partial(find_batch_tokens, prompts, max_tokens, load)
            batch_tokens = run.evaluations.fix_batch_tokens(spec, settle_batch_tokens(run, setup, measure, watcher))
        elif setup.config.eval.batch_tokens not in ("auto", batch_tokens):
            watcher.note(f"this evaluation has begun with batches of up to {batch_tokens:,} tokens and keeps them")
        fetch = cache(run.store.fetch)
        yield EvaluationSession(run, spec, items, prompts, batch_tokens, load, fetch, watcher, shard=shard)
        if load_here.cache_info().currsize:
            run.record(peak_memory_eval=peak_memory(setup.precision.device))


def settle_batch_tokens(run: Run, setup: Setup, measure: Callable[[], int | None], watcher: Watcher) -> int:
    """The maximum number of tokens in a batch. With `eval.batch_tokens: auto` it is measured once per device and kept
    in run.json. `measure` returns None if measuring is not worth the time.
    """
    if known := read_batch_tokens(run, setup):
        return known
    batch_tokens = measure() or setup.batch_tokens
    run.record(batch_tokens={**run.facts().get("batch_tokens", {}), device_name(setup.precision): batch_tokens})
    watcher.note(f"batches of up to {batch_tokens:,} tokens")
    return batch_tokens


def read_batch_tokens(run: Run, setup: Setup, device: str | None = None) -> int | None:
    """The maximum number of tokens in a batch that the config sets or that was measured on a device (None: on this
    one), or None.
    """
    if setup.config.eval.batch_tokens != "auto":
        return setup.batch_tokens
    measured = run.facts().get("batch_tokens", {}).get(device or device_name(setup.precision))
    return None if measured is None else int(measured)


def predict_batches(
    scorer: Scorer, prompts: Sequence[TokenizedPrompt], batch_tokens: int
) -> Iterator[tuple[list[int], list[Prediction]]]:
    """Predict in batches of similar length: the indices of each batch's prompts, and their Predictions."""
    for batch in make_batches([len(prompt.ids) for prompt in prompts], batch_tokens):
        yield batch, scorer.predict([prompts[index] for index in batch])


def load_scorer(setup: Setup, run: Run | None = None, prompts: Sequence[TokenizedPrompt] = ()) -> Scorer:
    """Load the base, ready for adapters. With a `run`, weights are dequantized or not as that run did before. With all
    `prompts` that it will be asked, the answers to a batch do not depend on the batches before.
    """
    return choose_parts(setup, prompts).build(load_base_of(setup, run), setup.tokenizer)
