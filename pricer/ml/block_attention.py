"""Attention for CPUs: in blocks of queries for scoring, and in float32 for training in bfloat16."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

_BLOCKS, _FLOAT32 = "pricer_blocks", "pricer_float32"
# Number of queries in a block.
_QUERIES = 64


@contextmanager
def attention_in_blocks(model: Any) -> Iterator[None]:
    """A context in which a model on the CPU computes attention in blocks. Every mask must have four dimensions, and
    must not let a query see the keys after its own.

    A block computes no scores for the keys after its last query, which the mask would remove. That is almost half of
    all scores of a long prompt.
    """
    with _attention(model, _BLOCKS):
        yield


@contextmanager
def attention_in_float32(model: Any) -> Iterator[None]:
    """A context in which a model on the CPU computes attention in float32, also where autocast would use bfloat16. The
    backward pass of torch's attention takes four times as long in bfloat16. With dtypes other than bfloat16, nothing
    changes.
    """
    if model.dtype != torch.bfloat16:
        yield
        return
    with _attention(model, _FLOAT32):
        yield


@contextmanager
def _attention(model: Any, name: str) -> Iterator[None]:
    config = model.config.get_text_config()
    before = config._attn_implementation
    if model.device.type != "cpu" or before not in ("sdpa", _FLOAT32):
        yield
        return
    config._attn_implementation = name
    try:
        yield
    finally:
        config._attn_implementation = before


def _attend_in_blocks(
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


def _attend_in_float32(
    module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, *others: Any, **named: Any
) -> tuple[torch.Tensor, None]:
    with torch.autocast(query.device.type, enabled=False):
        output, _ = sdpa_attention_forward(module, query.float(), key.float(), value.float(), *others, **named)
    return output.to(value.dtype), None


AttentionInterface.register(_BLOCKS, _attend_in_blocks)
AttentionInterface.register(_FLOAT32, _attend_in_float32)
AttentionMaskInterface.register(_FLOAT32, AttentionMaskInterface()["sdpa"])
