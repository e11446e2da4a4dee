"""SIGKILL at random moments of training and scoring, and what is left when they go on: the same as without."""

import json
import random
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from pricer.stores.files import read_lines
from tests.processes import finish, kill_after, options

SETTINGS = options(
    data__train_limit=320,
    data__val_limit=120,
    adapter__r=8,
    adapter__dropout=0.1,
    train__epochs=3,
    train__batch_size=16,
    train__checkpoint_every=7,
    train__val_items=16,
    eval__batch_tokens=256,
)
KILLS = 20


def seconds_of(*arguments: str) -> float:
    """The seconds that a command takes."""
    before = time.monotonic()
    finish(*arguments)
    return time.monotonic() - before


def is_killed(seconds: float, *arguments: str) -> bool:
    """Start a command and kill it; False if it ended well before that."""
    ended = kill_after(seconds, *arguments)
    assert ended is None or ended[0] == 0, ended
    return ended is None


def run_of(name: str) -> Path:
    return Path("runs") / name


def trained(run: Path) -> dict[str, Any]:
    """What training left that must not depend on interruptions."""
    return {
        "checkpoints": list(read_lines(run / "checkpoints.jsonl")),
        "adapters": [path.read_bytes() for path in sorted(run.glob("checkpoints/*/adapter_model.safetensors"))],
        "validation": [line for line in read_lines(run / "metrics.jsonl") if "val_mae" in line],
    }


def scored(run: Path) -> dict[str, Any]:
    """What scoring and picking left."""
    predictions = {path.parent.name: path.read_bytes() for path in run.glob("evaluations/*/predictions.jsonl")}
    return {"predictions": predictions, "selection": json.loads((run / "selection.json").read_text())}


def is_finished(run: Path) -> bool:
    facts = run / "run.json"
    return facts.exists() and json.loads(facts.read_text())["finished"] is not None


# Before these shares of the whole time libraries are still being imported: a kill would hit nothing of ours.
@pytest.mark.slow
def test_twenty_kills_change_nothing() -> None:
    moments = random.Random(5)
    seconds = seconds_of("train", "quickstart", "--run", "whole", *SETTINGS)
    whole = run_of("whole")

    kills, attempts = 0, 0
    while kills < KILLS // 2:
        run = run_of(f"killed-{attempts}")
        attempts += 1
        while not is_finished(run):
            created = (run / "run.json").exists()
            how = ["--resume"] if created else ["quickstart", *SETTINGS]
            kills += is_killed(moments.uniform(0.3, 1) * seconds, "train", "--run", run.name, *how)
        assert trained(run) == trained(whole)

    seconds = seconds_of("eval", "--all-checkpoints", "--run", "whole")
    finish("pick", "--run", "whole")
    killed = run_of("killed-0")
    while kills < KILLS:
        shutil.rmtree(killed / "evaluations", ignore_errors=True)
        while is_killed(moments.uniform(0.5, 1) * seconds, "eval", "--all-checkpoints", "--run", killed.name):
            kills += 1
        finish("pick", "--run", killed.name)
        assert scored(killed) == scored(whole)
