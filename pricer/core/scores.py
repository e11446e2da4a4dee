"""Scores: how far off one evaluation's answers are, item by item, in columns."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from pricer.core.items import Item
from pricer.core.predictions import Prediction


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """The answers of one evaluation, judged. Every column is (items,), in the order of the items.

    `price` is the true price in dollars. `imputed` is the price that errors are computed from: the estimate, or the
    fallback where the answer has no price (`has_price` is false). Under one EvalSpec the items are the same, in the
    same order.
    """

    item_id: np.ndarray
    price: np.ndarray
    imputed: np.ndarray
    has_price: np.ndarray

    def __len__(self) -> int:
        return len(self.price)

    @property
    def error(self) -> np.ndarray:
        """Imputed − price, in dollars: above 0 where the answer is too dear."""
        error: np.ndarray = self.imputed - self.price
        return error

    @property
    def abs_error(self) -> np.ndarray:
        """|imputed − price| in dollars."""
        error: np.ndarray = np.abs(self.error)
        return error

    @cached_property
    def log_error(self) -> np.ndarray:
        """ln(imputed + 1) − ln(price + 1)."""
        error: np.ndarray = _log1p(self.imputed) - _log1p(self.price)
        return error

    @property
    def hit(self) -> np.ndarray:
        """Whether the error is below $40 or below 20 % of the price; never without a price in the answer."""
        hit: np.ndarray = self.has_price & ((self.abs_error < 40) | (self.abs_error < 0.2 * self.price))
        return hit

    def rows(self, chosen: np.ndarray) -> "ScoreTable":
        """The rows that a mask or an array of indices chooses."""
        return ScoreTable(self.item_id[chosen], self.price[chosen], self.imputed[chosen], self.has_price[chosen])


def _log1p(column: np.ndarray) -> np.ndarray:
    # numpy's own log1p is faster, but rounds differently on different CPUs.
    return np.fromiter(map(math.log1p, column.tolist()), np.float64, len(column))


def score_predictions(
    predictions: Sequence[Prediction], items: Sequence[Item], fallback: float, estimator: str = "greedy"
) -> ScoreTable:
    """Judge one Prediction per Item by an estimator; rows are in the order of the items.

    An answer without a price is imputed as `fallback` dollars, the training median: the best constant answer, so saying
    nothing neither pays ($0 would flatter cheap items) nor vanishes. Items without a Prediction, or the reverse, are a
    ValueError: a missing answer must not make a checkpoint look better.
    """
    by_id = {prediction.item_id: prediction for prediction in predictions}
    if not len(by_id) == len(predictions) == len(items) or by_id.keys() != {item.id for item in items}:
        raise ValueError(f"{len(predictions)} predictions do not match {len(items)} items")
    estimates = [by_id[item.id].estimate(estimator) for item in items]
    return ScoreTable(
        item_id=np.array([item.id for item in items], dtype=np.str_),
        price=np.array([item.price for item in items], dtype=np.float64),
        imputed=np.array([fallback if one is None else one for one in estimates], dtype=np.float64),
        has_price=np.array([one is not None for one in estimates], dtype=np.bool_),
    )
