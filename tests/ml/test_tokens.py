"""Tokens: every prompt fits, only descriptions are cut, and training asks what prediction asks."""

from typing import Any

import pytest

from pricer.core.items import Item, Prompt, PromptTemplate
from pricer.core.prices import PriceFormat
from pricer.errors import ConfigError
from pricer.ml.base import load_tokenizer
from pricer.ml.tokens import Encoder, splits_digits
from pricer.stores.bases import ASSETS

TEMPLATE = PromptTemplate("What does this cost to the nearest dollar?", "Price is $", PriceFormat("padded", 4), 64)
TAIL = "\n\nPrice is $"


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return load_tokenizer(ASSETS / "base")


def item(description: str) -> Item:
    return Item("a", description, 149.0)


def test_a_prompt_that_fits_is_left_alone(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, ["0149"])

    (prompt,) = encoder.prompts([TEMPLATE.prompt(item("A desk lamp."))])

    assert not prompt.cut
    assert tokenizer.decode(prompt.ids) == ("What does this cost to the nearest dollar?\n\nA desk lamp.\n\nPrice is $")


def test_many_prompts_are_tokenized_a_part_at_a_time(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, ["0149"])
    prompts = [TEMPLATE.prompt(Item(str(n), f"A lamp of {n} watts", 149.0)) for n in range(5)]
    whole = encoder.prompts(prompts)

    monkeypatch.setattr("pricer.ml.tokens._TEXTS_AT_ONCE", 2)

    parts = encoder.prompts(prompts)
    assert [prompt.item_id for prompt in parts] == list("01234")
    assert [prompt.ids.tolist() for prompt in parts] == [prompt.ids.tolist() for prompt in whole]


def test_four_digits_and_the_end_of_text_are_kept_free_for_the_answer(tokenizer: Any) -> None:
    assert Encoder(tokenizer, 64, TAIL, ["0149", "0007"]).answer_length == 4 + 1


@pytest.mark.parametrize("length", range(30, 65))
def test_a_long_description_is_cut_at_its_end_and_the_question_and_lead_stay(tokenizer: Any, length: int) -> None:
    description = "A shop’s 486 computer – 8 MB, with naïve café décor. " * 40
    encoder = Encoder(tokenizer, length, TAIL, ["0149"])

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
    encoder = Encoder(tokenizer, 40, TAIL, ["0149"])

    for padding in range(12):
        (prompt,) = encoder.prompts([TEMPLATE.prompt(item("a " * padding + "🦜" * 40))])
        assert prompt.cut
        assert len(prompt.ids) <= 40 - 5
        assert "�" not in tokenizer.decode(prompt.ids)


def test_a_frame_that_leaves_no_room_at_all_is_an_error_and_not_a_loop(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 12, TAIL, ["0149"])

    with pytest.raises(ConfigError, match=r"prompt\.max_length is 12"):
        encoder.prompts([Prompt("a", "One two three four five six?\n\n", "A lamp.", "\n\nPrice is $")])


def test_as_much_of_the_description_stays_as_fits(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, ["0149"])

    (prompt,) = encoder.prompts([TEMPLATE.prompt(item("8 " * 500))])

    # One token per digit and one per space, or a joint one: never more than two tokens short of 64 - 5.
    assert 64 - 5 - 2 <= len(prompt.ids) <= 64 - 5


def test_a_description_with_the_lead_in_it_is_cut_nowhere_but_at_its_end(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, ["0149"])

    (prompt,) = encoder.prompts([TEMPLATE.prompt(item("Old label: Price is $3. A desk lamp."))])

    assert tokenizer.decode(prompt.ids).count("Price is $") == 2
    assert not prompt.cut


def test_training_asks_exactly_what_prediction_asks(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 64, TAIL, ["0149"])
    asked = item("A lamp " * 60)

    (prompt,) = encoder.prompts([TEMPLATE.prompt(asked)])
    (example,) = encoder.examples([TEMPLATE.example(asked)])

    assert example.ids[: example.start].tolist() == prompt.ids.tolist()


def test_a_max_length_without_room_for_a_description_is_refused(tokenizer: Any) -> None:
    encoder = Encoder(tokenizer, 12, TAIL, ["0149"])

    with pytest.raises(ConfigError) as caught:
        encoder.check(Prompt("a", "What does this cost to the nearest dollar?\n\n", "A lamp.", "\n\nPrice is $"))

    assert caught.value.message.startswith("prompt.max_length is 12: the question and the price alone take ")


def test_a_digit_is_a_token_in_the_embedded_base(tokenizer: Any) -> None:
    assert splits_digits(tokenizer, TAIL)
    assert tokenizer.convert_ids_to_tokens(tokenizer("1495", add_special_tokens=False)["input_ids"]) == list("1495")
