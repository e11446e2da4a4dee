"""Prompts, examples and prices as tokens. Every prompt fits, and its end is never cut. Training and prediction get the
same tokens.
"""

import hashlib
import json
import random
from collections.abc import Iterable, Iterator, Sequence
from copy import copy
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import numpy as np

from pricer.core.digit_quantiles import DigitTokens
from pricer.core.items import Example, Prompt
from pricer.core.prefix_search import PriceTrie, build_trie
from pricer.core.prices import MAX_PLAIN_DIGITS, PriceFormat, format_steps
from pricer.errors import ConfigError

PriceTokens = DigitTokens | PriceTrie
"""The tokens of all prices in a format: digit tokens if they are in numeric order, else a trie."""

MIN_DESCRIPTION = 8
"""Minimum number of description tokens for which a prompt makes sense."""
# Number of texts that are tokenized at once. A tokenizer's record takes a hundred bytes per token, the token id four.
_TEXTS_AT_ONCE = 1000
# Maximum number of digits in a token.
_LONGEST_TOKEN = 3
# Size of the sample of numbers that checks the digit tokens.
_SAMPLE = 200


@dataclass(frozen=True, slots=True)
class TokenizedPrompt:
    """A prompt as token ids (n,); `cut`: its description was shortened to fit."""

    item_id: str
    ids: np.ndarray
    cut: bool


@dataclass(frozen=True, slots=True)
class TokenizedExample:
    """Prompt, completion and end-of-text token as ids (n,); the completion starts at `start`."""

    prompt: TokenizedPrompt
    ids: np.ndarray
    start: int

    @property
    def item_id(self) -> str:
        """The item it was made from."""
        return self.prompt.item_id


class Encoder:
    """Turns prompts and examples into tokens within `max_length`.

    `tail` is the text that every prompt ends with. `answer_tokens` tokens are reserved for the longest completion and
    its end-of-text token, so a prompt is cut the same way in training and in prediction.
    """

    def __init__(self, tokenizer: Any, max_length: int, tail: str, answer_tokens: int) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._tail = tail
        self.answer_tokens = answer_tokens

    def within(self, max_length: int) -> "Encoder":
        """The same encoder with another maximum length."""
        other = copy(self)
        other._max_length = max_length
        return other

    def lengths(self, prompts: Sequence[Prompt]) -> list[int]:
        """The tokens that each prompt needs with its whole description and the longest completion."""
        return [len(ids) + self.answer_tokens for ids in self._prompt_ids([prompt.text for prompt in prompts])]

    def check(self, prompt: Prompt) -> None:
        """Raise a ConfigError if the question, the lead and a price leave no room for a description."""
        (frame,) = self._prompt_ids([prompt.head + prompt.tail])
        if len(frame) + self.answer_tokens + MIN_DESCRIPTION > self._max_length:
            raise self._too_small(len(frame))

    def _too_small(self, frame: int) -> ConfigError:
        frame += self.answer_tokens
        return ConfigError(
            [f"prompt.max_length is {self._max_length}: the question and the price alone take {frame} tokens"],
            f"prompt.max_length of at least {frame + MIN_DESCRIPTION}; most descriptions need 100 more",
        )

    def prompts(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        """Tokens of each prompt. If a prompt is too long, the end of its description is cut."""
        parts = (prompts[start : start + _TEXTS_AT_ONCE] for start in range(0, len(prompts), _TEXTS_AT_ONCE))
        return [tokenized for part in parts for tokenized in self._part(part)]

    def _part(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        ids = self._prompt_ids([prompt.text for prompt in prompts])
        long = [index for index, own in enumerate(ids) if len(own) > self._max_length - self.answer_tokens]
        cut = dict(zip(long, self._cut([prompts[index] for index in long]), strict=True))
        return [
            TokenizedPrompt(prompt.item_id, np.array(cut.get(index, own), dtype=np.int32), index in cut)
            for index, (prompt, own) in enumerate(zip(prompts, ids, strict=True))
        ]

    def examples(self, examples: Sequence[Example]) -> list[TokenizedExample]:
        """Tokens of each example. The prompt is tokenized without its completion, as in prediction: together, they
        might have different tokens.
        """
        prompts = self.prompts([example.prompt for example in examples])
        texts = sorted({example.completion for example in examples})
        eos = self._tokenizer.eos_token_id
        answers = {
            text: np.array([*ids, eos], dtype=np.int32)
            for text, ids in zip(texts, tokenize_continuations(self._tokenizer, self._tail, texts), strict=True)
        }
        return [
            TokenizedExample(prompt, np.concatenate([prompt.ids, answers[example.completion]]), start=len(prompt.ids))
            for prompt, example in zip(prompts, examples, strict=True)
        ]

    def _cut(self, prompts: Sequence[Prompt]) -> list[list[int]]:
        """The tokens of too long prompts, each with as much of its description as fits."""
        budget = self._max_length - self.answer_tokens
        descriptions = [prompt.description for prompt in prompts]
        found: dict[int, list[int]] = {}
        while left := [index for index in range(len(prompts)) if index not in found]:
            texts = [prompts[index].head + descriptions[index] + prompts[index].tail for index in left]
            for index, encoded in zip(left, _backend(self._tokenizer).encode_batch(texts), strict=True):
                ids = self._without_eos(encoded.ids)
                if len(ids) <= budget:
                    found[index] = ids
                    continue
                if not descriptions[index]:
                    raise self._too_small(len(ids))
                excess, start = len(ids) - budget, len(prompts[index].head)
                descriptions[index] = _shorten(descriptions[index], excess, start, encoded.offsets)
        return [found[index] for index in range(len(prompts))]

    def _prompt_ids(self, texts: Sequence[str]) -> list[list[int]]:
        return [self._without_eos(ids) for ids in _tokenize(self._tokenizer, texts, special=True)]

    def _without_eos(self, ids: list[int]) -> list[int]:
        # Some tokenizers add an end-of-text token, but a prompt continues.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self._tokenizer.eos_token_id else ids


def _shorten(description: str, excess: int, start: int, offsets: Sequence[tuple[int, int]]) -> str:
    """The description without its last `excess` tokens and one more, in a prompt where it begins at `start`. `offsets`
    are the beginning and the end of each token.
    """
    end = start + len(description)
    ends = [last for first, last in offsets if start < last <= end and first < last]
    keep = len(ends) - excess - 1
    # The shorter text may have different tokens, so it is tokenized again. A character can be several tokens, so at
    # least one character is removed each time.
    length = min(ends[keep] - start, len(description) - 1) if keep >= 0 else 0
    return description[:length].rstrip()


def count_answer_tokens(tokenizer: Any, tail: str, completions: Iterable[str]) -> int:
    """The number of tokens of the longest completion, with its end-of-text token."""
    return 1 + max(len(ids) for ids in tokenize_continuations(tokenizer, tail, sorted(set(completions))))


def tokenize_continuations(tokenizer: Any, tail: str, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each text as the continuation of `tail`, the end of every prompt.

    SentencePiece tokenizers (Llama 2, Mistral up to v0.3, Phi-3) put a space before a separate text, so the model would
    learn to write `$ 227`. Therefore the text is tokenized together with `tail`, and the tokens of `tail` are removed.
    If no token ends where `tail` ends (for example, because `tail` ends with a space), the text is tokenized alone.
    """
    (before,) = _tokenize(tokenizer, [tail], special=False)
    together = list(_tokenize(tokenizer, [tail + text for text in texts], special=False))
    separable = [ids[: len(before)] == before for ids in together]
    joined = [text for text, is_separable in zip(texts, separable, strict=True) if not is_separable]
    alone = _tokenize(tokenizer, joined, special=False)
    return [
        ids[len(before) :] if is_separable else next(alone)
        for ids, is_separable in zip(together, separable, strict=True)
    ]


def fingerprint_tokenizer(tokenizer: Any) -> str:
    """A hash that changes with anything that changes a text's tokens."""
    content = [version("tokenizers"), tokenizer.eos_token_id, _backend(tokenizer).to_str()]
    return hashlib.sha256(json.dumps(content).encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _tokenize(tokenizer: Any, texts: Sequence[str], *, special: bool) -> Iterator[list[int]]:
    """Tokens of each text, with or without special tokens."""
    backend = _backend(tokenizer)
    for start in range(0, len(texts), _TEXTS_AT_ONCE):
        part = list(texts[start : start + _TEXTS_AT_ONCE])
        yield from (encoded.ids for encoded in backend.encode_batch_fast(part, add_special_tokens=special))


def _backend(tokenizer: Any) -> Any:
    """The tokenizer inside of transformers' tokenizer, which takes three times as long. It uses all cores."""
    backend = tokenizer.backend_tokenizer
    # A tokenizer.json may ask for both. transformers switches them off in the same way.
    backend.no_truncation()
    backend.no_padding()
    return backend


def splits_digits(tokenizer: Any, tail: str) -> bool:
    """Whether the tokenizer gives one token per digit after `tail` (SmolLM2, Qwen, Gemma, Llama 2). In Llama 3, 0–999
    are single tokens.
    """
    digits = "1234567890"
    (ids,) = tokenize_continuations(tokenizer, tail, [digits])
    return len(ids) >= len(digits)


def find_price_tokens(tokenizer: Any, tail: str, price_format: PriceFormat, digits: int) -> PriceTokens | None:
    """The tokens of prices of up to `digits` digits in whole steps after `tail`, the end of every prompt.

    They are DigitTokens if each digit, or each group of digits, is one token; else a PriceTrie. Returns None if two
    prices have the same tokens. Also returns None if a PriceTrie would need more than MAX_PLAIN_DIGITS digits, because
    there are too many prices to enumerate.
    """
    width = price_format.width
    if width is not None and (digit_tokens := find_digit_tokens(tokenizer, tail, width)) is not None:
        return digit_tokens
    if digits > MAX_PLAIN_DIGITS:
        return None
    texts = [format_steps(steps, price_format) for steps in range(10**digits)]
    continued = tokenize_continuations(tokenizer, tail, texts)
    try:
        trie = build_trie({steps: [*ids, tokenizer.eos_token_id] for steps, ids in enumerate(continued)})
    except ValueError:  # two prices with the same tokens: this tokenizer cannot write numbers
        return None
    # Each price is a single token, as 0 to 999 are in Llama 3: one position is enough.
    return (trie.tokens,) if all(child is None for child in trie.children) else trie


def find_digit_tokens(tokenizer: Any, tail: str, width: int) -> DigitTokens | None:
    """The digit tokens of zero-padded numbers after `tail`. None unless each digit, or each group of digits, is one
    token in every number.
    """
    (zeros,) = tokenize_continuations(tokenizer, tail, ["0" * width])
    sizes = [len(tokenizer.decode([token]).strip()) for token in zeros]
    if sum(sizes) != width or not all(1 <= size <= _LONGEST_TOKEN for size in sizes):
        return None
    ends = np.cumsum(sizes).tolist()
    positions: list[np.ndarray] = []
    for index, (size, end) in enumerate(zip(sizes, ends, strict=True)):
        texts = [f"{number:0{end}}".ljust(width, "0") for number in range(10**size)]
        ids = tokenize_continuations(tokenizer, tail, texts)
        if any(len(tokens) != len(zeros) for tokens in ids):
            return None
        positions.append(np.array([tokens[index] for tokens in ids], dtype=np.int64))
        if len(set(positions[-1].tolist())) < 10**size:
            return None
    numbers = random.Random(0)  # noqa: S311  # the same sample every time
    texts = [f"{numbers.randrange(10**width):0{width}}" for _ in range(_SAMPLE)]
    composed = [
        [int(tokens[int(text[end - size : end])]) for tokens, size, end in zip(positions, sizes, ends, strict=True)]
        for text in texts
    ]
    return tuple(positions) if composed == tokenize_continuations(tokenizer, tail, texts) else None
