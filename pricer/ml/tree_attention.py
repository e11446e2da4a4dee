"""Tree attention: computes many continuations of the same prompts side by side.

Every prompt is computed once. The prefix that all prompts share (the question) is computed once for all of them. The
tokens of all continuations are in the prompt's row. Each token sees only the prompt and its own ancestors (tree
attention, as in SpecInfer, arXiv 2305.09781), so the prompt's keys and values are neither recomputed nor copied.

Shape suffixes: B prompts, T tokens in the prompts after the shared prefix (including padding), W columns in the tree, C
new columns, L all columns in the cache (prefix, T and W), V vocabulary. A column has one token for each row.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from transformers.cache_utils import Cache

from pricer.ml.batches import right_padded_ids
from pricer.ml.last_layer import last_layer_where_scored
from pricer.ml.loss import logits_only_at

# Maximum number of tokens of prompts that a CPU computes at once. More are slower, because the activations then do not
# fit into its caches. The tree is computed for all prompts at once: its few tokens need every weight of the model.
_TOKENS_AT_ONCE_ON_CPU = 2048
# Number of tree columns for which memory is allocated with the prompts. DigitQuantiles rarely needs more.
_SPARE_COLUMNS = 32


class SharedPrefix:
    """The common first tokens of all prompts, in a model's cache. `ids_T` may be empty."""

    def __init__(self, model: Any, ids_T: np.ndarray) -> None:
        self.ids_T = ids_T
        self.cache = (
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
        rests = [ids[len(prefix) :] for ids in prompts]
        lengths_B = torch.tensor([len(ids) for ids in rests], device=self.device)
        columns = len(prefix) + max(len(ids) for ids in rests)
        self._cache = _TreeCache(len(prompts), columns + _SPARE_COLUMNS, prefix)
        first_logits = []
        for rows in _split_rows(rests, self.device):
            self._cache.place(rows, len(prefix))
            first_logits.append(self._compute_prompts(rests[rows], len(prefix), pad))
        self.first_logits_B1V = torch.cat(first_logits)[:, None]
        self._cache.place(slice(None), columns)
        self._lengths_B1 = len(prefix) + lengths_B[:, None]
        self._is_prompt_BL = torch.arange(columns, device=self.device) < self._lengths_B1
        self._rows_B1 = torch.arange(len(prompts), device=self.device)[:, None]
        # Which columns each column sees: itself and its ancestors.
        self._sees_BWW = torch.zeros((len(prompts), 0, 0), dtype=torch.bool, device=self.device)

    def _compute_prompts(self, rests: Sequence[np.ndarray], start: int, pad: int) -> torch.Tensor:
        """Add the rows' tokens after the prefix, `start` tokens long, to the cache. Returns the logits (B, V) after
        each row's last token.
        """
        ids_BT = torch.from_numpy(right_padded_ids(rests, pad)).to(self.device)
        width = ids_BT.shape[1]
        ends_B = torch.tensor([row * width + len(ids) - 1 for row, ids in enumerate(rests)], device=self.device)
        positions_1T = torch.arange(start, start + width, device=self.device)[None]
        # The padding is at the end, where no token sees it, so all rows have the same mask.
        allowed_TL = torch.arange(start + width, device=self.device) <= positions_1T.T
        with last_layer_where_scored(self._model), logits_only_at(self._model, ends_B):
            output = self._model(
                input_ids=ids_BT,
                attention_mask=self._mask(allowed_TL[None]),
                position_ids=positions_1T,
                past_key_values=self._cache,
                use_cache=True,
            )
        logits_BV: torch.Tensor = output.logits[0]
        return logits_BV

    def _mask(self, allowed: torch.Tensor) -> torch.Tensor:
        """The mask that is added to the attention scores, so it has their dtype. transformers uses four dimensions
        unchanged.
        """
        mask = torch.zeros(allowed.shape, dtype=self._model.dtype, device=self.device)
        return mask.masked_fill_(~allowed, torch.finfo(mask.dtype).min)[:, None]

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
        allowed_BCL = torch.cat([self._is_prompt_BL[:, None, :].expand(-1, added, -1), sees_BCW], dim=2)
        output = self._model(
            input_ids=torch.from_numpy(tokens_BC).to(self.device),
            attention_mask=self._mask(allowed_BCL),
            position_ids=self._lengths_B1 + sees_BCW.sum(dim=2) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._cache.place(slice(None), allowed_BCL.shape[2])
        self._sees_BWW = torch.cat([torch.nn.functional.pad(self._sees_BWW, (0, added)), sees_BCW], dim=1)
        logits_BCV: torch.Tensor = output.logits
        return logits_BCV


def _split_rows(rests: Sequence[np.ndarray], device: torch.device) -> Iterator[slice]:
    """The rows that are computed at once."""
    start = 0
    while start < len(rests):
        stop, longest = start, 0
        while stop < len(rests):
            longest = max(longest, len(rests[stop]))
            if device.type == "cpu" and stop > start and (stop + 1 - start) * longest > _TOKENS_AT_ONCE_ON_CPU:
                break
            stop += 1
        yield slice(start, stop)
        start = stop


class _TreeCache(Cache):
    """Keys and values of a prefix, of prompts and of tree columns, by layer, in memory that is allocated once. The next
    tokens are written where `place` says.

    transformers' own cache copies everything whenever a column is added.
    """

    def __init__(self, rows: int, columns: int, prefix: SharedPrefix) -> None:
        super().__init__(layers=[])
        self._rows, self._columns = rows, columns
        self._prefix = prefix
        self._held: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        self.place(slice(None), len(prefix))

    def place(self, rows: slice, start: int) -> None:
        """Write the next tokens into these rows, from column `start` on."""
        self._where, self._start = rows, start

    def get_seq_length(self, layer_idx: int = 0) -> int:  # noqa: ARG002  # transformers' interface
        """The number of columns that the next tokens follow."""
        return self._start

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, layer_idx: int, *_: Any, **__: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write a layer's keys and values (B, heads, T, dim) and return all of these rows."""
        held = self._held.get(layer_idx) or self._allocate(key_states, value_states, layer_idx)
        stop = self._start + key_states.shape[2]
        if stop > held[0].shape[2]:
            more = max(stop - held[0].shape[2], self._columns // 2)
            held = tuple(torch.nn.functional.pad(each, (0, 0, 0, more)) for each in held)
        self._held[layer_idx] = held
        for each, new in zip(held, (key_states, value_states), strict=True):
            each[self._where, :, self._start : stop] = new
        return held[0][self._where, :, :stop], held[1][self._where, :, :stop]

    def _allocate(self, key_states: torch.Tensor, value_states: torch.Tensor, layer: int) -> Any:
        """Memory for a layer, with the prefix in it. Zeros, because masked columns must hold numbers."""
        held = tuple(
            new.new_zeros((self._rows, new.shape[1], self._columns, new.shape[3])) for new in (key_states, value_states)
        )
        if self._prefix.cache is not None:
            of_layer = self._prefix.cache.layers[layer]
            for each, before in zip(held, (of_layer.keys, of_layer.values), strict=True):
                each[:, :, : len(self._prefix)] = before
        return held
