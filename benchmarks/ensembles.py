"""Do more regressors beside a checkpoint lower its error? Neighbours, ridge, both, other checkpoints.

    python benchmarks/ensembles.py RUN_FOLDER
    python benchmarks/ensembles.py FOLDER SOURCE

RUN_FOLDER is a run after `pricer eval --all-checkpoints` with each split and `pricer pick`. FOLDER is the output of
`benchmarks/quality.py train`, with the embeddings of each seed's last epoch, and SOURCE its items; it has validation
items only.

A blend is the weighted geometric mean of price + step over the model's estimate and the estimates of others. Weights
and the number of neighbours minimise the mean absolute error: for a validation item on the other nine tenths of the
validation items, for test items on all validation items. A weight of 0, which leaves the model as it is, may win.
Intervals are percentiles of the paired bootstrap over items.
"""

import itertools
import json
import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.commands.parts.setup import Setup, load_base_of, prepare
from pricer.config import DataConfig
from pricer.core.checkpoints import BEST, Checkpoint
from pricer.core.evaluation import ScoreTable
from pricer.core.items import Item, Split
from pricer.data.preparation import load_items
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
# Rows of estimates (ways, items) for each split, and a label for each row.
Others = tuple[dict[Split, np.ndarray], Sequence[str]]


@dataclass(frozen=True)
class Candidate:
    """Rows of estimates (ways, items) for each split, and the way that each validation fold would choose."""

    name: str
    ways: dict[Split, np.ndarray]
    labels: Sequence[str]


def main() -> None:
    """Print a table for the pick of a run, or for each seed of benchmarks/quality.py."""
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if len(sys.argv) > 2:
        for path in sorted(Path(sys.argv[1]).glob("*-ce-*.npz")):
            describe_seed(path, sys.argv[2])
    else:
        describe_run(Run(Path(sys.argv[1]).resolve()))


def describe_run(run: Run) -> None:
    """Print the table of a run's pick."""
    setup = prepare(run.config())
    picked = run.store.tagged(BEST)
    assert picked is not None, "pricer pick comes first"
    tables = {split: read_scores(run, setup, picked.id, split) for split in HELD_OUT}
    model = {split: table.imputed for split, table in tables.items()}
    step = setup.answers.price_format.price_unit.step
    report = Report(f"{run.name}, {picked.name}", {split: table.price for split, table in tables.items()}, model)
    items = {split: setup.items.items(split) for split in HELD_OUT}
    near = {}
    for name, adapter in (("the untuned base", None), ("the picked adapter", run.store.fetch(picked))):
        embed = load_embedder(run, setup, adapter)
        embeddings = {split: embed(own) for split, own in items.items()}
        near[name] = find_neighbours(embed(setup.items.train), setup.items.train, embeddings, step)
    add_rows(report, model, setup.items.train, items, near, step)
    report.add(mean_of_checkpoints(run, setup, picked, step))


def describe_seed(path: Path, source: str) -> None:
    """Print the table of a seed, from its embeddings and the lines beside them."""
    data, variant, seed = path.stem.rsplit("-", 2)
    lines = [json.loads(line) for file in path.parent.glob(f"{data}-[0-9]*.jsonl") for line in file.open()]
    own = [line for line in lines if line.get("variant") == variant and line["seed"] == int(seed) and "median" in line]
    last = max(own, key=lambda line: line["epoch"])
    about = json.loads((path.parent / f"{data}-items.jsonl").read_text().splitlines()[-1])
    loaded = load_items(DataConfig(source=source))
    by_id = {item.id: item for split in Split for item in loaded.items(split)}
    with np.load(path, allow_pickle=False) as archive:
        items, embeddings = [by_id[one] for one in archive["ids"].tolist()], archive["embeddings"].astype(np.float64)
    count = len(items) - len(about["ids"])
    train, val, model = items[:count], items[count:], {Split.VAL: np.array(last["median"])}
    assert [item.id for item in val] == about["ids"]
    report = Report(f"{data}, seed {seed}, epoch {last['epoch']}", {Split.VAL: np.array(about["prices"])}, model)
    near = find_neighbours(embeddings[:count], train, {Split.VAL: embeddings[count:]}, step=1.0)
    add_rows(report, model, train, {Split.VAL: val}, {"the adapter": near}, step=1.0)


def add_rows(
    report: "Report",
    model: Estimates,
    train: Sequence[Item],
    items: Mapping[Split, Sequence[Item]],
    near: Mapping[str, dict[Split, np.ndarray]],
    step: float,
) -> None:
    """Add the rows of the model alone, and of ridge and neighbours, alone and with the model. `near` has the estimates
    of neighbours by each kind of embeddings.
    """
    report.add(Candidate("the model alone", {split: own[None] for split, own in model.items()}, [""]))
    ridge = {split: np.array(predict_with_ridge(train, own, step))[None] for split, own in items.items()}
    rest: dict[str, Others] = {"TF-IDF + ridge": (ridge, ["ridge"])}
    for name, estimates in near.items():
        last = rest[f"neighbours by {name}"] = estimates, [f"k = {k}" for k in NEIGHBOURS]
    for name, (estimates, labels) in rest.items():
        report.add(Candidate(f"{name} alone", estimates, labels))
    for name, others in rest.items():
        report.add(blend(f"the model and {name}", model, [others], step))
    report.add(blend("the model, ridge and neighbours", model, [(ridge, ["ridge"]), last], step))
    report.add(blend("ridge and neighbours, without the model", {s: own[0] for s, own in ridge.items()}, [last], step))
    report.add(scale(model, step))


def read_scores(run: Run, setup: Setup, name: str, split: Split) -> ScoreTable:
    """The saved scores of a checkpoint."""
    found = run.evaluations.scores(name, setup.spec(split, None))
    assert found is not None, f"{name} was not scored on {split}"
    return found


def load_embedder(run: Run, setup: Setup, adapter: Path | None) -> Callable[[Sequence[Item]], np.ndarray]:
    """A function that embeds items by the base with an adapter, or (None) by the base alone."""
    switch = AdapterSwitch(load_base_of(setup, run))
    if adapter:
        switch.use(adapter)
    switch.model.eval()
    return lambda items: embed_prompts(switch.model, setup.prompts(items), setup.batch_tokens).astype(np.float64)


def find_neighbours(
    trained: np.ndarray, train: Sequence[Item], held_out: Mapping[Split, np.ndarray], step: float
) -> dict[Split, np.ndarray]:
    """The geometric mean of price + step over the nearest training items, for each number of neighbours. Items are near
    if the cosine of their embeddings, with the mean of the training items taken off, is high.
    """
    logs = np.log(np.array([item.price for item in train]) + step)
    centre = trained.mean(axis=0)

    def normalize(embeddings: np.ndarray) -> np.ndarray:
        centred = embeddings - centre
        normalized: np.ndarray = centred / np.linalg.norm(centred, axis=1, keepdims=True)
        return normalized

    directions, found = normalize(trained).T, {}
    for split, embeddings in held_out.items():
        order = np.argsort(-(normalize(embeddings) @ directions), axis=1, kind="stable")
        found[split] = np.stack([np.exp(logs[order[:, :k]].mean(axis=1)) - step for k in NEIGHBOURS])
    return found


def blend(name: str, model: Estimates, others: Sequence[Others], step: float) -> Candidate:
    """Every weighted geometric mean of the model and one way of each of the others."""
    ways: dict[Split, list[np.ndarray]] = {split: [] for split in model}
    labels = []
    for chosen in itertools.product(*(range(len(labels)) for _, labels in others)):
        for weights in itertools.product(WEIGHTS, repeat=len(others)):
            if sum(weights) > 1 + 1e-9:
                continue
            for split in model:
                logs = (1 - sum(weights)) * np.log(model[split] + step)
                for (estimates, _), way, weight in zip(others, chosen, weights, strict=True):
                    logs = logs + weight * np.log(estimates[split][way] + step)
                ways[split].append(np.exp(logs) - step)
            parts = zip(others, chosen, weights, strict=True)
            labels.append(", ".join(f"{names[way]}: {weight:.2f}" for (_, names), way, weight in parts))
    return Candidate(name, {split: np.stack(own) for split, own in ways.items()}, labels)


def scale(model: Estimates, step: float) -> Candidate:
    """The model's estimates times a factor, the control: what a correction without any other regressor gains."""
    factors = np.linspace(0.85, 1.15, 31)
    ways = {split: np.maximum(0, (own + step) * factors[:, None] - step) for split, own in model.items()}
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
    """Prints a table with a row for each candidate. `prices` are the true prices, `model` the model's estimates."""

    def __init__(self, name: str, prices: Estimates, model: Estimates) -> None:
        self._prices = prices
        self._errors = {split: np.abs(own - prices[split]) for split, own in model.items()}
        counts = ", ".join(f"{len(own)} {split} items" for split, own in prices.items())
        print(f"\n{name}: mean absolute error of {counts}; difference to the model with its 95 % interval\n")
        print(f"| |{' validation, cross-fitted | |'}{' test | |' if Split.TEST in model else ''} chosen |")
        print("| --- |" + " --- | --- |" * len(model) + " --- |")

    def add(self, candidate: Candidate) -> None:
        """Print the row of a candidate."""
        errors = {split: np.abs(ways - self._prices[split]) for split, ways in candidate.ways.items()}
        chosen = int(errors[Split.VAL].mean(axis=1).argmin())
        cells = []
        for split, own in errors.items():
            fitted = cross_fit(own) if split is Split.VAL else own[chosen]
            difference = fitted - self._errors[split]
            low, high = bootstrap(difference)
            cells += [f"{fitted.mean():.2f}", f"{difference.mean():+.2f} ({low:+.2f} to {high:+.2f})"]
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
