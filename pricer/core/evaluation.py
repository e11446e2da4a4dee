"""Evaluations: one candidate under one EvalSpec, which holds fixed everything but the weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.candidates import Candidate
from pricer.core.items import Item, Split
from pricer.core.metrics import METRICS, Metric, mean_interval, measure_all
from pricer.core.predictions import ESTIMATORS, Prediction
from pricer.core.scores import ScoreTable, score_predictions


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What must be equal for two Evaluations to be comparable.

    `limit` is the number of items that are scored, the first ones of the split (None: all). `fallback` is the price in
    dollars that is imputed where an answer has none. `precision` is the quantization and the compute dtype and, in 16
    bits, the dtypes of adapter and logits. `estimator` is what is scored of each distribution. `residual_mass` is the
    share of a distribution that may be left out of account; None where it is read whole, or not at all.
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
        """Short name of the spec: changes with any part of it."""
        return hashlib.sha256(json.dumps(asdict(self), sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The Metrics of one candidate under one EvalSpec.

    `estimators` has the mean absolute error by each estimator, named after it; empty where the answers are not
    distributions.
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

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "spec_fingerprint": self.spec.fingerprint}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Evaluation":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        return cls(
            candidate=Candidate.from_json(record["candidate"]),
            spec=EvalSpec(**{**record["spec"], "split": Split(record["spec"]["split"])}),
            metrics=tuple(map(Metric.from_json, record["metrics"])),
            estimators=tuple(map(Metric.from_json, record["estimators"])),
        )


def evaluate(
    candidate: Candidate, spec: EvalSpec, predictions: Sequence[Prediction], items: Sequence[Item]
) -> tuple[Evaluation, ScoreTable]:
    """Judge one Prediction per Item by the spec's estimator, and sum up. A ValueError as by `score_predictions`."""
    table = score_predictions(predictions, items, spec.fallback, spec.estimator)
    estimators: tuple[Metric, ...] = ()
    if not candidate.is_baseline and all(prediction.distribution for prediction in predictions):
        by_estimator = {name: score_predictions(predictions, items, spec.fallback, name) for name in ESTIMATORS}
        estimators = tuple(_mean_abs_error(own, name) for name, own in by_estimator.items())
    return Evaluation(candidate, spec, measure_all(table), estimators), table


def _mean_abs_error(table: ScoreTable, name: str) -> Metric:
    return Metric(name, float(table.abs_error.mean()), mean_interval(table.abs_error), len(table), "lower")
