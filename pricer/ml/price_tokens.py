"""How a tokenizer writes prices: as digit tokens in numeric order where it can, else as a trie of token sequences."""

import itertools
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from pricer.core.digit_quantiles import DigitTokens
from pricer.core.prefix_search import PriceTrie, build_trie
from pricer.core.price_format import MAX_PLAIN_DIGITS
from pricer.core.prices import PriceFormat, format_price
from pricer.ml.tokens import continuations

PriceTokens = DigitTokens | PriceTrie
"""The tokens of all prices in a format."""

Encode = Callable[[Sequence[str]], list[list[int]]]
"""Gives the tokens of texts as they continue a prompt."""

# Maximum number of digits that tokenizers put into one token.
_LONGEST_TOKEN = 3
_SAMPLE = 200


def find_price_tokens(tokenizer: Any, tail: str, price_format: PriceFormat, digits: int) -> PriceTokens | None:
    """How prices of up to `digits` digits are tokenized after `tail`, the end of every prompt: as DigitTokens where
    each digit or group of digits has its own position, in numeric order, else as a PriceTrie.

    None: two prices have the same tokens, or prices without digit tokens have more than MAX_PLAIN_DIGITS digits, which
    are too many to enumerate.
    """
    width = price_format.width
    if width is not None and (digit_tokens := find_digit_tokens(tokenizer, tail, width)) is not None:
        return digit_tokens
    if digits > MAX_PLAIN_DIGITS:
        return None
    prices = range(10**digits)
    texts = [format_price(price, price_format) for price in prices]
    eos = tokenizer.eos_token_id
    continued = continuations(tokenizer, tail, texts)
    try:
        trie = build_trie({price: [*ids, eos] for price, ids in zip(prices, continued, strict=True)})
    except ValueError:  # two prices with the same tokens: this tokenizer cannot write numbers
        return None
    # One position with a token for each price, as for 0 to 999 in Llama 3.
    return (trie.tokens,) if all(child is None for child in trie.children) else trie


def find_price_suffix(tokenizer: Any, tail: str, price_format: PriceFormat) -> list[int]:
    """The tokens that every price ends with, whatever the number; the end-of-text token is not among them."""
    numbers = (0, 3, 7, 9) if price_format.width == 1 else (1, 7, 20, 99)
    texts = [format_price(number, price_format) for number in numbers]
    backwards = [ids[::-1] for ids in continuations(tokenizer, tail, texts)]
    shared = itertools.takewhile(lambda tokens: len(set(tokens)) == 1, zip(*backwards, strict=False))
    return [tokens[0] for tokens in shared][::-1]


def find_digit_tokens(tokenizer: Any, tail: str, width: int) -> DigitTokens | None:
    """The digit tokens of zero-padded numbers after `tail`; None where a digit, or group of digits, is not one token
    wherever it stands.
    """
    encode = partial(continuations, tokenizer, tail)
    (zeros,) = encode(["0" * width])
    sizes = [len(tokenizer.decode([token]).strip()) for token in zeros]
    if sum(sizes) != width or not all(1 <= size <= _LONGEST_TOKEN for size in sizes):
        return None
    positions = []
    for index, size in enumerate(sizes):
        before, after = "0" * sum(sizes[:index]), "0" * sum(sizes[index + 1 :])
        encoded = encode([f"{before}{number:0{size}}{after}" for number in range(10**size)])
        if any(len(ids) != len(zeros) for ids in encoded):
            return None
        positions.append(np.array([ids[index] for ids in encoded], dtype=np.int64))
    return tuple(positions) if _agrees_on_sample(encode, positions, sizes) else None


def _agrees_on_sample(encode: Encode, positions: Sequence[np.ndarray], sizes: Sequence[int]) -> bool:
    """Whether the digit tokens give for a sample of numbers what the tokenizer gives."""
    width = sum(sizes)
    numbers = random.Random(0)  # noqa: S311  # the same sample every time
    texts = [f"{numbers.randrange(10**width):0{width}}" for _ in range(_SAMPLE)]
    for text, ids in zip(texts, encode(texts), strict=True):
        groups = [text[sum(sizes[:index]) :][:size] for index, size in enumerate(sizes)]
        if ids != [int(tokens[int(group)]) for tokens, group in zip(positions, groups, strict=True)]:
            return False
    return all(len(set(tokens.tolist())) == len(tokens) for tokens in positions)
