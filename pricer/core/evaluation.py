"""Evaluations: the answers of one candidate, scored item by item and summed up, under one EvalSpec."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from pricer.core.checkpoints import Candidate
from pricer.core.items import Item, Split
from pricer.core.metrics import METRICS, Metric, mean_interval, measure_all
from pricer.core.predictions import ESTIMATORS, Prediction


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What must be equal for two Evaluations to be comparable.

    The first `limit` items of the split are scored (None: all). `fallback` is the price in dollars that is imputed
    where an answer has none. `precision` is the quantization and the compute dtype and, in 16 bits, the dtypes of
    adapter and logits. `residual_mass` is the share of a distribution that may be ignored; None where it is computed
    whole, or not at all.
    """

    data_fingerprint: str
    split: Split
    limit: int | None
    prompt_fingerprint: str
    base: str
    base_revision: str
    precision: str
    estimator: str
    fallback: float
    residual_mass: float | None = None

    @property
    def fingerprint(self) -> str:
        """Changes with any part of the spec."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The Metrics of one candidate under one EvalSpec. `estimators` has the mean absolute error by each estimator,
    named after it; it is empty without distributions.
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
        """Whether it has every metric of the table. If not, it is made again from the saved predictions."""
        return {metric.name for metric in self.metrics} >= METRICS.keys()

    def metric(self, name: str) -> Metric:
        """The metric of that name; a KeyError if there is none."""
        return {metric.name: metric for metric in self.metrics}[name]


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """The answers of one evaluation, scored. Every column is (items,); the order of items is the same for an EvalSpec.

    `price` is the true price in dollars. `imputed` is the price that errors are computed from: the estimate, or the
    fallback where the answer has no price (`has_price` is false).
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
    """Score one Prediction per Item by an estimator; rows are in the order of the items.

    An answer without a price is imputed as `fallback` dollars, the training median. This is the best constant answer,
    so saying nothing does not pay ($0 would flatter cheap items). Items without a Prediction, or the reverse, are a
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


def evaluate(
    candidate: Candidate, spec: EvalSpec, predictions: Sequence[Prediction], items: Sequence[Item]
) -> tuple[Evaluation, ScoreTable]:
    """Score one Prediction per Item by the spec's estimator, and sum up. Raises what `score_predictions` raises."""
    table = score_predictions(predictions, items, spec.fallback, spec.estimator)
    estimators: tuple[Metric, ...] = ()
    if not candidate.is_baseline and all(prediction.distribution for prediction in predictions):
        errors = {name: score_predictions(predictions, items, spec.fallback, name).abs_error for name in ESTIMATORS}
        estimators = tuple(
            Metric(name, float(own.mean()), mean_interval(own), len(own), "lower") for name, own in errors.items()
        )
    return Evaluation(candidate, spec, measure_all(table), estimators), table
