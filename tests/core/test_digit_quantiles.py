"""The walk down the digits, and the expansion of prices, against plain enumeration."""

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pricer.core.digit_quantiles import DigitQuantiles
from pricer.core.predictions import PROMPT, QUANTILES, DecodingStep, Distribution, PriceDecoder
from pricer.core.prefix_search import PrefixSearch, build_trie

DIGITS = np.arange(10)
# What follows a path of tokens: log-probabilities of a whole vocabulary.
Model = Callable[[tuple[int, ...]], np.ndarray]
END, POINT, VOCABULARY = 10, 11, 12


def a_model(seed: int, spread: float = 2.0, off_prices: float = 0.0) -> Model:
    """A model that says something else after each path, but always the same. `off_prices` is added to the logits of
    tokens that are no digits.
    """

    def follow(path: tuple[int, ...]) -> np.ndarray:
        logits = np.random.default_rng([seed, *path]).normal(scale=spread, size=VOCABULARY)
        logits[10:] += off_prices
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    return follow


def read(decoder: PriceDecoder, models: Sequence[Model]) -> tuple[list[Distribution], int]:
    """Answer what a decoder asks, one model per Item; the results, and how many slots were asked for of an Item."""
    paths: list[list[tuple[int, ...]]] = [[] for _ in models]
    asked = decoder.advance(np.array([[model(())[decoder.first_candidates]] for model in models]))
    while isinstance(asked, DecodingStep):
        answers = np.zeros((*asked.tokens.shape, asked.candidates.shape[-1]))
        options = np.broadcast_to(asked.candidates, answers.shape)
        for row, model in enumerate(models):
            for slot, (parent, token) in enumerate(zip(asked.parents[row], asked.tokens[row], strict=True)):
                path = (*(() if parent == PROMPT else paths[row][parent]), int(token))
                answers[row, slot] = model(path)[options[row, slot]]
                paths[row].append(path)
            if asked.greedy is not None:
                likeliest = paths[row][len(paths[row]) - asked.tokens.shape[1] + asked.greedy[row]]
                assert likeliest == tuple(greedy(model, len(likeliest)))
        asked = decoder.advance(answers)
    return asked, len(paths[0])


def greedy(model: Model, length: int) -> list[int]:
    path: list[int] = []
    for _ in range(length):
        path.append(int(np.delete(model(tuple(path)), [END, POINT]).argmax()))
        path[-1] += 2 * (path[-1] >= END)  # of those that were left out
    return path


def enumerate_padded(model: Model, width: int) -> np.ndarray:
    """The share of each price, by asking for every one."""
    shares = []
    for digits in itertools.product(range(10), repeat=width):
        share = 1.0
        for length in range(width):
            odds = np.exp(model(digits[:length]))[:10]
            share *= odds[digits[length]] / odds.sum()
        shares.append(share)
    return np.array(shares)


def are_quantiles(found: Sequence[float], shares: np.ndarray) -> bool:
    """Whether each is the first price up to which its share lies; where sums are equal but for rounding, either may."""
    upto = np.cumsum(shares)
    below = upto - shares
    slots = [int(price) for price in found]
    return all(below[p] - 1e-9 <= q <= upto[p] + 1e-9 for p, q in zip(slots, QUANTILES, strict=True))


@pytest.mark.parametrize("width", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.3, 2.0, 6.0])
def test_digit_quantiles_agree_with_asking_for_every_price(width: int, spread: float) -> None:
    models = [a_model(seed, spread) for seed in range(12)]

    found, _ = read(DigitQuantiles((DIGITS,) * width, len(models), beam_width=8), models)

    for model, distribution in zip(models, found, strict=True):
        shares = enumerate_padded(model, width)
        prices = np.arange(len(shares))
        assert are_quantiles(distribution.quantiles, shares)
        assert abs(distribution.mean - (shares * prices).sum()) <= distribution.mean_error + 1e-9
        if distribution.mode_is_certain:
            assert distribution.mode == shares.argmax()
        assert distribution.residual_mass == 0


def test_with_room_for_all_prefixes_mean_and_mode_are_exact() -> None:
    models = [a_model(seed, spread=4.0) for seed in range(6)]

    found, _ = read(DigitQuantiles((DIGITS, DIGITS), len(models), beam_width=10_000), models)

    for model, distribution in zip(models, found, strict=True):
        shares = enumerate_padded(model, 2)
        # Prefixes of less than a tenth are not followed, unless a quantile leads through: each moves the mean by at
        # most 4.5 dollars times its share, which is less than 0.45.
        firsts = np.exp(model(()))[:10] / np.exp(model(()))[:10].sum()
        assert distribution.mean_error <= 4.5 * firsts[firsts < 0.1].sum() + 1e-9
        assert distribution.mode == shares.argmax()
        assert distribution.mode_is_certain


def test_more_room_makes_the_mean_no_less_certain() -> None:
    models = [a_model(seed, spread=0.3) for seed in range(4)]

    errors = [
        [d.mean_error for d in read(DigitQuantiles((DIGITS,) * 3, 4, most), models)[0]] for most in (6, 8, 16, 110)
    ]

    for tighter, looser in itertools.pairwise(reversed(errors)):
        assert all(a <= b for a, b in zip(tighter, looser, strict=True))


def test_paths_that_begin_alike_are_asked_for_once() -> None:
    # All of the probability lies on 427: five quantiles and the likeliest are one path of two prefixes, 4 and 42.
    def sure(path: tuple[int, ...]) -> np.ndarray:
        logits = np.full(VOCABULARY, -200.0)
        logits[(4, 2, 7)[len(path)]] = 0.0
        return logits

    (distribution,), slots = read(DigitQuantiles((DIGITS,) * 3, 1, beam_width=8), [sure])

    assert slots == 2
    assert (distribution.quantiles, distribution.mode, distribution.mode_is_certain) == ((427.0,) * 5, 427.0, True)
    assert distribution.mean == pytest.approx(427.0)
    assert (distribution.mean_error, distribution.no_price) == pytest.approx((0.0, 0.0))


def test_what_lies_on_no_digit_adds_up_along_the_way() -> None:
    # One tenth is said to be no digit at first, and half of what is left after the first digit, which is surely 3.
    def partly(path: tuple[int, ...]) -> np.ndarray:
        odds = np.full(VOCABULARY, 1e-30)
        odds[END] = 0.1 if not path else 0.5
        odds[3] = 1 - odds[END]
        return np.asarray(np.log(odds))

    (distribution,), _ = read(DigitQuantiles((DIGITS, DIGITS), 1, beam_width=8), [partly])

    assert distribution.no_price == pytest.approx(0.1 + 0.9 * 0.5)
    assert distribution.is_silent
    assert distribution.median == 33.0


def test_a_model_that_overflows_says_no_price() -> None:
    decoder = DigitQuantiles((DIGITS, DIGITS), 1, beam_width=8)

    (distribution,), _ = read(decoder, [lambda path: np.full(VOCABULARY, math.nan)])

    assert distribution.no_price == 1.0
    assert math.isfinite(distribution.mean)


def without_loss(model: Model) -> Model:
    """The same model with nothing off the digits."""

    def follow(path: tuple[int, ...]) -> np.ndarray:
        own = model(path)[:10]
        return np.append(own - np.log(np.exp(own).sum()), [-math.inf] * 2)

    return follow


def in_pairs(model: Model) -> Model:
    """The same distribution from a vocabulary in which 00 to 99 are the tokens 100 to 199."""

    def follow(path: tuple[int, ...]) -> np.ndarray:
        if path:
            return model((*divmod(path[0] - 100, 10), *path[1:]))
        pairs = [model(())[first] + model((first,))[second] for first, second in itertools.product(range(10), repeat=2)]
        return np.append([-math.inf] * 100, pairs)

    return follow


@pytest.mark.parametrize("seed", range(5))
def test_digits_in_groups_are_read_as_digits_alone(seed: int) -> None:
    digits = without_loss(a_model(seed))

    (alone,), _ = read(DigitQuantiles((DIGITS,) * 3, 1, beam_width=100), [digits])
    (grouped,), _ = read(DigitQuantiles((np.arange(100, 200), DIGITS), 1, beam_width=100), [in_pairs(digits)])
    (whole,), _ = read(DigitQuantiles((np.arange(100, 200),), 1, beam_width=6), [in_pairs(digits)])
    (two,), _ = read(DigitQuantiles((DIGITS, DIGITS), 1, beam_width=10), [digits])

    assert grouped.quantiles == alone.quantiles
    assert grouped.mode == alone.mode
    assert grouped.no_price == pytest.approx(0, abs=1e-9)
    assert grouped.mean == pytest.approx(alone.mean, abs=grouped.mean_error + alone.mean_error)
    assert whole.quantiles == two.quantiles
    assert whole.mean == pytest.approx(two.mean, abs=two.mean_error + 1e-9)


@given(st.lists(st.floats(0.001, 1), min_size=10, max_size=10))
def test_one_position_is_the_distribution_itself(odds: list[float]) -> None:
    shares = np.array(odds) / sum(odds)

    decoder = DigitQuantiles((DIGITS,), 1, beam_width=8)

    (distribution,), slots = read(decoder, [lambda path: np.log(np.append(shares, [1e-30] * 2))])

    assert slots == 0
    assert are_quantiles(distribution.quantiles, shares)
    assert distribution.mean == pytest.approx((shares * np.arange(10)).sum())
    assert distribution.mean_error == 0.0
    assert shares[int(distribution.mode)] == pytest.approx(shares.max())  # of two that differ by rounding, either


def test_the_beam_needs_room_for_every_quantile() -> None:
    with pytest.raises(ValueError, match="beam_width is 5: 5 quantiles and the greedy path need more than that"):
        DigitQuantiles((DIGITS,), 1, beam_width=5)


def in_groups(price: int) -> tuple[int, ...]:
    """A plain price, its digits in pairs from the left: 427 is 42, 7 and a point, the tokens 142, 7 and 11."""
    text = str(price)
    pairs = [text[start : start + 2] for start in range(0, len(text), 2)]
    return (*(100 + int(pair) if len(pair) == 2 else int(pair) for pair in pairs), POINT)


TOKENS_BY_PRICE = {price: in_groups(price) for price in range(1000)}
TRIE = build_trie(TOKENS_BY_PRICE)


def a_large_model(seed: int, spread: float) -> Model:
    def follow(path: tuple[int, ...]) -> np.ndarray:
        logits = np.random.default_rng([seed, *path]).normal(scale=spread, size=200)
        return np.asarray(logits - np.log(np.exp(logits).sum()))

    return follow


def enumerate_trie(model: Model) -> tuple[np.ndarray, float]:
    """The share of each price, and the probability of leaving all prices at any point at which they part."""
    shares, left = np.ones(len(TOKENS_BY_PRICE)), 0.0
    probability: dict[tuple[int, ...], float] = {(): 1.0}
    prefixes = {tokens[:length] for tokens in TOKENS_BY_PRICE.values() for length in range(len(tokens))}
    for prefix in sorted(prefixes, key=len):
        below = {price: tokens for price, tokens in TOKENS_BY_PRICE.items() if tokens[: len(prefix)] == prefix}
        if len(below) == 1:
            continue
        options = {tokens[len(prefix)] for tokens in below.values()}
        odds = np.exp(model(prefix))
        total = sum(odds[token] for token in options)
        left += probability[prefix] * (1 - total)
        for token in options:
            probability[(*prefix, token)] = probability[prefix] * odds[token]
        for price, tokens in below.items():
            shares[price] *= odds[tokens[len(prefix)]] / total
    return shares, left


@pytest.mark.parametrize("spread", [0.5, 3.0])
def test_a_prefix_search_to_the_end_agrees_with_asking_for_every_price(spread: float) -> None:
    models = [a_large_model(seed, spread) for seed in range(3)]

    found, _ = read(
        PrefixSearch(
            build_trie(TOKENS_BY_PRICE), len(models), max_residual_mass=0, prefixes_per_step=7, max_prefixes=10_000
        ),
        models,
    )

    for model, distribution in zip(models, found, strict=True):
        shares, left = enumerate_trie(model)
        assert shares.sum() == pytest.approx(1)
        assert are_quantiles(distribution.quantiles, shares)
        assert distribution.mean == pytest.approx((shares * np.arange(1000)).sum(), rel=1e-9)
        assert distribution.no_price == pytest.approx(left, rel=1e-9)
        assert distribution.mode == shares.argmax()
        assert distribution.mode_is_certain
        assert (distribution.residual_mass, distribution.mean_error) == pytest.approx((0, 0), abs=1e-9)


def test_a_prefix_search_ends_once_the_residual_mass_is_small_enough() -> None:
    models = [a_large_model(seed, spread=3.0) for seed in range(3)]

    loose, few = read(PrefixSearch(TRIE, 3, max_residual_mass=0.2, prefixes_per_step=4, max_prefixes=10_000), models)
    tight, more = read(PrefixSearch(TRIE, 3, max_residual_mass=0.01, prefixes_per_step=4, max_prefixes=10_000), models)

    assert few < more
    for rough, model in zip(loose, models, strict=True):
        shares, _ = enumerate_trie(model)
        assert rough.residual_mass <= 0.2
        assert abs(rough.mean - (shares * np.arange(1000)).sum()) <= rough.mean_error
        # A quantile is off by no more than what is left, as a share.
        upto = np.cumsum(shares)
        for quantile, price in zip(QUANTILES, rough.quantiles, strict=True):
            assert upto[int(price)] >= quantile - rough.residual_mass
            assert upto[int(price)] - shares[int(price)] <= quantile + rough.residual_mass
    assert all(distribution.residual_mass <= 0.01 for distribution in tight)


def test_a_prefix_search_that_is_cut_short_reports_its_residual_mass() -> None:
    (distribution,), slots = read(
        PrefixSearch(TRIE, 1, max_residual_mass=0.0, prefixes_per_step=4, max_prefixes=8),
        [a_large_model(1, spread=0.5)],
    )

    assert slots == 8
    assert distribution.residual_mass > 0.3


def test_tokens_that_are_a_prefix_of_another_price_are_refused() -> None:
    with pytest.raises(ValueError, match="the tokens of 1 are a prefix of another price's"):
        build_trie({1: [1], 10: [1, 0]})
