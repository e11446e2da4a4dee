"""Do more regressors beside the picked checkpoint lower its error? Neighbours, ridge, both, other checkpoints.

    python benchmarks/ensembles.py RUN_FOLDER

The run needs `pricer eval --all-checkpoints` with each split, and `pricer pick`.

A blend is the weighted geometric mean of price + step over the model's estimate and the estimates of others. Weights
and the number of neighbours minimise the mean absolute error: for a validation item on the other nine tenths of the
validation items, for test items on all validation items. A weight of 0, which leaves the model as it is, may win.
Intervals are percentiles of the paired bootstrap over items.
"""

import itertools
import logging
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.commands.parts.setup import Setup, load_base_of, prepare
from pricer.core.checkpoints import BEST, Checkpoint
from pricer.core.evaluation import ScoreTable
from pricer.core.items import Item, Split
from pricer.ml.adapters import AdapterSwitch
from pricer.ml.baselines import predict_with_ridge
from pricer.ml.predict import embed_prompts
from pricer.stores.runs import Run

NEIGHBOURS = (3, 5, 10, 20, 40)
WEIGHTS = np.linspace(0, 1, 21)
FOLDS, SHUFFLES, RESAMPLES = 10, 5, 20_000
HELD_OUT = (Split.VAL, Split.TEST)

# One estimate per item of each split.
Estimates = dict[Split, np.ndarray]


@dataclass(frozen=True)
class Candidate:
    """Rows of estimates (ways, items) for each split, and the way that each validation fold would choose."""

    name: str
    ways: dict[Split, np.ndarray]
    labels: Sequence[str]


def main() -> None:
    """Print one row for each candidate."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    run = Run(Path(sys.argv[1]).resolve())
    setup = prepare(run.config())
    picked = run.store.tagged(BEST)
    assert picked is not None, "pricer pick comes first"
    tables = {split: read_scores(run, setup, picked.id, split) for split in HELD_OUT}
    prices = {split: table.price for split, table in tables.items()}
    model = {split: table.imputed for split, table in tables.items()}
    step = setup.answers.price_format.price_unit.step
    print(f"{run.name}, {picked.name}: mean absolute error of {len(prices[Split.VAL])} validation items, ", end="")
    print(f"{len(prices[Split.TEST])} test items; (difference to the model, 95 % interval)")
    report = Report(prices, model)
    report.add(Candidate("the model alone", {s: model[s][None] for s in HELD_OUT}, [""]))
    held_out = {split: setup.items.items(split) for split in HELD_OUT}
    ridge = {s: np.array(predict_with_ridge(setup.items.train, held_out[s], step))[None] for s in HELD_OUT}
    rest: dict[str, tuple[dict[Split, np.ndarray], list[str]]] = {"TF-IDF + ridge": (ridge, ["ridge"])}
    for name, adapter in (("the untuned base", None), ("the picked adapter", run.store.fetch(picked))):
        near = find_neighbours(run, setup, adapter, step)
        rest[f"neighbours by {name}"] = near, [f"k = {k}" for k in NEIGHBOURS]
    last = rest[f"neighbours by {name}"]
    for name, (estimates, labels) in rest.items():
        report.add(Candidate(f"{name} alone", estimates, labels))
    for name, (estimates, labels) in rest.items():
        report.add(blend(f"the model and {name}", model, [(estimates, labels)], step))
    report.add(blend("the model, ridge and neighbours", model, [(ridge, ["ridge"]), last], step))
    report.add(scale(model, step))
    report.add(mean_of_checkpoints(run, setup, picked, step))


def read_scores(run: Run, setup: Setup, name: str, split: Split) -> ScoreTable:
    """The saved scores of a checkpoint."""
    found = run.evaluations.scores(name, setup.spec(split, None))
    assert found is not None, f"{name} was not scored on {split}"
    return found


def find_neighbours(run: Run, setup: Setup, adapter: Path | None, step: float) -> dict[Split, np.ndarray]:
    """The geometric mean of price + step over the nearest training items, for each number of neighbours. Items are near
    if the cosine of their embeddings, with the mean of the training items taken off, is high.
    """
    switch = AdapterSwitch(load_base_of(setup, run))
    if adapter:
        switch.use(adapter)
    switch.model.eval()

    def embed(items: Sequence[Item]) -> np.ndarray:
        return embed_prompts(switch.model, setup.prompts(items), setup.batch_tokens).astype(np.float64)

    train = embed(setup.items.train)
    centre = train.mean(axis=0)
    logs = np.log(np.array([item.price for item in setup.items.train]) + step)

    def normalize(embeddings: np.ndarray) -> np.ndarray:
        centred = embeddings - centre
        normalized: np.ndarray = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return normalized

    train = normalize(train)
    found = {}
    for split in HELD_OUT:
        order = np.argsort(-(normalize(embed(setup.items.items(split))) @ train.T), axis=1, kind="stable")
        found[split] = np.stack([np.exp(logs[order[:, :k]].mean(axis=1)) - step for k in NEIGHBOURS])
    return found


def blend(
    name: str, model: Estimates, others: Sequence[tuple[dict[Split, np.ndarray], Sequence[str]]], step: float
) -> Candidate:
    """Every weighted geometric mean of the model and one way of each of the others."""
    ways: dict[Split, list[np.ndarray]] = {split: [] for split in HELD_OUT}
    labels = []
    for chosen in itertools.product(*(range(len(labels)) for _, labels in others)):
        for weights in itertools.product(WEIGHTS, repeat=len(others)):
            if sum(weights) > 1 + 1e-9:
                continue
            for split in HELD_OUT:
                logs = (1 - sum(weights)) * np.log(model[split] + step)
                for (estimates, _), way, weight in zip(others, chosen, weights, strict=True):
                    logs = logs + weight * np.log(estimates[split][way] + step)
                ways[split].append(np.exp(logs) - step)
            parts = zip(others, chosen, weights, strict=True)
            labels.append(", ".join(f"{names[way]}: {weight:.2f}" for (_, names), way, weight in parts))
    return Candidate(name, {split: np.stack(ways[split]) for split in HELD_OUT}, labels)


def scale(model: Estimates, step: float) -> Candidate:
    """The model's estimates times a factor, the control: what a correction without any other regressor gains."""
    factors = np.linspace(0.85, 1.15, 31)
    ways = {split: np.maximum(0, (model[split] + step) * factors[:, None] - step) for split in HELD_OUT}
    return Candidate("the model times a factor", ways, [f"{factor:.2f}" for factor in factors])


def mean_of_checkpoints(run: Run, setup: Setup, picked: Checkpoint, step: float) -> Candidate:
    """Geometric means of the estimates of the picked checkpoint and the one, two or three with the lowest errors."""
    checkpoints = [checkpoint for checkpoint in run.store.checkpoints() if checkpoint.id != picked.id]
    tables = {split: [read_scores(run, setup, c.id, split) for c in checkpoints] for split in HELD_OUT}
    best = np.argsort([table.abs_error.mean() for table in tables[Split.VAL]], kind="stable")
    ways = {}
    for split in HELD_OUT:
        logs = [np.log(read_scores(run, setup, picked.id, split).imputed + step)]
        logs += [np.log(tables[split][index].imputed + step) for index in best[:3]]
        ways[split] = np.stack([np.exp(np.mean(logs[: 1 + n], axis=0)) - step for n in range(len(logs))])
    return Candidate("the mean of several checkpoints", ways, [f"{n} more" for n in range(len(best[:3]) + 1)])


class Report:
    """Prints a row for each candidate. `prices` are the true prices, `model` the estimates of the picked checkpoint."""

    def __init__(self, prices: Estimates, model: Estimates) -> None:
        self._prices = prices
        self._errors = {split: np.abs(model[split] - prices[split]) for split in HELD_OUT}
        print("| | validation, cross-fitted | | test | | chosen |\n| --- | --- | --- | --- | --- | --- |")

    def add(self, candidate: Candidate) -> None:
        """Print the row of a candidate."""
        errors = {split: np.abs(candidate.ways[split] - self._prices[split]) for split in HELD_OUT}
        chosen = int(errors[Split.VAL].mean(axis=1).argmin())
        own = {Split.VAL: cross_fit(errors[Split.VAL]), Split.TEST: errors[Split.TEST][chosen]}
        cells = []
        for split in HELD_OUT:
            difference = own[split] - self._errors[split]
            low, high = bootstrap(difference)
            cells += [f"{own[split].mean():.2f}", f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"]
        print(f"| {candidate.name} | {' | '.join(cells)} | {candidate.labels[chosen]} |", flush=True)


def cross_fit(errors: np.ndarray) -> np.ndarray:
    """The error of each item, by the way that is best on the folds without the item: the mean over several shuffles."""
    total = np.zeros(errors.shape[1])
    for fold in _folds(errors.shape[1]):
        rest = np.ones(errors.shape[1], dtype=bool)
        rest[fold] = False
        total[fold] += errors[errors[:, rest].mean(axis=1).argmin(), fold]
    return total / SHUFFLES


def _folds(count: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(0)
    for _ in range(SHUFFLES):
        yield from np.array_split(generator.permutation(count), FOLDS)


def bootstrap(differences: np.ndarray) -> tuple[float, float]:
    """The 95 % interval of a mean."""
    generator = np.random.default_rng(0)
    means = [differences[generator.integers(0, len(differences), len(differences))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


if __name__ == "__main__":
    main()
