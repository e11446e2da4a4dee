"""A base with an adapter, for the tests that ask it for prices. A file with a fixture of the same name has its own."""

from typing import Any

import pytest
import torch

from pricer.commands.parts.setup import Setup, prepare
from pricer.config import DataConfig, RunConfig
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base


@pytest.fixture(scope="module")
def setup() -> Setup:
    return prepare(RunConfig(data=DataConfig(train_limit=64, val_limit=40)))


@pytest.fixture(scope="module")
def model(setup: Setup) -> Any:
    """The embedded base with an adapter that has an effect, in eval mode."""
    model = add_adapter(load_base(setup.base.folder, setup.precision), setup.config.adapter, seed=0)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.01)
    return model.eval()
