"""How a tokenizer writes prices: token by token, in the order of the numbers where there is one."""

import itertools
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pricer.core.digit_quantiles import Levels
from pricer.core.prefix_search import Fork, fork_of
from pricer.core.prices import PriceFormat, format_price
from pricer.ml.tokens import continuations

# Most digits of prices that are tokenized one and all: 100,000 take a few seconds.
MOST_DIGITS = 5
# Most digits that tokenizers put into one token.
_LONGEST_TOKEN = 3
_SAMPLE = 200
# Tokens of texts as they go on after a prompt.
Encode = Callable[[Sequence[str]], list[list[int]]]


def writing_of(tokenizer: Any, tail: str, price_format: PriceFormat, digits: int) -> Levels | Fork | None:
    """How prices of up to `digits` digits are written after `tail`, the end of every prompt: in Levels where tokens
    have a fixed place and numeric order, as a Fork where they have not. None: plain numbers of more than MOST_DIGITS,
    or written as irregularly, are too many to go through.
    """
    width = price_format.width
    if width is not None and (levels := padded_levels(tokenizer, tail, width)) is not None:
        return levels
    if digits > MOST_DIGITS:
        return None
    prices = range(10**digits)
    texts = [format_price(price, price_format) for price in prices]
    end = tokenizer.eos_token_id
    written = continuations(tokenizer, tail, texts)
    try:
        fork = fork_of({price: [*ids, end] for price, ids in zip(prices, written, strict=True)})
    except ValueError:  # two prices that are the same tokens: this tokenizer cannot write numbers
        return None
    # One level with an option for each price, as for 0 to 999 in Llama 3.
    return (fork.tokens,) if all(after is None for after in fork.after) else fork


def ending_of(tokenizer: Any, tail: str, price_format: PriceFormat) -> list[int]:
    """The tokens that every price ends in, whatever the number; the end-of-text token is not one of them."""
    numbers = (0, 3, 7, 9) if price_format.width == 1 else (1, 7, 20, 99)
    texts = [format_price(number, price_format) for number in numbers]
    backwards = [ids[::-1] for ids in continuations(tokenizer, tail, texts)]
    same = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*backwards, strict=False))
    return [tokens[0] for tokens in same][::-1]


def padded_levels(tokenizer: Any, tail: str, width: int) -> Levels | None:
    """The levels of zero-padded numbers after `tail`, or None: a digit, or a group of digits, is not one token wherever
    it stands.
    """
    encode = partial(continuations, tokenizer, tail)
    (zeros,) = encode(["0" * width])
    sizes = [len(tokenizer.decode([token]).strip()) for token in zeros]
    if sum(sizes) != width or not all(1 <= size <= _LONGEST_TOKEN for size in sizes):
        return None
    levels = []
    for index, size in enumerate(sizes):
        before, after = "0" * sum(sizes[:index]), "0" * sum(sizes[index + 1 :])
        written = encode([f"{before}{number:0{size}}{after}" for number in range(10**size)])
        if any(len(ids) != len(zeros) for ids in written):
            return None
        levels.append(np.array([ids[index] for ids in written], dtype=np.int64))
    return tuple(levels) if _writes(encode, levels, sizes) else None


def _writes(encode: Encode, levels: Sequence[np.ndarray], sizes: Sequence[int]) -> bool:
    """Whether the levels write a sample of numbers as the tokenizer does."""
    width = sum(sizes)
    numbers = random.Random(0)  # noqa: S311  # the same sample every time
    texts = [f"{numbers.randrange(10**width):0{width}}" for _ in range(_SAMPLE)]
    for text, ids in zip(texts, encode(texts), strict=True):
        groups = [text[sum(sizes[:index]) :][:size] for index, size in enumerate(sizes)]
        if ids != [int(level[int(group)]) for level, group in zip(levels, groups, strict=True)]:
            return False
    return all(len(set(level.tolist())) == len(level) for level in levels)
