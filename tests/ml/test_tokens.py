"""Tokens: every prompt fits, only descriptions are cut, and training asks what prediction asks."""

from typing import Any

import pytest

from pricer.core.items import Item, Prompt, PromptTemplate
from pricer.core.prices import PriceFormat
from pricer.errors import ConfigError
from pricer.ml.base import load_tokenizer
from pricer.ml.tokens import Encoder, count_answer_tokens, fingerprint_tokenizer, splits_digits
from pricer.stores.bases import ASSETS

TEMPLATE = PromptTemplate("What does this cost to the nearest dollar?", "Price is $", PriceFormat("padded", 4), 64)
TAIL = "\n\nPrice is $"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ASSETS / "base")


def item(description: str) -> Item:
    return Item("a", description, 149.0)


def test_a_prompt_that_fits_is_left_alone(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, 5)

    (prompt,) = encoder.prompts([TEMPLATE.prompt(item("A desk lamp."))])

    assert not prompt.cut
    assert tokenizer.decode(prompt.ids) == ("What does this cost to the nearest dollar?\n\nA desk lamp.\n\nPrice is $")


def test_four_digits_and_the_end_of_text_are_kept_free_for_the_answer(tokenizer: Any) -> None:
    assert count_answer_tokens(tokenizer, TAIL, ["0149", "0007"]) == 4 + 1
    assert count_answer_tokens(tokenizer, TAIL, ["7.00", "1299.00"]) == 7 + 1


@pytest.mark.parametrize("length", range(30, 65))
def test_a_long_description_is_cut_at_its_end_and_the_question_and_lead_stay(tokenizer: Any, length: int) -> None:
    description = "A shop’s 486 computer – 8 MB, with naïve café décor. " * 40
    encoder = Encoder(tokenizer, length, TAIL, 5)

    (example,) = encoder.examples([TEMPLATE.example(item(description))])

    assert example.prompt.cut
    assert len(example.ids) <= length
    text = tokenizer.decode(example.prompt.ids)
    head, tail = "What does this cost to the nearest dollar?\n\n", "\n\nPrice is $"
    assert text.startswith(head + "A shop")
    assert text.endswith(tail)
    assert description.startswith(text.removeprefix(head).removesuffix(tail))
    assert tokenizer.decode(example.ids[example.start :]) == "0149" + tokenizer.eos_token


def test_a_character_of_many_tokens_at_the_cut_is_dropped_whole(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 40, TAIL, 5)

    for padding in range(12):
        (prompt,) = encoder.prompts([TEMPLATE.prompt(item("a " * padding + "🦜" * 40))])
        assert prompt.cut
        assert len(prompt.ids) <= 40 - 5
        assert "�" not in tokenizer.decode(prompt.ids)


def test_a_frame_that_leaves_no_room_at_all_is_an_error_and_not_a_loop(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 12, TAIL, 5)

    with pytest.raises(ConfigError, match=r"prompt\.max_length is 12"):
        encoder.prompts([Prompt("a", "One two three four five six?\n\n", "A lamp.", "\n\nPrice is $")])


def test_as_much_of_the_description_stays_as_fits(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, 5)

    (prompt,) = encoder.prompts([TEMPLATE.prompt(item("8 " * 500))])

    # One token per digit and one per space, or a joint one: never more than two tokens short of 64 - 5.
    assert 64 - 5 - 2 <= len(prompt.ids) <= 64 - 5


def test_a_description_with_the_lead_in_it_is_cut_nowhere_but_at_its_end(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, 5)

    (prompt,) = encoder.prompts([TEMPLATE.prompt(item("Old label: Price is $3. A desk lamp."))])

    assert tokenizer.decode(prompt.ids).count("Price is $") == 2
    assert not prompt.cut


def test_training_asks_exactly_what_prediction_asks(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, 5)
    asked = item("A lamp " * 60)

    (prompt,) = encoder.prompts([TEMPLATE.prompt(asked)])
    (example,) = encoder.examples([TEMPLATE.example(asked)])

    assert example.ids[: example.start].tolist() == prompt.ids.tolist()


def test_a_max_length_without_room_for_a_description_is_refused(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 12, TAIL, 5)

    with pytest.raises(ConfigError) as caught:
        encoder.check(Prompt("a", "What does this cost to the nearest dollar?\n\n", "A lamp.", "\n\nPrice is $"))

    assert caught.value.message.startswith("prompt.max_length is 12: the question and the price alone take ")


def test_a_digit_is_a_token_in_the_embedded_base(tokenizer: Any) -> None:
    assert splits_digits(tokenizer, TAIL)
    assert tokenizer.convert_ids_to_tokens(tokenizer("1495", add_special_tokens=False)["input_ids"]) == list("1495")


def test_tokens_are_those_of_transformers_own_call(tokenizer: Any) -> None:
    """The call takes three times as long, and sets no padding and no truncation."""
    texts = ["A lamp", "</s> 8 MB", "naïve café 🦜", "Price is $3. " * 200]
    encoder = Encoder(tokenizer, 4096, TAIL, 5)
    tokenizer.backend_tokenizer.enable_truncation(8)
    tokenizer.backend_tokenizer.enable_padding()

    prompts = encoder.prompts([TEMPLATE.prompt(item(text)) for text in texts])

    expected = [tokenizer(TEMPLATE.prompt(item(text)).text)["input_ids"] for text in texts]
    assert [prompt.ids.tolist() for prompt in prompts] == expected


def test_prompts_are_cut_alike_one_by_one_and_together(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 48, TAIL, 5)
    prompts = [TEMPLATE.prompt(item("a🦜 486 café " * count)) for count in range(30)]

    together = encoder.prompts(prompts)

    assert {prompt.cut for prompt in together} == {True, False}
    for prompt, own in zip(prompts, together, strict=True):
        (alone,) = encoder.prompts([prompt])
        assert (alone.cut, alone.ids.tolist()) == (own.cut, own.ids.tolist())


def test_the_fingerprint_of_a_tokenizer_changes_with_what_changes_tokens_alone(tokenizer: Any) -> None:
    before, other = fingerprint_tokenizer(tokenizer), load_tokenizer(ASSETS / "base")
    tokenizer(["a", "a longer text"], padding=True, truncation=True, max_length=3)

    assert fingerprint_tokenizer(tokenizer) == before
    assert fingerprint_tokenizer(other) == before
    other.add_tokens(["lamp"])
    assert fingerprint_tokenizer(other) != before
