"""Model cards as the Hub reads them: the exact metadata, and the same results when they are read back."""

from dataclasses import replace
from typing import Any

import pytest
import yaml
from huggingface_hub import EvalResultEntry, ModelCard, parse_eval_result_entries

from pricer.commands.parts.model_card import render_card, render_results
from pricer.views.card_results import Result
from pricer.views.model_card import Card

CARD = Card(
    repo="user/lamp-pricer",
    license="llama3.2",
    base_model="maker/small",
    datasets=("user/lamps",),
    tags=("lora", "pricer"),
    dataset_id="user/lamps",
    dataset_name="user/lamps",
    dataset_config=None,
    dataset_revision="da7e",
    results=(
        Result("test", "60 items of its own test", "mae", "MAE: in dollars", 1 / 3),
        Result("test", "60 items of its own test", "r2", "R²", -0.1),
        Result(None, "50 items cut off by a hash", "mae", "MAE: in dollars", 40.125),
    ),
    body="# lamp-pricer\n\nA price.\n",
)

WHOLE = """\
---
base_model: maker/small
datasets:
- user/lamps
library_name: peft
license: llama3.2
pipeline_tag: text-generation
tags:
- lora
- pricer
base_model_relation: adapter
model-index:
- name: lamp-pricer
  results:
  - task:
      type: text-generation
      name: Price prediction
    dataset:
      name: user/lamps
      type: user/lamps
      split: test
      revision: da7e
      args:
        items: 60 items of its own test
    metrics:
    - type: mae
      value: 0.3333333333333333
      name: 'MAE: in dollars'
    - type: r_squared
      value: -0.1
      name: R²
  - task:
      type: text-generation
      name: Price prediction
    dataset:
      name: user/lamps
      type: user/lamps
      revision: da7e
      args:
        items: 50 items cut off by a hash
    metrics:
    - type: mae
      value: 40.125
      name: 'MAE: in dollars'
---

# lamp-pricer

A price.
"""


def read_back(card: Card) -> tuple[Any, str]:
    """Metadata and Markdown."""
    read = ModelCard(render_card(card))
    return read.data, read.text


def test_a_whole_card() -> None:
    assert render_card(CARD) == WHOLE


def test_what_is_not_known_is_not_there() -> None:
    unknown = replace(
        CARD,
        license=None,
        base_model=None,
        datasets=(),
        dataset_id=None,
        dataset_name="my lamps.csv",
        dataset_revision=None,
        results=CARD.results[2:],
    )

    data, _ = read_back(unknown)

    assert data.to_dict() == {
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "tags": ["lora", "pricer"],
        "model-index": [
            {
                "name": "lamp-pricer",
                "results": [
                    {
                        "task": {"type": "text-generation", "name": "Price prediction"},
                        "dataset": {
                            "name": "my lamps.csv",
                            "type": "my-lamps.csv",
                            "args": {"items": "50 items cut off by a hash"},
                        },
                        "metrics": [{"type": "mae", "value": 40.125, "name": "MAE: in dollars"}],
                    }
                ],
            }
        ],
    }


@pytest.mark.parametrize(
    "text",
    [
        "---",
        "x\n---\nlicense: mit",
        "a: b # c",
        "'\"{}[]!&*%@`|>",
        "yes",
        "1e3",
        "=",
        "x " * 60 + "--- y",
        "\x85\u2028\u202e\x00\U0001f4a1",
    ],
)
def test_no_text_is_more_than_text_in_the_metadata(text: str) -> None:
    hostile = replace(
        CARD, license=text, datasets=(text,), dataset_name=text, dataset_id=text, dataset_revision=text, body="# x\n"
    )

    data, body = read_back(hostile)

    assert (data.license, data.datasets, data.base_model) == (text, [text], "maker/small")
    assert {(r.dataset_name, r.dataset_type, r.dataset_revision) for r in data.eval_results} == {(text,) * 3}
    assert body == "\n# x\n"


def test_a_rule_in_the_markdown_does_not_end_the_metadata_twice() -> None:
    data, body = read_back(replace(CARD, body="a\n\n---\n\nlicense: mit\n\n---\n"))

    assert data.license == "llama3.2"
    assert body == "\na\n\n---\n\nlicense: mit\n\n---\n"


def test_the_results_are_entries_that_the_hub_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://hub.example.com/")

    entries = parse_eval_result_entries(yaml.safe_load(render_results(CARD) or ""))

    # Those on the test items: what was measured on the items that chose the checkpoint is no result to compare.
    assert entries == [
        EvalResultEntry(
            dataset_id="user/lamps",
            task_id=task,
            value=value,
            dataset_revision="da7e",
            source_url="https://hub.example.com/user/lamp-pricer",
            source_name="pricer",
            notes=f"{label}; 60 items of its own test",
        )
        for task, value, label in (("price-mae", 1 / 3, "MAE: in dollars"), ("price-r2", -0.1, "R²"))
    ]


def test_results_on_data_that_are_not_on_the_hub_have_no_entries() -> None:
    assert render_results(replace(CARD, dataset_id=None)) is None
