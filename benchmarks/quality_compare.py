"""The table of benchmarks/quality.py: variants against the baseline, on the same validation items and seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from quality_variants import BASELINE, VARIANTS

RESAMPLES = 4000


@dataclass(frozen=True, slots=True)
class Results:
    """The lines of one data set: `by_job[variant][seed][epoch]` is the newest line of an epoch."""

    about: dict[str, Any]
    by_job: dict[str, dict[int, dict[int, dict[str, Any]]]]
    errors: dict[str, list[str]]


def compare_folders(folders: Sequence[Path]) -> str:
    """A section in Markdown for each data set in the folders."""
    return "\n\n".join(_section(data, results) for data, results in sorted(read_results(folders).items()))


def read_results(folders: Sequence[Path]) -> dict[str, Results]:
    """The results in all .jsonl files of the folders, by data set."""
    found: dict[str, Results] = {}
    for path in sorted(path for folder in folders for path in folder.glob("*.jsonl")):
        for text in path.read_text(encoding="utf-8").splitlines():
            try:
                line = json.loads(text)
            except ValueError:  # the last line of a process that was killed
                continue
            results = found.setdefault(line["data"], Results({}, {}, {}))
            if "ids" in line:
                if results.about and results.about["ids"] != line["ids"]:
                    raise SystemExit(f"{path}: other validation items of {line['data']} than before")
                results.about.update(line)
            elif "error" in line:
                results.errors.setdefault(line["variant"], []).append(f"seed {line['seed']}: {line['error']}")
            else:
                seeds = results.by_job.setdefault(line["variant"], {})
                seeds.setdefault(line["seed"], {})[line["epoch"]] = line
    return found


def find_done(folder: Path, data: str) -> set[tuple[str, int]]:
    """The variant and the seed of each training whose last epoch is in a folder."""
    results = read_results([folder]).get(data)
    jobs = results.by_job if results else {}
    return {
        (variant, seed)
        for variant, seeds in jobs.items()
        for seed, epochs in seeds.items()
        if max(epochs) == epochs[max(epochs)]["epochs"]
    }


def absolute_errors(results: Results, variant: str, seeds: Sequence[int], epoch: int, estimator: str) -> np.ndarray:
    """Absolute errors (seeds, items) after an epoch."""
    prices = np.array(results.about["prices"])
    answers = [results.by_job[variant][seed][epoch][estimator] for seed in seeds]
    errors: np.ndarray = np.abs(np.array(answers) - prices)
    return errors


def common_epochs(seeds: dict[int, dict[int, Any]]) -> list[int]:
    """The epochs that all seeds have completed."""
    return sorted(set.intersection(*(set(epochs) for epochs in seeds.values())))


def difference_interval(one: np.ndarray, other: np.ndarray, seed: int = 0) -> tuple[float, float, float]:
    """The mean of `one` - `other`, both (seeds, items), and its 95 % interval. Items and seeds are both resampled,
    because another choice of either would give other differences.
    """
    difference = one - other
    random = np.random.default_rng(seed)
    seeds, items = difference.shape
    drawn = np.empty(RESAMPLES)
    for index in range(RESAMPLES):
        weight = np.bincount(random.integers(seeds, size=seeds), minlength=seeds) / seeds
        drawn[index] = (weight @ difference)[random.integers(items, size=items)].mean()
    low, high = np.quantile(drawn, [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)


def _section(data: str, results: Results) -> str:
    about, baseline = results.about, results.by_job.get(BASELINE, {})
    rows = [_row(variant, results, baseline) for variant in VARIANTS if variant in results.by_job]
    train = about.get("train", {})
    head = [
        f"### {data}",
        "",
        f"{about.get('train_items')} training items, {len(about.get('ids', []))} validation items, "
        f"base {Path(str(about.get('base'))).name}, {about.get('device')}, {train.get('epochs')} epochs, "
        f"batch {train.get('batch_size')}, learning rate {train.get('learning_rate')}. The errors are MAE on the "
        "validation items: the mean over seeds, ± the standard deviation of the seeds. Differences to the baseline are "
        "paired by item and seed, with 95 % intervals from resampling items and seeds. Bold: the interval excludes 0. "
        "The best epoch is chosen on the same items, for the baseline too. A variant that was cut off is compared with "
        "the baseline after the same epoch, not after the same decay of the learning rate.",
        "",
        "| variant | seeds | epochs | median, last epoch | difference | median, best epoch | difference "
        "| greedy, last epoch | loss per token |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    failures = [f"- `{variant}`: {'; '.join(sorted(set(why)))}" for variant, why in results.errors.items()]
    return "\n".join([*head, *rows, *(["", "Not complete:", "", *failures] if failures else [])])


def _row(variant: str, results: Results, baseline: dict[int, dict[int, Any]]) -> str:
    """A line of the table. The last epoch is the last that all seeds completed; it says so if the training goes on."""
    own = results.by_job[variant]
    seeds, epochs = sorted(own), common_epochs(own)
    name = f"`{variant}`: {VARIANTS[variant].says}"
    if not epochs:
        return f"| {name} | {len(seeds)} | none in common | | | | | | |"
    last, whole = epochs[-1], next(iter(own[seeds[0]].values()))["epochs"]
    best = min(epochs, key=lambda e: absolute_errors(results, variant, seeds, e, "median").mean())
    shared = sorted(set(seeds) & set(baseline))
    differences = ["", ""]
    if variant != BASELINE and shared:
        others = common_epochs({seed: baseline[seed] for seed in shared})
        if last in others:
            one, other = (absolute_errors(results, v, shared, last, "median") for v in (variant, BASELINE))
            differences[0] = _show_difference(*difference_interval(one, other))
        theirs = min(others, key=lambda e: absolute_errors(results, BASELINE, shared, e, "median").mean())
        one = absolute_errors(results, variant, shared, best, "median")
        other = absolute_errors(results, BASELINE, shared, theirs, "median")
        differences[1] = _show_difference(*difference_interval(one, other))
    loss = np.mean([own[seed][last]["val_loss"] for seed in seeds])
    reached = f"{last}" if last == whole else f"{last} of {whole}"
    cells = [
        name,
        str(len(seeds)),
        reached,
        _show_errors(absolute_errors(results, variant, seeds, last, "median")),
        differences[0],
        f"{_show_errors(absolute_errors(results, variant, seeds, best, 'median'))} ({best})",
        differences[1],
        _show_errors(absolute_errors(results, variant, seeds, last, "greedy")),
        f"{loss:.3f}",
    ]
    return f"| {' | '.join(cells)} |"


def _show_errors(errors: np.ndarray) -> str:
    spread = f" ± {errors.mean(1).std(ddof=1):.2f}" if len(errors) > 1 else ""
    return f"{errors.mean():.2f}{spread}"


def _show_difference(mean: float, low: float, high: float) -> str:
    text = f"{mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    return f"**{text}**" if low > 0 or high < 0 else text
