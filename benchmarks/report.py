"""What a report of a big run costs: seconds and memory to write it, its size, and the seconds until it is drawn.

    python benchmarks/report.py [STEPS] [CHECKPOINTS] [ITEMS]

A made-up run in a temporary folder, by default with 100,000 logged steps and 40 checkpoints that were each scored on
10,000 validation items with whole distributions, the pick also on as many test items; the data are a file of ten times
as many items. The report is written by the real command in a process of its own, and opened in a headless Chromium
until its charts are drawn.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from playwright.sync_api import sync_playwright

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.config import DataConfig, RunConfig
from pricer.core.calibration import calibrate
from pricer.core.checkpoints import Candidate, Checkpoint
from pricer.core.evaluation import EvalSpec, evaluate
from pricer.core.items import ItemSet, Split
from pricer.core.predictions import Distribution, Prediction
from pricer.core.selection import select
from pricer.data.preparation import load_items
from pricer.stores.runs import Run, create_run
from tests.builders import SPEC, a_checkpoint

_WORDS = ("wide", "black", "white", "steel", "oak", "lamp", "table", "chair", "fan", "shelf", "kettle", "for", "home")
_OPENED = 3


def main() -> None:
    """Make the run, and print what its report costs."""
    steps, checkpoints, items = (*map(int, sys.argv[1:]), *(100_000, 40, 10_000)[len(sys.argv) - 1 :])
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        os.environ["HF_HOME"] = str(Path(folder) / "huggingface")
        began = time.perf_counter()
        run = a_big_run(steps, checkpoints, items)
        made = time.perf_counter() - began
        size = sum(path.stat().st_size for path in run.folder.rglob("*")) / 1e6
        print(f"{steps:,} steps, {checkpoints} checkpoints × {items:,} items, {size:,.0f} MB (made in {made:.0f} s)")
        # The second time the data are in the library's cache, as they are after a training.
        for which in ("first", "second"):
            seconds, megabytes = written()
            print(f"{which} time: written in {seconds:.2f} s, at most {megabytes:,.0f} MB of memory", flush=True)
        page = Path(folder) / run.folder / "report.html"
        print(f"page: {page.stat().st_size / 1e6:.2f} MB")
        print(f"drawn in Chromium after {', '.join(f'{seconds:.2f}' for seconds in opened(page))} s", flush=True)


def written() -> tuple[float, float]:
    """Write the report in another process: its seconds, and the most memory it took in MB."""
    # The kernel counts what the parent had into a child's `ru_maxrss`; VmHWM is the child's alone.
    code = (
        "import pathlib, re, sys\nfrom pricer.cli import main\ntry:\n    main()\nfinally:\n"
        "    print(re.findall(r'VmHWM:\\s*(\\d+)', pathlib.Path('/proc/self/status').read_text())[0])"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code, "report"], env=environment, capture_output=True, text=True, check=True
    )
    return time.perf_counter() - began, int(done.stdout.split()[-1]) / 1e3


def opened(page: Path) -> list[float]:
    """The seconds until the charts are drawn, in a new window each time."""
    path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    found = []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        for _ in range(_OPENED):
            window = browser.new_page(viewport={"width": 1280, "height": 900})
            began = time.perf_counter()
            window.goto(page.as_uri())
            window.wait_for_selector("html[data-drawn]")
            # Until the picture is on the screen, and not only in the page.
            window.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
            found.append(time.perf_counter() - began)
            window.close()
        browser.close()
    return found


def a_big_run(steps: int, checkpoints: int, items: int) -> Run:
    """A finished run whose last but third checkpoint is the best."""
    random = np.random.default_rng(1)
    data = load_items(_written_items(10 * items, random).data)
    config = _config()
    run = create_run(config, "big", None, {"device": "cpu", "versions": {"python": "3.11"}})
    _log(run, steps, random)
    val = replace(SPEC, data_fingerprint=data.fingerprint, estimator="median", limit=items, fallback=50.0)
    chosen = checkpoints - 4
    for number in range(checkpoints):
        step = steps * (number + 1) // checkpoints
        spread = 0.35 + 0.02 * abs(number - chosen)
        checkpoint = a_checkpoint(step, adapter=f"{step}".encode(), epoch=4 * step / steps)
        _score(run, data, val, checkpoint, spread, random)
        if number == chosen:
            _score(run, data, replace(val, split=Split.TEST), checkpoint, spread, random)
    run.write_selection(select([e for e in run.evaluations.all() if e.spec == val], "mae"))
    run.finish()
    return run


def _config() -> RunConfig:
    return RunConfig(data=DataConfig(source="items.jsonl", category="kind", val_fraction=0.12, test_fraction=0.12))


def _written_items(n: int, random: np.random.Generator) -> RunConfig:
    prices = np.exp(random.normal(4, 1, n)).clip(0.5, 999.49).round(2)
    with Path("items.jsonl").open("w", encoding="utf-8") as file:
        for number, price in enumerate(prices.tolist()):
            text = " ".join(random.choice(_WORDS, 60))
            file.write(
                json.dumps({"description": f"{text} {number}", "price": price, "kind": _WORDS[number % 8]}) + "\n"
            )
    return _config()


def _log(run: Run, steps: int, random: np.random.Generator) -> None:
    loss = 1.2 + 2 * np.exp(-np.arange(steps) / (steps / 20)) + random.normal(0, 0.15, steps)
    lines = [
        {
            "step": step + 1,
            "epoch": round(4 * (step + 1) / steps, 6),
            "loss": value,
            "learning_rate": 1e-4 * (1 - step / steps),
            "grad_norm": 0.5,
            "tokens_per_second": 5000.0 + step % 100,
            "memory_used": 38_200_000_000,
            "memory_total": 40_000_000_000,
        }
        for step, value in enumerate(loss.tolist())
    ]
    (run.folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")


def _score(
    run: Run, data: ItemSet, spec: EvalSpec, checkpoint: Checkpoint, spread: float, random: np.random.Generator
) -> None:
    """Answers that are off by a factor of about 1 ± `spread`, with intervals that say so."""
    assert isinstance(spec.split, Split)
    items = data.items(spec.split)[: spec.limit]
    factors = np.exp(random.normal(0, spread, len(items)))
    predictions = []
    for item, factor in zip(items, factors.tolist(), strict=True):
        price = round(item.price * factor, 2)
        quantiles = tuple(round(price * max(0.0, 1 + share * spread), 2) for share in (-1.9, -1.3, 0, 1.3, 1.9))
        found = Distribution(quantiles, price, True, price, 0.01, 0.001, 0.0)
        predictions.append(Prediction(item.id, f"{price:.2f}", price, found))
    for start in range(0, len(predictions), 64):
        run.evaluations.add_predictions(checkpoint.id, spec, predictions[start : start + 64])
    calibration = calibrate(predictions, items, spec.decimals) if spec.split is Split.VAL else None
    run.evaluations.add(checkpoint.id, *evaluate(Candidate.of(checkpoint), spec, predictions, items), calibration)


if __name__ == "__main__":
    main()
