"""Evaluations: one Checkpoint (or baseline) under one EvalSpec, which holds fixed everything but the weights."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.checkpoints import Checkpoint
from pricer.core.items import Item, Split
from pricer.core.metrics import METRICS, Metric, Score, mean_abs_error, score, summarise
from pricer.core.predictions import ESTIMATORS, Prediction


@dataclass(frozen=True, slots=True)
class EvalSpec:
    """What must be equal for two Evaluations to be comparable.

    `limit` is the number of items of the split that are scored, the first ones (None: all). `fallback` is the price in
    dollars that an answer without a price is charged as. `precision` is quantization, compute dtype and, in 16 bits,
    that of adapter and logits. `estimator` is what is scored of each distribution; `unexplored` the share of it that
    may be left out of account, None where it is read whole, or not at all.
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
        parts = asdict(self)
        if self.residual_mass is None:
            del parts["residual_mass"]  # specs had no such part once, and keep the names they had
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:12]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """The Metrics of one Checkpoint under one EvalSpec. A baseline has a name and neither step nor revision.

    `estimators` has the mean absolute error by each estimator, named after it; empty where there is but one answer.
    `members` are the steps that a soup is the average of, the last of them its `step`; empty of what was trained.
    """

    name: str
    step: int | None
    revision: str | None
    epoch: float | None
    spec: EvalSpec
    metrics: tuple[Metric, ...]
    estimators: tuple[Metric, ...] = ()
    members: tuple[int, ...] = ()

    @property
    def is_complete(self) -> bool:
        """Whether it has every metric of today. An older one is made again, from the predictions that were saved."""
        return {metric.name for metric in self.metrics} >= set(METRICS)

    def metric(self, name: str) -> Metric:
        """The metric of that name; a KeyError if there is none."""
        return {metric.name: metric for metric in self.metrics}[name]

    def to_json(self) -> dict[str, Any]:
        """As JSON values."""
        record = {**asdict(self), "spec_fingerprint": self.spec.fingerprint}
        return record if self.members else {name: value for name, value in record.items() if name != "members"}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Evaluation":
        """Read back what `to_json` wrote; KeyError, TypeError or ValueError where it did not."""
        spec = EvalSpec(**{**record["spec"], "split": Split(record["spec"]["split"])})
        metrics = _metrics(record["metrics"])
        estimators = _metrics(record.get("estimators", ()))
        return cls(
            name=record["name"],
            step=record["step"],
            revision=record["revision"],
            epoch=record["epoch"],
            spec=spec,
            metrics=metrics,
            estimators=estimators,
            members=tuple(record.get("members", ())),
        )


def _metrics(records: Sequence[Mapping[str, Any]]) -> tuple[Metric, ...]:
    return tuple(
        Metric(**{**metric, "interval": tuple(metric["interval"]) if metric["interval"] else None})
        for metric in records
    )


def judge(
    spec: EvalSpec, predictions: Sequence[Prediction], items: Sequence[Item], estimator: str | None = None
) -> list[Score]:
    """Score one Prediction per Item, in the order of the items, by the spec's estimator or another. Items without a
    Prediction, or the reverse, are a ValueError: a missing answer must not make a checkpoint look better.
    """
    by_id = {prediction.item_id: prediction for prediction in predictions}
    if not len(by_id) == len(predictions) == len(items) or by_id.keys() != {item.id for item in items}:
        raise ValueError(f"{len(predictions)} predictions do not match {len(items)} items")
    return [score(by_id[item.id], item, spec.fallback, estimator or spec.estimator) for item in items]


def evaluate(
    subject: Checkpoint | str, spec: EvalSpec, predictions: Sequence[Prediction], items: Sequence[Item]
) -> Evaluation:
    """Score one Prediction per Item and sum up; a ValueError as by `judge`."""
    metrics = summarise(judge(spec, predictions, items))
    if isinstance(subject, str):
        return Evaluation(subject, None, None, None, spec, metrics)
    estimators: tuple[Metric, ...] = ()
    if all(prediction.distribution for prediction in predictions):
        estimators = tuple(
            mean_abs_error(judge(spec, predictions, items, estimator), estimator) for estimator in ESTIMATORS
        )
    return Evaluation(
        name=subject.name,
        step=subject.step,
        revision=subject.id,
        epoch=subject.epoch,
        spec=spec,
        metrics=metrics,
        estimators=estimators,
        members=subject.member_steps,
    )
