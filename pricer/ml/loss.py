"""The loss: negative log-likelihood of completions, computed at their positions alone."""

from collections.abc import Sequence
from typing import Any

import torch

from pricer.ml.head import logits_only_at

Span = tuple[int, int]
"""Where a completion starts in its row, and where it ends (its end-of-text token included)."""


def completion_loss(model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """The sum, in nats, over the completions' tokens of right-padded rows `ids` (items, length).

    No attention mask where the fastest kernel is there: no position looks ahead, so the padding behind a row cannot
    change it.
    """
    width = max(end for _, end in spans)
    # The logits that say a token are those of the position before it.
    positions = [row * width + at - 1 for row, (start, end) in enumerate(spans) for at in range(start, end)]
    where = torch.tensor(positions).to(ids.device, non_blocking=True)
    ids = ids[: len(spans), :width]
    mask = None
    if needs_mask(ids.device, model.dtype):
        # Added to the attention scores; a mask of four dimensions is taken as it is, one of two is dropped where all
        # rows are of one length.
        mask = torch.full((width, width), torch.finfo(model.dtype).min, dtype=model.dtype, device=ids.device)
        mask = mask.triu(1)[None, None]
    with logits_only_at(model, where):
        logits = model(input_ids=ids, attention_mask=mask, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits, ids.flatten()[where + 1], reduction="sum")


def needs_mask(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether attention is slow there without a mask: below compute capability 8, and in float32, there is no kernel on
    a GPU for fewer heads of keys than of queries, which transformers asks for where there is no mask. torch would
    compute it in single steps, in float32.
    """
    return device.type == "cuda" and (torch.cuda.get_device_capability(device)[0] < 8 or dtype == torch.float32)
