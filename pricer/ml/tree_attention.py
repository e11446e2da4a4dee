"""Tree attention: computes many continuations of the same prompts side by side.

Every prompt is computed once. The prefix that all prompts share (the question) is computed once for all of them. The
tokens of all continuations are in the prompt's row. Each token sees only the prompt and its own ancestors (tree
attention, as in SpecInfer, arXiv 2305.09781), so the prompt's keys and values are neither recomputed nor copied.

Shape suffixes: B prompts, T tokens in the prompts (including padding), W columns in the tree, C new columns,
V vocabulary. A column has one token for each row.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pricer.ml.batches import left_padded


class SharedPrefix:
    """The common first tokens of all prompts, in a model's cache. `ids_T` may be empty."""

    def __init__(self, model: Any, ids_T: np.ndarray) -> None:
        self.ids_T = ids_T
        self._cache = (
            model(
                input_ids=torch.from_numpy(ids_T)[None].to(model.device), use_cache=True, logits_to_keep=1
            ).past_key_values
            if len(ids_T)
            else None
        )

    def __len__(self) -> int:
        return len(self.ids_T)

    def is_prefix_of(self, prompt_T: np.ndarray) -> bool:
        """Whether a prompt begins with this prefix and has more tokens."""
        return len(prompt_T) > len(self) and bool((prompt_T[: len(self)] == self.ids_T).all())

    def copy_cache(self, batch_size: int) -> Any:
        """A copy of the cache for a batch; None if the prefix is empty."""
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(batch_size)
        return cache


def common_prefix(prompts: Sequence[np.ndarray]) -> np.ndarray:
    """The common first tokens (n,) of all prompts. At least one token of each prompt is left over."""
    shortest = min(len(ids) for ids in prompts) - 1
    first = prompts[0][:shortest].astype(np.int64)
    same = np.ones(shortest, dtype=np.bool_)
    for ids in prompts:
        same &= ids[:shortest] == first
    return first[: shortest if same.all() else int(same.argmin())]


class TokenTree:
    """Prompts in a model's cache, and columns of tokens that continue them. A column's parent is another column or the
    prompt. `first_logits_B1V` are the logits after the prompts.
    """

    def __init__(self, model: Any, prompts: Sequence[np.ndarray], prefix: SharedPrefix, pad: int) -> None:
        self._model = model
        self.device = model.device
        # Each row has the prefix, the padding, and the rest of the prompt. All prompts begin and end at the same
        # positions.
        rest_BT, mask_BT = (
            torch.from_numpy(array).to(self.device)
            for array in left_padded([ids[len(prefix) :] for ids in prompts], pad)
        )
        prompt_BT = torch.nn.functional.pad(mask_BT, (len(prefix), 0), value=1)
        output = model(
            input_ids=rest_BT,
            attention_mask=prompt_BT,
            position_ids=(prompt_BT.cumsum(dim=1) - 1).clamp(min=0)[:, len(prefix) :],
            past_key_values=prefix.copy_cache(len(prompts)),
            use_cache=True,
            # An index, not a count: for a count, transformers takes a slice, which is not contiguous and so slow.
            logits_to_keep=torch.tensor([rest_BT.shape[1] - 1], device=self.device),
        )
        self.first_logits_B1V = output.logits
        self._cache = output.past_key_values
        self._is_prompt_BT = prompt_BT.bool()
        self._lengths_B1 = prompt_BT.sum(dim=1, keepdim=True)
        self._rows_B1 = torch.arange(len(prompts), device=self.device)[:, None]
        # Which columns each column sees: itself and its ancestors.
        self._sees_BWW = torch.zeros((len(prompts), 0, 0), dtype=torch.bool, device=self.device)

    @property
    def width(self) -> int:
        """The number of columns."""
        return self._sees_BWW.shape[1]

    def extend(self, parents_BC: np.ndarray, tokens_BC: np.ndarray) -> torch.Tensor:
        """Add the columns `tokens_BC` to the tree and return their logits (B, C, V). `parents_BC` are column indices,
        or PROMPT for the prompt.
        """
        rows, added = tokens_BC.shape
        # One more row for PROMPT, which is -1, the last index. It sees no column.
        ancestors = torch.nn.functional.pad(self._sees_BWW, (0, 0, 0, 1))
        inherited_BCW = ancestors[self._rows_B1, torch.from_numpy(parents_BC).to(self.device)]
        own_CC = torch.eye(added, dtype=torch.bool, device=self.device)
        sees_BCW = torch.cat([inherited_BCW, own_CC.expand(rows, -1, -1)], dim=2)  # W with the new columns
        allowed = torch.cat([self._is_prompt_BT[:, None, :].expand(-1, added, -1), sees_BCW], dim=2)
        # The mask is added to the attention scores, so it has their dtype. transformers uses four dimensions unchanged.
        dtype = self._cache.layers[0].keys.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=self.device)
        mask = mask.masked_fill(~allowed, torch.finfo(dtype).min)
        output = self._model(
            input_ids=torch.from_numpy(tokens_BC).to(self.device),
            attention_mask=mask[:, None],
            position_ids=self._lengths_B1 + sees_BCW.sum(dim=2) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._sees_BWW = torch.cat([torch.nn.functional.pad(self._sees_BWW, (0, added)), sees_BCW], dim=1)
        logits_BCV: torch.Tensor = output.logits
        return logits_BCV
