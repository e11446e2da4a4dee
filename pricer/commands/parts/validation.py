"""Held-out loss and price error of the model as it is, while it trains."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from pricer.commands.parts.setup import Setup
from pricer.core.items import Item
from pricer.core.prices import width_for
from pricer.core.scores import score_predictions
from pricer.ml.predict import Predictor
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt, batches_of


@dataclass(frozen=True, slots=True)
class Validation:
    """Held-out error while training. `loss` is in nats per completion token, None where no price could be written in
    the run's format; `mae` in dollars; `no_price` of `n` items got none, and the training median is imputed.
    """

    loss: float | None
    mae: float
    no_price: int
    n: int


def validator(model: Any, setup: Setup) -> Callable[[], Validation]:
    """A function that measures loss and price error on the first validation items, without a trace on training."""
    import torch

    items = setup.items.val[: setup.config.train.val_items]
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in items])
    examples = setup.encoder.examples([setup.template.example(item) for item in items if is_writable(item, setup)])

    def validate() -> Validation:
        # A new one each time: it keeps what did not fit, and memory may have been short for once.
        predictor = Predictor(model, setup.tokenizer, setup.template.price_format, setup.encoder.answer_length)
        was_training = model.training
        model.eval()
        devices = [torch.cuda.current_device()] if setup.precision.device == "cuda" else []
        try:
            # The random state is put back: a run with validation trains as one without.
            with torch.random.fork_rng(devices=devices):
                return _validate(predictor, prompts, examples, items, setup)
        finally:
            model.train(was_training)

    return validate


def _validate(
    predictor: Predictor,
    prompts: Sequence[TokenizedPrompt],
    examples: Sequence[TokenizedExample],
    items: Sequence[Item],
    setup: Setup,
) -> Validation:
    budget = setup.batch_tokens
    predictions = [
        prediction
        for batch in batches_of([len(prompt.ids) for prompt in prompts], budget)
        for prediction in predictor.predict([prompts[index] for index in batch])
    ]
    table = score_predictions(predictions, items, setup.items.train_median)
    return Validation(
        loss=predictor.loss(examples, budget) if examples else None,
        mae=fmean(table.abs_error.tolist()),
        no_price=int((~table.has_price).sum()),
        n=len(table),
    )


def is_writable(item: Item, setup: Setup) -> bool:
    """Whether the price fits the padded width, which the training items set: a dearer validation item has a price
    error, but no completion to compute a loss on.
    """
    width = setup.template.price_format.width
    return width is None or width_for([item.price]) <= width
