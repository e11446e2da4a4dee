"""Runs for which nothing is set but the data: what the defaults make of it, and that a run keeps them."""

import csv
import random
import re
from pathlib import Path

import yaml

from pricer.commands import train
from pricer.commands.parts.plan import plan
from pricer.commands.parts.settling import Machine, find_warnings
from pricer.commands.parts.setup import prepare
from pricer.config import DataConfig, ModelConfig, PromptConfig, RunConfig, TrainConfig
from pricer.core.gpus import GPUS
from pricer.ml.devices import Precision
from pricer.stores.runs import find_run
from tests.commands.conftest import Listener

# What is auto by default, apart from train.epochs.
NAMED = {
    *("data.decimals", "data.val_fraction", "data.test_fraction", "prompt.max_length"),
    *("train.batch_size", "train.learning_rate", "train.checkpoint_every"),
    *("prompt.question", "prompt.lead", "prompt.price_format", "prompt.price_width"),
    *("eval.estimator", "eval.hit_error"),
}


def written(rows: int, words: int = 60) -> DataConfig:
    """A CSV of houses. A description has half as many words up to that number."""
    numbers = random.Random(0)  # the same houses every time
    with Path("houses.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["description", "price"])
        for row in range(rows):
            known = [f"room{numbers.randrange(9)}" for _ in range(numbers.randrange(words // 2, words + 1))]
            writer.writerow([f"House {row}: {' '.join(known)}", 100 + 7 * numbers.randrange(100)])
    return DataConfig(source="houses.csv")


def test_900_rows_get_many_checkpoints_100_validation_items_and_whole_descriptions() -> None:
    config = RunConfig(data=written(900))

    found, setup = plan(config), prepare(config)

    assert 8 <= found.checkpoints <= 40
    assert found.checkpoints >= 3 * setup.config.train.epochs
    assert len(setup.items.val) >= 100
    prompts = setup.prompts(setup.items.train)
    assert sum(prompt.cut for prompt in prompts) < 0.02 * len(prompts)
    assert find_warnings(setup) == []
    assert found.steps == setup.config.train.steps(len(setup.items.train))
    # A length that leaves nothing uncut is longer than it has to be by less than a multiple of 8.
    longest = max(setup.encoder.lengths([setup.template.prompt(item) for item in setup.items.train]))
    assert setup.template.max_length < longest + 8


def test_a_run_keeps_what_auto_stood_for_and_says_why() -> None:
    config = RunConfig(data=written(60, 12), train=TrainConfig(epochs=1))
    listener = Listener()

    run = train.start(config, "houses", None, listener).run

    defaults = run.facts()["defaults"]
    assert defaults.keys() == NAMED
    items = run.facts()["items"]["train"]
    reason = f"{items} training items give 5 steps an epoch"
    assert defaults["train.batch_size"] == {"value": 8, "reason": reason}
    assert defaults["eval.hit_error"] == {"value": 40, "reason": "usual for median prices from $40 to $4,000"}
    saved = yaml.safe_load((run.folder / "config.yaml").read_text())
    for setting, default in defaults.items():
        section, name = setting.split(".")
        assert saved[section][name] == default["value"]
    assert "auto" not in [
        saved["train"][name] for name in ("epochs", "batch_size", "learning_rate", "checkpoint_every")
    ]
    assert any(note.startswith("auto: data.decimals=0, data.val_fraction=0.2, ") for note in listener.notes)
    # What a resumed run reads: nothing is left to settle, and the data are the same.
    resumed = prepare(find_run(run.name).config())
    assert resumed.defaults == {}
    assert resumed.items.fingerprint == run.facts()["data_fingerprint"]
    assert resumed.template.fingerprint == run.facts()["prompt_fingerprint"]


def test_a_length_fits_into_the_memory_of_the_planned_gpu() -> None:
    config = RunConfig(
        model=ModelConfig(base=str((Path(__file__).parents[2] / "pricer/assets/base").resolve())),
        data=written(60, 400),
        prompt=PromptConfig(price_format="padded"),
    )
    precision = Precision("cpu", "nf4", "bfloat16")
    roomy = prepare(config, Machine(precision, GPUS["t4"], is_planned=True))
    # The CUDA context takes 1 GB, so very little is left of 1.1 GB.
    tight = GPUS["t4"].__class__("a small one", 1_098_000_000, bfloat16=True)

    cramped = prepare(config, Machine(precision, tight, is_planned=True))

    assert cramped.template.max_length < roomy.template.max_length <= 1024
    assert cramped.defaults["prompt.max_length"].reason.startswith("it is what fits into the GPU's memory; ")
    assert any(" of the descriptions are longer than prompt.max_length (" in text for text in find_warnings(cramped))


def test_a_hit_error_of_none_and_a_sentence_have_their_reasons() -> None:
    houses = written(60, 12)
    text = Path("houses.csv").read_text()
    Path("houses.csv").write_text(re.sub(r",(\d+)$", r",\g<1>00", text, flags=re.MULTILINE))

    found = plan(RunConfig(data=houses)).defaults

    # Prices of 10,000 to 79,300.
    assert found["eval.hit_error"].text == "none"
    assert found["eval.hit_error"].reason.startswith("$40 says nothing about a median of $")
    assert found["prompt.question"].text == '"What does this cost to the nearest dollar?"'
