"""What a checkpoint has to beat on the same items: a constant, two regressions, and the base that nobody tuned."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from pricer.commands.parts.predictions import existing
from pricer.commands.parts.setup import Setup
from pricer.core.evaluation import EvalSpec, Evaluation, evaluate, judge
from pricer.core.items import Item
from pricer.core.predictions import Prediction
from pricer.core.scores import Scores
from pricer.ml.tokens import TokenizedPrompt, batches_of
from pricer.stores.runs import Run

# Training items whose embeddings are looked at: more take as long as training does, and teach a ridge little.
_EMBEDDED = 5000


class UntunedBase(Protocol):
    """A base in memory on which no adapter has been put yet."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch."""

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> Any:
        """The last layer at each prompt's end: (prompts, hidden size)."""


def baselines(
    run: Run,
    setup: Setup,
    spec: EvalSpec,
    items: Sequence[Item],
    prompts: Sequence[TokenizedPrompt],
    load: Callable[[], UntunedBase],
) -> Iterator[Evaluation]:
    """The Evaluation of each baseline: read if it exists, else made. `load` is called only if it does not."""
    makers: dict[str, Callable[[], list[Prediction]]] = {
        "train median": lambda: _as_predictions(items, [setup.items.train_median] * len(items)),
        "tf-idf + ridge": lambda: _words(setup, items),
        "base embeddings + ridge": lambda: _embeddings(setup, items, prompts, load()),
        "untuned base": lambda: _untuned(setup, prompts, load()),
    }
    for name, make in makers.items():
        folder = name.replace(" ", "-").replace("+-", "")
        evaluation = existing(run, folder, spec)
        if evaluation is None:
            predictions = make()
            run.evaluations.drop_predictions(folder, spec)
            run.evaluations.add_predictions(folder, spec, predictions)
            evaluation = evaluate(name, spec, predictions, items)
            run.evaluations.add(folder, evaluation, Scores.of(judge(spec, predictions, items)))
        yield evaluation


def _words(setup: Setup, items: Sequence[Item]) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_ridge

    return _as_predictions(items, predict_with_ridge(setup.items.train, items))


def _embeddings(
    setup: Setup, items: Sequence[Item], prompts: Sequence[TokenizedPrompt], base: UntunedBase
) -> list[Prediction]:
    from pricer.ml.baselines import predict_with_embeddings

    train, budget = setup.items.train[:_EMBEDDED], setup.batch_tokens
    asked = setup.encoder.prompts([setup.template.prompt(item) for item in train])
    prices = predict_with_embeddings(
        base.embed(asked, budget), [item.price for item in train], base.embed(prompts, budget)
    )
    return _as_predictions(items, prices)


def _untuned(setup: Setup, prompts: Sequence[TokenizedPrompt], base: UntunedBase) -> list[Prediction]:
    batches = batches_of([len(prompt.ids) for prompt in prompts], setup.batch_tokens)
    return [prediction for batch in batches for prediction in base.predict([prompts[index] for index in batch])]


def _as_predictions(items: Sequence[Item], prices: Sequence[float]) -> list[Prediction]:
    return [Prediction(item.id, f"{price:.2f}", price) for item, price in zip(items, prices, strict=True)]
