"""How tokenizers write prices: a completion is the tokens that follow the prompt, in every family of tokenizers."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pricer.core.items import Item, PromptTemplate, tail_of
from pricer.core.prefix_search import PriceTrie
from pricer.core.prices import PriceFormat, format_price
from pricer.ml.base import load_tokenizer
from pricer.ml.tokens import Encoder, PriceTokens, continuations, find_digit_tokens, find_price_tokens, splits_digits
from tests.small_tokenizers import WITH_BLANK, WITHOUT_BLANK, saved

TAIL = tail_of("Price is $")
PLAIN, PADDED = PriceFormat("plain"), PriceFormat("padded", 4)
FORMATS = (PLAIN, PADDED, PriceFormat("padded", 6))
# Every seventh price up to four digits: all last digits, carries and leading zeros are among them.
PRICES = range(0, 10_000, 7)
LAMP = Item("a", "A lamp of brass for a desk.", 227.0)
# What prompts may end with: an empty lead, one that ends in a blank, a letter or a digit.
LEADS = ("Price is $", "Price is", "Price is ", "", "Price in 1", "Price:\n")


def loaded(name: str, folder: Path) -> Any:
    """The tokenizer as a base has it, on disk."""
    return load_tokenizer(saved({**WITH_BLANK, **WITHOUT_BLANK}[name](), folder))


def alone(tokenizer: Any, text: str) -> list[int]:
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def sizes(price_tokens: PriceTokens | None) -> list[int] | None:
    """Options of each level; None: these are no DigitTokens."""
    return [len(tokens) for tokens in price_tokens] if isinstance(price_tokens, tuple) else None


@pytest.mark.parametrize("name", WITH_BLANK)
def test_these_tokenizers_put_a_blank_in_front_of_a_text_by_itself(name: str, tmp_path: Path) -> None:
    tokenizer = loaded(name, tmp_path)

    assert tokenizer.convert_ids_to_tokens(alone(tokenizer, "0227")) == ["▁", "0", "2", "2", "7"]


@pytest.mark.parametrize("name", WITH_BLANK)
@pytest.mark.parametrize(("price_format", "written"), [(PLAIN, "227.00"), (PADDED, "0227")])
def test_what_is_taught_goes_on_from_the_prompt_without_a_blank(
    name: str, price_format: PriceFormat, written: str, tmp_path: Path
) -> None:
    tokenizer = loaded(name, tmp_path)
    template = PromptTemplate("What does this cost to the nearest dollar?", "Price is $", price_format, 96)
    encoder = Encoder(tokenizer, 96, TAIL, [written])

    (asked,) = encoder.prompts([template.prompt(LAMP)])
    (taught,) = encoder.examples([template.example(LAMP)])

    assert tokenizer.convert_ids_to_tokens(taught.ids[taught.start :].tolist()) == [*written, "</s>"]
    assert taught.ids[: taught.start].tolist() == asked.ids.tolist()
    # The prompt, start-of-text token included, and what follows are what the whole text is.
    assert taught.ids[:-1].tolist() == tokenizer(template.prompt(LAMP).text + written)["input_ids"]
    assert encoder.answer_length == len(written) + 1
    assert tokenizer.batch_decode([taught.ids[taught.start :]], skip_special_tokens=True) == [written]


@pytest.mark.parametrize("name", WITH_BLANK)
def test_their_padded_prices_are_exact(name: str, tmp_path: Path) -> None:
    tokenizer = loaded(name, tmp_path)

    assert splits_digits(tokenizer, TAIL)
    assert sizes(find_price_tokens(tokenizer, TAIL, PADDED, 4)) == [10] * 4
    assert sizes(find_digit_tokens(tokenizer, TAIL, 6)) == [10] * 6


@pytest.mark.parametrize("name", WITHOUT_BLANK)
def test_nothing_changes_for_tokenizers_without_that_blank(name: str, tmp_path: Path) -> None:
    tokenizer = loaded(name, tmp_path)
    texts = [format_price(price, style) for style in FORMATS for price in PRICES]

    assert continuations(tokenizer, TAIL, texts) == [alone(tokenizer, text) for text in texts]


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
    name: str,
    splits: bool,
    four: list[int] | None,
    six: list[int] | None,
    plain_to_999: list[int] | None,
    tmp_path: Path,
) -> None:
    tokenizer = loaded(name, tmp_path)

    assert splits_digits(tokenizer, TAIL) == splits
    assert sizes(find_price_tokens(tokenizer, TAIL, PADDED, 4)) == four
    assert sizes(find_digit_tokens(tokenizer, TAIL, 6)) == six
    assert sizes(find_price_tokens(tokenizer, TAIL, PLAIN, 3)) == plain_to_999
    assert isinstance(find_price_tokens(tokenizer, TAIL, PLAIN, 4), PriceTrie)


@pytest.mark.parametrize("lead", LEADS)
@pytest.mark.parametrize("name", [*WITH_BLANK, *WITHOUT_BLANK])
def test_what_is_read_is_what_is_taught_whatever_the_lead(name: str, lead: str, tmp_path: Path) -> None:
    tokenizer, tail = loaded(name, tmp_path), tail_of(lead)
    encoder = Encoder(tokenizer, 96, tail, ["0227"])

    # All 10,000 plain prices take most of a second, so only one lead gets them; the others get 1,000.
    for style, digits in ((PLAIN, 4 if lead == LEADS[0] else 3), (PADDED, 4)):
        template = PromptTemplate("How much?", lead, style, 96)
        price_tokens = find_price_tokens(tokenizer, tail, style, digits)
        assert price_tokens is not None
        for price in (price for price in (0, 7, 22, 227, 1299, 9999) if price < 10**digits):
            (taught,) = encoder.examples([template.example(Item("a", "A lamp", float(price)))])
            answer = taught.ids[taught.start :].tolist()
            assert tokenizer.decode(answer, skip_special_tokens=True).strip() == format_price(price, style)
            assert price_at(price_tokens, answer) == price


def price_at(price_tokens: PriceTokens, answer: list[int]) -> int:
    """The price that the tokens of an answer lead to."""
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


def test_where_prompt_and_completion_do_not_part_at_a_token_each_is_tokenized_by_itself(tmp_path: Path) -> None:
    tokenizer = loaded("GPT-2", tmp_path)

    # "is 227" would be the tokens "is" and " 227", of which the prompt "is " knows nothing.
    assert tokenizer.tokenize("is 227")[-1] == "Ġ227"
    assert continuations(tokenizer, "is ", ["227", "5"]) == [alone(tokenizer, "227"), alone(tokenizer, "5")]


def test_a_digit_before_the_price_does_not_hide_that_digits_are_grouped(tmp_path: Path) -> None:
    tokenizer = loaded("Llama 3", tmp_path)

    # "1227" would be the tokens 122 and 7.
    assert continuations(tokenizer, tail_of("Price in 1"), ["227"]) == [alone(tokenizer, "227")]


def test_many_texts_are_tokenized_a_part_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = loaded("Llama 2, legacy", tmp_path)
    texts = [f"{price}.00" for price in range(5)]
    whole = continuations(tokenizer, TAIL, texts)

    monkeypatch.setattr("pricer.ml.tokens._TEXTS_AT_ONCE", 2)

    assert continuations(tokenizer, TAIL, texts) == whole
    assert continuations(tokenizer, TAIL, []) == []
