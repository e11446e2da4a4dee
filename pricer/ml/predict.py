"""Prediction by the checkpoints of a run: a price for each prompt, the same for every batch size; and embeddings.

Shape suffixes: B prompts, T tokens in a row, H hidden size.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pricer.core.predictions import Prediction
from pricer.ml.adapters import AdapterSwitch, average_adapters, write_adapter
from pricer.ml.base import mixed_precision
from pricer.ml.batches import batches_of, right_padded_ids
from pricer.ml.decode import TreeDecoder
from pricer.ml.tokens import TokenizedPrompt


class CheckpointPredictor:
    """Predictions, with distributions, by one checkpoint after the other: only the adapter on the base changes."""

    def __init__(self, base: Any, decoder: TreeDecoder) -> None:
        self._switch = AdapterSwitch(base)
        self._decoder = decoder
        self._is_untuned = True

    def use(self, adapter: Path) -> None:
        """Predict with this adapter from now on; before the first one, predictions are the base's own."""
        self._is_untuned = False
        self._switch.use(adapter)
        self._decoder.use(self._switch.model)

    def average(self, adapters: Sequence[Path], target: Path) -> None:
        """Write the exact average of these adapters into a folder; each is checked as in `use`."""
        write_adapter(average_adapters([self._switch.read(adapter) for adapter in adapters]), target)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._decoder.predict(prompts)

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
