"""Items and splits."""

import random
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.items import Item, ItemSet, Split, assign_split, hash_place, split_items
from pricer.core.prices import PriceFormat
from tests.builders import TEMPLATE, an_item

# Few letters, so that there are copies in other case and spacing among them; "ß" is "SS" in capitals.
TEXTS = st.lists(st.text(alphabet="abABéß \n", min_size=1, max_size=6), max_size=30)


def some_items(n: int) -> list[Item]:
    return [an_item(key=f"{i}", price=1.0 + i, description=f"lamp number {i}") for i in range(n)]


def split(items: list[Item], limits: dict[Split, int | None] | None = None) -> ItemSet:
    return split_items(items, val_fraction=0.2, test_fraction=0.3, limits=limits or {})


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


def test_a_text_that_is_not_valid_unicode_has_a_place() -> None:
    assert 0 <= hash_place("lamp \ud800") < 1


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0.0, Split.TEST),
        (0.249, Split.TEST),
        (0.25, Split.VAL),
        (0.749, Split.VAL),
        (0.75, Split.TRAIN),
        (0.999, Split.TRAIN),
    ],
)
def test_test_comes_first_then_val_then_train(place: float, expected: Split) -> None:
    assert assign_split(place, val_fraction=0.5, test_fraction=0.25) is expected


def test_the_shares_are_about_the_fractions() -> None:
    items = split(some_items(2000))

    # 3 standard deviations of a share of 0.3 in 2000: 3 × √(0.3 × 0.7 / 2000) = 0.031
    assert len(items.test) / 2000 == pytest.approx(0.3, abs=0.031)
    assert len(items.val) / 2000 == pytest.approx(0.2, abs=0.031)


@given(TEXTS, st.randoms(use_true_random=False))
def test_splits_are_disjoint_complete_and_the_same_in_any_order(texts: list[str], shuffler: random.Random) -> None:
    items = [an_item(key=f"{i}", description=text) for i, text in enumerate(texts)]
    shuffled = items.copy()
    shuffler.shuffle(shuffled)

    parts, again = split(items), split(shuffled)

    assert Counter([*parts.train, *parts.val, *parts.test]) == Counter(items)
    assert again == parts


@given(TEXTS, TEXTS)
def test_adding_items_moves_none_to_another_split(texts: list[str], more: list[str]) -> None:
    items = [an_item(key=f"{i}", description=text) for i, text in enumerate(texts)]
    added = [an_item(key=f"new {i}", description=text) for i, text in enumerate(more)]

    before, after = split(items), split(items + added)

    for part in Split:
        assert set(before.items(part)) <= set(after.items(part))


@given(TEXTS)
def test_no_text_is_in_two_splits_whatever_its_case(texts: list[str]) -> None:
    items = [an_item(key=f"{i}", description=text) for i, text in enumerate([*texts, *(t.upper() for t in texts)])]

    parts = split(items)

    folded = [{" ".join(i.text.casefold().split()) for i in parts.items(part)} for part in Split]
    assert sum(map(len, folded)) == len(set().union(*folded))


def test_a_limit_takes_the_first_of_the_whole_split() -> None:
    items = some_items(100)

    few, all_of_them = split(items, {Split.TRAIN: 7, Split.VAL: 3, Split.TEST: None}), split(items)

    assert few.train == all_of_them.train[:7]
    assert few.val == all_of_them.val[:3]
    assert few.test == all_of_them.test


def test_a_limited_sample_does_not_follow_the_order_of_the_file() -> None:
    few = split(some_items(1000), {Split.TRAIN: 100})

    # The ids 0 … 999 have mean 499.5; that of 100 random ones has a standard deviation of 289 / √100 = 29.
    assert sum(int(item.id) for item in few.train) / 100 == pytest.approx(499.5, abs=3 * 29)


def test_the_train_median_is_of_the_training_prices_alone() -> None:
    items = ItemSet(
        train=(an_item(price=1.0), an_item(price=3.0), an_item(price=100.0)),
        val=(an_item(price=5000.0),),
        test=(an_item(price=5000.0),),
        fingerprint="f",
    )

    assert items.train_median == 3.0


def test_the_fingerprint_changes_with_a_price_a_text_a_split_and_a_limit() -> None:
    items = some_items(20)
    dearer = [*items[:-1], an_item(key="19", price=21.0, description="lamp number 19")]
    other = [*items[:-1], an_item(key="19", price=20.0, description="lamp no. 19")]

    fingerprints = {
        split(items).fingerprint,
        split(dearer).fingerprint,
        split(other).fingerprint,
        split(items[:-1]).fingerprint,
        split(items, {Split.TRAIN: 3}).fingerprint,
        split_items(items, 0.5, 0.3, {}).fingerprint,
    }

    assert len(fingerprints) == 6


def test_items_dearer_than_the_maximum_are_in_no_split_and_counted() -> None:
    items = some_items(20)  # of $1 to $20

    cheap = split_items(items, 0.2, 0.3, {}, max_price=15.0)

    assert sorted(item.price for part in Split for item in cheap.items(part)) == [float(n) for n in range(1, 16)]
    assert cheap.items_above_max_price == 5
    assert split(items).items_above_max_price == 0


def test_a_maximum_price_moves_no_item_and_changes_the_fingerprint_only_where_it_leaves_one_out() -> None:
    items = some_items(20)
    whole = split_items(items, 0.2, 0.3, {})

    cheap = split_items(items, 0.2, 0.3, {}, max_price=19.0)

    assert split_items(items, 0.2, 0.3, {}, max_price=20.0) == whole
    assert cheap.fingerprint != whole.fingerprint
    assert all(set(cheap.items(part)) <= set(whole.items(part)) for part in Split)


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
