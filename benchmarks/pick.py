"""How long does `pricer pick` take, and how much memory? The real command on a synthetic run, the whole process.

python benchmarks/pick.py [CHECKPOINTS ITEMS]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parent.parent))

from pricer.config import RunConfig
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import Evaluation, ScoreTable
from pricer.core.metrics import choosing_metrics, measure_all
from pricer.stores.runs import create_run
from tests.builders import SPEC, a_saved_checkpoint

REPEATS = 3


def make_run(checkpoints: int, items: int) -> None:
    """A run in the current folder as training and scoring leave it: prices of $1 to $999, errors of a third of them."""
    rng = np.random.default_rng(0)
    price = rng.lognormal(4, 1, items).clip(1, 999).round(2)
    shared = rng.standard_normal(items)
    item_id = np.array([f"{index:08d}" for index in range(items)])
    run = create_run(RunConfig(), "quickstart", "pick", {})
    for index in range(checkpoints):
        step = 100 * (index + 1)
        _, checkpoint = a_saved_checkpoint(Path("saved"), step, adapter=str(step).encode())
        run.store.push(Path("saved"), step)
        spread = 0.3 + 0.002 * abs(index - 0.7 * checkpoints)
        imputed = price * np.exp(spread * (0.95 * shared + 0.3 * rng.standard_normal(items)))
        table = ScoreTable(item_id, price, imputed.clip(1, 999).round(), rng.random(items) > 0.001)
        run.evaluations.add(checkpoint.id, Evaluation(Candidate.of(checkpoint), SPEC, measure_all(table)), table)


def measured(command: list[str], folder: str) -> tuple[float, float]:
    """Seconds of a command, and the most memory it held in megabytes."""
    path = str(Path(__file__).parent.parent)
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=folder, env={**os.environ, "PYTHONPATH": path}, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return time.perf_counter() - began, usage.ru_maxrss / 1e3


def main() -> None:
    """Print seconds and megabytes by metric."""
    checkpoints, items = (int(word) for word in (sys.argv[1:] or ["40", "10000"]))
    with tempfile.TemporaryDirectory() as folder:
        here = Path.cwd()
        os.chdir(folder)
        make_run(checkpoints, items)
        os.chdir(here)
        print(f"{checkpoints:,} checkpoints × {items:,} items, median of {REPEATS}")
        for metric in choosing_metrics():
            command = [sys.executable, "-m", "pricer", "pick", "--metric", metric, "--json"]
            seconds, megabytes = zip(*(measured(command, folder) for _ in range(REPEATS)), strict=True)
            print(f"{metric:<10}{statistics.median(seconds):6.2f} s  {max(megabytes):5.0f} MB", flush=True)


if __name__ == "__main__":
    main()
