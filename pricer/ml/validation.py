"""Validation: held-out loss and price error of a model while it trains."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from pricer.core.items import Item
from pricer.core.prices import PriceFormat, width_for
from pricer.core.prompts import PromptTemplate
from pricer.core.scores import score_predictions
from pricer.core.training import Validation
from pricer.ml.predict import Predictor
from pricer.ml.tokens import Encoder, TokenizedExample, TokenizedPrompt, batches_of


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """Items to validate with, as prompts and (for the loss) as examples. An item without a price in `price_format` has
    no example. A prediction without a price counts as `fallback` dollars.
    """

    items: Sequence[Item]
    prompts: Sequence[TokenizedPrompt]
    examples: Sequence[TokenizedExample]
    price_format: PriceFormat
    answer_length: int
    fallback: float


def build_validation_set(
    items: Sequence[Item], template: PromptTemplate, encoder: Encoder, fallback: float
) -> ValidationSet:
    """The items, tokenized."""
    return ValidationSet(
        items=items,
        prompts=encoder.prompts([template.prompt(item) for item in items]),
        examples=encoder.examples([template.example(i) for i in items if fits_format(i, template.price_format)]),
        price_format=template.price_format,
        answer_length=encoder.answer_length,
        fallback=fallback,
    )


def fits_format(item: Item, price_format: PriceFormat) -> bool:
    """Whether the price fits the padded width, which the training items decide: a dearer validation item has a price
    error, but no completion to compute a loss on.
    """
    return price_format.width is None or width_for([item.price]) <= price_format.width


def validate(model: Any, tokenizer: Any, validation_set: ValidationSet, batch_tokens: int) -> Validation:
    """Measure loss and price error without an effect on the training: mode and random state are restored."""
    # A new one each time: it remembers what did not fit, and memory may have been short just once.
    predictor = Predictor(model, tokenizer, validation_set.price_format, validation_set.answer_length)
    was_training = model.training
    model.eval()
    try:
        with torch.random.fork_rng(devices=[torch.cuda.current_device()] if model.device.type == "cuda" else []):
            return _measure(predictor, validation_set, batch_tokens)
    finally:
        model.train(was_training)


def _measure(predictor: Predictor, validation_set: ValidationSet, batch_tokens: int) -> Validation:
    prompts, examples = validation_set.prompts, validation_set.examples
    predictions = [
        prediction
        for batch in batches_of([len(prompt.ids) for prompt in prompts], batch_tokens)
        for prediction in predictor.predict([prompts[index] for index in batch])
    ]
    table = score_predictions(predictions, validation_set.items, validation_set.fallback)
    return Validation(
        loss=predictor.loss(examples, batch_tokens) if examples else None,
        mae=fmean(table.abs_error.tolist()),
        no_price=int((~table.has_price).sum()),
        n=len(table),
    )
