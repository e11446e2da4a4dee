"""A run that was really trained, for the tests of what comes after."""

import shutil
from pathlib import Path

import pytest

from pricer.commands import train
from pricer.commands.validation import Validation
from pricer.config import AdapterConfig, DataConfig, RunConfig, TrainConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.ml.sft import Progress

# 48 items in batches of 16 are 3 steps an epoch, 6 in all: checkpoints at 2, 4 and 6.
CONFIG = RunConfig(
    data=DataConfig(train_limit=48, val_limit=12, test_limit=8),
    adapter=AdapterConfig(r=4),
    train=TrainConfig(epochs=2, batch_size=16, learning_rate=3e-3, checkpoint_every=2, log_every=1, val_items=4),
)


class Listener:
    """A watcher of training and scoring that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.steps: list[int] = []
        self.next_checkpoints: list[int] = []
        self.checkpoints: list[tuple[Checkpoint, Validation | None]] = []
        self.done: list[tuple[str, int, int]] = []
        self.evaluations: list[Evaluation] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        if progress.loss is None:
            self.steps.append(progress.step)
            self.next_checkpoints.append(next_checkpoint)

    def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
        self.checkpoints.append((checkpoint, validation))

    def scoring(self, name: str, done: int, total: int) -> None:
        self.done.append((name, done, total))

    def scored(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.start(CONFIG, "quickstart", None, Listener())
    return folder


@pytest.fixture
def trained(_trained: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a finished run, in runs/ of the current folder; each test has its own copy."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(_trained / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "quickstart"
