"""Optimizers by name, and the states they leave."""

import logging
from pathlib import Path
from typing import Literal, get_args

import pytest
import torch
from transformers import Trainer, TrainingArguments
from transformers.trainer_pt_utils import set_rng_state_for_device

from pricer.config import TrainConfig
from pricer.errors import CheckpointError
from pricer.ml.devices import PAGED, Precision, TrainingState, read_state
from pricer.ml.sft import trainer_arguments


def test_an_optimizer_that_is_named_is_taken_on_any_device() -> None:
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=1e-4, checkpoint_every=1, optimizer="adamw_torch")

    assert trainer_arguments(config, Precision("cuda", "nf4", "float32"), Path("state"))["optim"] == "adamw_torch"


@pytest.mark.filterwarnings("ignore:Paged optimizers are not supported on CPU")
@pytest.mark.parametrize(
    "name", [name for name in get_args(TrainConfig.model_fields["optimizer"].annotation) if name != "auto"]
)
def test_the_state_that_an_optimizer_really_leaves_is_of_its_format(name: str, tmp_path: Path) -> None:
    arguments = TrainingArguments(output_dir=str(tmp_path), optim=name, use_cpu=True, report_to="none")
    kind, keywords = Trainer.get_optimizer_cls_and_kwargs(arguments)
    parameter = torch.nn.Parameter(torch.ones(8))
    optimizer = kind([parameter], **keywords)
    parameter.grad = torch.ones(8)
    optimizer.step()
    torch.save(optimizer.state_dict(), tmp_path / "optimizer.pt")

    expected: Literal["torch", "bitsandbytes"] = "bitsandbytes" if name == PAGED else "torch"
    assert read_state(tmp_path) == TrainingState(expected, has_gpu_random=False)


def test_a_state_says_whether_it_comes_from_a_gpu(tmp_path: Path) -> None:
    torch.save({"cpu": torch.zeros(4), "cuda": torch.zeros(4)}, tmp_path / "rng_state.pth")

    assert read_state(tmp_path) == TrainingState(None, has_gpu_random=True)


@pytest.mark.parametrize(
    "content", [{}, [], {"state": {}}, {"state": []}, {"state": {0: []}}, {"state": {0: {"m": 1}}}]
)
def test_what_is_no_state_of_a_known_optimizer_has_no_format(content: object, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "optimizer.pt")

    assert read_state(tmp_path).optimizer is None


@pytest.mark.parametrize("name", ["optimizer.pt", "rng_state_1.pth"])
def test_anything_but_numbers_is_refused(name: str, tmp_path: Path) -> None:
    torch.save({"state": Path("/")}, tmp_path / name)

    with pytest.raises(CheckpointError, match=rf"{name} cannot be read as numbers, and nothing else is read"):
        read_state(tmp_path)


def test_only_random_numbers_that_are_missing_are_not_complained_about(caplog: pytest.LogCaptureFixture) -> None:
    log = logging.getLogger("transformers.trainer_pt_utils")
    log.addHandler(caplog.handler)  # whether transformers passes its own on to the root depends on its version
    try:
        set_rng_state_for_device("CUDA", torch.cuda, {"cpu": torch.zeros(4)}, False)
        assert caplog.records == []
        set_rng_state_for_device("CUDA", torch.cuda, {"cuda": "damaged"}, False)
        assert caplog.records != []
    finally:
        log.removeHandler(caplog.handler)
