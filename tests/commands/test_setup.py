"""What is settled before a weight is loaded: which estimator is scored."""

from dataclasses import replace

import numpy as np
import pytest

from pricer.commands.setup import Setup, estimator_for, prepare, prepare_to_ask
from pricer.config import DataConfig, EvalConfig, PromptConfig, RunConfig
from pricer.core.expansion import Fork
from pricer.core.items import Split
from pricer.core.walk import Levels
from pricer.errors import ConfigError

LEVELS: Levels = (np.arange(10),) * 4
CONFIG = RunConfig(data=DataConfig(train_limit=16, val_limit=4))


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare(CONFIG)


def by(estimator: str) -> RunConfig:
    return RunConfig(eval=EvalConfig.model_validate({"estimator": estimator}))


@pytest.mark.parametrize(
    ("wanted", "writing", "settled"),
    [
        ("auto", LEVELS, "median"),
        ("auto", None, "greedy"),
        ("greedy", LEVELS, "greedy"),
        ("greedy", None, "greedy"),
        ("mean", LEVELS, "mean"),
    ],
)
def test_auto_is_the_median_where_a_distribution_can_be_read(wanted: str, writing: Levels | None, settled: str) -> None:
    assert estimator_for(by(wanted), writing) == settled


def test_an_estimator_that_cannot_be_had_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"eval\.estimator is mode, but the way this tokenizer writes prices"):
        estimator_for(by("mode"), None)


def test_the_estimator_is_settled_in_the_config_and_part_of_the_spec(setup: Setup) -> None:
    assert setup.config.eval.estimator == "median"
    assert setup.spec(Split.VAL, None).estimator == "median"


def test_what_may_be_left_unexplored_is_part_of_the_spec_only_where_prices_are_expanded(setup: Setup) -> None:
    plain = prepare(CONFIG.model_copy(update={"prompt": PromptConfig(price_format="plain")}))
    greedy = plain.config.model_copy(update={"eval": EvalConfig(estimator="greedy")})

    assert setup.spec(Split.VAL, None).unexplored is None
    assert isinstance(plain.writing, Fork)
    assert plain.spec(Split.VAL, None).unexplored == 0.02
    assert replace(plain, config=greedy).spec(Split.VAL, None).unexplored is None


def test_asking_is_set_up_as_training_was_without_the_data(setup: Setup) -> None:
    asking = prepare_to_ask(setup.config)

    assert asking.items.train == ()
    assert asking.template == setup.template
    assert asking.encoder.answer_length == setup.encoder.answer_length
    assert prepare_to_ask(CONFIG).items == setup.items  # nothing is settled in it: the data are read
