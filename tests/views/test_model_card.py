"""What a model card says, and that nothing from outside can say anything else with it."""

import ast
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from pricer.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from pricer.core.breakdowns import Group, NearCopies
from pricer.core.checkpoints import Checkpoint
from pricer.core.comparison import Difference, Lead
from pricer.core.early_stopping import EarlyStop
from pricer.core.evaluation import EvalSpec, Evaluation
from pricer.core.held_out import HeldOutCheck
from pricer.core.intervals import Coverage, CoverageReport
from pricer.core.items import Split
from pricer.core.metrics import METRICS, Metric
from pricer.core.prices import PriceFormat
from pricer.core.selection import Selection, select
from pricer.core.verdicts import LookVerdict
from pricer.views.card_results import Origin
from pricer.views.model_card import Card, Recipe, model_card
from tests.builders import TEMPLATE, a_baseline_verdict, a_checkpoint, a_comparison, a_difference, a_spec, an_evaluation

HUB_SPEC = a_spec(base="maker/small", base_revision="ba5e" * 10, precision="nf4/bfloat16")
HUB_TEST = replace(HUB_SPEC, split=Split.TEST)
COMMIT = "c0de" * 10

CONFIG = RunConfig(
    model=ModelConfig(compute_dtype="bfloat16"),
    data=DataConfig(source="user/lamps", revision="da7e"),
    train=TrainConfig(epochs=3, batch_size=16, learning_rate=1e-4),
)
ORIGIN = Origin({"test": "test"})
RECIPE = Recipe(CONFIG, TEMPLATE, 4000, base_on_hub=True, data_on_hub=True, origin=ORIGIN)


def changed(recipe: Recipe, **sections: dict[str, Any]) -> Recipe:
    """The recipe with other settings, whether or not a config could have them: `data={"revision": None}`."""
    update = {name: getattr(recipe.config, name).model_copy(update=values) for name, values in sections.items()}
    return replace(recipe, config=recipe.config.model_copy(update=update))


LOCAL = changed(
    replace(RECIPE, base_on_hub=False, data_on_hub=False, origin=Origin({})),
    data={"source": "builtin:computers", "revision": None},
)


def hub_checkpoint(step: int) -> Checkpoint:
    return a_checkpoint(step, base="maker/small", base_revision="ba5e" * 10)


def on_hub(step: int | None, mae: float | None, spec: EvalSpec = HUB_SPEC, **changes: Any) -> Evaluation:
    checkpoint_id = None if step is None else hub_checkpoint(step).id
    return an_evaluation(step, mae, spec=spec, **({"id": checkpoint_id} | changes))


MEASURED = (on_hub(None, 90.0), on_hub(100, 50.0), on_hub(200, 40.0), on_hub(300, 43.5))


def card_of(
    evaluations: Sequence[Evaluation] = MEASURED,
    checkpoint: Checkpoint | None = None,
    recipe: Recipe = RECIPE,
    metric: str = "mae",
    base_license: str | None = "llama3.2",
    **changes: Any,
) -> Card:
    """A card of the best of these evaluations under the first one's spec."""
    spec = evaluations[0].spec
    selection = select([e for e in evaluations if e.spec == spec], metric)
    arguments: dict[str, Any] = {
        "repo": "user/lamp-pricer",
        "checkpoint": checkpoint or hub_checkpoint(selection.candidate.step or 0),
        "commit": COMMIT,
        "selection": selection,
        "evaluations": evaluations,
        "base_license": base_license,
        "recipe": recipe,
        "versions": {"torch": "2.13.0", "peft": "0.21.0"},
        "pricer_version": "0.2.0",
    }
    return model_card(**(arguments | changes))


def local_card(checkpoint: Checkpoint, recipe: Recipe) -> Card:
    return card_of([an_evaluation(checkpoint.step, 40.0, id=checkpoint.id)], checkpoint, recipe)


def text_of(card: Card) -> str:
    """The body with each run of blanks as one: where its lines break says nothing."""
    return " ".join(card.body.split())


def python_in(card: Card) -> str:
    """The whole code; the short form is in front of it."""
    _, whole = re.findall(r"^```python\n(.*?)^```$", card.body, re.DOTALL | re.MULTILINE)
    return str(whole)


def short_form_in(card: Card) -> str:
    short, _ = re.findall(r"^```python\n(.*?)^```$", card.body, re.DOTALL | re.MULTILINE)
    return str(short)


WHOLE = """\
# lamp-pricer

This model answers the description of a product with its price in dollars. It is a LoRA adapter for [`maker/small`](https://huggingface.co/maker/small).
It was trained on 4,000 items of [`user/lamps`](https://huggingface.co/datasets/user/lamps).

- **Use the model: on 60 test items, it is off by &#36;44.00 on average (43.00 to 45.00), which is 22.0% of the median price; that is &#36;51.00 less (50.00 to 52.00) than constant, a simpler method.**
- This error can be published: the test items were scored for this checkpoint alone.

**The mean absolute error is $44.00 (43.00 to 45.00)** on 60 items of the data set's own split `test` (95% interval in brackets).

|  | MAE | above this model |
| --- | ---: | ---: |
| **this model** | $44.00 (43.00 to 45.00) |  |
| `constant` | $95.00 (94.00 to 96.00) | $51.00 (50.00 to 52.00) |

## Use

With pricer, the program that trained and measured this model. It gives a price and an 80% interval:

```bash
pip install ./pricer  # a clone of pricer's repository: it is on no package index yet
hf auth login         # only for private repositories
pricer predict --repo user/lamp-pricer "…"
```

With peft. Without a revision it loads the chosen checkpoint:

```python
from peft import AutoPeftModelForCausalLM

model = AutoPeftModelForCausalLM.from_pretrained("user/lamp-pricer")
```

The sections below have the prompt, the code of one answer with the base as it was measured (`nf4`), and all results.

## Results

The tables show the chosen checkpoint and the baselines on the same items, with 95% intervals in brackets.

### Validation split

Measured on 50 validation items, which pricer held out by a hash of their texts.
**This split chose the checkpoint**: of the 3 that were measured
it is the best by MAE, $3.50 better than the next.
A number that took part in a choice is optimistic by construction.
On 60 test items, which took no part in the choice, MAE is $44.00 (43.00 to 45.00).

|  | `step-000200` | `constant` |
| --- | ---: | ---: |
| MAE: mean absolute error in dollars | $40.00 (39.00 to 41.00) | $90.00 (89.00 to 91.00) |
| median error: median absolute error in dollars | $0.25 | $0.25 |
| RMSLE: root mean squared error of ln(price + 1) | 0.250 | 0.250 |
| R²: share of the price variance explained | 0.250 | 0.250 |
| MAPE: mean absolute error as a share of the price | 25.0% | 25.0% |
| hits: answers off by less than $40 or 20% of the price | 50.0% (40.0 to 60.0) | 50.0% (40.0 to 60.0) |
| no price: answers without a price in them | 0.0% | 0.0% |
| items | 50 | 50 |

### Test split

Measured on 60 items of the data set's own split `test`. They took no part in the choice of the checkpoint.

|  | `step-000200` | `constant` |
| --- | ---: | ---: |
| MAE: mean absolute error in dollars | $44.00 (43.00 to 45.00) | $95.00 (94.00 to 96.00) |
| median error: median absolute error in dollars | $0.25 | $0.25 |
| RMSLE: root mean squared error of ln(price + 1) | 0.250 | 0.250 |
| R²: share of the price variance explained | 0.250 | 0.250 |
| MAPE: mean absolute error as a share of the price | 25.0% | 25.0% |
| hits: answers off by less than $40 or 20% of the price | 50.0% (40.0 to 60.0) | 50.0% (40.0 to 60.0) |
| no price: answers without a price in them | 0.0% | 0.0% |
| items | 60 | 60 |

### Validation error by step

| step | epoch | MAE | hits | no price | n |
| --- | ---: | ---: | ---: | ---: | ---: |
| 100 | 10.00 | $50.00 ± 1.00 | 50.0% | 0.0% | 50 |
| **200 (chosen)** | 20.00 | $40.00 ± 1.00 | 50.0% | 0.0% | 50 |
| 300 | 30.00 | $43.50 ± 1.00 | 50.0% | 0.0% | 50 |

## Prompt, and the code of one answer

The prompt is the question, a blank line, the description, a blank line, and a last
line that the answer continues. Prompt and answer had at most 128 tokens together: longer descriptions
were cut at their end.
Decoding was greedy, whatever the defaults of the base are.

```python
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig

name = "maker/small"
revision = "ba5eba5eba5eba5eba5eba5eba5eba5eba5eba5e"
tokenizer = AutoTokenizer.from_pretrained(name, revision=revision)
base = AutoModelForCausalLM.from_pretrained(
    name, revision=revision,
    dtype=torch.bfloat16,
    quantization_config=BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    ),
    device_map="auto",
)
for module in base.modules():  # on some CPUs bitsandbytes would compute at another precision
    if hasattr(module, "support_avx512bf16_for_cpu"):
        module.support_avx512bf16_for_cpu = False
base.generation_config = GenerationConfig()  # without the sampling and penalties that some bases set
# This commit is the same for ever. `main`, without a revision, is the pick, which a later pick may replace.
model = PeftModel.from_pretrained(base, "user/lamp-pricer", revision="c0dec0dec0dec0dec0dec0dec0dec0dec0dec0de")

question = "What does this cost to the nearest dollar?"
description = "…"
lead = "Price is $"
prompt = f"{question}\\n\\n{description.strip()}\\n\\n{lead}"
inputs = tokenizer(prompt, return_tensors="pt").to(model.device)
end = tokenizer.eos_token_id
# The adapter computes in 16 bits, as in training. Unlike here, pricer reads logits in float32.
with torch.autocast(model.device.type, dtype=torch.bfloat16):
    output = model.generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=end, pad_token_id=end)
print(tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
```

The price is the first free-standing number; one behind a dollar sign takes precedence.
For an answer without a price, the errors above impute the median training price, $100.00; such an answer is never a hit.

`pricer eval --repo user/lamp-pricer --checkpoint best` measures it again.

## Training

- Data: [`user/lamps`](https://huggingface.co/datasets/user/lamps) on the Hub, at revision `da7e`;
  trained on 4,000 items, fingerprint of all items `da7a`.
- Base: [`maker/small`](https://huggingface.co/maker/small), commit `ba5eba5eba5eba5eba5eba5eba5eba5eba5eba5e`;
  held as `nf4` (4-bit NormalFloat, double quantization), computed in `bfloat16`.
  The numbers above were measured at `nf4/bfloat16`.
- Adapter: LoRA on every linear layer;
  r 32, alpha 64, dropout 0.1.
- Run: set to 3 epochs, 16 items a step, learning rate 0.0001 (`cosine`), seed 42.
  This checkpoint is from step 200, epoch 20.00.
- Trained with: `peft 0.21.0, torch 2.13.0`.
- Licence: the licence of the base, `llama3.2`.

## Limits

The tables show all that was measured, on items from the same source as the training items: no other source, no other
kind of product, no later prices. Items with the same words are in one split, and so are near-duplicates.
The code above gives one number. `pricer predict` also gives the interval in which the model expects the price. That
interval is raw: nothing corrects it, and it may hold fewer prices than its name says.

Written by pricer `0.2.0` from the records of the run.
"""  # noqa: E501


VERDICTS = (
    a_baseline_verdict(n=60, error=44.0, error_interval=(43.0, 45.0), lower_by=51.0, interval=(50.0, 52.0)),
    LookVerdict("first look", 0, ()),
)


def test_a_whole_card() -> None:
    tested = [*MEASURED, on_hub(None, 95.0, spec=HUB_TEST, n=60), on_hub(200, 44.0, spec=HUB_TEST, n=60)]

    card = card_of(tested, leads=[Lead("constant", 51.0, (50.0, 52.0))], verdicts=VERDICTS)

    assert card.body == WHOLE
    assert (card.repo, card.license, card.base_model) == ("user/lamp-pricer", "llama3.2", "maker/small")
    assert card.tags == ("lora", "price-prediction", "pricer")
    assert (card.datasets, card.dataset_id, card.dataset_type) == (("user/lamps",), "user/lamps", "user/lamps")
    assert card.dataset_revision == "da7e"
    values = [44.0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.0, 40.0, 0.25, 0.25, 0.25, 0.25, 0.5, 0.0]
    assert [result.value for result in card.results] == values
    # The data set has a split `test`. The validation items were cut from its training items.
    assert [(result.split, result.metric) for result in card.results] == [
        (split, metric) for split in ("test", None) for metric in METRICS
    ]
    assert card.results[1].label == "median error: median absolute error in dollars"


def test_the_same_things_make_the_same_card_in_any_order() -> None:
    shuffled = [MEASURED[3], MEASURED[0], MEASURED[2], MEASURED[1]]

    assert card_of(shuffled, versions={"peft": "0.21.0", "torch": "2.13.0"}) == card_of()


def test_a_card_without_the_test_split_says_that_no_number_is_free_of_the_choice() -> None:
    card = card_of()

    assert (
        "### Test split Not measured under the same conditions, so no number here is free of the choice. "
        "`pricer pick --repo user/lamp-pricer --confirm` measures it. ### Validation error"
    ) in text_of(card)
    assert (
        "on 50 validation items, which pricer held out by a hash of their texts (95% interval in brackets). The "
        "checkpoint was chosen by these items, which makes the number optimistic. No test item was scored. |"
    ) in text_of(card)
    assert {(result.split, result.items) for result in card.results} == {
        (None, "50 validation items, which pricer held out by a hash of their texts")
    }


@pytest.mark.parametrize(
    "other",
    [
        on_hub(300, 12.34, spec=HUB_TEST),  # another checkpoint
        on_hub(200, 12.34, spec=replace(HUB_TEST, precision="none/float32")),
        on_hub(200, 12.34, spec=replace(HUB_TEST, data_fingerprint="0dd")),
        on_hub(200, 12.34, spec=replace(HUB_SPEC, limit=10)),
        on_hub(None, 12.34, spec=replace(HUB_SPEC, limit=10)),
    ],
)
def test_what_is_not_comparable_is_left_out(other: Evaluation) -> None:
    assert card_of([*MEASURED, other]) == card_of()


def test_of_several_measurements_on_the_test_split_the_largest_is_shown() -> None:
    part, whole = (on_hub(200, 60.0, spec=replace(HUB_TEST, limit=10), n=10), on_hub(200, 44.0, spec=HUB_TEST, n=60))

    for tests in ([part, whole], [whole, part]):
        card = card_of([*MEASURED, *tests])
        assert "Measured on 60 items of the data set's own split `test`. They took no part" in card.body
        assert [r.value for r in card.results if (r.split, r.metric) == ("test", "mae")] == [44.0]


def test_a_test_number_that_is_not_the_first_says_so() -> None:
    own, other = on_hub(200, 44.0, spec=HUB_TEST, n=60), on_hub(300, 45.0, spec=HUB_TEST, n=60)

    assert (
        "They took no part in the choice of the checkpoint. The split was also looked at for `step-000300`, so this is "
        "not an untouched number."
    ) in text_of(card_of([*MEASURED, own, other]))


def test_a_card_by_the_median_says_how_the_greedy_answer_of_its_code_compares() -> None:
    spec = replace(HUB_SPEC, estimator="median")
    by_estimator = (Metric("greedy", 45.5, (43.5, 47.5), 50, "lower"), Metric("median", 40.0, None, 50, "lower"))

    body = text_of(card_of([on_hub(200, 40.0, spec=spec, estimators=by_estimator)]))

    assert "Decoding was greedy" not in body
    assert (
        "The price is the median of the model's distribution over prices, which `pricer predict` gives. The code below "
        "gives the greedy answer, another estimate. Its MAE on the validation items is $45.50 ± 2.00."
    ) in body


def test_a_single_checkpoint_was_not_chosen_from_anything() -> None:
    card = card_of([on_hub(100, 50.0)])
    body = card.body

    assert "of their texts. Checkpoints are chosen on this split; only this one was measured. |" in text_of(card)
    assert "|  | `step-000100` |\n| --- | ---: |\n" in body


def test_those_that_dropped_out_of_a_race_are_counted() -> None:
    assert (
        "of their texts. **This split chose the checkpoint**: it won a race. The other 7 dropped out before they were "
        "measured on all items. A number that took part in a choice is optimistic by construction. |"
    ) in text_of(card_of([on_hub(100, 50.0)], dropped=7))
    assert (
        "of the 2 that were measured on all of them it is the best by MAE, $10.00 better than the next. Another 7 "
        "dropped out of a race before they were measured on all of them. A number"
    ) in text_of(card_of([on_hub(100, 50.0), on_hub(200, 60.0)], dropped=7))


def test_it_says_what_the_baselines_are() -> None:
    beside = [on_hub(None, 90.0, name=name) for name in ("untuned base", "train median", "constant")]

    said = text_of(card_of([on_hub(100, 50.0), *beside]))

    assert (
        "The baselines: `train median` always answers the median price of the training items; `untuned base` is the "
        "base without an adapter. ## Use"
    ) in said
    assert "The baselines:" not in text_of(card_of())


def test_a_tie_is_called_one() -> None:
    said = text_of(card_of([on_hub(100, 50.0), on_hub(200, 50.0)]))

    assert (
        "of the 2 that were measured it is the best by MAE, with the same value as the next, which is later in "
        "training. A number"
    ) in said


def compared(evaluation: Evaluation, worse_by: float, interval: tuple[float, float], p_best: float) -> Difference:
    return a_difference(0, worse_by, interval, p_best, evaluation.candidate, is_best=worse_by < 0)


def test_it_says_how_sure_the_choice_was() -> None:
    worse, best = evaluations = [on_hub(100, 43.5), on_hub(200, 40.0)]
    comparison = a_comparison(
        compared(worse, 3.5, (-0.5, 7.5), 0.1), compared(best, -3.5, (-7.5, 0.5), 0.9), more_items=20
    )
    selection = Selection("mae", (best, worse), comparison)

    assert (
        "of the 2 that were measured it is the best by MAE, $3.50 (−0.50 to 7.50) better than the best of the others. "
        "A number that took part in a choice is optimistic by construction. Compared item by item, 2 of 2 checkpoints "
        "may be the truly best (95 % confidence); the chosen one is worse than it by at most $0.50; about 20 more "
        "items would rule out the runner-up. Corrected for the choice, MAE is $41.25 (36.00 to 48.50)."
    ) in text_of(card_of(evaluations, selection=selection))


def test_the_table_by_step_has_the_metric_that_chose() -> None:
    # hits 75 % against 50 %: a margin of 25 points of a percent.
    by_hits = card_of([on_hub(100, 50.0, hit_rate=0.75), on_hub(200, 40.0)], metric="hit_rate").body
    by_rmsle = card_of(metric="rmsle").body

    assert "the best by hits, 25.00 points better than the next." in by_hits
    assert "| step | epoch | MAE | hits | no price | n |" in by_hits
    assert "| **100 (chosen)** | 10.00 | $50.00 ± 1.00 | 75.0% | 0.0% | 50 |" in by_hits
    assert "| step | epoch | MAE | RMSLE | hits | no price | n |" in by_rmsle
    assert "| **100 (chosen)** | 10.00 | $50.00 ± 1.00 | 0.250 | 50.0% | 0.0% | 50 |" in by_rmsle


@pytest.mark.parametrize("unknown", [None, "", "unknown", "MIT\nlicense: mit", "my licence"])
def test_an_unknown_licence_is_not_claimed(unknown: str | None) -> None:
    card = card_of(base_license=unknown)

    assert card.license is None
    assert "- Licence: not known. The adapter needs its base, whose licence applies.\n" in card.body


def test_an_undefined_metric_is_left_out_of_the_results_and_a_dash_in_the_table() -> None:
    undefined = (Metric(name, None, None, 1, metric.better) for name, metric in METRICS.items() if name != "mae")
    card = card_of([on_hub(200, None, metrics=(Metric("mae", 40.0, None, 1, "lower"), *undefined))])

    assert [(result.metric, result.value) for result in card.results] == [("mae", 40.0)]
    assert "| MAE: mean absolute error in dollars | $40.00 |\n" in card.body
    assert "| R²: share of the price variance explained | – |\n" in card.body
    assert "| **200 (chosen)** | 20.00 | $40.00 | – | – | 1 |\n" in card.body


def test_a_base_and_data_that_come_along_are_no_repositories() -> None:
    card = local_card(a_checkpoint(200), LOCAL)

    assert (card.base_model, card.datasets, card.dataset_revision) == (None, (), None)
    assert (card.dataset_name, card.dataset_type) == ("builtin:computers", "builtin-computers")
    assert "- Data: `builtin:computers`, which is bundled with pricer; trained on 4,000 items" in text_of(card)
    assert "- Base: `builtin:base`, hash of its content `ba5e`; held" in text_of(card)
    code = python_in(card)
    assert code.startswith("from importlib.resources import files\n\nimport torch\n")
    assert 'name = str(files("pricer") / "assets" / "base")\ntokenizer = AutoTokenizer.from_pretrained(name)\n' in code


def test_a_folder_on_somebodys_disk_is_named_without_its_place() -> None:
    where = "/home/alice/secret/"
    recipe = changed(
        LOCAL,
        data={"source": f"{where}products 2.csv"},
        model={"quantization": "none", "compute_dtype": "float32"},
    )
    card = local_card(a_checkpoint(200, base=f"{where}llama/"), recipe)

    assert "alice" not in repr(card)
    assert (card.base_model, card.datasets) == (None, ())
    assert (card.dataset_name, card.dataset_type) == ("products 2.csv", "products-2.csv")
    assert "- Data: `products 2.csv`, a local file; trained on 4,000" in text_of(card)
    assert "held as `none` (not quantized), computed in `float32`." in text_of(card)
    code = python_in(card)
    assert 'name = "llama"  # the folder of the base\n' in code
    assert "BitsAndBytes" not in code
    assert "bitsandbytes" not in code
    assert "    name,\n    dtype=torch.float32,\n    device_map" in code


def test_the_short_form_loads_a_base_from_where_it_is() -> None:
    builtin, folder = local_card(a_checkpoint(200), LOCAL), local_card(a_checkpoint(200, base="/data/llama"), LOCAL)

    assert short_form_in(card_of()) == (
        "from peft import AutoPeftModelForCausalLM\n\n"
        'model = AutoPeftModelForCausalLM.from_pretrained("user/lamp-pricer")\n'
    )
    loads = (
        'base = AutoModelForCausalLM.from_pretrained({})\nmodel = PeftModel.from_pretrained(base, "user/lamp-pricer")\n'
    )
    assert short_form_in(builtin).endswith(loads.format('str(files("pricer") / "assets" / "base")'))
    assert short_form_in(folder).endswith(loads.format('"llama"'))
    said = "The base is not on the Hub. Its folder `llama` must be in the folder that you work in."
    assert said in text_of(folder)
    assert said not in text_of(builtin)


def test_an_adapter_that_names_a_folder_of_another_machine_is_loaded_with_the_base_that_was_measured() -> None:
    foreign = a_checkpoint(200, base="/content/drive/base", base_revision=None, prompt_fingerprint=None)
    card = card_of([on_hub(200, 40.0, id=foreign.id)], foreign, changed(RECIPE, model={"base": "maker/small"}))

    assert 'AutoModelForCausalLM.from_pretrained("maker/small")\n' in short_form_in(card)
    assert card.base_model == "maker/small"
    assert "/content" not in card.body


def test_links_lead_to_the_hub_that_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "https://ann:secret@hub.example.com")

    body = card_of().body

    assert "[`maker/small`](https://hub.example.com/maker/small)" in body
    assert "[`user/lamps`](https://hub.example.com/datasets/user/lamps)" in body


def test_items_that_may_have_been_trained_on_are_a_note_before_every_number_but_the_first() -> None:
    unknown = card_of(held_out=HeldOutCheck(known=False, text="not known to be held out: them/x names no split")).body
    known = card_of(held_out=HeldOutCheck(known=True, text="held out: the adapters were trained on `train`")).body

    note = "\n> **Caution.** These items are not known to be held out: them/x names no split.\n"
    assert f"{note}\n|  | MAE |" in unknown
    assert "All scored items were held out: the adapters were trained on &#96;train&#96;.\n" in known
    assert "Caution" not in known


def test_the_difference_to_a_baseline_stands_beside_it() -> None:
    card = card_of(leads=[Lead("constant", -2.0, (-3.0, -1.0))])

    assert "| `constant` | $90.00 (89.00 to 91.00) | −$2.00 (−3.00 to −1.00) |\n" in card.body
    assert "| `constant` | $90.00 (89.00 to 91.00) |  |\n" in card_of().body  # its scores are gone


@pytest.mark.parametrize(
    ("origin", "said"),
    [
        (Origin(None), "on 50 validation items (95%"),
        (Origin({}), "on 50 validation items, which pricer held out by a hash of their texts (95%"),
        (Origin({}, by_time=True), "on 50 validation items, which pricer held out by time (95%"),
        (Origin({"val": None}), "on 50 items of the source's own validation split (95%"),
        (Origin({"val": "dev"}), "on 50 items of the data set's own split `dev` (95%"),
    ],
)
def test_the_first_lines_say_how_the_items_were_held_out(origin: Origin, said: str) -> None:
    card = card_of(recipe=replace(RECIPE, origin=origin))

    assert said in card.body
    assert {result.split for result in card.results} == {"dev" if "dev" in said else None}


def test_two_splits_without_a_name_state_the_results_on_test_items_alone() -> None:
    tested = [*MEASURED, on_hub(200, 44.0, spec=HUB_TEST, n=60)]

    card = card_of(tested, recipe=replace(RECIPE, origin=Origin({})))

    # The Hub's client would merge both into one list, where nobody could tell them apart.
    assert [result.value for result in card.results if result.metric == "mae"] == [44.0]


def test_a_folder_that_looks_like_a_repository_is_not_taken_for_one() -> None:
    card = local_card(a_checkpoint(200, base="models/llama"), LOCAL)

    assert card.base_model is None


def test_padded_prices_titles_layers_and_folders_are_said_where_they_are() -> None:
    template = replace(TEMPLATE, price_format=PriceFormat("padded", 4))
    recipe = changed(
        replace(RECIPE, template=template),
        data={"title": "name", "revision": None},
        adapter={"target_modules": ["v_proj", "q_proj"]},
    )
    card = card_of(checkpoint=hub_checkpoint(200).at(COMMIT, "step-000200"), recipe=recipe)
    data = "[`user/lamps`](https://huggingface.co/datasets/user/lamps)"

    assert "the description (the title, where there is one, in the line above it), a blank line" in text_of(card)
    assert (
        "The price is the 4 digits that the answer starts with, in whole dollars; fewer digits are no price."
        in card.body
    )
    assert "- Adapter: LoRA on `q_proj`, `v_proj`; r 32" in text_of(card)
    assert f"- Data: {data} on the Hub, at no pinned revision; trained on 4,000" in text_of(card)
    assert f'"user/lamp-pricer", revision="{COMMIT}", subfolder="step-000200")\n' in card.body


@pytest.mark.parametrize(
    ("price_format", "said", "value"),
    [
        (PriceFormat("plain", None, 1, "kWh"), "one before `kWh` takes precedence", "40.00 kWh (39.00 to 41.00)"),
        (
            PriceFormat("padded", 4, 1, "kWh"),
            "the 4 digits that the answer starts with, in steps of 0.10 kWh; fewer digits",
            "40.00 kWh (39.00 to 41.00)",
        ),
        (PriceFormat("plain", None, -2, "€"), "one behind <code>€</code> takes precedence", "€40 (39 to 41)"),
        (
            PriceFormat("padded", 4, -2, "€"),
            "the 4 digits that the answer starts with, in steps of €100; fewer digits",
            "€40 (39 to 41)",
        ),
        (
            PriceFormat("padded", 4, 0, "€"),
            "the 4 digits that the answer starts with, in whole euros; fewer digits",
            "€40.00 (39.00 to 41.00)",
        ),
    ],
)
def test_a_card_in_another_unit_says_no_dollars(price_format: PriceFormat, said: str, value: str) -> None:
    unit = price_format.price_unit
    spec = replace(HUB_SPEC, unit=unit.symbol, decimals=unit.decimals, hit_error=None, hit_share=0.1)
    template = replace(TEMPLATE, question="How much?", lead="It is ", price_format=price_format)
    recipe = changed(
        replace(RECIPE, template=template),
        data={"unit": unit.symbol, "decimals": unit.decimals, "max_price": 500.0},
        prompt={"question": template.question, "lead": template.lead},
    )

    card = card_of([on_hub(None, 90.0, spec), on_hub(100, 50.0, spec), on_hub(200, 40.0, spec)], recipe=recipe)

    text = text_of(card)
    assert said in text
    assert f"with its price in {unit.plural}." in text
    assert f"| MAE: mean absolute error in {unit.plural} | {value} |" in text
    assert "hits: answers off by less than 10% of the price" in text
    assert f"items above {unit.price(500.0)} left out" in text
    assert "$" not in text
    assert "dollar" not in text
    assert f"MAE: mean absolute error in {unit.plural}" in {result.label for result in card.results}


def test_a_checkpoint_of_another_trainer_is_not_described_by_settings_of_ours() -> None:
    foreign = a_checkpoint(200, base="maker/small", base_revision=None, prompt_fingerprint=None, epoch=None)
    card = card_of(
        [on_hub(200, 40.0, id=foreign.id, epoch=None)], foreign, changed(RECIPE, model={"base": "maker/small"})
    )

    text = text_of(card)
    assert "Another trainer made it; pricer measured it on [`user/lamps`](" in text
    assert (
        "## Training - Made by another trainer. Its settings are not known here. - Measured with: data "
        "[`user/lamps`](https://huggingface.co/datasets/user/lamps) on the Hub, at revision `da7e`, fingerprint of all "
        "items `da7a`; base [`maker/small`](https://huggingface.co/maker/small), commit "
        f"`{'ba5e' * 10}`, at `nf4/bfloat16`. - Checkpoint: step 200 by the names in the "
        "repository. - Licence: the licence of the base, `llama3.2`. ## Limits The tables show all that "
        "was measured, on items of one source:"
    ) in text
    assert card.datasets == ()  # they say what a model was trained on
    assert f'revision = "{"ba5e" * 10}"\n' in python_in(card)  # the base that was measured


def test_the_wrong_checkpoint_and_a_repository_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match=r"step-000100 \(.{12}\) is not the checkpoint that was chosen"):
        card_of(checkpoint=hub_checkpoint(100))
    for repo in ("lamps", "user/lamps\n# x", "user/la mps", "a/b/c"):
        with pytest.raises(ValueError, match="cannot name a repository"):
            card_of(repo=repo)


HOSTILE = [
    "a | b",
    "x\n\n# More\n\n| a |\n| --- |",
    "`",
    "``` \n```\n\n[a](https://example.com)",
    "\r\n~~~\r",
    "<script>alert(1)</script><!--",
    "</code><img src=x onerror=y>",
    "$$x$$",
    r"\(x\) \\(y\\) \|",
    "*a* __b__ ![c](d) https://example.com www.example.com @user",
    "---\nlicense: mit\n---",
    '"""{x}{{y}}\\',
    "\u202eabc\u2066\x00\x1b[31m\ud800",
    "&lt;b&gt;",
    "",
    "   ",
]


def hostile_card(text: str) -> Card:
    """A card with this text in every place that is not ours."""
    recipe = changed(
        replace(RECIPE, template=replace(TEMPLATE, question=text, lead=text), origin=Origin({"val": text})),
        data={"source": text, "revision": text or "-"},
        adapter={"target_modules": [text]},
        train={"schedule": text},
    )
    spec = replace(HUB_SPEC, base=text, base_revision=text, precision=text, data_fingerprint=text)
    checkpoint = a_checkpoint(200, base=text, base_revision=text).at(text, text or "x")
    evaluations = [an_evaluation(None, 90.0, spec=spec, name=text)]
    evaluations.append(an_evaluation(200, 40.0, spec=spec, id=checkpoint.id))
    return card_of(
        evaluations,
        checkpoint,
        recipe,
        base_license=f"{text}?",
        versions={text: text},
        pricer_version=text,
        commit=text,
        leads=[Lead(text, 50.0, (49.0, 51.0)), Lead(text, -1.0, (-2.0, 0.0))],
        verdicts=[a_baseline_verdict(baseline=text), LookVerdict("looked at before", 1, (text,))],
        held_out=HeldOutCheck(known=False, text=text),
    )


def structure_of(card: Card) -> list[str]:
    """Every block and every inline element of the Markdown but its texts; code is code however it is written."""
    kinds = []
    for block in MarkdownIt("commonmark").enable("table").parse(card.body):
        if block.type != "inline":
            kinds.append(block.type)
        for inline in block.children or []:
            if inline.type == "html_inline":
                assert inline.content in ("<code>", "</code>")
            if inline.type not in ("text", "text_special") and inline.content != "</code>":
                kinds.append(inline.type.replace("html_inline", "code_inline"))
    return kinds


def assert_harmless(text: str) -> None:
    card = hostile_card(text)

    # What can name a repository has a link to it.
    can_be_linked = re.fullmatch(r"([A-Za-z0-9][\w.-]*/)?[A-Za-z0-9][\w.-]*", text, re.ASCII)
    assert structure_of(card) == structure_of(hostile_card("a" if can_be_linked else "a b"))
    assert all(c.isprintable() or c == "\n" for c in card.body)
    # The Hub would take these for mathematics, in code too.
    assert "$$" not in card.body
    assert "\\\\" not in card.body
    tree = ast.parse(python_in(card))
    literals = {
        statement.targets[0].id: statement.value.value
        for statement in tree.body
        if isinstance(statement, ast.Assign)
        and isinstance(statement.targets[0], ast.Name)
        and isinstance(statement.value, ast.Constant)
    }
    assert literals == {"name": text, "revision": text, "question": text, "description": "…", "lead": text}


@pytest.mark.parametrize("text", HOSTILE)
def test_text_from_outside_stays_text(text: str) -> None:
    assert_harmless(text)


@settings(max_examples=60, deadline=None)
@given(st.text(st.characters(categories=None) | st.sampled_from("\\`$|<>&#*_[]()\n\"'{} "), max_size=30))
def test_any_text_from_outside_stays_text(text: str) -> None:
    assert_harmless(text)


def test_odd_names_are_shown_as_they_are() -> None:
    body = text_of(card_of(recipe=changed(RECIPE, data={"source": "a|b `c` $$<d>"})))

    assert (
        "- Data: <code>a&#124;b &#96;c&#96; &#36;&#36;&#60;d&#62;</code> on the Hub, at revision `da7e`; trained"
        in body
    )


def test_a_training_that_was_stopped_early_says_why() -> None:
    body = text_of(card_of(recipe=replace(RECIPE, stop=EarlyStop(200, 400, 2, "5pec"))))

    said = "Training was stopped early: step 200 is the best, and the newest 2 checkpoints are all clearly worse."
    assert f"seed 42. {said} This checkpoint is from" in body
    assert "stopped early" not in text_of(card_of())


def test_a_card_says_what_the_dearest_item_may_cost() -> None:
    card = local_card(a_checkpoint(), changed(RECIPE, data={"max_price": 99_999.0}))

    assert "at revision `da7e`, items above $99,999.00 left out; trained on 4,000 items" in text_of(card)


def coverage_report(share: float, low: float, high: float) -> CoverageReport:
    corrected = Coverage(0.8, (0.682, 0.882), 25.0, 22.0)
    return CoverageReport(0.8, 60, 0, Coverage(share, (low, high), 20.0, 18.0), corrected)


def test_the_card_says_how_far_the_intervals_of_pricer_predict_hold_whatever_the_estimator_is() -> None:
    measured = [on_hub(200, 40.0, spec=replace(HUB_SPEC, estimator="median"))]

    known = text_of(card_of(measured, coverage=[coverage_report(0.75, 0.628, 0.842)]))
    unknown, greedy = text_of(card_of(measured)), text_of(card_of(coverage=[coverage_report(0.75, 0.628, 0.842)]))

    gives = (
        "`pricer predict` also gives the interval in which the model expects the price. That interval is raw: nothing "
        "corrects it, and it may hold fewer prices than its name says."
    )
    held = (
        " On 60 test items, raw 80% intervals held the price of 75.0% (62.8 to 84.2) of them; corrected on validation "
        "items, as `pricer eval` shows them, 80.0% (68.2 to 88.2)."
    )
    assert gives + held in known
    assert gives + " Written by" in unknown
    assert gives + held in greedy


def test_the_card_says_what_near_copies_in_the_test_split_change() -> None:
    tested = [*MEASURED, on_hub(200, 44.0, spec=HUB_TEST, n=60)]
    others = Group("", 57, 1.0, 2.0, 3.0, 46.5, (40.5, 52.5), 0.0, None, 0.5, (0.4, 0.6), 0)

    card = text_of(card_of(tested, near_copies=NearCopies(3, others)))

    assert (
        "Items with the same words are in one split. 3 of 60 items have a near-copy among the training items. "
        "On the other 57, the mean absolute error is $46.50 ± 6.00."
    ) in card
