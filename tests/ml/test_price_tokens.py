"""How tokenizers write prices: a completion is the tokens that follow the prompt, in every family of tokenizers."""

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest

from pricer.core.items import Item, PromptTemplate, prompt_tail
from pricer.core.prefix_search import PriceTrie
from pricer.core.prices import PriceFormat, format_steps
from pricer.ml.base import load_tokenizer
from pricer.ml.tokens import (
    Encoder,
    PriceTokens,
    count_answer_tokens,
    find_digit_tokens,
    find_price_tokens,
    splits_digits,
    tokenize_continuations,
)
from tests.small_tokenizers import WITH_BLANK, WITHOUT_BLANK, saved

TAIL = prompt_tail("Price is $")
PLAIN, PADDED = PriceFormat("plain"), PriceFormat("padded", 4)
FORMATS = (PLAIN, PADDED, PriceFormat("padded", 6), PriceFormat("plain", None, 2), PriceFormat("plain", None, -2, "€"))
# All last digits, carries and leading zeros are among them.
PRICES = range(0, 10_000, 37)
LAMP = Item("a", "A lamp of brass for a desk.", 227.0)
# What prompts may end with: an empty lead, one that ends in a blank, a letter or a digit.
LEADS = ("Price is $", "Price is", "Price is ", "", "Price in 1", "Price:\n", "Price in $100:", "Value in 0.1 kWh:")


@cache
def loaded(name: str) -> Any:
    """The tokenizer as a base has it, on disk."""
    with TemporaryDirectory() as folder:
        return load_tokenizer(saved({**WITH_BLANK, **WITHOUT_BLANK}[name](), Path(folder)))


def alone(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def sizes(price_tokens: PriceTokens | None) -> list[int] | None:
    """Options of each level; None: these are no DigitTokens."""
    return [len(tokens) for tokens in price_tokens] if isinstance(price_tokens, tuple) else None


@pytest.mark.parametrize("name", WITH_BLANK)
def test_these_tokenizers_put_a_blank_in_front_of_a_text_by_itself(name: str) -> None:
    tokenizer = loaded(name)

    assert tokenizer.convert_ids_to_tokens(alone(tokenizer, "0227")) == ["▁", "0", "2", "2", "7"]


@pytest.mark.parametrize("name", WITH_BLANK)
@pytest.mark.parametrize(("price_format", "written"), [(PLAIN, "227.00"), (PADDED, "0227")])
def test_what_is_taught_goes_on_from_the_prompt_without_a_blank(
    name: str, price_format: PriceFormat, written: str
) -> None:
    tokenizer = loaded(name)
    template = PromptTemplate("What does this cost to the nearest dollar?", "Price is $", price_format, 96)
    encoder = Encoder(tokenizer, 96, TAIL, count_answer_tokens(tokenizer, TAIL, [written]))

    (asked,) = encoder.prompts([template.prompt(LAMP)])
    (taught,) = encoder.examples([template.example(LAMP)])

    assert tokenizer.convert_ids_to_tokens(taught.ids[taught.start :].tolist()) == [*written, "</s>"]
    assert taught.ids[: taught.start].tolist() == asked.ids.tolist()
    # The prompt, start-of-text token included, and what follows are what the whole text is.
    assert taught.ids[:-1].tolist() == tokenizer(template.prompt(LAMP).text + written)["input_ids"]
    assert encoder.answer_tokens == len(written) + 1
    assert tokenizer.batch_decode([taught.ids[taught.start :]], skip_special_tokens=True) == [written]


@pytest.mark.parametrize("name", WITH_BLANK)
def test_their_padded_prices_are_exact(name: str) -> None:
    tokenizer = loaded(name)

    assert splits_digits(tokenizer, TAIL)
    assert sizes(find_price_tokens(tokenizer, TAIL, PADDED, 4)) == [10] * 4
    assert sizes(find_digit_tokens(tokenizer, TAIL, 6)) == [10] * 6


@pytest.mark.parametrize("name", WITHOUT_BLANK)
def test_nothing_changes_for_tokenizers_without_that_blank(name: str) -> None:
    tokenizer = loaded(name)
    texts = [format_steps(price, style) for style in FORMATS for price in PRICES]

    assert tokenize_continuations(tokenizer, TAIL, texts) == [alone(tokenizer, text) for text in texts]


@pytest.mark.parametrize(
    ("name", "splits", "four", "six", "plain_to_999"),
    [
        ("Gemma", True, [10] * 4, [10] * 6, None),
        ("Qwen", True, [10] * 4, [10] * 6, None),
        # 0227 is 022 and 7, 000227 is 000 and 227; 227.00 begins with the one token 227.
        ("Llama 3", False, [1000, 10], [1000, 1000], [1000]),
        ("GPT-2", False, None, None, None),
    ],
)
def test_levels_are_digits_groups_of_three_or_none(
    name: str, splits: bool, four: list[int] | None, six: list[int] | None, plain_to_999: list[int] | None
) -> None:
    tokenizer = loaded(name)

    assert splits_digits(tokenizer, TAIL) == splits
    assert sizes(find_price_tokens(tokenizer, TAIL, PADDED, 4)) == four
    assert sizes(find_digit_tokens(tokenizer, TAIL, 6)) == six
    assert sizes(find_price_tokens(tokenizer, TAIL, PLAIN, 3)) == plain_to_999


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("name", [*WITH_BLANK, *WITHOUT_BLANK])
def test_what_is_read_is_what_is_taught_whatever_the_lead(name: str, lead: str) -> None:
    tokenizer, tail = loaded(name), prompt_tail(lead)
    encoder = Encoder(tokenizer, 96, tail, 5)

    # One lead gets the 1,000 plain prices below $1,000, the others 100.
    plain = 3 if lead == LEADS[0] else 2
    cents, hundreds = PriceFormat("plain", None, 2), PriceFormat("padded", 4, -2)
    for style, digits in ((PLAIN, plain), (PADDED, 4), (cents, plain), (hundreds, 4)):
        template = PromptTemplate("How much?", lead, style, 96)
        price_tokens = find_price_tokens(tokenizer, tail, style, digits)
        assert price_tokens is not None
        for steps in (steps for steps in (1, 7, 22, 227, 1299, 9999) if steps < 10**digits):
            price = style.price_unit.from_steps(steps)
            (taught,) = encoder.examples([template.example(Item("a", "A lamp", price))])
            answer = taught.ids[taught.start :].tolist()
            assert tokenizer.decode(answer, skip_special_tokens=True).strip() == format_steps(steps, style)
            assert steps_at(price_tokens, answer) == steps


def steps_at(price_tokens: PriceTokens, answer: list[int]) -> int:
    """The price in steps that the tokens of an answer lead to."""
    if isinstance(price_tokens, PriceTrie):
        trie: PriceTrie | None = price_tokens
        for token in answer:
            assert trie is not None
            (index,) = np.flatnonzero(trie.tokens == token)
            low, trie = int(trie.low[index]), trie.children[index]
            if trie is None:
                return low
        raise AssertionError(f"{answer} ends within the prices")
    price = 0
    for tokens, token in zip(price_tokens, answer, strict=False):
        (index,) = np.flatnonzero(tokens == token)
        price = price * len(tokens) + int(index)
    return price


def test_where_prompt_and_completion_do_not_part_at_a_token_each_is_tokenized_by_itself() -> None:
    tokenizer = loaded("GPT-2")

    # "is 227" would be the tokens "is" and " 227", of which the prompt "is " knows nothing.
    assert tokenizer.tokenize("is 227")[-1] == "Ġ227"
    assert tokenize_continuations(tokenizer, "is ", ["227", "5"]) == [alone(tokenizer, "227"), alone(tokenizer, "5")]


def test_a_digit_before_the_price_does_not_hide_that_digits_are_grouped() -> None:
    tokenizer = loaded("Llama 3")

    # "1227" would be the tokens 122 and 7.
    assert tokenize_continuations(tokenizer, prompt_tail("Price in 1"), ["227"]) == [alone(tokenizer, "227")]
