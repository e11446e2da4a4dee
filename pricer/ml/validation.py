"""Validation: loss and price error on validation items during training."""

from collections.abc import Callable, Sequence
from statistics import fmean
from typing import Any

import torch

from pricer.core.evaluation import score_predictions
from pricer.core.items import Item, PromptTemplate
from pricer.core.prices import PriceFormat, format_price
from pricer.core.training import Validation
from pricer.ml.base import mixed_precision
from pricer.ml.batches import BatchSplitter, make_batches, right_padded
from pricer.ml.loss import completion_loss
from pricer.ml.predict import TreeDecoder
from pricer.ml.tokens import Encoder, TokenizedExample


def prepare_validation(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    template: PromptTemplate,
    encoder: Encoder,
    *,
    fallback: float,
    batch_tokens: int,
) -> Callable[[], Validation]:
    """Return a function that measures the model's loss and price error on `items`. It restores the model's mode and the
    random state, so it does not affect training. A prediction without a price counts as `fallback`.
    """
    prompts = encoder.prompts([template.prompt(item) for item in items])
    examples = encoder.examples([template.example(i) for i in items if fits_format(i, template.price_format)])
    batches = [
        [prompts[index] for index in batch]
        for batch in make_batches([len(prompt.ids) for prompt in prompts], batch_tokens)
    ]

    def validate() -> Validation:
        decoder = TreeDecoder(model, tokenizer, template.price_format, encoder.answer_tokens)
        was_training = model.training
        model.eval()
        try:
            with torch.random.fork_rng(devices=[torch.cuda.current_device()] if model.device.type == "cuda" else []):
                predictions = [prediction for batch in batches for prediction in decoder.predict(batch)]
                loss = mean_loss(model, examples, batch_tokens) if examples else None
        finally:
            model.train(was_training)
        table = score_predictions(predictions, items, fallback)
        mae, no_price = fmean(table.abs_error.tolist()), int((~table.has_price).sum())
        return Validation(loss, mae, no_price, len(table), template.price_format.price_unit)

    return validate


def fits_format(item: Item, price_format: PriceFormat) -> bool:
    """Whether the price can be written: it is not rounded to 0, and fits the padded width, which comes from the
    training items. Other validation items have a price error, but no completion and so no loss.
    """
    try:
        format_price(item.price, price_format)
    except ValueError:
        return False
    return True


def mean_loss(model: Any, examples: Sequence[TokenizedExample], batch_tokens: int) -> float:
    """Mean negative log-likelihood in nats per completion token, the end-of-text token included."""

    @torch.inference_mode()
    def losses(batch: Sequence[TokenizedExample]) -> list[float]:
        ids_BT, spans = right_padded(batch, pad=0)  # no token sees later tokens, so any padding will do
        with mixed_precision(model):
            return [float(completion_loss(model, torch.from_numpy(ids_BT).to(model.device), spans))]

    splitter = BatchSplitter("compute the loss of")
    total = 0.0
    for batch in make_batches([len(example.ids) for example in examples], batch_tokens):
        total += sum(splitter.run(losses, [examples[index] for index in batch]))
    return total / sum(len(example.ids) - example.start for example in examples)
