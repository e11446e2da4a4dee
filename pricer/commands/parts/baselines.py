"""What a checkpoint has to beat on the same items: a constant, two regressions, and the base that nobody tuned."""

from collections.abc import Callable, Iterator, Sequence

from pricer.commands.parts.session import EvaluationSession, Scorer
from pricer.commands.parts.setup import Setup
from pricer.core.evaluation import Evaluation
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.ml.tokens import TokenizedPrompt, batches_of

# Training items whose embeddings are looked at: more take as long as training does, and teach a ridge little.
_EMBEDDED = 5000


def baselines(session: EvaluationSession, setup: Setup) -> Iterator[Evaluation]:
    """The Evaluation of each baseline: read if it exists, else made. The base is loaded only if it is needed."""
    items, prompts, load = session.items, session.prompts, session.load
    makers: dict[str, Callable[[], list[Prediction]]] = {
        "train median": lambda: _as_predictions(items, [setup.items.train_median] * len(items)),
        "tf-idf + ridge": lambda: _words(setup, items),
        "base embeddings + ridge": lambda: _embeddings(setup, items, prompts, load()),
        "untuned base": lambda: _untuned(setup, prompts, load()),
    }
    for name, make in makers.items():
        folder = name.replace(" ", "-").replace("+-", "")
        evaluation = session.find(folder)
        if evaluation is None:
            predictions = make()
            session.run.evaluations.drop_predictions(folder, session.spec)
            session.run.evaluations.add_predictions(folder, session.spec, predictions)
            evaluation = session.finish(folder, name, predictions)
        yield evaluation


def _words(setup: Setup, items: Sequence[Item]) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_ridge

    return _as_predictions(items, predict_with_ridge(setup.items.train, items))


def _embeddings(
    setup: Setup, items: Sequence[Item], prompts: Sequence[TokenizedPrompt], base: Scorer
) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_embeddings

    train, budget = setup.items.train[:_EMBEDDED], setup.batch_tokens
    asked = setup.prompts(train)
    prices = predict_with_embeddings(
        base.embed(asked, budget), [item.price for item in train], base.embed(prompts, budget)
    )
    return _as_predictions(items, prices)


def _untuned(setup: Setup, prompts: Sequence[TokenizedPrompt], base: Scorer) -> list[Prediction]:
    batches = batches_of([len(prompt.ids) for prompt in prompts], setup.batch_tokens)
    return [prediction for batch in batches for prediction in base.predict([prompts[index] for index in batch])]


def _as_predictions(items: Sequence[Item], prices: Sequence[float]) -> list[Prediction]:
    return [Prediction(item.id, f"{price:.2f}", price) for item, price in zip(items, prices, strict=True)]
