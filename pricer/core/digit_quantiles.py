"""Exact quantiles of many Items at once, where the order of digit tokens is numeric order.

A price is written as digit tokens: one per digit (`0227`: four positions with ten tokens each), or one per group of
digits (one position with a thousand tokens where 0–999 are single tokens). A quantile is found by following, position
after position, the token in which the cumulative share crosses it. Quantiles with a common prefix share its
computation. The most probable other prefixes are followed beside them, which narrows the bounds of the mean.

Shape suffixes: B Items, K prefixes that are followed, D tokens of the current position, N = K · D continuations, Q
quantiles, and Q1 = Q + 1 with the greedy path last.
"""

import math

import numpy as np

from pricer.core.predictions import PROMPT, QUANTILES, DecodingStep, Distribution, renormalize

DigitTokens = tuple[np.ndarray, ...]
"""For each position of a price: the token ids (D,) of its digits (or groups of digits), in numeric order."""

# A prefix that leads to no quantile is followed, if there is room, where it may move the mean by so many dollars, or
# where its share is so large that the mode may well be one of its prices.
_WORTH_DOLLARS = 0.5
_WORTH_SHARE = 0.1


class DigitQuantiles:
    """The PriceDecoder for digit tokens. It follows at most `beam_width` prefixes of each Item at a time."""

    def __init__(self, digit_tokens: DigitTokens, items: int, beam_width: int) -> None:
        if not digit_tokens or beam_width <= len(QUANTILES):
            raise ValueError(
                f"beam_width is {beam_width}: {len(QUANTILES)} quantiles and the greedy path need more than that"
            )
        self.first_candidates = digit_tokens[0]
        self._digit_tokens = digit_tokens
        self._position = 0
        self._beam_width = beam_width
        # The slot of the first prefix in the beam.
        self._first_slot = PROMPT
        self._rows_B1 = np.arange(items)[:, None]
        # The prefixes that are followed: their digits as a number, their share of the distribution, and their
        # probability, which is lower by the mass that left the prices on the way. At first there is the empty prefix.
        self._digits_BK = np.zeros((items, 1), dtype=np.int64)
        self._share_BK = np.ones((items, 1))
        self._probability_BK = np.ones((items, 1))
        # For each quantile and for the greedy path the index (in K) of its prefix; for each quantile its position
        # within the prefix, as a share of it.
        self._prefix_BQ1 = np.zeros((items, len(QUANTILES) + 1), dtype=np.int64)
        self._target_BQ = np.tile(np.array(QUANTILES), (items, 1))
        self._mean_B = np.zeros(items)
        self._mean_error_B = np.zeros(items)
        self._no_price_B = np.zeros(items)
        self._largest_dropped_B = np.zeros(items)

    def advance(self, log_probabilities: np.ndarray) -> DecodingStep | list[Distribution]:
        """See PriceDecoder; `log_probabilities` are (B, K, D)."""
        shares_BKD, on_prices_BK = renormalize(log_probabilities)
        self._no_price_B += (self._probability_BK * (1 - on_prices_BK)).sum(axis=1)
        crossed_BQ1 = self._find_crossings(shares_BKD)
        tokens_D = self._digit_tokens[self._position]
        base = len(tokens_D)
        digits_BN = (self._digits_BK[:, :, None] * base + np.arange(base)).reshape(len(self._rows_B1), -1)
        share_BN = (self._share_BK[:, :, None] * shares_BKD).reshape(digits_BN.shape)
        self._position += 1
        if self._position == len(self._digit_tokens):
            return self._results(digits_BN, share_BN, crossed_BQ1)
        probability_BN = ((self._probability_BK * on_prices_BK)[:, :, None] * shares_BKD).reshape(digits_BN.shape)
        chosen_BK = self._choose_beam(digits_BN, share_BN, probability_BN, crossed_BQ1)
        parents_BK = self._first_slot + chosen_BK // base
        self._first_slot += shares_BKD.shape[1]
        return DecodingStep(
            parents_BK, tokens_D[chosen_BK % base], self._digit_tokens[self._position], self._prefix_BQ1[:, -1]
        )

    def _find_crossings(self, shares_BKD: np.ndarray) -> np.ndarray:
        """The continuation (B, Q1; an index in N) in which each quantile lies, and the most probable one on the greedy
        path.
        """
        own_BQ1D = shares_BKD[self._rows_B1, self._prefix_BQ1]
        greedy_B1 = own_BQ1D[:, -1:].argmax(axis=-1)
        own_BQD = own_BQ1D[:, :-1]
        cumulative_BQD = np.cumsum(own_BQD, axis=-1)
        cumulative_BQD[..., -1] = 1.0  # rounding must not leave 0.9999999, with a quantile beyond it
        digit_BQ = (cumulative_BQD < np.minimum(self._target_BQ, 1.0)[..., None]).sum(axis=-1)
        width_BQ = np.take_along_axis(own_BQD, digit_BQ[..., None], axis=-1)[..., 0]
        below_BQ = np.take_along_axis(cumulative_BQD, digit_BQ[..., None], axis=-1)[..., 0] - width_BQ
        # A quantile lies in a token of no width only by rounding; then any price below it will do.
        self._target_BQ = np.where(
            width_BQ > 0, (self._target_BQ - below_BQ) / np.where(width_BQ > 0, width_BQ, 1.0), 1.0
        )
        crossed_BQ1: np.ndarray = self._prefix_BQ1 * shares_BKD.shape[-1] + np.concatenate(
            [digit_BQ, greedy_B1], axis=1
        )
        return crossed_BQ1

    def _choose_beam(
        self, digits_BN: np.ndarray, share_BN: np.ndarray, probability_BN: np.ndarray, crossed_BQ1: np.ndarray
    ) -> np.ndarray:
        """The continuations (B, K) to follow: those with a quantile in them, then the most probable. All others enter
        the mean as the middle of the prices they may become.
        """
        is_needed_BN = np.zeros(share_BN.shape, dtype=bool)
        is_needed_BN[self._rows_B1, crossed_BQ1] = True
        # Each continuation stands for so many prices.
        width = math.prod(len(tokens) for tokens in self._digit_tokens[self._position :])
        worth = min(_WORTH_SHARE, _WORTH_DOLLARS / ((width - 1) / 2))
        wanted_B = np.minimum((is_needed_BN | (share_BN >= worth)).sum(axis=1), self._beam_width)
        chosen_BK = np.argsort(-(share_BN + 2 * is_needed_BN), axis=1, kind="stable")[:, : int(wanted_B.max())]
        # An Item that wants fewer prefixes than others is padded with some that count as not followed. So its result
        # does not depend on the rest of the batch.
        is_followed_BK = np.arange(chosen_BK.shape[1]) < wanted_B[:, None]
        self._digits_BK = digits_BN[self._rows_B1, chosen_BK]
        self._share_BK = share_BN[self._rows_B1, chosen_BK] * is_followed_BK
        self._probability_BK = probability_BN[self._rows_B1, chosen_BK] * is_followed_BK
        dropped_BN = share_BN.copy()
        dropped_BN[self._rows_B1, chosen_BK] -= self._share_BK
        self._mean_B += (dropped_BN * (digits_BN * width + (width - 1) / 2)).sum(axis=1)
        self._mean_error_B += dropped_BN.sum(axis=1) * (width - 1) / 2
        self._largest_dropped_B = np.maximum(self._largest_dropped_B, dropped_BN.max(axis=1))
        self._prefix_BQ1 = (chosen_BK[:, None, :] == crossed_BQ1[:, :, None]).argmax(axis=-1)
        return chosen_BK

    def _results(self, prices_BN: np.ndarray, share_BN: np.ndarray, crossed_BQ1: np.ndarray) -> list[Distribution]:
        quantiles_BQ = prices_BN[self._rows_B1, crossed_BQ1[:, :-1]].astype(float)
        mode_B1 = share_BN.argmax(axis=1)[:, None]
        mode_B, highest_B = prices_BN[self._rows_B1, mode_B1][:, 0], share_BN[self._rows_B1, mode_B1][:, 0]
        mean_B = self._mean_B + (share_BN * prices_BN).sum(axis=1)
        return [
            Distribution(
                quantiles=tuple(quantiles_BQ[row].tolist()),
                mode=float(mode_B[row]),
                mode_is_certain=bool(highest_B[row] >= self._largest_dropped_B[row]),
                mean=float(mean_B[row]),
                mean_error=float(self._mean_error_B[row]),
                no_price=float(self._no_price_B[row]),
                residual_mass=0.0,
            )
            for row in range(len(prices_BN))
        ]
