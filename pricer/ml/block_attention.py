"""Attention in blocks of queries, for CPUs. A block computes no scores for the keys after its last query, which the
mask would remove. That is almost half of all scores of a long prompt.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_NAME = "pricer_blocks"
# Number of queries in a block.
_QUERIES = 64


@contextmanager
def attention_in_blocks(model: Any) -> Iterator[None]:
    """A context in which a model on the CPU computes attention in blocks. Every mask must have four dimensions, and
    must not let a query see the keys after its own.
    """
    config = model.config.get_text_config()
    if model.device.type != "cpu" or config._attn_implementation != "sdpa":
        yield
        return
    config._attn_implementation = _NAME
    try:
        yield
    finally:
        config._attn_implementation = "sdpa"


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """The same result as `sdpa_attention_forward`. The keys and values that several heads share are not copied."""
    if attention_mask is None or others.get("softcap") is not None or others.get("position_bias") is not None:
        whole: tuple[torch.Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, scaling=scaling, **others
        )
        return whole
    queries, keys = query.shape[2], key.shape[2]
    blocks = []
    for start in range(0, queries, _QUERIES):
        stop = min(start + _QUERIES, queries)
        seen = keys - queries + stop
        blocks.append(
            torch.nn.functional.scaled_dot_product_attention(
                query[:, :, start:stop],
                key[:, :, :seen],
                value[:, :, :seen],
                attn_mask=attention_mask[:, :, start:stop, :seen],
                scale=scaling,
                enable_gqa=query.shape[1] != key.shape[1],
            )
        )
    whole_BHTD = blocks[0] if len(blocks) == 1 else torch.cat(blocks, dim=2)
    return whole_BHTD.transpose(1, 2).contiguous(), None


AttentionInterface.register(_NAME, _attend)
