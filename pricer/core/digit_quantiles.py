"""Walking down the digits: exact quantiles of many Items at once, where digit order is numeric order.

A price is written in levels: one digit each (`0227`, four levels of ten), or a group of digits (one level of a thousand
where 0–999 are single tokens). The options of a level are in numeric order, so the price at a quantile is found by
following, level after level, the option in which the cumulative share crosses it; nothing is enumerated. Quantiles that
share a beginning share its computation, and the likeliest other beginnings are followed beside them: with each the mean
is known better.
"""

import math

import numpy as np

from pricer.core.price_distribution import PROMPT, QUANTILES, Distribution, Step, shares_of

# How prices are written: of each level the token ids (n,) of its options, in numeric order.
Levels = tuple[np.ndarray, ...]

# A beginning that no quantile leads through is followed, if there is room, where it may move the mean by so many
# dollars, or has so large a share that the mode may well lie in it.
_WORTH_DOLLARS = 0.5
_WORTH_SHARE = 0.1


class Walk:
    """The walk of a batch of Items down the levels, at most `most` beginnings of each Item at a time."""

    def __init__(self, levels: Levels, items: int, most: int) -> None:
        if not levels or most <= len(QUANTILES):
            raise ValueError(f"{len(QUANTILES)} quantiles and the likeliest need more than {most} places")
        self.first = levels[0]
        self._levels = levels
        self._depth = 0
        self._most = most
        # Place in which the places of the last step begin.
        self._start = PROMPT
        self._rows = np.arange(items)[:, None]
        # Of each beginning that is followed: its digits as a number, its share of the distribution, and its
        # probability, which is less by what lies on no price before it. At first there is the empty one.
        self._digits = np.zeros((items, 1), dtype=np.int64)
        self._share = np.ones((items, 1))
        self._probability = np.ones((items, 1))
        # The place of each quantile's beginning and, last, of the one by the likeliest option each time; and what share
        # of a quantile's beginning lies below it.
        self._place = np.zeros((items, len(QUANTILES) + 1), dtype=np.int64)
        self._target = np.tile(np.array(QUANTILES), (items, 1))
        self._mean = np.zeros(items)
        self._mean_error = np.zeros(items)
        self._no_price = np.zeros(items)
        self._likeliest_left = np.zeros(items)

    def step(self, log_probabilities: np.ndarray) -> Step | list[Distribution]:
        """As Reading says."""
        shares, on_prices = shares_of(log_probabilities)
        self._no_price += (self._probability * (1 - on_prices)).sum(axis=1)
        crossed = self._cross(shares)
        level = self._levels[self._depth]
        digits = (self._digits[:, :, None] * len(level) + np.arange(len(level))).reshape(len(self._rows), -1)
        share = (self._share[:, :, None] * shares).reshape(digits.shape)
        self._depth += 1
        if self._depth == len(self._levels):
            return self._results(digits, share, crossed)
        probability = (self._probability * on_prices)[:, :, None] * shares
        places = shares.shape[1]
        chosen = self._choose(digits, share, probability.reshape(digits.shape), crossed)
        parents = self._start + chosen // len(level)
        self._start += places
        return Step(parents, level[chosen % len(level)], self._levels[self._depth], self._place[:, -1])

    def _cross(self, shares: np.ndarray) -> np.ndarray:
        """The option (items, quantiles + 1) in which each quantile lies, and the likeliest, over all places counted."""
        size = shares.shape[-1]
        own = shares[self._rows, self._place]
        likeliest = own[:, -1:].argmax(axis=-1)
        own = own[:, :-1]
        cumulative = np.cumsum(own, axis=-1)
        cumulative[..., -1] = 1.0  # and not 0.9999999, with a quantile beyond it
        option = (cumulative < np.minimum(self._target, 1.0)[..., None]).sum(axis=-1)
        chosen = option[..., None]
        width = np.take_along_axis(own, chosen, axis=-1)[..., 0]
        below = np.take_along_axis(cumulative, chosen, axis=-1)[..., 0] - width
        # An option of no width is met only by rounding; anything in it will do.
        self._target = np.where(width > 0, (self._target - below) / np.where(width > 0, width, 1.0), 1.0)
        crossed: np.ndarray = self._place * size + np.concatenate([option, likeliest], axis=1)
        return crossed

    def _choose(
        self, digits: np.ndarray, share: np.ndarray, probability: np.ndarray, crossed: np.ndarray
    ) -> np.ndarray:
        """The beginnings that are followed: those that are due, and then the likeliest. What is left counts in the mean
        as the middle of the prices it may become.
        """
        is_due = np.zeros(share.shape, dtype=bool)
        is_due[self._rows, crossed] = True
        width = math.prod(len(level) for level in self._levels[self._depth :])
        worth = min(_WORTH_SHARE, _WORTH_DOLLARS / ((width - 1) / 2))
        wanted = np.minimum((is_due | (share >= worth)).sum(axis=1), self._most)
        chosen = np.argsort(-(share + 2 * is_due), axis=1, kind="stable")[:, : int(wanted.max())]
        # An Item that wants fewer than others is filled up with what counts as not followed: its result does not depend
        # on who else is in the batch.
        is_followed = np.arange(chosen.shape[1]) < wanted[:, None]
        self._digits = digits[self._rows, chosen]
        self._share = share[self._rows, chosen] * is_followed
        self._probability = probability[self._rows, chosen] * is_followed
        left = share.copy()
        left[self._rows, chosen] -= self._share
        self._mean += (left * (digits * width + (width - 1) / 2)).sum(axis=1)
        self._mean_error += left.sum(axis=1) * (width - 1) / 2
        self._likeliest_left = np.maximum(self._likeliest_left, left.max(axis=1))
        self._place = (chosen[:, None, :] == crossed[:, :, None]).argmax(axis=-1)
        return chosen

    def _results(self, prices: np.ndarray, share: np.ndarray, crossed: np.ndarray) -> list[Distribution]:
        quantiles = prices[self._rows, crossed[:, :-1]].astype(float)
        likeliest = share.argmax(axis=1)[:, None]
        mode, highest = prices[self._rows, likeliest][:, 0], share[self._rows, likeliest][:, 0]
        mean = self._mean + (share * prices).sum(axis=1)
        return [
            Distribution(
                quantiles=tuple(quantiles[row].tolist()),
                mode=float(mode[row]),
                mode_is_certain=bool(highest[row] >= self._likeliest_left[row]),
                mean=float(mean[row]),
                mean_error=float(self._mean_error[row]),
                no_price=float(self._no_price[row]),
                unexplored=0.0,
            )
            for row in range(len(prices))
        ]
