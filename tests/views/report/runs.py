"""A run folder as training, scoring and picking leave it, written in an instant; its texts wish nobody well."""

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pricer.config import DataConfig, PromptConfig, RunConfig, TrainConfig
from pricer.core.calibration import calibrate
from pricer.core.checkpoints import Candidate
from pricer.core.evaluation import EvalSpec, evaluate
from pricer.core.items import Item, ItemSet, Split
from pricer.core.predictions import Prediction
from pricer.core.selection import select
from pricer.data.preparation import load_items
from pricer.stores.runs import Run, create_run
from tests.builders import SPEC, a_checkpoint, a_distribution

TAKEN = "document.title='taken'"
# What a description could do in a page, in a box of a chart, or in JSON within a script.
HOSTILE = (
    f"<script>{TAKEN}</script> a lamp",
    f'<img src=x onerror="{TAKEN}"> a chair',
    f"</script><script>{TAKEN}</script> a table",
    f'<b>bold</b> <a href="javascript:{TAKEN}">a link</a>',
    f'"><svg onload="{TAKEN}"> a sofa',
    "&lt;b&gt;already escaped&lt;/b&gt; <!-- <script> a vase",
    "%{x} $\\frac{1}{2}$ <br><i>a rug</i> \u202etxt.exe",
)
CATEGORY = "<u>Home</u> & Garden"
STEPS = (20, 40, 60)


def write_items(path: Path, n: int = 240) -> None:
    """So many items, hostile ones among them: prices from $10, each $5 dearer than the one before."""
    rows = [
        {
            "description": HOSTILE[index] if index < len(HOSTILE) else f"A lamp of {index} watts",
            "price": 10.0 + 5 * index,
            "kind": CATEGORY if index % 3 else "Lamps",
        }
        for index in range(n)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def config_for(path: Path) -> RunConfig:
    """The config of such a run: most items are test items, the hostile ones among them."""
    return RunConfig(
        # The markup stays in the texts: the page has to make it harmless.
        data=DataConfig(source=str(path), category="kind", val_fraction=0.2, test_fraction=0.7, strip_markup=False),
        prompt=PromptConfig(question=f"<img src=x onerror={TAKEN}> What does this cost?"),
        train=TrainConfig(epochs=3, learning_rate=1e-4),
    )


def a_trained_run(path: Path, name: str = "lamps", *, finished: bool = True, steps: int = 60) -> Run:
    """A run of 3 epochs of 20 steps that logged each of its steps: the loss falls from 3 to 1, with a spike."""
    run = create_run(config_for(path), name, None, {"device": "cpu", "versions": {"python": "3.11", "torch": "<b>2"}})
    for step in range(1, steps + 1):
        loss = 1 + 2 / step + (1.0 if step == 30 else 0.0)
        run.log(
            {
                "step": step,
                "epoch": step / 20,
                "loss": loss,
                "learning_rate": 1e-4 * (1 - step / 61),
                "grad_norm": 0.5,
                "tokens_per_second": 1000.0 + step,
                "memory_used": 2_000_000_000 + step,
                "memory_total": 16_000_000_000,
            }
        )
        if step in STEPS:
            val = {"val_loss": 1.2, "val_mae": 50.0 + step, "val_no_price": 0, "val_items": 8}
            run.log({"step": step, "epoch": step / 20, **val})
    if finished:
        run.finish()
    return run


def scored(run: Run, data: ItemSet, split: Split = Split.VAL, steps: Sequence[int] = STEPS) -> EvalSpec:
    """Evaluate checkpoints that say 10 % too much, and two thirds of a step's distance from 40 in dollars more; but of
    the first item nothing, and of hostile ones $900 too much. And a baseline that always says $300.
    """
    items = data.items(split)
    spec = replace(SPEC, data_fingerprint=data.fingerprint, split=split, estimator="median", fallback=300.0)
    for step in steps:
        checkpoint = a_checkpoint(step, adapter=f"step {step}".encode())
        predictions = [_answer(item, step, silent=item is items[0]) for item in items]
        run.evaluations.add_predictions(checkpoint.id, spec, predictions)
        calibration = calibrate(predictions, items) if split is Split.VAL else None
        run.evaluations.add(checkpoint.id, *evaluate(Candidate.of(checkpoint), spec, predictions, items), calibration)
    constant = [Prediction(item.id, "300.00", 300.0) for item in items]
    run.evaluations.add("train-median", *evaluate(Candidate("train <i>median</i>"), spec, constant, items))
    return spec


def _answer(item: Item, step: int, *, silent: bool) -> Prediction:
    if silent:
        return Prediction(item.id, "no idea", None, a_distribution(item.price, no_price=0.9))
    price = item.price + 900 if item.description in HOSTILE else 1.1 * item.price + abs(step - 40) * 2 / 3
    return Prediction(item.id, f"{price:.2f}", price, a_distribution(price))


def picked(run: Run, spec: EvalSpec) -> None:
    """Choose as `pricer pick` does."""
    own = [e for e in run.evaluations.all() if e.candidate.id and e.spec == spec]
    scores = {e.candidate.id: run.evaluations.scores(e.candidate.id, spec) for e in own if e.candidate.id}
    run.write_selection(select(own, "mae", {name: found for name, found in scores.items() if found}))


def a_whole_run(path: Path, name: str = "lamps") -> Run:
    """Trained, scored, picked (step 40), and the pick scored on the test split."""
    run = a_trained_run(path, name)
    data = load_items(run.config().data)
    picked(run, scored(run, data))
    scored(run, data, Split.TEST, steps=(40,))
    return run
