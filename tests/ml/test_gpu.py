"""On a CUDA device: a 4-bit base, one step, one prediction. `pytest -m gpu` runs it; all other runs hide the device."""

from pathlib import Path

import pytest
import torch

from pricer.commands.parts.setup import prepare
from pricer.config import AdapterConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from pricer.core.training import Progress
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.devices import Precision, read_state
from pricer.ml.micro_batch import requested_settings
from pricer.ml.predict import TreeDecoder
from pricer.ml.sft import fine_tune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device, and pytest -m gpu"),
]


def test_a_4_bit_base_takes_a_step_and_answers(tmp_path: Path) -> None:
    config = TrainConfig(epochs=1, batch_size=8, learning_rate=3e-3, checkpoint_every=1, log_every=1)
    setup = prepare(RunConfig(data=DataConfig(train_limit=8), adapter=AdapterConfig(r=4), train=config))
    assert setup.precision.device == "cuda"
    model = add_adapter(load_base(setup.base.folder, setup.precision), setup.config.adapter, seed=0)
    logged: list[Progress] = []

    finished = fine_tune(
        model,
        setup.tokenizer,
        setup.encoder.examples([setup.template.example(item) for item in setup.items.train]),
        config,
        setup.precision,
        state_folder=tmp_path,
        resume_from=None,
        on_checkpoint=lambda folder, step, hurries: None,
        on_progress=logged.append,
        should_stop=lambda: False,
        settings=requested_settings(config),
        note=print,
    )

    assert finished
    (measured,) = [progress for progress in logged if progress.loss is not None]
    assert measured.step == 1
    assert measured.gpu_utilisation is not None
    assert 0 <= measured.gpu_utilisation <= 100
    model.eval()
    predictor = TreeDecoder(model, setup.tokenizer, setup.template.price_format, setup.encoder.answer_tokens)
    (prediction,) = predictor.predict(setup.encoder.prompts([setup.template.prompt(setup.items.val[0])]))
    assert prediction.item_id == setup.items.val[0].id


@pytest.mark.parametrize(("began", "goes_on"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_state_of_adamw_torch_goes_on_on_the_other_kind_of_device(began: str, goes_on: str, tmp_path: Path) -> None:
    config = TrainConfig(
        epochs=2, batch_size=8, learning_rate=3e-3, checkpoint_every=1, log_every=1, optimizer="adamw_torch"
    )
    setup = prepare(
        RunConfig(
            model=ModelConfig(compute_dtype="float32"),
            data=DataConfig(train_limit=8),
            adapter=AdapterConfig(r=4),
            train=config,
        )
    )
    logged: list[Progress] = []

    def train(device: str, resume_from: Path | None, steps: int) -> bool:
        precision = Precision(device, "nf4", "float32")
        return fine_tune(
            add_adapter(load_base(setup.base.folder, precision), setup.config.adapter, seed=0),
            setup.tokenizer,
            setup.encoder.examples([setup.template.example(item) for item in setup.items.train]),
            config,
            precision,
            state_folder=tmp_path,
            resume_from=resume_from,
            on_checkpoint=lambda folder, step, hurries: None,
            on_progress=logged.append,
            should_stop=lambda: logged[-1].step >= steps,
            settings=requested_settings(config),
            note=print,
        )

    assert not train(began, None, steps=1)
    assert read_state(tmp_path / "checkpoint-1").optimizer == "torch"
    assert train(goes_on, tmp_path / "checkpoint-1", steps=3)
    assert [progress.step for progress in logged if progress.loss is not None] == [1, 2]
