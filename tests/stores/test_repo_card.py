"""What a repository of another trainer says of its training data, in the words of the tools that write cards."""

import json
import time

import pytest

from pricer.core.held_out import Claim
from pricer.core.items import Split
from pricer.stores.hub import Hub
from pricer.stores.repo_card import README, claims_of_card, read_claims
from tests.loopback_hub import LoopbackHub

TRAIN, VAL, TEST = Split

BY_TRL = """---
base_model: acme/base
datasets: ann/lamps
library_name: peft
model_name: prices
tags:
- generated_from_trainer
- trl
- sft
licence: license
---

# Model Card for prices

This model is a fine-tuned version of [acme/base](https://huggingface.co/acme/base) on the
[ann/lamps](https://huggingface.co/datasets/ann/lamps) dataset.
It has been trained using [TRL](https://github.com/huggingface/trl).

```python
from transformers import pipeline
```
"""

BY_TRAINER = """---
base_model: acme/base
datasets:
- ann/lamps
model-index:
- name: prices
  results:
  - task: {name: Causal Language Modeling, type: text-generation}
    dataset: {name: ann/lamps, type: ann/lamps, config: default, split: validation, args: default}
    metrics: [{name: Loss, type: loss, value: 0.5}]
---

<!-- This model card has been generated automatically according to the information the Trainer had access to. You
should probably proofread and complete it, then remove this comment. -->

# prices

This model is a fine-tuned version of [acme/base](https://huggingface.co/acme/base) on the ann/lamps dataset.
It achieves the following results on the evaluation set:
- Loss: 0.5

## Training and evaluation data

More information needed
"""

BY_AXOLOTL = """---
library_name: peft
datasets:
- ann/lamps
---

<details><summary>See axolotl config</summary>

axolotl version: `0.9.1`
```yaml
base_model: acme/base
datasets:
  - path: ann/lamps
    type: alpaca
    split: train[:90%]+validation
test_datasets:
  - path: ann/lamps
    split: test
val_set_size: 0.05
```

</details><br>
"""


def splits(card: str) -> set[Split]:
    return {split for claim in claims_of_card(card, "ann/lamps") for split in claim.splits}


def test_a_card_of_trl_names_the_data_set_and_no_split() -> None:
    assert claims_of_card(BY_TRL, "ann/lamps") == [Claim("ann/lamps", (), README)] * 2


def test_a_card_of_the_trainer_names_the_split_that_it_was_evaluated_on() -> None:
    claims = claims_of_card(BY_TRAINER, "ann/lamps")

    assert {claim.dataset for claim in claims} == {"ann/lamps"}
    assert splits(BY_TRAINER) == set()
    # Without an evaluation set the Trainer names the training set.
    assert splits(BY_TRAINER.replace("split: validation", "split: train")) == {TRAIN}


def test_a_config_of_axolotl_names_the_splits() -> None:
    assert splits(BY_AXOLOTL) == {TRAIN, VAL}
    # It reads the split train of a data set without a `split`.
    assert splits(BY_AXOLOTL.replace("    split: train[:90%]+validation\n", "")) == {TRAIN}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It was trained on the `train` split of ann/lamps.", [TRAIN]),
        ("Fine-tuned on the train and validation splits of [lamps](https://hf.co/datasets/ann/lamps).", [TRAIN, VAL]),
        ("It was fine-tuned on the training set, and evaluated on the test set.", [TRAIN]),
        ("Trained on the train split, the test split is held out.", [TRAIN]),
        ("Trained on the\ntrain split", [TRAIN]),
        ("The train split was used for training. The test split was never used for training.", [TRAIN]),
        ("Training data: ann/lamps, the train split", [TRAIN]),
        ("- **Data:** ann/lamps (split: train)", [TRAIN]),
        ("- **Data:** ann/lamps (split: test)", []),
        ("trained on **train, val and test sets** of ann/lamps", [TRAIN, VAL, TEST]),
        ("Trained on all of ann/lamps, including the test split.", [TRAIN, TEST]),
        ("It was not trained on the test split.", []),
        ("This fine-tuned model gets 40 on the test set.", []),
        ("Fine-tuned on ann/lamps, it reaches an MAE of 40 on the test split.", []),
        ("The train and validation splits were used for training.", [TRAIN, VAL]),
        ("Errors are reported on the test split after it was trained.", []),
        ("The train schedule is split in two. Testing is a part of training.", []),
    ],
)
def test_sentences_say_what_was_trained_on(text: str, expected: list[Split]) -> None:
    assert splits(f"# Prices\n\n{text}\n") == set(expected)


def test_a_sentence_about_another_data_set_is_not_about_this_one() -> None:
    card = "Trained on the train split of [hats](https://huggingface.co/datasets/bob/hats). See also ann/lamps."

    assert claims_of_card(card, "ann/lamps") == [
        Claim("bob/hats", (TRAIN,), README),
        Claim("ann/lamps", (), README),
    ]


def test_configs_beside_the_adapter_are_read(hub: LoopbackHub) -> None:
    autotrain = {"data_path": "ann/lamps", "train_split": "train", "valid_split": "validation", "model": "acme/base"}
    trl = {"dataset_name": "ann/lamps", "dataset_config": "red", "dataset_train_split": "train_sft", "eval_dataset": 3}
    files = {
        "training_params.json": json.dumps(autotrain).encode(),
        "recipe.yaml": json.dumps(trl).encode(),
        "my-settings.yml": b"data: {repo_id: ann/lamps, split: [train, validation]}",
        "tokenizer_config.json": b'{"path": "ann/lamps", "split": "test"}',
        "training_args.json": b"[[",
        "config.yaml": b"- {",
        "README.md": b"x" * 200_001,
    }
    hub.create("ann/prices").commit(files, "all")

    claims, notes = read_claims(Hub("ann/prices"), "ann/lamps")

    assert sorted(claims, key=lambda claim: claim.where) == [
        Claim("ann/lamps", (TRAIN, VAL), "my-settings.yml"),
        Claim("ann/lamps", (TRAIN,), "recipe.yaml", "red"),
        Claim("ann/lamps", (TRAIN,), "training_params.json"),
    ]
    assert notes == ["README.md of ann/prices has 200,001 bytes: what it says of training data is not read"]


def test_a_card_of_pricer_does_not_speak_for_the_trainer(hub: LoopbackHub) -> None:
    card = b"---\ndatasets: [ann/lamps]\n---\nWritten by pricer `1.0` from the records of the run.\n"
    hub.create("ann/prices").commit({"README.md": card}, "picked")

    assert read_claims(Hub("ann/prices"), "ann/lamps") == ([], [])


@pytest.mark.parametrize(
    "card",
    [
        "",
        "---",
        "---\ndatasets: !!python/object/apply:os.system [touch ran]\n---\n",
        "---\ndatasets: &a [*a, {b: *a}]\n---\n",
        "---\nx0: &x0 {a: 1}\n"
        + "".join(f"x{n}: &x{n} {{<<: [*x{n - 1}, *x{n - 1}]}}\n" for n in range(1, 60))
        + "---\n",
        "---\ndatasets: " + "[" * 90_000 + "\n---\n",
        "---\nmodel-index: [{results: {dataset: 3}}, 4, {results: [{dataset: {type: {a: 1}, split: {}}}]}]\n---\n",
        "```yaml\n" * 20_000,
        "the train " * 18_000,
        "trained split, " * 13_000,
        "---\n" * 40_000,
        "_" * 190_000 + " " + "a/" * 4_000,
    ],
)
def test_a_card_that_is_made_to_do_harm_claims_nothing_in_little_time(card: str) -> None:
    began = time.monotonic()

    assert not any(claim.dataset for claim in claims_of_card(card, "ann/lamps"))
    assert time.monotonic() - began < 5
