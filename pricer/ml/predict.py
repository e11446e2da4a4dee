"""Prediction: a batch of prompts in, a price for each out; left-padded, the same for every batch size."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from pricer.core.predictions import Prediction
from pricer.core.prices import PriceFormat, parse_price
from pricer.ml.base import AdapterSwitch, computing
from pricer.ml.decode import Decoder
from pricer.ml.embeddings import embed
from pricer.ml.loss import completion_loss
from pricer.ml.out_of_memory import Halving
from pricer.ml.soup import average, write
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt, batches_of, left_padded, right_padded


class Predictor:
    """Greedy predictions of a causal LM, cheap enough for while it trains, and its loss.

    `answer_length` is the most tokens that an answer may take, its end-of-text token included.
    """

    def __init__(self, model: Any, tokenizer: Any, price_format: PriceFormat, answer_length: int) -> None:
        self.model = model
        self._tokenizer = tokenizer
        self._price_format = price_format
        # A config of our own, not the model's: Llama's default one samples at temperature 0.6.
        self._generation = GenerationConfig(
            do_sample=False,
            num_beams=1,
            max_new_tokens=answer_length,
            use_cache=True,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )

        self._answering = _answering()
        self._losing = Halving("compute the loss of", lambda example: example.prompt.item_id)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._answering.take(self._predict, prompts, _tokens)

    @torch.inference_mode()
    def _predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        ids, mask = left_padded([prompt.ids for prompt in prompts], self._tokenizer.pad_token_id)
        inputs = {"input_ids": self._there(ids), "attention_mask": self._there(mask)}
        with computing(self.model):
            output = self.model.generate(**inputs, generation_config=self._generation)
        completions = self._tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        return [
            Prediction(prompt.item_id, completion, parse_price(completion, self._price_format))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    def loss(self, examples: Sequence[TokenizedExample], batch_tokens: int) -> float:
        """Mean negative log-likelihood in nats per completion token, the end-of-text token included."""
        total = 0.0
        for batch in batches_of([len(example.ids) for example in examples], batch_tokens):
            total += sum(self._losing.take(self._loss, [examples[index] for index in batch], _tokens))
        return total / sum(len(example.ids) - example.start for example in examples)

    @torch.inference_mode()
    def _loss(self, examples: Sequence[TokenizedExample]) -> list[float]:
        ids, spans = right_padded(examples, self._tokenizer.pad_token_id)
        with computing(self.model):
            return [float(completion_loss(self.model, self._there(ids), spans))]

    def _there(self, ids: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(ids).to(self.model.device)


def _answering() -> Halving:
    return Halving("answer about", lambda prompt: prompt.item_id)


def _tokens(batch: Sequence[TokenizedPrompt] | Sequence[TokenizedExample]) -> int:
    """Tokens in a batch, padding included."""
    return len(batch) * max(len(member.ids) for member in batch)


class CheckpointPredictor:
    """Predictions by one checkpoint after the other, with their distributions: the base is loaded once, only adapters
    change.
    """

    def __init__(self, base: Any, decoder: Decoder) -> None:
        self._switch = AdapterSwitch(base)
        self._decoder = decoder
        self._answering = _answering()
        self._is_untuned = True

    def use(self, adapter: Path) -> None:
        """Answer with this adapter from now on; before the first one, answers are the base's own."""
        self._is_untuned = False
        # What did not fit may have been for what else was in memory at the time.
        self._answering = _answering()
        self._switch.use(adapter)
        self._decoder.use(self._switch.model)

    def average(self, adapters: Sequence[Path], target: Path) -> None:
        """Write the exact average of these adapters into a folder, after each was checked as `use` does."""
        write(average([self._switch.read(adapter) for adapter in adapters]), target)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._answering.take(self._decoder.predict, prompts, _tokens)

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> np.ndarray:
        """What the base by itself makes of prompts: the last layer at the last token, (prompts, hidden size). To be
        asked before the first adapter.
        """
        assert self._is_untuned
        return embed(self._switch.model, prompts, batch_tokens)
