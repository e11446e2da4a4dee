"""Prompts and examples as tokens: every prompt fits, its end is never cut, and training and prediction see the same."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pricer.core.prompts import Example, Prompt
from pricer.errors import ConfigError

# Minimum number of description tokens for which a prompt makes sense.
_MIN_DESCRIPTION = 8
# Texts tokenized at once. The tokenizer's record of a token takes a hundred bytes, the token itself four.
_TEXTS_AT_ONCE = 1000


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


class Encoder:
    """Turns prompts and examples into tokens within `max_length`.

    `tail` is the text that every prompt ends with. `answer_length` tokens are reserved for the completion and its
    end-of-text token, however short it is, so that a prompt is the same in training and in prediction.
    """

    def __init__(self, tokenizer: Any, max_length: int, tail: str, completions: Iterable[str]) -> None:
        self._tokenizer = tokenizer
        self._max_length = max_length
        self._tail = tail
        self.answer_length = 1 + max(len(ids) for ids in self._completions(sorted(set(completions))))

    def check(self, prompt: Prompt) -> None:
        """Raise a ConfigError if the question, the lead and a price leave no room for a description."""
        frame = len(self._ids([prompt.head + prompt.tail])[0]) + self.answer_length
        if frame + _MIN_DESCRIPTION > self._max_length:
            raise self._too_small(frame)

    def _too_small(self, frame: int) -> ConfigError:
        return ConfigError(
            [f"prompt.max_length is {self._max_length}: the question and the price alone take {frame} tokens"],
            f"prompt.max_length of at least {frame + _MIN_DESCRIPTION}; most descriptions need 100 more",
        )

    def prompts(self, prompts: Sequence[Prompt]) -> list[TokenizedPrompt]:
        """Tokens of each prompt, the description cut at its end where the whole would be too long."""
        budget = self._max_length - self.answer_length
        return [
            TokenizedPrompt(prompt.item_id, np.array(own, dtype=np.int32), cut=False)
            if len(own) <= budget
            else TokenizedPrompt(prompt.item_id, np.array(self._cut(prompt, budget), dtype=np.int32), cut=True)
            for start in range(0, len(prompts), _TEXTS_AT_ONCE)
            for prompt, own in self._with_ids(prompts[start : start + _TEXTS_AT_ONCE])
        ]

    def examples(self, examples: Sequence[Example]) -> list[TokenizedExample]:
        """Tokens of each example. The prompt is tokenized alone: together with its completion it might split
        differently, and the model would learn from a prompt that it never gets in prediction.
        """
        prompts = self.prompts([example.prompt for example in examples])
        texts = sorted({example.completion for example in examples})
        eos = self._tokenizer.eos_token_id
        answers = dict(zip(texts, self._completions(texts), strict=True)) if texts else {}
        return [
            TokenizedExample(
                prompt,
                np.concatenate([prompt.ids, np.array([*answers[example.completion], eos], dtype=np.int32)]),
                start=len(prompt.ids),
            )
            for prompt, example in zip(prompts, examples, strict=True)
        ]

    def _cut(self, prompt: Prompt, budget: int) -> list[int]:
        description = prompt.description
        while True:
            text = prompt.head + description + prompt.tail
            encoded = self._tokenizer(text, return_offsets_mapping=True)
            ids = self._without_eos(encoded["input_ids"])
            excess = len(ids) - budget
            if excess <= 0:
                return ids
            if not description:
                raise self._too_small(len(ids) + self.answer_length)
            start, end = len(prompt.head), len(prompt.head) + len(description)
            ends = [last for first, last in encoded["offset_mapping"] if start < last <= end and first < last]
            keep = len(ends) - excess - 1
            # The rest may split differently, so it is tokenized again. A character can be several tokens: at least one
            # character is removed each time.
            length = min(ends[keep] - start, len(description) - 1) if keep >= 0 else 0
            description = description[:length].rstrip()

    def _with_ids(self, prompts: Sequence[Prompt]) -> Iterator[tuple[Prompt, list[int]]]:
        return zip(prompts, self._ids([prompt.text for prompt in prompts]), strict=True)

    def _ids(self, texts: list[str]) -> list[list[int]]:
        return [self._without_eos(ids) for ids in self._tokenizer(texts)["input_ids"]]

    def _without_eos(self, ids: list[int]) -> list[int]:
        # Some tokenizers add an end-of-text token, but a prompt continues.
        return ids[:-1] if len(ids) > 1 and ids[-1] == self._tokenizer.eos_token_id else ids

    def _completions(self, texts: list[str]) -> list[list[int]]:
        return continuations(self._tokenizer, self._tail, texts)


def continuations(tokenizer: Any, tail: str, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each text as the continuation of `tail`, the end of every prompt.

    SentencePiece tokenizers (Llama 2, Mistral up to v0.3, Phi-3) put a space before a text of its own, which would
    teach the model `$ 227`. So the text is tokenized together with `tail`, whose tokens are then removed. If no token
    ends where `tail` ends, for instance after a lead with a space at its end, the text is tokenized alone, as the
    prompt is.
    """
    (before,) = _plain_ids(tokenizer, [tail])
    together = _plain_ids(tokenizer, [tail + text for text in texts])
    parts = [own[: len(before)] == before for own in together]
    alone = iter(_plain_ids(tokenizer, [text for text, apart in zip(texts, parts, strict=True) if not apart]))
    return [own[len(before) :] if apart else next(alone) for own, apart in zip(together, parts, strict=True)]


def _plain_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each text, without special tokens."""
    return [
        ids
        for start in range(0, len(texts), _TEXTS_AT_ONCE)
        for ids in tokenizer(list(texts[start : start + _TEXTS_AT_ONCE]), add_special_tokens=False)["input_ids"]
    ]


def splits_digits(tokenizer: Any, tail: str) -> bool:
    """Whether the tokenizer gives one token per digit after `tail` (SmolLM2, Qwen, Gemma, Llama 2). In Llama 3, 0–999
    are single tokens.
    """
    digits = "1234567890"
    (ids,) = continuations(tokenizer, tail, [digits])
    return len(ids) >= len(digits)


def left_padded(sequences: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask, both (sequences, longest), with every sequence at the end of its row: generation continues
    from the last position, so prompts must end together.
    """
    longest = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), longest), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = sequence
        mask[row, longest - len(sequence) :] = 1
    return ids, mask


def right_padded(examples: Sequence[TokenizedExample], pad: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Token ids (examples, longest), and the start and end of each completion."""
    ids = right_padded_ids([example.ids for example in examples], pad)
    return ids, [(example.start, len(example.ids)) for example in examples]


def right_padded_ids(sequences: Sequence[Sequence[int] | np.ndarray], pad: int) -> np.ndarray:
    """Token ids (sequences, longest), with every sequence at the start of its row."""
    ids = np.full((len(sequences), max(len(sequence) for sequence in sequences)), pad, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return ids


def batches_of(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, each with at most `batch_tokens` tokens, padding included.

    The longest come first, so that a batch that does not fit in memory fails at once and not after an hour. Equal
    lengths keep their order, so that an interrupted evaluation gets the same batches when it is resumed.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches
