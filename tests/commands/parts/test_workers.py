"""A worker answers as this process does, verifies the adapters it is sent, and says where the base is missing."""

import errno
import socket
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from pricer.commands.parts.opening import load_scorer
from pricer.commands.parts.scorers import choose_parts
from pricer.commands.parts.setup import prepare
from pricer.commands.parts.workers import Worker, pack_adapter
from pricer.errors import CheckpointError, ModelError
from pricer.ml.predict import CheckpointPredictor
from pricer.stores.checkpoints import ADAPTER
from pricer.stores.runs import Run


def a_loaded_worker(run: Run) -> Worker:
    setup = prepare(run.config())
    prompts, worker = setup.prompts(setup.items.val), Worker()
    worker.load(choose_parts(setup, prompts), prompts, {})
    return worker


def test_a_worker_answers_and_embeds_as_this_process_does(trained: Path) -> None:
    run = Run(trained)
    setup, checkpoint = prepare(run.config()), run.store.checkpoints()[-1]
    prompts, folder = setup.prompts(setup.items.val), run.store.fetch(checkpoint)
    worker, scorer = a_loaded_worker(run), load_scorer(setup, None, prompts)

    assert worker.answer(None, [3, 1]) == scorer.predict([prompts[3], prompts[1]])
    assert worker.embed(prompts[:3], 4096).tolist() == scorer.embed(prompts[:3], 4096).tolist()
    worker.use(pack_adapter(checkpoint, folder))
    scorer.use(folder)
    assert worker.answer(checkpoint.id, [0, 2]) == scorer.predict([prompts[0], prompts[2]])


def test_an_adapter_that_changed_on_its_way_is_refused_when_it_is_asked(trained: Path) -> None:
    run = Run(trained)
    checkpoint = run.store.checkpoints()[0]
    worker, sent = a_loaded_worker(run), pack_adapter(checkpoint, run.store.fetch(checkpoint))

    worker.use(replace(sent, files={**sent.files, ADAPTER: sent.files[ADAPTER][:-1] + b"?"}))

    with pytest.raises(CheckpointError, match=r"runs/quickstart/checkpoints/step-000002/adapter_model.safetensors has"):
        worker.answer(checkpoint.id, [0])


@pytest.mark.parametrize(
    ("owner", "method", "error", "message"),
    [
        (
            Path,
            "write_bytes",
            OSError(errno.ENOSPC, "No space left on device"),
            "step-000004 cannot be used: .*No space",
        ),
        (CheckpointPredictor, "use", RuntimeError("CUDA out of memory"), "CUDA out of memory"),
    ],
)
def test_an_adapter_that_a_worker_has_no_room_for_is_never_answered_with_the_one_before(
    trained: Path, monkeypatch: pytest.MonkeyPatch, owner: type, method: str, error: Exception, message: str
) -> None:
    run = Run(trained)
    first, second = run.store.checkpoints()[:2]
    worker = a_loaded_worker(run)
    worker.use(pack_adapter(first, run.store.fetch(first)))
    sent = pack_adapter(second, run.store.fetch(second))

    with monkeypatch.context() as patch:
        patch.setattr(owner, method, Mock(side_effect=error))
        worker.use(sent)

    for _ in range(2):  # two calls may be under way
        with pytest.raises(type(error) if owner is CheckpointPredictor else ModelError, match=message):
            worker.answer(second.id, [0])
    worker.use(sent)
    assert worker.answer(second.id, [0])


def test_a_node_without_the_base_is_named(trained: Path) -> None:
    setup = prepare(Run(trained).config())
    parts = choose_parts(setup, ())
    elsewhere = replace(parts, model=parts.model.model_copy(update={"base": "/models/llama"}))

    with pytest.raises(ModelError, match=f"on the node {socket.gethostname()}, there is no model folder /models/llama"):
        Worker().load(elsewhere, (), {})


def test_a_local_base_is_sent_with_its_whole_path(tmp_path: Path, trained: Path) -> None:
    setup = prepare(Run(trained).config())
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "base").symlink_to(setup.base.folder)
    local = setup.config.model_copy(update={"model": setup.config.model.model_copy(update={"base": "./models/base"})})

    parts = choose_parts(prepare(local), ())

    assert parts.model.base == str(tmp_path / "models" / "base")


def test_a_node_that_computes_in_another_way_is_refused(trained: Path) -> None:
    parts = choose_parts(prepare(Run(trained).config()), ())
    other = replace(parts, precision=replace(parts.precision, device="cuda"))

    with pytest.raises(ModelError, match="a worker computes on cpu in nf4/float32, and the first one on cuda in nf4"):
        Worker().load(other, (), {})
