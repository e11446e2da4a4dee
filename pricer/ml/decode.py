"""Decoding: of a batch of prompts, the greedy completions and the whole distributions of the price, in one pass.

Every prompt is computed once, and what all begin with, the question, once for them all. What is tried after it stands
beside it in the same row, each token seeing the prompt and the tokens that lead to it and nothing else (tree attention,
as in SpecInfer, arXiv 2305.09781): the prompts' keys and values are neither computed again nor copied for each path.
"""

import copy
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pricer.core.digit_quantiles import Levels, Walk
from pricer.core.predictions import Prediction
from pricer.core.prefix_search import Expansion, Fork
from pricer.core.price_distribution import PROMPT, Distribution, Reading, Step
from pricer.core.prices import PriceFormat, parse_price
from pricer.ml.base import computing
from pricer.ml.tokens import TokenizedPrompt, left_padded

# Beginnings of prices that are followed at once in a walk: five quantiles, and the likeliest others beside them.
_WALK_WIDTH = 8
# In an expansion: beginnings in one step, and in all.
_EXPANSION_WIDTH = 16
_EXPANSION_LIMIT = 256
# Logits that are added up at once.
_CELLS = 2**22
# Prompts in a batch for which it pays to compute their common beginning apart, a pass of its own.
_SHARED_BY = 4


class Decoder:
    """Reads distributions of the price from a causal LM.

    `answer_length` is the most tokens that a completion may take, its end-of-text token included. `writing` says how
    prices are written, None: no distribution is read. `unexplored` is the share of a distribution that may be left
    where prices have to be expanded. `ending` are the tokens that every price ends in: where a number is one token,
    they are tried all at once behind it (a draft, as in speculative decoding, arXiv 2211.17192), and what the model
    says instead still counts.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        price_format: PriceFormat,
        answer_length: int,
        writing: Levels | Fork | None,
        unexplored: float,
        ending: Sequence[int] = (),
    ) -> None:
        self._model = model
        self._prefix: _Prefix | None = None
        self._tokenizer = tokenizer
        self._price_format = price_format
        self._answer_length = answer_length
        self._writing = writing
        self._unexplored = unexplored
        has_number_tokens = isinstance(writing, tuple) and len(writing) == 1
        self._ending = np.array(ending if has_number_tokens else (), dtype=np.int64)

    def use(self, model: Any) -> None:
        """Read from this model from now on: another one, or the same with other weights."""
        self._model = model
        self._prefix = None

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch."""
        answers, distributions = self._decode([prompt.ids for prompt in prompts])
        completions = self._tokenizer.batch_decode(answers, skip_special_tokens=True)
        return [
            Prediction(prompt.item_id, completion, parse_price(completion, self._price_format), distribution)
            for prompt, completion, distribution in zip(prompts, completions, distributions, strict=True)
        ]

    def _decode(self, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[Distribution | None]]:
        """Greedy completions as token ids (items, length), padded at the end, and the distributions."""
        with torch.inference_mode(), computing(self._model):
            return self._read(ids)

    def _read(self, ids: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[Distribution | None]]:
        branches = _Branches(self._model, ids, self._prefix_of(ids), self._tokenizer.pad_token_id)
        greedy = _Greedy(branches.first[:, 0], self._tokenizer, self._answer_length)
        reading = self._reading(len(ids))
        step = reading.step(_log_probabilities(branches.first, reading.first)) if reading else [None] * len(ids)
        # The column of each place that the reading has asked for.
        columns = np.zeros(0, dtype=np.int64)
        while isinstance(step, Step):
            parents = np.append(columns, PROMPT)[step.parents]  # PROMPT is -1: the last one
            tokens = step.tokens
            columns = np.append(columns, branches.width + np.arange(step.tokens.shape[1]))
            parents, tokens, own = greedy.join(parents, tokens, step.likeliest)
            start = branches.width
            logits = branches.extend(parents, tokens)
            greedy.go_on(logits, own, start)
            assert reading is not None
            step = reading.step(_log_probabilities(logits[:, : step.tokens.shape[1]], step.options))
        while not greedy.is_finished:
            greedy.go_on_alone(branches, self._ending)
        return greedy.answers, step

    def _prefix_of(self, ids: Sequence[np.ndarray]) -> "_Prefix":
        """What these prompts begin with, and those before them did: computed once for many batches."""
        if self._prefix is not None and all(self._prefix.begins(own) for own in ids):
            return self._prefix
        if len(ids) < _SHARED_BY:
            return _Prefix(self._model, np.zeros(0, dtype=np.int64))
        # Of the first batch it may be more than the question; it gets shorter until all begin with it.
        known = ids if self._prefix is None else [*ids, self._prefix.ids]
        self._prefix = _Prefix(self._model, _common_beginning(known))
        return self._prefix

    def _reading(self, items: int) -> Reading | None:
        if self._writing is None:
            return None
        if isinstance(self._writing, Fork):
            return Expansion(self._writing, items, self._unexplored, _EXPANSION_WIDTH, _EXPANSION_LIMIT)
        return Walk(self._writing, items, _WALK_WIDTH)


class _Greedy:
    """The completions by the likeliest token each time, which are what the model's `generate` gives. They share the
    columns of the reading where it goes the same way, and have one of their own where they leave the prices.
    """

    def __init__(self, logits: torch.Tensor, tokenizer: Any, length: int) -> None:
        self._length = length
        self._end, self._pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        first = logits.argmax(dim=-1).cpu().numpy()
        self._tokens = [first]
        self._ended = first == self._end
        # The column of the token before the newest.
        self._column = np.full(len(first), PROMPT)

    @property
    def is_finished(self) -> bool:
        """Whether every completion has ended, or may take no more tokens."""
        return len(self._tokens) == self._length or bool(self._ended.all())

    @property
    def answers(self) -> np.ndarray:
        """All tokens (items, length), padded at the end."""
        return np.stack(self._tokens, axis=1)

    def join(
        self, parents: np.ndarray, tokens: np.ndarray, likeliest: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Parents and tokens (items, m) of the next columns with those of the newest greedy tokens among them, and
        which of the m those are (items,). `likeliest` says which it should be if the greedy completion is a price.
        """
        rows = np.arange(len(self._column))
        if self.is_finished:
            return parents, tokens, rows * 0
        if likeliest is not None:
            is_there = (tokens[rows, likeliest] == self._tokens[-1]) & (parents[rows, likeliest] == self._column)
            if bool((is_there | self._ended).all()):
                return parents, tokens, likeliest
        parents = np.concatenate([parents, self._column[:, None]], axis=1)
        return parents, np.concatenate([tokens, self._tokens[-1][:, None]], axis=1), rows * 0 + tokens.shape[1]

    def go_on(self, logits: torch.Tensor, own: np.ndarray, start: int) -> None:
        """Take the next tokens from the logits (items, m, vocabulary) of the columns from `start`, `own` of the m."""
        if self.is_finished:
            return
        rows = torch.arange(len(own), device=logits.device)
        token = logits[rows, torch.from_numpy(own).to(logits.device)].argmax(dim=-1).cpu().numpy()
        self._column = start + own
        self._take(token)

    def _take(self, token: np.ndarray) -> None:
        self._tokens.append(np.where(self._ended, self._pad, token))
        self._ended = self._ended | (token == self._end)

    def go_on_alone(self, branches: "_Branches", ending: np.ndarray) -> None:
        """Take the next tokens by a pass of their own, in which `ending` stands behind a first token as a draft: as
        many are taken as the model goes along with in every row that goes on, and the one after them.
        """
        draft = ending[: self._length - len(self._tokens) - 1] if len(self._tokens) == 1 else ending[:0]
        rows, start = len(self._column), branches.width
        tokens = np.concatenate([self._tokens[-1][:, None], np.tile(draft, (rows, 1))], axis=1)
        logits = branches.extend(self._column[:, None], tokens, is_chain=True)
        following = logits.argmax(dim=-1).cpu().numpy()
        agrees = (following[:, :-1] == draft) | self._ended[:, None]
        # A row that ends on the way goes along with whatever is behind its end.
        agrees |= np.cumsum(following[:, :-1] == self._end, axis=1) > 0
        taken = 1 + int(agrees.all(axis=0).cumprod().sum())
        for place in range(taken):
            self._take(following[:, place])
        self._column = np.full(rows, start + taken - 1)


class _Prefix:
    """The beginning of prompts in a model's cache: the question, which every prompt has in common."""

    def __init__(self, model: Any, ids: np.ndarray) -> None:
        self.ids = ids
        self._cache = (
            model(
                input_ids=torch.from_numpy(ids)[None].to(model.device), use_cache=True, logits_to_keep=1
            ).past_key_values
            if len(ids)
            else None
        )

    def __len__(self) -> int:
        return len(self.ids)

    def begins(self, ids: np.ndarray) -> bool:
        """Whether a prompt begins like that, and goes on."""
        return len(ids) > len(self.ids) and bool((ids[: len(self.ids)] == self.ids).all())

    def cache_for(self, items: int) -> Any:
        """A cache of its own for a batch of so many; None: an empty one."""
        if self._cache is None:
            return None
        cache = copy.deepcopy(self._cache)
        cache.batch_repeat_interleave(items)
        return cache


def _common_beginning(ids: Sequence[np.ndarray]) -> np.ndarray:
    """The tokens (n,) that all of `ids` begin with; at least one token of each is left."""
    shortest = min(len(own) for own in ids) - 1
    first = ids[0][:shortest].astype(np.int64)
    same = np.ones(shortest, dtype=np.bool_)
    for own in ids:
        same &= own[:shortest] == first
    return first[: shortest if same.all() else int(same.argmin())]


class _Branches:
    """Prompts in a model's cache, and what was tried after them: in each row columns of one token, whose parent is
    another column or the prompt.

    `first` are the logits (items, 1, vocabulary) after the prompts, computed for their last positions alone.
    """

    def __init__(self, model: Any, ids: Sequence[np.ndarray], prefix: _Prefix, pad: int) -> None:
        self._model = model
        self.device = model.device
        # The prefix, then the padding, then the rest: prompts end together, and begin together.
        rest, mask = (
            torch.from_numpy(part).to(self.device) for part in left_padded([o[len(prefix) :] for o in ids], pad)
        )
        prompt = torch.nn.functional.pad(mask, (len(prefix), 0), value=1)
        output = model(
            input_ids=rest,
            attention_mask=prompt,
            position_ids=(prompt.cumsum(dim=1) - 1).clamp(min=0)[:, len(prefix) :],
            past_key_values=prefix.cache_for(len(ids)),
            use_cache=True,
            # As an index: a slice is not contiguous, and multiplied row by row.
            logits_to_keep=torch.tensor([rest.shape[1] - 1], device=self.device),
        )
        self.first = output.logits
        self._cache = output.past_key_values
        self._prompt = prompt.bool()
        self._lengths = prompt.sum(dim=1, keepdim=True)
        self._rows = torch.arange(len(ids), device=self.device)[:, None]
        # Of each column, what it sees of the others (itself and those that lead to it), and how many that are.
        self._sees = torch.zeros((len(ids), 0, 0), dtype=torch.bool, device=self.device)

    @property
    def width(self) -> int:
        """How many columns there are."""
        return self._sees.shape[1]

    def extend(self, parents: np.ndarray, tokens: np.ndarray, *, is_chain: bool = False) -> torch.Tensor:
        """Add a column for each of `tokens` (items, m), after the columns in `parents` (items, m; PROMPT: after the
        prompt itself). Of a chain `parents` (items, 1) is that of the first column, which the others follow one after
        the other. Returns their logits (items, m, vocabulary).
        """
        items, added = tokens.shape
        before = self.width
        # One more row, for PROMPT, which is last: it sees no column.
        lineage = torch.nn.functional.pad(self._sees, (0, 0, 0, 1))
        inherited = lineage[self._rows, torch.from_numpy(parents).to(self.device)].expand(-1, added, -1)
        itself = torch.eye(added, dtype=torch.bool, device=self.device)
        if is_chain:
            itself = torch.ones_like(itself).tril()
        itself = itself.expand(items, -1, -1)
        sees = torch.cat([inherited, itself], dim=2)
        allowed = torch.cat([self._prompt[:, None, :].expand(-1, added, -1), sees], dim=2)
        # Added to the attention scores, so of their type; a mask of four dimensions is taken as it is.
        dtype = self._cache.layers[0].keys.dtype
        mask = torch.zeros(allowed.shape, dtype=dtype, device=self.device)
        mask = mask.masked_fill(~allowed, torch.finfo(dtype).min)
        output = self._model(
            input_ids=torch.from_numpy(tokens).to(self.device),
            attention_mask=mask[:, None],
            position_ids=self._lengths + sees.sum(dim=2) - 1,
            past_key_values=self._cache,
            use_cache=True,
        )
        self._sees = torch.cat([torch.nn.functional.pad(self._sees, (0, added)), sees], dim=1)
        assert self.width == before + added
        logits: torch.Tensor = output.logits
        return logits


def _log_probabilities(logits: torch.Tensor, options: np.ndarray) -> np.ndarray:
    """Of logits (items, m, vocabulary) the log-probabilities (items, m, n) of `options`, (n,) or (items, m, n)."""
    wanted = torch.from_numpy(options).to(logits.device).expand(*logits.shape[:2], -1)
    # A few items at a time: what is added up takes as much memory as the logits themselves.
    at_once = max(1, _CELLS // (logits.shape[1] * logits.shape[2]))
    total = torch.cat([part.float().logsumexp(dim=-1, keepdim=True) for part in torch.split(logits, at_once)])
    found: np.ndarray = (logits.gather(2, wanted).float() - total).double().cpu().numpy()
    return found
