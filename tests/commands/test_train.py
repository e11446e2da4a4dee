"""`pricer train`: what a run leaves behind, and that an interruption changes none of it."""

import json
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pricer.commands import train
from pricer.commands.evaluate import evaluate_run
from pricer.config import RunConfig
from pricer.config_file import load_config, to_yaml
from pricer.core.checkpoints import Checkpoint
from pricer.core.items import Split
from pricer.core.predictions import Prediction
from pricer.core.training import Progress, Validation
from pricer.errors import ConfigError, DataError, Interrupted, ModelError, RunError
from pricer.ml.loss import Span, completion_loss
from pricer.ml.predict import TreeDecoder
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.checkpoints import read_manifest
from pricer.stores.files import read_lines, sha256_of
from pricer.stores.runs import find_run
from tests.commands.conftest import CONFIG, Listener, Stopper


def changed(section: str, **values: object) -> RunConfig:
    return CONFIG.model_copy(update={section: getattr(CONFIG, section).model_copy(update=values)})


def checkpoint_ids(run: Path) -> list[str]:
    return [record["id"] for record in read_lines(run / "checkpoints.jsonl")]


def test_a_run_folder_holds_what_the_run_was_and_did(trained: Path) -> None:
    assert {path.name for path in trained.iterdir()} == {
        "config.yaml",
        "run.json",
        "checkpoints.jsonl",
        "checkpoints",
        "metrics.jsonl",
    }
    assert [folder.name for folder in sorted((trained / "checkpoints").iterdir())] == [
        "step-000002",
        "step-000004",
        "step-000006",
    ]
    facts = json.loads((trained / "run.json").read_text())
    assert facts["items"] == {"train": 48, "val": 12, "test": 8}
    assert facts["precision"] == "nf4/float32"
    assert facts["started"] < facts["finished"]


def test_the_config_of_a_run_has_everything_settled(trained: Path) -> None:
    config = load_config(trained / "config.yaml")

    assert config.model.revision is not None
    assert len(config.model.revision) == 40
    assert (config.model.compute_dtype, config.prompt.price_format, config.prompt.price_width) == (
        "float32",
        "padded",
        4,
    )


def test_a_manifest_says_what_the_adapter_is(trained: Path) -> None:
    folder = trained / "checkpoints" / "step-000004"
    checkpoint = read_manifest(folder)

    assert (checkpoint.step, checkpoint.epoch, checkpoint.base) == (4, round(4 / 3, 6), "builtin:base")
    assert checkpoint.adapter_sha256 == sha256_of(folder / "adapter_model.safetensors")
    # peft would write the folder that the base was loaded from.
    assert json.loads((folder / "adapter_config.json").read_text())["base_model_name_or_path"] == "builtin:base"


def test_metrics_have_a_line_for_each_logged_step_and_each_checkpoint(trained: Path) -> None:
    lines = list(read_lines(trained / "metrics.jsonl"))

    assert [line["step"] for line in lines if "loss" in line] == [1, 2, 3, 4, 5, 6]
    assert [line["step"] for line in lines if "val_mae" in line] == [2, 4, 6]
    assert {"learning_rate", "tokens_per_second", "memory_used", "memory_total", "grad_norm"} <= lines[0].keys()
    assert all(line["val_items"] == 4 for line in lines if "val_mae" in line)


def test_the_gpus_utilisation_is_logged_where_it_is_known() -> None:
    known = Progress(1, 6, 0.5, loss=1.0, gpu_utilisation=87.0).to_json()

    assert known["gpu_utilisation"] == 87.0
    assert "gpu_utilisation" not in Progress(1, 6, 0.5, loss=1.0).to_json()


def test_a_killed_run_goes_on_to_the_same_checkpoints(trained: Path, killed: Path) -> None:
    result = train.resume("killed", Listener())

    assert checkpoint_ids(result.run.folder) == checkpoint_ids(trained)
    steps = [line["step"] for line in result.run.metrics() if "loss" in line]
    assert steps == [1, 2, 3, 4, 5, 6]


def test_a_checkpoint_pushed_before_its_state_was_whole_is_not_pushed_twice(trained: Path) -> None:
    class Cut(Listener):
        def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
            state = find_run("cut").training_states.folder / f"checkpoint-{checkpoint.step}"
            (state / "state.json").unlink()
            raise SystemError("killed")

    with pytest.raises(SystemError):
        train.start(CONFIG, "quickstart", "cut", Cut())
    assert find_run("cut").training_states.newest() is None

    result = train.resume("cut", Listener())

    assert checkpoint_ids(result.run.folder) == checkpoint_ids(trained)


def test_a_signal_saves_a_checkpoint_first_and_the_resumed_run_ends_as_the_whole_one(trained: Path) -> None:
    # SIGINT; the fixture `stopped` is of a run that got SIGTERM.
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted) as caught:
        train.start(CONFIG, "quickstart", "stopped", Stopper(3, signal.SIGINT))
    assert signal.getsignal(signal.SIGINT) is before
    assert caught.value.hint == "pricer train --resume --run stopped"
    assert [c.step for c in find_run("stopped").store.checkpoints()] == [2, 3]

    listener = Listener()
    result = train.resume("stopped", listener)

    assert listener.notes[-1] == "going on with stopped after step 3"
    assert [c.step for c in result.checkpoints] == [2, 3, 4, 6]
    assert result.checkpoints[-1].id == checkpoint_ids(trained)[-1]


def test_a_full_disk_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(Listener):
        def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
            raise RuntimeError("unexpected pos 4036480 vs 4036368")  # what torch.save says

    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9, 0))

    with pytest.raises(RunError, match=r"^no space left on the disk with runs/full; what was saved before is whole$"):
        train.start(CONFIG, "quickstart", "full", Full())


def test_a_validation_without_memory_for_it_costs_no_checkpoint(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def cramped(_self: object, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(TreeDecoder, "_predict", cramped)
    listener = Listener()

    result = train.start(CONFIG, "quickstart", "cramped", listener)

    assert checkpoint_ids(result.run.folder) == checkpoint_ids(trained)
    assert [validation for _, validation in listener.checkpoints] == [None] * 3
    assert [line["step"] for line in result.run.metrics() if "val_mae" in line] == []
    (said,) = [note for note in listener.notes if note.startswith("step 2 is kept without a validation: ")]
    assert "there is no memory left to answer about " in said
    assert said.endswith(" by itself; pricer eval scores it")


def test_how_a_step_is_computed_stays_with_the_run(
    trained: Path, killed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = json.loads((trained / "run.json").read_text())
    requested = {"batch_size": 16, "micro_batch": "auto", "activation_checkpointing": "auto", "compile": "auto"}
    requested |= {"processes": 1, "sharded": False}
    settings = {"micro_batch": 16, "activation_checkpointing": False, "compiled": False}
    assert facts["step_settings"] == {"cpu": {"requested": requested, "settings": settings}}
    sizes: list[int] = []

    def counted(model: Any, ids: torch.Tensor, spans: Sequence[Span]) -> torch.Tensor:
        sizes.append(len(spans))
        return completion_loss(model, ids, spans)

    monkeypatch.setattr("pricer.ml.sft.completion_loss", counted)
    run = find_run("killed")
    # As if it had been measured, on a GPU.
    run.record(step_settings={"cpu": {"requested": requested, "settings": {**settings, "micro_batch": 8}}})

    with pytest.raises(SystemError):
        train.resume("killed", Stopper(5, None))
    assert set(sizes) == {8}
    sizes.clear()
    write_config(run.folder, run.config(), micro_batch=4)
    train.resume("killed", Listener())

    assert set(sizes) == {4}


def write_config(folder: Path, config: RunConfig, **values: object) -> None:
    """What a user does who edits a run's config."""
    changed = config.model_copy(update={"train": config.train.model_copy(update=values)})
    (folder / "config.yaml").write_text(to_yaml(changed), encoding="utf-8")


def test_neither_validation_nor_a_launcher_of_one_process_changes_an_adapter(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What `accelerate launch --num_processes 1 --mixed_precision bf16` leaves: under its autocast, and as a distributed
    # training of one process, other adapters would come out.
    left = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "ACCELERATE_MIXED_PRECISION": "bf16"}
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    listener = Listener()

    result = train.start(changed("train", val_items=0), "quickstart", None, listener)

    assert listener.notes[0] == "not used, since a run's config says how it is trained: ACCELERATE_MIXED_PRECISION=bf16"
    assert checkpoint_ids(result.run.folder) == checkpoint_ids(trained)


def test_the_watcher_hears_of_steps_and_checkpoints(heard: Listener) -> None:
    assert heard.steps == [1, 2, 3, 4, 5, 6]
    assert heard.next_checkpoints == [2, 4, 4, 6, 6, 6]
    assert [(c.step, v.n if v else None) for c, v in heard.checkpoints] == [(2, 4), (4, 4), (6, 4)]


def test_a_finished_run_has_nothing_to_go_on_with(trained: Path) -> None:
    with pytest.raises(RunError, match="the run quickstart is finished"):
        train.resume(None, Listener())


def test_a_taken_name_is_refused_before_anything_is_read(trained: Path) -> None:
    with pytest.raises(RunError, match="there is a run quickstart already"):
        train.start(changed("data", source="missing.jsonl"), "quickstart", "quickstart", Listener())


@pytest.mark.parametrize(
    ("old", "new", "what"),
    [("train_limit: 48", "train_limit: 47", "data"), ("question: What does", "question: What did", "prompt")],
)
def test_a_run_does_not_go_on_with_something_else(killed: Path, old: str, new: str, what: str) -> None:
    path = killed / "config.yaml"
    path.write_text(path.read_text().replace(old, new))

    with pytest.raises(RunError, match=f"killed began to train with {what} "):
        train.resume("killed", Listener())


def test_a_run_is_trained_by_one_process_at_a_time(killed: Path) -> None:
    before = (killed / "metrics.jsonl").read_bytes()

    with find_run("killed").lock(), pytest.raises(RunError, match="another process is training killed"):
        train.resume("killed", Listener())

    assert (killed / "metrics.jsonl").read_bytes() == before
    with find_run("killed").lock():  # free again
        pass


def test_a_loss_that_is_not_a_number_is_said_once_and_is_never_0() -> None:
    listener = Listener()

    result = train.start(changed("train", learning_rate=1e6, max_grad_norm=1e9), "quickstart", None, listener)

    (said,) = [note for note in listener.notes if note.startswith("the loss is nan at step ")]
    assert said.endswith("take a lower train.learning_rate or train.max_grad_norm")
    lines = list(result.run.metrics())
    assert [line["loss"] for line in lines if line["step"] == 6 and "loss" in line] == [None]
    assert "NaN" not in (result.run.folder / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    ("max_length", "cut", "said"),
    [
        (40, 46, "96% of the descriptions are longer than prompt.max_length (40 tokens) and will be cut: "),
        (47, 2, "2 of 48 training descriptions (4.2%) are cut to 47 tokens (prompt.max_length)"),
    ],
)
def test_descriptions_that_are_cut_are_mentioned_once_and_recorded(max_length: int, cut: int, said: str) -> None:
    listener = Listener()
    long = changed("prompt", max_length=max_length)

    long = long.model_copy(update={"train": long.train.model_copy(update={"epochs": 0.3})})
    result = train.start(long, "q", None, listener)

    (note,) = [note for note in listener.notes if "cut" in note]
    assert note.startswith(said)
    assert result.run.facts()["cut_train"] == cut / 48


def test_nothing_is_created_when_something_is_wrong() -> None:
    problems: list[tuple[RunConfig, type[Exception]]] = [
        (changed("data", source="missing.jsonl"), DataError),
        (changed("model", base="./nowhere"), ModelError),
        (changed("prompt", max_length=12), ConfigError),
        (changed("prompt", price_width=2), ConfigError),
        (changed("data", val_fraction=0.0), DataError),
        (changed("adapter", target_modules=["nothing_proj"]), ModelError),
    ]
    for config, kind in problems:
        with pytest.raises(kind):
            train.start(config, "quickstart", None, Listener())

    assert not Path("runs").exists()


def test_what_a_dear_item_does_to_the_estimator_is_said_when_training_and_when_scoring() -> None:
    rows = [{"description": f"lamp number {n}", "price": 20 + n} for n in range(40)]
    Path("items.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    dear = {"description": "A lamp of gold", "price": 150_000}
    dearer = {"description": "A lamp of platinum", "price": 2_000_000.5}
    with Path("items.jsonl").open("a") as file:
        file.writelines(json.dumps(row) + "\n" for row in (dear, dearer))
    config = RunConfig(
        data=CONFIG.data.model_copy(
            update={"source": "items.jsonl", "max_price": 1_000_000.0, "test_fraction": 0.0, "train_limit": None}
        ),
        prompt=CONFIG.prompt.model_copy(update={"price_format": "plain"}),
        adapter=CONFIG.adapter,
        train=CONFIG.train.model_copy(update={"epochs": 1.0, "val_items": 0}),
    )
    training, scoring = Listener(), Listener()

    train.start(config, "dear", None, training)
    evaluated = evaluate_run(find_run("dear"), "last", Split.VAL, 2, scoring)

    said = (
        "the dearest training item costs $150,000, so answers are greedy: with this tokenizer the median cannot be "
        "computed from plain prices of more than 5 digits; train with --set data.max_price=99999 or --set "
        "prompt.price_format=padded to have it"
    )
    for listener in (training, scoring):
        assert listener.notes[0].startswith("left out: 1 of 42 rows (above max_price 1); ")
        assert listener.notes[1] == said
    assert evaluated.spec.estimator == "greedy"
