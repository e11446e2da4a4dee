"""Prediction: greedy completions and distributions over prices for a batch of prompts, decoded together.

Shape suffixes: B prompts, C columns in a step, V vocabulary, N candidates, T tokens in a row, H hidden size.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pricer.core.digit_quantiles import DigitQuantiles
from pricer.core.predictions import PROMPT, DecodingStep, Distribution, Prediction, PriceDecoder
from pricer.core.prefix_search import PrefixSearch, PriceTrie
from pricer.core.prices import PriceFormat, parse_price
from pricer.ml.adapters import AdapterSwitch
from pricer.ml.base import mixed_precision
from pricer.ml.batches import BatchSplitter, make_batches, right_padded_ids
from pricer.ml.block_attention import attention_in_blocks
from pricer.ml.tokens import PriceTokens, TokenizedPrompt
from pricer.ml.tree_attention import SharedPrefix, TokenTree, common_prefix

# Number of price prefixes that DigitQuantiles follows: five for the quantiles, and the most probable others.
_BEAM_WIDTH = 8
# Maximum number of prefixes that a PrefixSearch expands in one step, and in total.
_PREFIXES_PER_STEP = 16
_MAX_PREFIXES = 256
# Maximum number of logits whose exponentials are computed at once.
_LOGITS_AT_ONCE = 2**22
# Minimum number of prompts in a batch for which a separate pass over their common prefix saves time.
_MIN_BATCH_TO_SHARE = 4


class CheckpointPredictor:
    """Predicts with one checkpoint after another, with distributions. Only the adapter on the base changes."""

    def __init__(self, base: Any, decoder: "TreeDecoder") -> None:
        self._switch = AdapterSwitch(base)
        self._decoder = decoder
        self._is_untuned = True

    def use(self, adapter: Path) -> None:
        """Predict with this adapter from now on. Without an adapter, the untrained base predicts."""
        self._is_untuned = False
        self._switch.use(adapter)
        self._decoder.use(self._switch.model)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._decoder.predict(prompts)

    def embed(
        self, prompts: Sequence[TokenizedPrompt], batch_tokens: int, reach: Callable[[int], object] | None = None
    ) -> np.ndarray:
        """Embed prompts (B, H) with the untrained base. Must be called before the first `use`. `reach` receives the
        number of prompts that are embedded after each batch.
        """
        assert self._is_untuned
        return embed_prompts(self._switch.model, prompts, batch_tokens, reach)


class TreeDecoder:
    """Decodes greedy completions and distributions over prices with a causal LM.

    `answer_length` is the maximum number of tokens in a completion, its end-of-text token included. `price_tokens` are
    the tokens of all prices; None: no distribution is computed. `max_residual_mass` is the share of a distribution that
    a PrefixSearch may ignore.

    `shared_prefix` (n,) are the first tokens of every prompt, with at least one token after them. With it, the answers
    to a batch depend on this batch alone. None: the prefix is found batch by batch, so the last bits of answers can
    depend on the batches before.

    Unless `may_split`, a batch that does not fit into memory is an OutOfMemoryError.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        price_format: PriceFormat,
        answer_length: int,
        price_tokens: PriceTokens | None = None,
        max_residual_mass: float = 0.0,
        shared_prefix: np.ndarray | None = None,
        *,
        may_split: bool = True,
    ) -> None:
        self._tokenizer = tokenizer
        self._price_format = price_format
        self._answer_length = answer_length
        self._price_tokens = price_tokens
        self._max_residual_mass = max_residual_mass
        self._shared_ids = shared_prefix
        self._may_split = may_split
        self.use(model)

    def use(self, model: Any) -> None:
        """Decode with this model from now on. Must also be called when the weights of the model have changed."""
        self._model = model
        self._prefix: SharedPrefix | None = None
        # A new splitter: an earlier batch may have failed because of other data in memory at that time.
        self._batches = BatchSplitter("answer about", may_split=self._may_split)

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        """One Prediction per prompt, in their order; all prompts are one batch, if that fits into memory."""
        return self._batches.run(self._predict, prompts)

    def _predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        with torch.inference_mode(), mixed_precision(self._model), attention_in_blocks(self._model):
            ids_BT, distributions = self._decode([prompt.ids for prompt in prompts])
        completions = self._tokenizer.batch_decode(ids_BT, skip_special_tokens=True)
        unit = self._price_format.price_unit
        return [
            Prediction(
                prompt.item_id,
                completion,
                parse_price(completion, self._price_format),
                distribution and distribution.from_steps(unit),
            )
            for prompt, completion, distribution in zip(prompts, completions, distributions, strict=True)
        ]

    def _decode(self, prompts: Sequence[np.ndarray]) -> tuple[np.ndarray, Sequence[Distribution | None]]:
        """Greedy completions as token ids (B, T), padded at the end, and the distributions."""
        tree = TokenTree(self._model, prompts, self._shared_prefix(prompts), self._tokenizer.pad_token_id)
        greedy = _GreedyPath(tree.first_logits_B1V[:, 0], self._tokenizer, self._answer_length)
        decoder = self._price_decoder(len(prompts))
        step: DecodingStep | Sequence[Distribution | None] = [None] * len(prompts)
        if decoder is not None:
            step = decoder.advance(_log_probabilities(tree.first_logits_B1V, decoder.first_candidates))
        # The tree column of each slot that the PriceDecoder has requested.
        columns = np.zeros(0, dtype=np.int64)
        while isinstance(step, DecodingStep):
            assert decoder is not None
            parents_BC = np.append(columns, PROMPT)[step.parents]  # PROMPT is -1, the index of the last entry
            first, count = tree.width, step.tokens.shape[1]
            columns = np.append(columns, first + np.arange(count))
            parents_BC, tokens_BC, greedy_B = greedy.join(parents_BC, step.tokens, step.greedy)
            logits_BCV = tree.extend(parents_BC, tokens_BC)
            greedy.advance(logits_BCV, greedy_B, first)
            step = decoder.advance(_log_probabilities(logits_BCV[:, :count], step.candidates))
        nothing = np.zeros((len(prompts), 0), dtype=np.int64)
        while not greedy.is_finished:
            first = tree.width
            parents_BC, tokens_BC, greedy_B = greedy.join(nothing, nothing, None)
            greedy.advance(tree.extend(parents_BC, tokens_BC), greedy_B, first)
        return greedy.completions_BT, step

    def _shared_prefix(self, prompts: Sequence[np.ndarray]) -> SharedPrefix:
        """The prefix that all prompts share, or else the common prefix of these prompts and the prompts before them. It
        is computed once for many batches.
        """
        if self._shared_ids is not None:
            if self._prefix is None:
                self._prefix = SharedPrefix(self._model, self._shared_ids)
            return self._prefix
        if self._prefix is not None and all(self._prefix.is_prefix_of(ids) for ids in prompts):
            return self._prefix
        if len(prompts) < _MIN_BATCH_TO_SHARE:
            return SharedPrefix(self._model, np.zeros(0, dtype=np.int64))
        # The prefix of the first batch may be longer than the question. Later batches shorten it if necessary.
        known = prompts if self._prefix is None else [*prompts, self._prefix.ids_T]
        self._prefix = SharedPrefix(self._model, common_prefix(known))
        return self._prefix

    def _price_decoder(self, items: int) -> PriceDecoder | None:
        if self._price_tokens is None:
            return None
        if isinstance(self._price_tokens, PriceTrie):
            return PrefixSearch(self._price_tokens, items, self._max_residual_mass, _PREFIXES_PER_STEP, _MAX_PREFIXES)
        return DigitQuantiles(self._price_tokens, items, _BEAM_WIDTH)


class _GreedyPath:
    """The greedy completions of a batch, equal to the results of the model's `generate`. They share tree columns with
    the PriceDecoder as long as they are on its paths. After that, they get additional columns.
    """

    def __init__(self, logits_BV: torch.Tensor, tokenizer: Any, length: int) -> None:
        self._length = length
        self._eos, self._pad = tokenizer.eos_token_id, tokenizer.pad_token_id
        first_B = logits_BV.argmax(dim=-1).cpu().numpy()
        self._tokens = [first_B]
        self._ended_B = first_B == self._eos
        # The tree column of the last token but one.
        self._parent_B = np.full(len(first_B), PROMPT)

    @property
    def is_finished(self) -> bool:
        """Whether every completion has ended or has the maximum length."""
        return len(self._tokens) == self._length or bool(self._ended_B.all())

    @property
    def completions_BT(self) -> np.ndarray:
        """All tokens, padded at the end."""
        return np.stack(self._tokens, axis=1)

    def join(
        self, parents_BC: np.ndarray, tokens_BC: np.ndarray, greedy_B: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Add the newest greedy tokens to the next columns, unless they are already there. Returns the parents and
        tokens of the columns, and the index (B,) of the greedy token. `greedy_B` is this index if the completion is a
        price.
        """
        rows_B = np.arange(len(self._parent_B))
        if self.is_finished:
            return parents_BC, tokens_BC, rows_B * 0
        newest_B = self._tokens[-1]
        if greedy_B is not None:
            is_there_B = (tokens_BC[rows_B, greedy_B] == newest_B) & (parents_BC[rows_B, greedy_B] == self._parent_B)
            if bool((is_there_B | self._ended_B).all()):
                return parents_BC, tokens_BC, greedy_B
        parents = np.concatenate([parents_BC, self._parent_B[:, None]], axis=1)
        return parents, np.concatenate([tokens_BC, newest_B[:, None]], axis=1), rows_B * 0 + tokens_BC.shape[1]

    def advance(self, logits_BCV: torch.Tensor, greedy_B: np.ndarray, first: int) -> None:
        """Append the next greedy tokens. `logits_BCV` are of the columns from `first` on, and `greedy_B` is the index
        of the greedy column among them.
        """
        if self.is_finished:
            return
        rows_B = torch.arange(len(greedy_B), device=logits_BCV.device)
        token_B = logits_BCV[rows_B, torch.from_numpy(greedy_B).to(logits_BCV.device)].argmax(dim=-1).cpu().numpy()
        self._parent_B = first + greedy_B
        self._tokens.append(np.where(self._ended_B, self._pad, token_B))
        self._ended_B = self._ended_B | (token_B == self._eos)


def _log_probabilities(logits_BCV: torch.Tensor, candidates: np.ndarray) -> np.ndarray:
    """The log-probabilities (B, C, N) of `candidates`, (N,) or (B, C, N)."""
    candidates_BCN = torch.from_numpy(candidates).to(logits_BCV.device).expand(*logits_BCV.shape[:2], -1)
    # A few items at a time, because the exponentials take as much memory as the logits.
    at_once = max(1, _LOGITS_AT_ONCE // (logits_BCV.shape[1] * logits_BCV.shape[2]))
    total_BC1 = torch.cat([part.float().logsumexp(dim=-1, keepdim=True) for part in torch.split(logits_BCV, at_once)])
    gathered: np.ndarray = (logits_BCV.gather(2, candidates_BCN).float() - total_BC1).double().cpu().numpy()
    return gathered


@torch.inference_mode()
def embed_prompts(
    model: Any,
    prompts: Sequence[TokenizedPrompt],
    batch_tokens: int,
    reach: Callable[[int], object] | None = None,
) -> np.ndarray:
    """The last layer's output, after its norm, at each prompt's last token: float32 (B, H), in the prompts' order.

    `model` is a base without an adapter, in eval mode. Memory holds the result (16 KB per prompt for H = 4,096) and one
    batch of at most `batch_tokens` tokens. `reach` receives the number of prompts that are embedded after each batch.
    """
    # The decoder without logits: for a vocabulary of 128,000, they would take more memory than everything else.
    decoder = model.get_decoder()
    embeddings_BH = np.empty((len(prompts), model.config.get_text_config().hidden_size), dtype=np.float32)
    done = 0
    for batch in make_batches([len(prompt.ids) for prompt in prompts], batch_tokens):
        lengths_B = torch.tensor([len(prompts[index].ids) for index in batch])
        # Right padding, because nothing is generated. No token sees later tokens, so any padding token will do.
        ids_BT = torch.from_numpy(right_padded_ids([prompts[index].ids for index in batch], pad=0))
        mask_BT = torch.arange(ids_BT.shape[1]) < lengths_B[:, None]
        with mixed_precision(model):
            hidden_BTH = decoder(
                input_ids=ids_BT.to(model.device), attention_mask=mask_BT.long().to(model.device), use_cache=False
            ).last_hidden_state
        embeddings_BH[batch] = hidden_BTH[torch.arange(len(batch)), lengths_B - 1].float().cpu().numpy()
        done += len(batch)
        if reach:
            reach(done)
    return embeddings_BH
