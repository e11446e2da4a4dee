"""Prediction: a batch of prompts in, a price for each out; left-padded, the same for every batch size."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig

from pricer.core.predictions import Prediction
from pricer.core.prices import PriceFormat, parse_price
from pricer.errors import ModelError
from pricer.ml.decode import Decoder
from pricer.ml.embeddings import embed
from pricer.ml.model import AdapterSwitch
from pricer.ml.soup import average, write
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt, batches_of, left_padded


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

    @torch.inference_mode()
    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch."""
        ids, mask = self._left_padded([prompt.ids for prompt in prompts])
        output = self.model.generate(input_ids=ids, attention_mask=mask, generation_config=self._generation)
        completions = self._tokenizer.batch_decode(output[:, ids.shape[1] :], skip_special_tokens=True)
        return [
            Prediction(prompt.item_id, completion, parse_price(completion, self._price_format))
            for prompt, completion in zip(prompts, completions, strict=True)
        ]

    @torch.inference_mode()
    def loss(self, examples: Sequence[TokenizedExample], batch_tokens: int) -> float:
        """Mean negative log-likelihood in nats per completion token, the end-of-text token included."""
        total, count = 0.0, 0
        for batch in batches_of([len(example.ids) for example in examples], batch_tokens):
            chosen = [examples[index] for index in batch]
            ids, mask = self._left_padded([example.ids for example in chosen])
            positions = (mask.cumsum(dim=1) - 1).clamp(min=0)
            # Left padding puts all completions at the end: only their logits are computed, not the whole prompt's.
            width = max(len(example.ids) - example.start for example in chosen)
            logits = self.model(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=False, logits_to_keep=width + 1
            ).logits
            targets = ids[:, -width:].clone()
            for row, example in enumerate(chosen):
                targets[row, : width - (len(example.ids) - example.start)] = -100
            total += float(
                torch.nn.functional.cross_entropy(
                    logits[:, :-1].float().flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum"
                )
            )
            count += int((targets != -100).sum())
        return total / count

    def _left_padded(self, sequences: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        ids, mask = left_padded(sequences, self._tokenizer.pad_token_id)
        return torch.from_numpy(ids).to(self.model.device), torch.from_numpy(mask).to(self.model.device)


class CheckpointPredictor:
    """Predictions by one checkpoint after the other, with their distributions: the base is loaded once, only adapters
    change.
    """

    def __init__(self, base: Any, decoder: Decoder) -> None:
        self._switch = AdapterSwitch(base)
        self._decoder = decoder
        self._is_untuned = True

    def use(self, adapter: Path) -> None:
        """Answer with this adapter from now on; before the first one, answers are the base's own."""
        self._is_untuned = False
        self._switch.use(adapter)
        self._decoder.use(self._switch.model)

    def average(self, adapters: Sequence[Path], target: Path) -> None:
        """Write the exact average of these adapters into a folder, after each was checked as `use` does."""
        write(average([self._switch.read(adapter) for adapter in adapters]), target)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return in_halves(self._decoder.predict, prompts)

    def embed(self, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> np.ndarray:
        """What the base by itself makes of prompts: the last layer at the last token, (prompts, hidden size). To be
        asked before the first adapter.
        """
        assert self._is_untuned
        return embed(self._switch.model, prompts, batch_tokens)


def in_halves(
    predict: Callable[[Sequence[TokenizedPrompt]], list[Prediction]], prompts: Sequence[TokenizedPrompt]
) -> list[Prediction]:
    """The Predictions of a batch, or of its halves where it does not fit into memory: answers do not depend on that. A
    ModelError if a single prompt does not.
    """
    try:
        return predict(prompts)
    except RuntimeError as error:
        if not _is_out_of_memory(error):
            raise
    if len(prompts) == 1:
        raise ModelError(
            f"there is no memory left to answer about {prompts[0].item_id} by itself",
            "model.quantization: nf4, or a GPU with more",
        )
    # Past the exception, whose traceback would keep the tensors that did not fit.
    torch.cuda.empty_cache()
    half = len(prompts) // 2
    return [*in_halves(predict, prompts[:half]), *in_halves(predict, prompts[half:])]


def _is_out_of_memory(error: RuntimeError) -> bool:
    # On the CPU torch has no class of its own for it.
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error)
