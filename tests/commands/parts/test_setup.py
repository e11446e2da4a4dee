"""What is settled before a weight is loaded: which estimator is scored."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pricer.commands.parts.setup import Setup, load_base_of, prepare, prepare_to_ask
from pricer.config import DataConfig, ModelConfig, PromptConfig, RunConfig
from pricer.core.checkpoints import Answers
from pricer.core.items import Split
from pricer.core.prefix_search import PriceTrie
from pricer.core.prices import PriceFormat
from pricer.data.preparation import load_items
from pricer.errors import DataError
from pricer.ml.base import load_tokenizer
from pricer.ml.devices import Precision
from pricer.ml.tokens import PriceTokens
from pricer.stores.bases import ASSETS
from pricer.stores.runs import create_run
from tests.builders import a_checkpoint
from tests.data.item_files import jsonl
from tests.small_tokenizers import WITH_BLANK, WITHOUT_BLANK, saved

CONFIG = RunConfig(data=DataConfig(train_limit=16, val_limit=4))


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare(CONFIG)


def test_the_estimator_is_settled_in_the_config_and_part_of_the_spec(setup: Setup) -> None:
    assert setup.config.eval.estimator == "median"
    assert setup.spec(Split.VAL, None).estimator == "median"


def test_the_residual_mass_is_part_of_the_spec_only_for_a_prefix_search(setup: Setup) -> None:
    plain = prepare(CONFIG.model_copy(update={"prompt": PromptConfig(price_format="plain")}))
    estimator = {"estimator": "greedy"}
    greedy = plain.config.model_copy(update={"eval": plain.config.eval.model_copy(update=estimator)})

    assert setup.spec(Split.VAL, None).residual_mass is None
    assert isinstance(plain.price_tokens, PriceTrie)
    assert plain.spec(Split.VAL, None).residual_mass == 0.02
    assert replace(plain, config=greedy).spec(Split.VAL, None).residual_mass is None


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without the training data."""

    def missing(_: object, __: object) -> None:
        raise DataError("there is no file items.csv", "look for it")

    monkeypatch.setattr("pricer.commands.parts.setup.load_items", missing)


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize("style", ["padded", "plain"])
def test_asking_is_set_up_as_training_was_without_the_data(style: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pricer.commands.parts.setup.load_items", load_items)
        setup = prepare(CONFIG.model_copy(update={"prompt": PromptConfig.model_validate({"price_format": style})}))

    asking = prepare_to_ask(setup.config, a_checkpoint(answers=setup.answers))

    assert asking.items.train == ()
    assert asking.template == setup.template
    assert asking.encoder.answer_tokens == setup.encoder.answer_tokens
    assert type(asking.price_tokens) is type(setup.price_tokens)
    assert asking.config == setup.config


@pytest.mark.usefixtures("gone")
def test_a_checkpoint_that_does_not_say_how_it_answers_needs_its_training_data() -> None:
    with pytest.raises(DataError) as caught:
        prepare_to_ask(CONFIG, a_checkpoint(answers=None))

    assert caught.value.message == (
        "step-000005 comes from another trainer and does not say how it writes prices, so its training data are "
        "needed: there is no file items.csv"
    )
    assert caught.value.hint == "look for it"


def test_the_answers_are_what_training_found(setup: Setup) -> None:
    prices = sorted(item.price for item in setup.items.train)

    # 16 prices: the median is the mean of the eighth and the ninth. Four digits and the end of text.
    assert setup.answers == Answers(PriceFormat("padded", 4), 5, prices[-1], (prices[7] + prices[8]) / 2)


def a_base(tokenizer: Callable[[], Any]) -> str:
    """The embedded base with another tokenizer, in the folder `base`."""
    folder = saved(tokenizer(), Path("base"))
    for name in ("config.json", "model.safetensors"):
        shutil.copy(ASSETS / "base" / name, folder)
    return str(folder.resolve())


def a_setup(base: str, *prices: float, style: str = "auto", max_price: float | None = None) -> Setup:
    """The Setup of items of these prices, all of which train."""
    rows = [{"description": f"lamp number {n}", "price": price} for n, price in enumerate(prices)]
    return prepare(
        RunConfig(
            model=ModelConfig(base=base),
            data=DataConfig(source=jsonl(*rows), val_fraction=0, test_fraction=0, max_price=max_price),
            prompt=PromptConfig.model_validate({"price_format": style}),
            train=CONFIG.train.model_copy(update={"val_items": 0}),
        )
    )


def sizes(price_tokens: PriceTokens | None) -> list[int]:
    assert isinstance(price_tokens, tuple)
    return [len(tokens) for tokens in price_tokens]


@pytest.mark.parametrize("name", WITH_BLANK)
def test_a_run_on_a_sentencepiece_base_teaches_digits_alone_and_reads_them_exactly(name: str) -> None:
    setup = a_setup(a_base(WITH_BLANK[name]), 227.0, 1299.0)
    tokenizer = load_tokenizer(setup.base.folder)

    examples = setup.encoder.examples([setup.template.example(item) for item in setup.items.train])

    written = {"".join(tokenizer.convert_ids_to_tokens(e.ids[e.start :].tolist())) for e in examples}
    assert written == {"0227</s>", "1299</s>"}
    assert setup.encoder.answer_tokens == 4 + 1
    assert sizes(setup.price_tokens) == [10] * 4
    assert setup.notes == ()


def test_a_price_of_six_digits_pads_prices_where_that_keeps_the_median_and_says_so() -> None:
    setup = a_setup(a_base(WITHOUT_BLANK["Llama 3"]), 227.0, 150_000.0)

    assert setup.config.prompt.price_format == "padded"
    assert sizes(setup.price_tokens) == [1000, 1000]
    assert setup.config.eval.estimator == "median"
    assert setup.notes == (
        "the dearest training item costs $150,000, so prices are padded to 6 digits (prompt.price_format: auto): "
        "the median cannot be computed from plain prices of more than 5 digits; --set data.max_price=99999 keeps them "
        "plain",
    )


def test_up_to_five_digits_prices_stay_plain_and_nothing_is_said() -> None:
    setup = a_setup(a_base(WITHOUT_BLANK["Llama 3"]), 227.0, 99_999.0)

    assert (setup.config.prompt.price_format, setup.config.eval.estimator) == ("plain", "median")
    assert isinstance(setup.price_tokens, PriceTrie)
    assert setup.notes == ()


def test_a_price_of_six_digits_that_makes_answers_greedy_is_said_with_what_to_do() -> None:
    setup = a_setup(a_base(WITHOUT_BLANK["GPT-2"]), 227.0, 150_000.0)

    assert (setup.config.prompt.price_format, setup.config.eval.estimator) == ("plain", "greedy")
    assert setup.notes == (
        "the dearest training item costs $150,000, so answers are greedy: with this tokenizer the median cannot be "
        "computed from plain prices of more than 5 digits; train with --set data.max_price=99999 to have it",
    )


def test_padded_prices_are_offered_where_they_would_bring_the_median_back() -> None:
    setup = a_setup("builtin:base", 227.0, 150_000.0, style="plain")

    assert setup.config.eval.estimator == "greedy"
    assert setup.notes[0].endswith(
        "; train with --set data.max_price=99999 or --set prompt.price_format=padded to have it"
    )


def test_a_maximum_price_brings_plain_prices_and_the_median_back_and_says_what_it_left_out() -> None:
    setup = a_setup(a_base(WITHOUT_BLANK["Llama 3"]), 227.0, 150_000.0, 999.0, max_price=999)

    assert sorted(item.price for item in setup.items.train) == [227.0, 999.0]
    assert (setup.config.prompt.price_format, setup.config.eval.estimator) == ("plain", "median")
    assert sizes(setup.price_tokens) == [1000]
    listed = f"{setup.items.folder}/rejected.jsonl"
    assert setup.notes == (f"left out: 1 of 3 rows (above max_price 1); {listed} lists them",)


def test_a_padded_width_that_is_too_wide_for_the_tokenizer_is_named() -> None:
    config = RunConfig(
        model=ModelConfig(base=a_base(WITHOUT_BLANK["GPT-2"])),
        data=DataConfig(train_limit=8, val_limit=4),
        prompt=PromptConfig(price_format="padded", price_width=6),
    )

    assert prepare(config).notes[0].endswith("; train with --set prompt.price_width=4 to have it")


def test_whether_weights_are_dequantized_on_a_gpu_stays_with_the_run(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[bool | None] = []

    def load(_folder: Path, _precision: Precision, *, dense: bool | None, sharded: bool) -> SimpleNamespace:
        assert not sharded
        asked.append(dense)
        return SimpleNamespace()

    monkeypatch.setattr("pricer.commands.parts.setup.load_base", load)
    monkeypatch.setattr("pricer.commands.parts.setup.dense_bytes", lambda _base: 0)
    monkeypatch.setattr("pricer.commands.parts.setup.device_name", lambda _precision: "a card")
    on_gpu = replace(setup, precision=Precision("cuda", "nf4", "bfloat16"))
    run = create_run(setup.config, "r", "r", {})

    for _ in range(2):
        load_base_of(on_gpu, run)

    # The first time there was room; afterwards it is so whether there is room or not.
    assert asked == [None, True]
    assert run.facts()["dense"] == {"a card": True}
