"""Embeddings: what the base, untrained, makes of a prompt, for a regression on top of it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pricer.ml.base import computing
from pricer.ml.tokens import TokenizedPrompt, batches_of, right_padded_ids


@torch.inference_mode()
def embed(model: Any, prompts: Sequence[TokenizedPrompt], batch_tokens: int) -> np.ndarray:
    """The last layer's output, after its norm, at each prompt's last token: float32 of shape (prompts, hidden size), in
    their order.

    `model` is a base without an adapter, in eval mode, at the precision that it is scored at. In memory at once are the
    result (16 KB a prompt for a hidden size of 4,096) and one batch of at most `batch_tokens` tokens.
    """
    # The decoder alone: no logits, of which a vocabulary of 128,000 has more than everything else together.
    decoder = model.get_decoder()
    embeddings = np.empty((len(prompts), model.config.get_text_config().hidden_size), dtype=np.float32)
    for batch in batches_of([len(prompt.ids) for prompt in prompts], batch_tokens):
        lengths = torch.tensor([len(prompts[index].ids) for index in batch])
        # Right padding, since nothing is generated: no position looks ahead, so what follows a prompt cannot change it,
        # and any token will do.
        ids = torch.from_numpy(right_padded_ids([prompts[index].ids for index in batch], pad=0))
        mask = torch.arange(ids.shape[1]) < lengths[:, None]
        with computing(model):
            hidden = decoder(
                input_ids=ids.to(model.device), attention_mask=mask.long().to(model.device), use_cache=False
            ).last_hidden_state
        last = hidden[torch.arange(len(batch)), lengths - 1]
        embeddings[batch] = last.float().cpu().numpy()
    return embeddings
