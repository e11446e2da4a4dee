"""Exact price quantiles of many Items at once, for tokenizers whose digit tokens are in numeric order.

A price is written with one token per digit (`0227` has four positions with ten possible tokens each), or with one token
per group of digits (a single position with a thousand possible tokens if 0–999 are single tokens). At each position, a
quantile lies in the token at which the cumulative share crosses the quantile. The search follows these tokens from
position to position. Quantiles with a common prefix share its computation. The search also follows the most probable
other prefixes, which narrows the bounds of the mean.

Shape suffixes: B Items, K followed prefixes, D tokens at the current position, N = K · D continuations, Q quantiles,
and Q1 = Q + 1 with the greedy path last.
"""

import math

import numpy as np

from pricer.core.predictions import PROMPT, QUANTILES, DecodingStep, Distribution, renormalize

DigitTokens = tuple[np.ndarray, ...]
"""For each position of a price: the ids (D,) of its digit tokens, in numeric order."""

# If there is room, a prefix without a quantile is followed too: if it can change the mean by at least _WORTH_STEPS,
# or if its share is at least _WORTH_SHARE, because the mode may then have this prefix.
_WORTH_STEPS = 0.5
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
        # For each followed prefix: its digits as a number, its share of the distribution, and its probability. The
        # probability is lower than the share because of tokens that are no price. At first, only the empty prefix is
        # followed.
        self._digits_BK = np.zeros((items, 1), dtype=np.int64)
        self._share_BK = np.ones((items, 1))
        self._probability_BK = np.ones((items, 1))
        # The index (in K) of the prefix of each quantile and of the greedy path; and the position of each quantile
        # within its prefix, as a share of the prefix.
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
        """For each quantile, the continuation that contains it; last, the most probable continuation of the greedy
        path. The result (B, Q1) has indices in N.
        """
        own_BQ1D = shares_BKD[self._rows_B1, self._prefix_BQ1]
        greedy_B1 = own_BQ1D[:, -1:].argmax(axis=-1)
        own_BQD = own_BQ1D[:, :-1]
        cumulative_BQD = np.cumsum(own_BQD, axis=-1)
        cumulative_BQD[..., -1] = 1.0  # rounding might give 0.9999999, and leave a quantile beyond the last token
        digit_BQ = (cumulative_BQD < np.minimum(self._target_BQ, 1.0)[..., None]).sum(axis=-1)
        width_BQ = np.take_along_axis(own_BQD, digit_BQ[..., None], axis=-1)[..., 0]
        below_BQ = np.take_along_axis(cumulative_BQD, digit_BQ[..., None], axis=-1)[..., 0] - width_BQ
        # Only rounding puts a quantile into a token with a share of 0. Then any price with this prefix will do.
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
        """Choose the continuations (B, K) to follow: first those that contain a quantile, then the most probable ones.
        The others are dropped: they enter the mean with the middle of their price range.
        """
        is_needed_BN = np.zeros(share_BN.shape, dtype=bool)
        is_needed_BN[self._rows_B1, crossed_BQ1] = True
        # The number of prices that begin with a continuation.
        width = math.prod(len(tokens) for tokens in self._digit_tokens[self._position :])
        worth = min(_WORTH_SHARE, _WORTH_STEPS / ((width - 1) / 2))
        wanted_B = np.minimum((is_needed_BN | (share_BN >= worth)).sum(axis=1), self._beam_width)
        chosen_BK = np.argsort(-(share_BN + 2 * is_needed_BN), axis=1, kind="stable")[:, : int(wanted_B.max())]
        # An Item that needs fewer prefixes than others is padded with prefixes that do not count as followed. This
        # makes its result independent of the rest of the batch.
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
