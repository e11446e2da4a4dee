"""Groups of texts that are nearly the same."""

import random
from collections.abc import Sequence

import numpy as np
import pytest

from pricer.data.near_duplicates import Signer, find_groups, rows_per_band, split_words

TEXT = "A brass lamp of 30 cm with a green shade, made by hand in Ohio and sold with two bulbs and a cord of 2 m"


def group(texts: Sequence[str], similarity: float = 0.8) -> np.ndarray:
    return find_groups(Signer().sign(texts), np.arange(len(texts)), similarity)


def same(one: str, other: str, similarity: float = 0.8) -> bool:
    groups = group([one, other], similarity)
    return bool(groups[0] == groups[1])


@pytest.mark.parametrize(
    "copy",
    [
        TEXT + ".",
        TEXT.replace(",", ""),
        TEXT.replace("brass", "brass,"),
        TEXT.upper(),
        f"<p>{TEXT}</p>",
        TEXT.replace("brass lamp", "brass&nbsp;lamp"),
        TEXT.replace("with", "w\u200bith"),
        TEXT.replace("with", "\u200ewith\u202c"),
        TEXT.replace("brass", "ｂｒａｓｓ"),  # wide letters
        TEXT.replace(" ", "\n\t "),
        TEXT.replace(" of 2 m", ""),  # 25 words have 21 sequences, 18 of which are left: 18 / 21 = 0.86
        TEXT.replace("2 m", "3 m"),
    ],
)
def test_a_near_copy_is_in_the_group_of_its_original(copy: str) -> None:
    assert same(TEXT, copy)


@pytest.mark.parametrize(
    "other", ["A bed", TEXT.replace("of", "x").replace("a ", "the "), " ".join(TEXT.split()[::-1])]
)
def test_another_text_is_in_another_group(other: str) -> None:
    assert not same(TEXT, other)


def test_short_texts_need_the_same_words() -> None:
    assert same("A lamp", "a LAMP!")
    assert not same("A lamp", "A bed")
    assert not same("!!!", "???")


def test_a_letter_with_an_accent_is_one_character_or_two() -> None:
    assert same("Crème brûlée", "Cre\u0300me bru\u0302le\u0301e")


def test_words_of_languages_without_spaces_are_their_characters() -> None:
    assert split_words("紅い花 lamp") == ["紅", "い", "花", "lamp"]


def test_a_chain_of_near_copies_is_one_group() -> None:
    words = [f"w{n}" for n in range(100)]
    # Each text lacks the first 4 words of the one before, so 92 of 96 sequences are the same; after ten steps, 56.
    chain = [" ".join(words[4 * n :] + [f"v{k}" for k in range(4 * n)]) for n in range(11)]

    assert len(set(group(chain))) == 1
    assert not same(chain[0], chain[-1])


def test_the_signature_of_a_text_is_the_same_every_time_and_in_every_company() -> None:
    texts = [TEXT, "A bed", "", "!!!"]

    together = Signer().sign(texts)

    assert np.array_equal(together, np.concatenate([Signer().sign([text]) for text in texts]))


def test_the_estimate_is_the_jaccard_similarity_of_five_word_sequences() -> None:
    words = [f"w{n}" for n in range(400)]
    one, other = words, [*words[:200], *(f"v{n}" for n in range(200))]
    # 396 sequences each, of which the first 196 are the same: 196 / (396 + 396 - 196) = 0.329.
    # Three standard deviations: 3 × √(0.329 × 0.671 / 128) = 0.125
    signatures = Signer().sign([" ".join(one), " ".join(other)])

    assert (signatures[0] == signatures[1]).mean() == pytest.approx(0.329, abs=0.125)


def test_nearly_all_planted_pairs_are_found_and_no_other() -> None:
    generator = random.Random(1)
    words = [f"w{n}" for n in range(3000)]
    originals = [generator.choices(words, k=90) for _ in range(1000)]
    copies = [[*words[:40], "changed", *words[41:]] for words in originals]  # (86 - 5) / (86 + 5) = 0.89
    texts = [" ".join(each) for each in [*originals, *copies]]

    groups = group(texts)

    assert (groups[:1000] == groups[1000:]).mean() >= 0.99
    assert len(set(groups)) >= 1000


def test_every_similarity_finds_its_pairs() -> None:
    # The share of pairs found at the similarity itself is 1 - (1 - s^r)^(128 / r).
    assert [rows_per_band(similarity) for similarity in (0.5, 0.8, 0.9, 1.0)] == [3, 7, 12, 16]


def test_no_texts_are_no_groups() -> None:
    assert group([]).tolist() == []


def test_rows_that_are_left_out_connect_no_texts() -> None:
    signatures = Signer().sign([TEXT, "A bed", TEXT + "!", "A bed."])

    assert find_groups(signatures, np.array([1, 2, 3]), 0.8).tolist() == [0, 1, 0]
