"""Baselines: what a checkpoint has to beat on the same items. A constant, two regressions, and the untuned base."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pricer.commands.parts.predictions import existing
from pricer.commands.parts.setup import Setup
from pricer.core.candidates import Candidate
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.ml.batches import batches_of
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

# Number of training items that are embedded: more take as long as training does, and teach a ridge little.
_EMBEDDED = 5000


class UntunedBase(Protocol):
    """A base in memory, before any adapter is put on it."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch."""

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> Any:
        """The last layer at each prompt's end: (prompts, hidden size)."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What a baseline is made for: the items with their prompts, and what it may learn from. `load` gives the base."""

    setup: Setup
    items: Sequence[Item]
    prompts: Sequence[TokenizedPrompt]
    load: Callable[[], UntunedBase]


def _train_median(asked: Asked) -> list[Prediction]:
    return _as_predictions(asked.items, [asked.setup.items.train_median] * len(asked.items))


def _words(asked: Asked) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_ridge

    return _as_predictions(asked.items, predict_with_ridge(asked.setup.items.train, asked.items))


def _embeddings(asked: Asked) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_embeddings

    setup, base = asked.setup, asked.load()
    train, budget = setup.items.train[:_EMBEDDED], setup.batch_tokens
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in train])
    prices = predict_with_embeddings(
        base.embed(prompts, budget), [item.price for item in train], base.embed(asked.prompts, budget)
    )
    return _as_predictions(asked.items, prices)


def _untuned(asked: Asked) -> list[Prediction]:
    base, prompts = asked.load(), asked.prompts
    batches = batches_of([len(prompt.ids) for prompt in prompts], asked.setup.batch_tokens)
    return [prediction for batch in batches for prediction in base.predict([prompts[index] for index in batch])]


def _as_predictions(items: Sequence[Item], prices: Sequence[float]) -> list[Prediction]:
    return [Prediction(item.id, f"{price:.2f}", price) for item, price in zip(items, prices, strict=True)]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One baseline: its name, the folder of its evaluation, and how it predicts the prices of the items."""

    name: str
    folder: str
    predict: Callable[[Asked], list[Prediction]]


BASELINES = (
    Baseline("train median", "train-median", _train_median),
    Baseline("tf-idf + ridge", "tf-idf-ridge", _words),
    Baseline("base embeddings + ridge", "base-embeddings-ridge", _embeddings),
    Baseline("untuned base", "untuned-base", _untuned),
)
"""Every baseline, in the order in which tables show them."""


def evaluate_baselines(
    run: Run,
    setup: Setup,
    spec: EvalSpec,
    items: Sequence[Item],
    prompts: Sequence[TokenizedPrompt],
    load: Callable[[], UntunedBase],
) -> Iterator[Evaluation]:
    """The Evaluation of each baseline: read if it exists, else made. `load` is called by those that need a base."""
    asked = Asked(setup, items, prompts, load)
    for baseline in BASELINES:
        evaluation = existing(run, baseline.folder, spec)
        if evaluation is None:
            predictions = baseline.predict(asked)
            run.evaluations.drop_predictions(baseline.folder, spec)
            run.evaluations.add_predictions(baseline.folder, spec, predictions)
            evaluation, table = evaluate(Candidate(baseline.name), spec, predictions, items)
            run.evaluations.add(baseline.folder, evaluation, table)
        yield evaluation
