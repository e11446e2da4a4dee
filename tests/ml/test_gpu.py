"""On a CUDA device: a 4-bit base, one step, one prediction. Skips itself where there is none."""

from pathlib import Path

import pytest
import torch

from pricer.commands.setup import prepare
from pricer.config import AdapterConfig, DataConfig, RunConfig, TrainConfig
from pricer.ml.model import add_adapter, load_base
from pricer.ml.predict import Predictor
from pricer.ml.sft import Progress, fine_tune

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
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
        on_checkpoint=lambda folder, step: None,
        on_progress=logged.append,
        should_stop=lambda: False,
    )

    assert finished
    (measured,) = [progress for progress in logged if progress.loss is not None]
    assert measured.step == 1
    assert measured.gpu_utilisation is not None
    assert 0 <= measured.gpu_utilisation <= 100
    model.eval()
    predictor = Predictor(model, setup.tokenizer, setup.template.price_format, setup.encoder.answer_length)
    (prediction,) = predictor.predict(setup.encoder.prompts([setup.template.prompt(setup.items.val[0])]))
    assert prediction.item_id == setup.items.val[0].id
