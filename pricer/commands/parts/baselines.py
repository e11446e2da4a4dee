"""Baselines: what a checkpoint has to beat on the same items. A constant, two regressions, and the untuned base."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from pricer.commands.parts.session import EvaluationSession
from pricer.commands.parts.setup import Setup
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import Evaluation
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.ml.batches import batches_of

# Number of training items that are embedded: more take as long as training does, and teach a ridge little.
_EMBEDDED = 5000


def _train_median(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    return _as_predictions(session.items, [setup.items.train_median] * len(session.items))


def _words(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_ridge

    return _as_predictions(session.items, predict_with_ridge(setup.items.train, session.items))


def _embeddings(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_embeddings

    base = session.load()
    train, budget = setup.items.train[:_EMBEDDED], setup.batch_tokens
    prompts = setup.prompts(train)
    prices = predict_with_embeddings(
        base.embed(prompts, budget), [item.price for item in train], base.embed(session.prompts, budget)
    )
    return _as_predictions(session.items, prices)


def _untuned(session: EvaluationSession, setup: Setup) -> list[Prediction]:
    base, prompts = session.load(), session.prompts
    batches = batches_of([len(prompt.ids) for prompt in prompts], setup.batch_tokens)
    return [prediction for batch in batches for prediction in base.predict([prompts[index] for index in batch])]


def _as_predictions(items: Sequence[Item], prices: Sequence[float]) -> list[Prediction]:
    return [Prediction(item.id, f"{price:.2f}", price) for item, price in zip(items, prices, strict=True)]


@dataclass(frozen=True, slots=True)
class Baseline:
    """One baseline: its name, the folder of its evaluation, and how it predicts the prices of the items."""

    name: str
    folder: str
    predict: Callable[[EvaluationSession, Setup], list[Prediction]]


BASELINES = (
    Baseline("train median", "train-median", _train_median),
    Baseline("tf-idf + ridge", "tf-idf-ridge", _words),
    Baseline("base embeddings + ridge", "base-embeddings-ridge", _embeddings),
    Baseline("untuned base", "untuned-base", _untuned),
)
"""Every baseline, in the order in which tables show them."""


def evaluate_baselines(session: EvaluationSession, setup: Setup) -> Iterator[Evaluation]:
    """The Evaluation of each baseline: read if it exists, else made. The base is loaded by those that need one."""
    for baseline in BASELINES:
        evaluation = session.find(baseline.folder)
        if evaluation is None:
            predictions = baseline.predict(session, setup)
            session.run.evaluations.drop_predictions(baseline.folder, session.spec)
            session.run.evaluations.add_predictions(baseline.folder, session.spec, predictions)
            evaluation = session.finish(baseline.folder, Candidate(baseline.name), predictions)
        yield evaluation
