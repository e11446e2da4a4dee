"""The loss: negative log-likelihood of completions, computed at their positions alone."""

from collections.abc import Sequence
from typing import Any

import torch

from pricer.ml.head import logits_only_at

Span = tuple[int, int]
"""Where a completion starts in its row, and where it ends (its end-of-text token included)."""


def completion_loss(model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
    """The sum, in nats, over the completions' tokens of right-padded rows `ids` (items, length).

    No attention mask: no position looks ahead, so the padding behind a row cannot change it, and without a mask the
    fastest attention kernels apply.
    """
    width = max(end for _, end in spans)
    # The logits that say a token are those of the position before it.
    positions = [row * width + at - 1 for row, (start, end) in enumerate(spans) for at in range(start, end)]
    where = torch.tensor(positions).to(ids.device, non_blocking=True)
    ids = ids[: len(spans), :width]
    with logits_only_at(model, where):
        logits = model(input_ids=ids, use_cache=False).logits[0]
    return torch.nn.functional.cross_entropy(logits, ids.flatten()[where + 1], reduction="sum")
