"""Evaluations: one candidate's answers under one EvalSpec, scored item by item and summarised by metrics."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Literal

import numpy as np

from pricer.core.checkpoints import Candidate
from pricer.core.items import Item, Split
from pricer.core.metrics import DEFAULT_RULE, METRICS, Metric, ScoreRule, mean_interval, measure_all
from pricer.core.predictions import ESTIMATORS, Prediction
from pricer.core.units import PriceUnit

Scored = Split | Literal["data"]
"""Whose items are scored: the run's own, by split, or those of other data. No checkpoint is chosen by other data."""


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What must be equal for two Evaluations to be comparable.

    The first `limit` items of the split, or of the other data, are scored (None: all). `fallback` is the price that is
    imputed for an answer without a price. Prices are in `unit`, in steps of 10^-`decimals`. `hit_error` and `hit_share`
    are the limits of a hit, see ScoreRule. `precision` names the quantization and the compute dtype, and in 16 bits
    also the dtypes of adapter and logits. `residual_mass` is the share of a distribution that a search may ignore. It
    is None if distributions are computed completely or not computed.
    """

    data_fingerprint: str
    split: Scored
    limit: int | None
    prompt_fingerprint: str
    base: str
    base_revision: str
    precision: str
    estimator: str
    fallback: float
    unit: str
    decimals: int
    hit_error: float | None
    hit_share: float
    residual_mass: float | None = None

    @property
    def fingerprint(self) -> str:
        """A hash that changes with any field of the spec."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]

    @property
    def price_unit(self) -> PriceUnit:
        """The unit of all prices and errors."""
        return PriceUnit(self.unit, self.decimals)

    @property
    def rule(self) -> ScoreRule:
        """How answers are judged."""
        return ScoreRule(self.price_unit, self.hit_error, self.hit_share)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The Metrics of one candidate under one EvalSpec.

    `estimators` has one Metric for each estimator, with the estimator's name: its mean absolute error. It is empty if
    the predictions have no distributions.
    """

    candidate: Candidate
    spec: EvalSpec
    metrics: tuple[Metric, ...]
    estimators: tuple[Metric, ...] = ()

    @property
    def name(self) -> str:
        """The name of the candidate."""
        return self.candidate.name

    @property
    def is_complete(self) -> bool:
        """Whether it has every metric in METRICS. If not, it is computed again from the saved predictions."""
        return {metric.name for metric in self.metrics} >= METRICS.keys()

    def metric(self, name: str) -> Metric:
        """The metric of that name; a KeyError if there is none."""
        return {metric.name: metric for metric in self.metrics}[name]


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """The scored answers of one evaluation. Every column is (items,). All tables of an EvalSpec have the same item
    order.

    `price` is the true price in units. Errors are computed from `imputed`: the estimate, or the fallback if the
    answer has no price (`has_price` is false).
    """

    item_id: np.ndarray
    price: np.ndarray
    imputed: np.ndarray
    has_price: np.ndarray
    rule: ScoreRule = DEFAULT_RULE

    def __len__(self) -> int:
        return len(self.price)

    @property
    def error(self) -> np.ndarray:
        """Imputed − price: positive if the answer is too high."""
        error: np.ndarray = self.imputed - self.price
        return error

    @property
    def abs_error(self) -> np.ndarray:
        """|imputed − price|."""
        error: np.ndarray = np.abs(self.error)
        return error

    @cached_property
    def log_error(self) -> np.ndarray:
        """ln(imputed + step) − ln(price + step). With a fixed 1, it would hardly depend on prices below 1."""
        step = self.rule.unit.step
        error: np.ndarray = _log1p(self.imputed / step) - _log1p(self.price / step)
        return error

    @property
    def hit(self) -> np.ndarray:
        """Whether the answer is a hit by the rule. An answer without a price is never a hit."""
        return self.is_within(1)

    def is_within(self, times: float) -> np.ndarray:
        """Whether the answer is a hit with limits that are `times` as wide."""
        error, rule = self.abs_error, self.rule
        near: np.ndarray = error < times * rule.hit_share * self.price
        if rule.hit_error is not None:
            near |= error < times * rule.hit_error
        near &= self.has_price
        return near

    def has_items_of(self, other: "ScoreTable") -> bool:
        """Whether both have the same items at the same prices, in the same order."""
        return np.array_equal(self.item_id, other.item_id) and np.array_equal(self.price, other.price)

    def rows(self, chosen: np.ndarray) -> "ScoreTable":
        """The rows that a mask or an array of indices chooses."""
        item_id, price, imputed = self.item_id[chosen], self.price[chosen], self.imputed[chosen]
        return ScoreTable(item_id, price, imputed, self.has_price[chosen], self.rule)


def _log1p(column: np.ndarray) -> np.ndarray:
    # numpy's own log1p is faster, but rounds differently on different CPUs.
    return np.fromiter(map(math.log1p, column.tolist()), np.float64, len(column))


def score_predictions(
    predictions: Sequence[Prediction],
    items: Sequence[Item],
    fallback: float,
    estimator: str = "greedy",
    rule: ScoreRule = DEFAULT_RULE,
) -> ScoreTable:
    """Score one Prediction per Item by an estimator; rows are in the order of the items. `rule` affects only hits and
    logarithmic errors.

    An answer without a price counts as `fallback`, the training median. The median is the best constant answer,
    so a model gains nothing by withholding a price. Raises a ValueError unless items and Predictions match one to one:
    a missing answer must not make a checkpoint look better.
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
        rule=rule,
    )


def evaluate(
    candidate: Candidate, spec: EvalSpec, predictions: Sequence[Prediction], items: Sequence[Item]
) -> tuple[Evaluation, ScoreTable]:
    """Score one Prediction per Item by the spec's estimator, and compute all metrics. Raises as `score_predictions`."""
    table = score_predictions(predictions, items, spec.fallback, spec.estimator, spec.rule)
    estimators: tuple[Metric, ...] = ()
    if not candidate.is_baseline and all(prediction.distribution for prediction in predictions):
        errors = {name: score_predictions(predictions, items, spec.fallback, name).abs_error for name in ESTIMATORS}
        estimators = tuple(
            Metric(name, float(own.mean()), mean_interval(own), len(own), "lower") for name, own in errors.items()
        )
    return Evaluation(candidate, spec, measure_all(table), estimators), table
