"""Items and splits."""

from dataclasses import replace
from typing import Any

import pytest

from pricer.core.items import hash_place, hash_places
from pricer.core.prices import PriceFormat
from tests.builders import TEMPLATE, an_item


def test_the_text_of_an_item_is_its_title_above_its_description() -> None:
    assert an_item(title="Lamp", description="Of brass").text == "Lamp\nOf brass"
    assert an_item(title=None, description="Of brass").text == "Of brass"


@pytest.mark.parametrize("copy", ["a brass lamp", "A BRASS LAMP", "  a\tbrass\n\nlamp "])
def test_copies_that_differ_in_case_and_spacing_stand_at_one_place(copy: str) -> None:
    assert hash_place(copy) == hash_place("A brass lamp")


def test_other_words_stand_at_another_place() -> None:
    assert hash_place("A brass lamp") != hash_place("A brass lamb")


def test_the_place_is_the_one_that_earlier_runs_were_split_by() -> None:
    # A change here moves items between train and test: every published number would be void.
    assert hash_place("A brass lamp") == 0.7983410974445868


def test_the_two_places_of_a_text_are_independent() -> None:
    first, second = hash_places("A brass lamp")

    assert first == hash_place("A brass lamp")
    assert second not in (first, 1 - first)


def test_a_text_that_is_not_valid_unicode_has_a_place() -> None:
    assert 0 <= hash_place("lamp \ud800") < 1


def test_a_prompt_is_question_description_and_lead_with_blank_lines_between() -> None:
    prompt = TEMPLATE.prompt(an_item(description="A lamp\nof brass"))

    assert prompt.text == "What does this cost to the nearest dollar?\n\nA lamp\nof brass\n\nPrice is $"


def test_only_the_description_is_in_the_part_that_may_be_cut() -> None:
    prompt = TEMPLATE.prompt(an_item(key="a7", description="A lamp"))

    assert (prompt.item_id, prompt.head, prompt.description, prompt.tail) == (
        "a7",
        "What does this cost to the nearest dollar?\n\n",
        "A lamp",
        "\n\nPrice is $",
    )


def test_a_title_stands_above_the_description() -> None:
    assert TEMPLATE.prompt(an_item(title="Lamp", description="Of brass")).description == "Lamp\nOf brass"


def test_space_around_a_description_adds_no_blank_lines() -> None:
    padded, bare = an_item(description="\n A lamp \n\n"), an_item(description="A lamp")

    assert TEMPLATE.prompt(padded) == TEMPLATE.prompt(bare)


def test_a_prompt_never_shows_the_price() -> None:
    cheap, dear = an_item(price=1.0), an_item(price=98765.0)

    assert TEMPLATE.prompt(cheap) == TEMPLATE.prompt(dear)
    assert "98765" not in TEMPLATE.prompt(dear).text


def test_an_example_is_the_prompt_with_its_completion() -> None:
    item = an_item(price=226.6)

    example = TEMPLATE.example(item)

    assert (example.prompt, example.completion) == (TEMPLATE.prompt(item), "227.00")


def test_a_completion_is_written_in_the_format_of_the_template() -> None:
    template = replace(TEMPLATE, price_format=PriceFormat("padded", 5))

    assert template.completion(an_item(price=226.6)) == "00227"


@pytest.mark.parametrize(
    "change",
    [
        {"question": "How much does this cost to the nearest dollar?"},
        {"lead": "Price: $"},
        {"max_length": 127},
        {"price_format": PriceFormat("padded", 4)},
        {"price_format": PriceFormat("plain", None, 2)},
        {"price_format": PriceFormat("plain", None, 0, "€")},
    ],
)
def test_the_fingerprint_changes_with_every_part_of_the_template(change: dict[str, Any]) -> None:
    assert replace(TEMPLATE, **change).fingerprint != TEMPLATE.fingerprint


def test_padded_widths_have_different_fingerprints() -> None:
    four, five = (replace(TEMPLATE, price_format=PriceFormat("padded", width)) for width in (4, 5))

    assert four.fingerprint != five.fingerprint


def test_the_fingerprint_does_not_change_by_itself() -> None:
    # A change here makes every stored evaluation incomparable: CHANGELOG.md has to say so.
    assert TEMPLATE.fingerprint == "71d5c6211ac6"
