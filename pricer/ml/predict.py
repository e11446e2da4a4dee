"""Prediction: a batch of prompts in, a price for each out, the same for every batch size. Also embeddings and loss.

Shape suffixes: B prompts, T tokens in a row, H hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from pricer.core.predictions import Prediction
from pricer.core.prices import PriceFormat, parse_price
from pricer.ml.adapter_files import average_adapters, write_adapter
from pricer.ml.adapters import AdapterSwitch
from pricer.ml.base import mixed_precision
from pricer.ml.decode import TreeDecoder
from pricer.ml.loss import completion_loss
from pricer.ml.out_of_memory import BatchSplitter
from pricer.ml.tokens import (
    TokenizedExample,
    TokenizedPrompt,
    batches_of,
    left_padded,
    right_padded,
    right_padded_ids,
)


class Predictor:
    """Greedy predictions of a causal LM, cheap enough for validation while it trains, and its loss.

    `answer_length` is the maximum number of tokens in a completion, its end-of-text token included.
    """

    def __init__(self, model: Any, tokenizer: Any, price_format: PriceFormat, answer_length: int) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._price_format = price_format
        # Not the model's own config: Llama's samples at temperature 0.6.
        self._generation = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=answer_length,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
        self._prediction_batches = _split_predictions()
        self._loss_batches = BatchSplitter("compute the loss of", lambda example: example.prompt.item_id)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._prediction_batches.run(self._predict, prompts, _padded_tokens)

    @torch.inference_mode()
    def _predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        ids_BT, mask_BT = left_padded([prompt.ids for prompt in prompts], self._tokenizer.pad_token_id)
        inputs = {"input_ids": self._to_device(ids_BT), "attention_mask": self._to_device(mask_BT)}
        with mixed_precision(self.model):
            output_BT = self.model.generate(**inputs, generation_config=self._generation)
        completions = self._tokenizer.batch_decode(output_BT[:, ids_BT.shape[1] :], skip_special_tokens=True)
        return [
            Prediction(prompt.item_id, completion, parse_price(completion, self._price_format))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def loss(self, examples: Sequence[TokenizedExample], batch_tokens: int) -> float:
        """Mean negative log-likelihood in nats per completion token, the end-of-text token included."""
        total = 0.0
        for batch in batches_of([len(example.ids) for example in examples], batch_tokens):
            total += sum(self._loss_batches.run(self._loss, [examples[index] for index in batch], _padded_tokens))
        return total / sum(len(example.ids) - example.start for example in examples)

    @torch.inference_mode()
    def _loss(self, examples: Sequence[TokenizedExample]) -> list[float]:
        ids_BT, spans = right_padded(examples, self._tokenizer.pad_token_id)
        with mixed_precision(self.model):
            return [float(completion_loss(self.model, self._to_device(ids_BT), spans))]

    def _to_device(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(array).to(self.model.device)


def _split_predictions() -> BatchSplitter:
    return BatchSplitter("answer about", lambda prompt: prompt.item_id)


def _padded_tokens(batch: Sequence[TokenizedPrompt] | Sequence[TokenizedExample]) -> int:
    """The number of tokens in a batch, padding included."""
    return len(batch) * max(len(member.ids) for member in batch)


class CheckpointPredictor:
    """Predictions, with distributions, by one checkpoint after the other: only the adapter on the base changes."""

    def __init__(self, base: Any, decoder: TreeDecoder) -> None:
        self._switch = AdapterSwitch(base)
        self._decoder = decoder
        self._prediction_batches = _split_predictions()
        self._is_untuned = True

    def use(self, adapter: Path) -> None:
        """Predict with this adapter from now on; before the first one, predictions are the base's own."""
        self._is_untuned = False
        # A batch may not have fitted because of other things in memory at the time.
        self._prediction_batches = _split_predictions()
        self._switch.use(adapter)
        self._decoder.use(self._switch.model)

    def average(self, adapters: Sequence[Path], target: Path) -> None:
        """Write the exact average of these adapters into a folder; each is checked as in `use`."""
        write_adapter(average_adapters([self._switch.read(adapter) for adapter in adapters]), target)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._prediction_batches.run(self._decoder.predict, prompts, _padded_tokens)

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> np.ndarray:
        """The untrained base's embeddings (B, H) of prompts; only before the first `use`."""
        assert self._is_untuned
        return embed_prompts(self._switch.model, prompts, batch_tokens)


@torch.inference_mode()
def embed_prompts(model: Any, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> np.ndarray:
    """The last layer's output, after its norm, at each prompt's last token: float32 (B, H), in the prompts' order.

    `model` is a base without an adapter, in eval mode. Memory holds the result (16 KB per prompt for H = 4,096) and one
    batch of at most `batch_tokens` tokens.
    """
    # The decoder alone, without logits: for a vocabulary of 128,000 they would take more memory than all the rest.
    decoder = model.get_decoder()
    embeddings_BH = np.empty((len(prompts), model.config.get_text_config().hidden_size), dtype=np.float32)
    for batch in batches_of([len(prompt.ids) for prompt in prompts], batch_tokens):
        lengths_B = torch.tensor([len(prompts[index].ids) for index in batch])
        # Right padding, since nothing is generated: no token sees what follows it, so any padding token will do.
        ids_BT = torch.from_numpy(right_padded_ids([prompts[index].ids for index in batch], pad=0))
        mask_BT = torch.arange(ids_BT.shape[1]) < lengths_B[:, None]
        with mixed_precision(model):
            hidden_BTH = decoder(
                input_ids=ids_BT.to(model.device), attention_mask=mask_BT.long().to(model.device), use_cache=False
            ).last_hidden_state
        embeddings_BH[batch] = hidden_BTH[torch.arange(len(batch)), lengths_B - 1].float().cpu().numpy()
    return embeddings_BH
