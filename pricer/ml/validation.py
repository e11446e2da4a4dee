"""Validation: loss and price error on validation items during training."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

import torch

from pricer.core.evaluation import score_predictions
from pricer.core.items import Item, PromptTemplate
from pricer.core.predictions import Prediction
from pricer.core.prices import PriceFormat, format_price
from pricer.core.training import Validation
from pricer.errors import ModelError
from pricer.ml.base import mixed_precision
from pricer.ml.batches import BatchSplitter, OutOfMemoryError, make_batches, right_padded
from pricer.ml.loss import completion_loss
from pricer.ml.predict import TreeDecoder
from pricer.ml.processes import Processes
from pricer.ml.tokens import Encoder, TokenizedExample


@dataclass(frozen=True, slots=True)
class _Share:
    """What one process found: predictions, the sum of its losses, and the number of tokens in that sum. `problem` says
    why there are none.
    """

    predictions: list[Prediction]
    loss: float
    tokens: int
    problem: str = ""


def prepare_validation(
    model: Any,
    tokenizer: Any,
    items: Sequence[Item],
    template: PromptTemplate,
    encoder: Encoder,
    *,
    fallback: float,
    batch_tokens: int,
    processes: Processes,
) -> Callable[[], Validation]:
    """Return a function that measures the model's loss and price error on `items`, which the processes share out. It
    restores the model's mode and the random state, so it does not affect training. A prediction without a price counts
    as `fallback`.
    """
    # All processes compute the same passes of a sharded base. The results are those of process 0.
    share = items if processes.sharded else items[processes.rank :: processes.count]
    prompts = encoder.prompts([template.prompt(item) for item in share])
    examples = encoder.examples([template.example(i) for i in share if fits_format(i, template.price_format)])
    batches = [
        [prompts[index] for index in batch]
        for batch in make_batches([len(prompt.ids) for prompt in prompts], batch_tokens)
    ]

    def score() -> _Share:
        # With FSDP, the others wait for this process's part of a layer in the same batch.
        may_split = not processes.sharded
        decoder = TreeDecoder(model, tokenizer, template.price_format, encoder.answer_tokens, may_split=may_split)
        was_training = model.training
        model.eval()
        try:
            with torch.random.fork_rng(devices=[torch.cuda.current_device()] if model.device.type == "cuda" else []):
                predictions = [prediction for batch in batches for prediction in decoder.predict(batch)]
                return _Share(predictions, *total_loss(model, examples, batch_tokens, may_split=may_split))
        except OutOfMemoryError as error:
            if processes.sharded:  # nor can this process leave the validation without them
                hint = "a smaller eval.batch_tokens, or train.val_items: 0"
                raise ModelError(f"memory ran out in a validation, with FSDP: {error.message}", hint) from None
            return _Share([], 0.0, 0, error.message)
        finally:
            model.train(was_training)

    def validate() -> Validation:
        shares = processes.gather(score())[: 1 if processes.sharded else None]
        if problem := next((share.problem for share in shares if share.problem), ""):
            raise OutOfMemoryError(problem)
        loss, tokens = sum(share.loss for share in shares), sum(share.tokens for share in shares)
        table = score_predictions([one for share in shares for one in share.predictions], items, fallback)
        mae, no_price = fmean(table.abs_error.tolist()), int((~table.has_price).sum())
        return Validation(
            loss / tokens if tokens else None, mae, no_price, len(table), template.price_format.price_unit
        )

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


def total_loss(
    model: Any, examples: Sequence[TokenizedExample], batch_tokens: int, *, may_split: bool = True
) -> tuple[float, int]:
    """The negative log-likelihood in nats, summed over all completion tokens, and their number. The end-of-text token
    is included. Unless `may_split`, a batch that does not fit into memory is an OutOfMemoryError.
    """

    @torch.inference_mode()
    def losses(batch: Sequence[TokenizedExample]) -> list[float]:
        ids_BT, spans = right_padded(batch, pad=0)  # no token sees later tokens, so any padding will do
        with mixed_precision(model):
            return [float(completion_loss(model, torch.from_numpy(ids_BT).to(model.device), spans))]

    splitter = BatchSplitter("compute the loss of", may_split=may_split)
    total = 0.0
    for batch in make_batches([len(example.ids) for example in examples], batch_tokens):
        total += sum(splitter.run(losses, [examples[index] for index in batch]))
    return total, sum(len(example.ids) - example.start for example in examples)
