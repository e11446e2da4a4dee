"""Values to arrange tests with: each is whole and plausible, and a test names only what it is about."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from pricer.config import RunConfig
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.comparison import Comparison, Difference
from pricer.core.evaluation import EvalSpec, Evaluation, ScoreTable
from pricer.core.items import Item, PromptTemplate, Split
from pricer.core.metrics import Metric
from pricer.core.predictions import Distribution, Prediction
from pricer.core.prices import PriceFormat
from pricer.stores.checkpoints import write_manifest
from pricer.stores.runs import Run, create_run

PLAIN = PriceFormat("plain")


class Killed(BaseException):
    """The end of the process, as far as the code can tell."""


TEMPLATE = PromptTemplate(
    question="What does this cost to the nearest dollar?", lead="Price is $", price_format=PLAIN, max_length=128
)

SPEC = EvalSpec(
    data_fingerprint="da7a",
    split=Split.VAL,
    limit=None,
    prompt_fingerprint="9a3e",
    base="builtin:base",
    base_revision="ba5e",
    precision="nf4 float32",
    estimator="greedy",
    fallback=100.0,
    unit="$",
    decimals=0,
    hit_error=40.0,
    hit_share=0.2,
)


def an_item(key: str = "a", price: float = 100.0, description: str = "A lamp", title: str | None = None) -> Item:
    return Item(key, description, price, title)


def a_spec(**changes: Any) -> EvalSpec:
    return replace(SPEC, **changes)


def a_checkpoint(step: int = 5, adapter: bytes = b"weights", **changes: Any) -> Checkpoint:
    """A checkpoint whose adapter file has these bytes."""
    checkpoint = Checkpoint(
        step=step,
        epoch=step / 10,
        base="builtin:base",
        base_revision="ba5e",
        prompt_fingerprint="9a3e",
        data_fingerprint="da7a",
        adapter_sha256=hashlib.sha256(adapter).hexdigest(),
        adapter_config_sha256=hashlib.sha256(b"{}").hexdigest(),
        answers=None,
    )
    return replace(checkpoint, **changes)


def a_saved_checkpoint(
    folder: Path, step: int = 5, adapter: bytes = b"weights", **changes: Any
) -> tuple[Path, Checkpoint]:
    """A folder as training hands it over: adapter, its config, manifest."""
    checkpoint = a_checkpoint(step, adapter, **changes)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_model.safetensors").write_bytes(adapter)
    (folder / "adapter_config.json").write_text("{}")
    write_manifest(folder, checkpoint)
    return folder, checkpoint


def a_run(
    steps: Sequence[int] = (),
    evaluations: Sequence[Evaluation] = (),
    *,
    name: str = "quickstart",
    config: RunConfig | None = None,
    **facts: Any,
) -> Run:
    """A run in runs/ of the current folder as training and scoring leave it, with checkpoints at these steps."""
    run = create_run(config or RunConfig(), name, name, facts)
    for step in steps:
        run.store.push(a_saved_checkpoint(Path("out"), step)[0], step)
    for evaluation in evaluations:
        add_evaluation(run, evaluation)
    return run


def add_evaluation(run: Run, evaluation: Evaluation) -> None:
    """Keep an evaluation with scores that have its MAE."""
    mae = evaluation.metric("mae")
    run.evaluations.add(evaluation.candidate.id or evaluation.name, evaluation, some_scores(mae.value, mae.n))


def an_evaluation(
    step: int | None, mae: float | None, spec: EvalSpec = SPEC, n: int = 50, hit_rate: float = 0.5, **changes: Any
) -> Evaluation:
    """The evaluation of the checkpoint at a step, or of the baseline `constant` where the step is None."""
    own = {name: changes.pop(name) for name in ("name", "id", "epoch") if name in changes}
    candidate = Candidate("constant") if step is None else Candidate.of(a_checkpoint(step))
    evaluation = Evaluation(
        candidate=replace(candidate, **own),
        spec=spec,
        metrics=(
            Metric("mae", mae, None if mae is None else (mae - 1, mae + 1), n, "lower"),
            *(Metric(name, 0.25, None, n, "lower") for name in ("median_ae", "rmsle", "r2", "mape")),
            Metric("hit_rate", hit_rate, (hit_rate - 0.1, hit_rate + 0.1), n, "higher"),
            Metric("no_price", 0.0, None, n, "lower"),
        ),
    )
    return replace(evaluation, **changes)


def a_score_table(imputed: Any, price: Any = 100.0, has_price: Any = True) -> ScoreTable:
    """Items 0000, 0001 … of these prices in dollars with these imputed prices; one value stands for all."""
    imputed = np.asarray(imputed, dtype=np.float64)
    item_id = np.array([f"{index:04d}" for index in range(len(imputed))], dtype=np.str_)
    price, has_price = (np.broadcast_to(np.asarray(column), imputed.shape) for column in (price, has_price))
    return ScoreTable(item_id, price.astype(np.float64), imputed, has_price.astype(np.bool_))


def a_difference(
    step: int,
    worse_by: float,
    interval: tuple[float, float],
    p_best: float,
    candidate: Candidate | None = None,
    *,
    is_best: bool = False,
) -> Difference:
    """The checkpoint at a step compared to the best of the others. Above 0, its interval rules it out as the best."""
    may_be_best = interval[0] <= 0
    return Difference(candidate or Candidate.of(a_checkpoint(step)), worse_by, interval, is_best, may_be_best, p_best)


def a_comparison(*differences: Difference, **changes: Any) -> Comparison:
    return replace(Comparison(differences, 0.5, 41.25, (36.0, 48.5), 1_234, resamples=10_000, seed=0), **changes)


def some_scores(mae: float | None = 10.0, n: int = 50) -> ScoreTable:
    """Items of $100 for each of which a checkpoint says so much more."""
    return a_score_table(np.full(n, 100 + (mae or 0.0)))


def a_distribution(median: float = 100.0, no_price: float = 0.0, **changes: Any) -> Distribution:
    """A distribution around its median: 80 % within half of it, 95 % within nine tenths."""
    quantiles = tuple(median * share for share in (0.1, 0.5, 1.0, 1.5, 1.9))
    return replace(Distribution(quantiles, median, True, median, 0.0, no_price, 0.0), **changes)


def predictions_of(items: Sequence[Item], prices: Sequence[float | None]) -> list[Prediction]:
    return [Prediction(item.id, "", price) for item, price in zip(items, prices, strict=True)]
