"""Runs for the tests of what comes after training: really trained ones, and one with a fake model and store."""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from pricer.commands import train
from pricer.commands.parts.baselines import BASELINES
from pricer.commands.parts.setup import Setup, prepare
from pricer.config import AdapterConfig, DataConfig, HubConfig, PromptConfig, RunConfig, TrainConfig
from pricer.core.checkpoints import Checkpoint
from pricer.core.evaluation import Evaluation
from pricer.core.training import Progress, Validation
from pricer.errors import Interrupted
from pricer.stores.runs import Run, create_run
from tests.builders import a_saved_checkpoint
from tests.commands.sessions import FakeScorer
from tests.loopback_hub import LoopbackHub, Repo
from tests.loopback_hub.fixtures import connected_hub
from tests.memory_store import MemoryStore
from tests.repositories import put_back, put_base, use_cache

# 48 items in batches of 16 are 3 steps an epoch, 6 in all: checkpoints at 2, 4 and 6.
CONFIG = RunConfig(
    data=DataConfig(decimals=0, val_fraction=0.1, test_fraction=0.1, train_limit=48, val_limit=12, test_limit=8),
    prompt=PromptConfig(max_length=128),
    adapter=AdapterConfig(r=4),
    train=TrainConfig(epochs=2, batch_size=16, learning_rate=3e-3, checkpoint_every=2, log_every=1, val_items=4),
)


class Listener:
    """A watcher of training and scoring that keeps what it was told."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.prepared: list[tuple[str, str]] = []
        self.steps: list[int] = []
        self.next_checkpoints: list[int] = []
        self.checkpoints: list[tuple[Checkpoint, Validation | None]] = []
        self.done: list[tuple[str, int, int]] = []
        self.evaluations: list[Evaluation] = []

    def note(self, text: str) -> None:
        self.notes.append(text)

    def preparing(self, what: str, reached: str) -> None:
        self.prepared.append((what, reached))

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        if progress.loss is None:
            self.steps.append(progress.step)
            self.next_checkpoints.append(next_checkpoint)

    def checkpoint(self, checkpoint: Checkpoint, validation: Validation | None) -> None:
        self.checkpoints.append((checkpoint, validation))

    def uploading(self, done: int, total: int, current: str, later: str) -> None:
        pass

    def scoring(self, name: str, done: int, total: int) -> None:
        self.done.append((name, done, total))

    def scored(self, evaluation: Evaluation) -> None:
        self.evaluations.append(evaluation)


@pytest.fixture
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Try again at once what the Hub has failed at."""
    monkeypatch.setattr("pricer.stores.hub.pause", lambda failures, error: 0.0)
    monkeypatch.setattr("pricer.stores.uploader.pause", lambda failures, error: 0.01)
    yield
    # A delivery that was given up may still end. It must not find the folder of the next test.
    for thread in threading.enumerate():
        if thread.name == "uploader":
            thread.join(10)


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Listener]:
    folder, listener = tmp_path_factory.mktemp("trained"), Listener()
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        train.start(CONFIG, "quickstart", None, listener)
    return folder, listener


@pytest.fixture
def trained(_trained: tuple[Path, Listener], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The folder of a finished run, in runs/ of the current folder; each test has its own copy."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(_trained[0] / "runs", tmp_path / "runs")
    return tmp_path / "runs" / "quickstart"


@pytest.fixture
def scorer(monkeypatch: pytest.MonkeyPatch) -> FakeScorer:
    """What scores and predicts in place of a model. Each adapter has one price for all items, in dollars $1,500 and the
    sum of its bytes. Of the baselines only the first is left.
    """
    fake = FakeScorer(lambda *_: 1500.0 + sum(fake.weights) % 1000)
    # `predict` first: if it were imported after the change of `opening`, it would keep the fake for ever.
    for module in ("predict", "parts.opening"):
        monkeypatch.setattr(f"pricer.commands.{module}.load_scorer", lambda *_: fake)
    monkeypatch.setattr("pricer.commands.parts.baselines.BASELINES", dict([*BASELINES.items()][:1]))
    return fake


@pytest.fixture
def in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without a repository keep their checkpoints in memory until the test ends."""
    stores: dict[Path, MemoryStore] = {}
    monkeypatch.setattr(
        "pricer.stores.runs.FolderStore", lambda folder, *_: stores.setdefault(folder.resolve(), MemoryStore())
    )


@pytest.fixture(scope="session")
def _setup() -> Setup:
    return prepare(CONFIG)


@pytest.fixture
def untrained(_setup: Setup) -> Run:
    """A run like `trained` that nobody had to train: its adapters at steps 2, 4 and 6 are a few bytes."""
    run = create_run(_setup.config, "quickstart", None, {})
    for step in (2, 4, 6):
        keep_checkpoint(run, _setup, step)
    return run


def keep_checkpoint(run: Run, setup: Setup, step: int, adapter: bytes | None = None) -> None:
    """Keep a checkpoint of the run as its training would. The bytes of its adapter are those of the step's digits."""
    own = {
        "base": setup.base.name,
        "base_revision": setup.base.revision,
        "prompt_fingerprint": setup.template.fingerprint,
        "data_fingerprint": setup.items.fingerprint,
        "answers": setup.answers,
    }
    run.store.push(a_saved_checkpoint(Path("out"), step, adapter or b"%d" % step, **own)[0], step)


@pytest.fixture
def run(in_memory: None, scorer: FakeScorer, untrained: Run) -> Run:
    """`untrained`, its checkpoints in memory, to be scored without a model."""
    return untrained


@pytest.fixture
def heard(_trained: tuple[Path, Listener]) -> Listener:
    """What the watcher of `trained` was told."""
    return _trained[1]


class Stopper(Listener):
    """Ends training at a step: by a signal, or without one as if the process were killed."""

    def __init__(self, step: int, number: int | None) -> None:
        super().__init__()
        self._step, self._number = step, number

    def preparing(self, what: str, reached: str) -> None:
        self.prepared.append((what, reached))

    def progress(self, progress: Progress, next_checkpoint: int) -> None:
        super().progress(progress, next_checkpoint)
        if progress.step == self._step and progress.loss is None:
            if self._number is None:
                raise SystemError("killed")  # nothing handles it: as close as a test comes to SIGKILL
            os.kill(os.getpid(), self._number)


@pytest.fixture(scope="session")
def _killed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        with pytest.raises(SystemError):
            train.start(CONFIG, "quickstart", "killed", Stopper(3, None))
    return folder / "runs" / "killed"


@pytest.fixture
def killed(_killed: Path, tmp_path: Path) -> Path:
    """The folder of a run like `trained` that was killed at step 3, after one checkpoint; a copy for each test."""
    return Path(shutil.copytree(_killed, tmp_path / "runs" / "killed"))


@dataclass(frozen=True, slots=True)
class Recorded:
    """What training left on the Hub and in the folder it ran in, to be put back for each test."""

    repo: Repo
    runs: Path


def to_hub(repo: str) -> RunConfig:
    """CONFIG with a repository for its checkpoints."""
    return CONFIG.model_copy(update={"hub": HubConfig(repo=repo)})


@contextmanager
def _a_hub(folder: Path) -> Iterator[LoopbackHub]:
    """A hub for what is made once for all tests, in a folder of its own."""
    with pytest.MonkeyPatch.context() as patch, connected_hub(patch) as hub:
        use_cache(folder / ".huggingface", patch)
        patch.chdir(folder)
        yield hub


@pytest.fixture(scope="session")
def _pushed(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("pushed")
    with _a_hub(folder) as hub:
        train.start(to_hub("ann/prices"), "quickstart", None, Listener())
        return Recorded(hub.repo("ann/prices"), folder / "runs")


@pytest.fixture
def pushed(_pushed: Recorded, hub: LoopbackHub, tmp_path: Path) -> Repo:
    """The repository ann/prices of a finished run: checkpoints 2, 4 and 6. The machine that trained it is the folder
    `trainer`; this one, the current folder, has never heard of it.
    """
    shutil.copytree(_pushed.runs, tmp_path / "trainer" / "runs")
    return put_back(hub, _pushed.repo)


@pytest.fixture
def uninterrupted(_pushed: Recorded) -> Run:
    """The run of `pushed` as its training left it, to look at."""
    return Run(_pushed.runs / "quickstart")


@pytest.fixture(scope="session")
def _stopped(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    folder = tmp_path_factory.mktemp("stopped")
    with _a_hub(folder) as hub:
        with pytest.raises(Interrupted):
            train.start(to_hub("ann/stopped"), "quickstart", None, Stopper(4, signal.SIGTERM))
        return Recorded(hub.repo("ann/stopped"), folder / "runs")


@pytest.fixture
def stopped(_stopped: Recorded, hub: LoopbackHub, tmp_path: Path) -> Repo:
    """The repository ann/stopped of a run that was stopped after step 4, its machine the folder `trainer`."""
    shutil.copytree(_stopped.runs, tmp_path / "trainer" / "runs")
    return put_back(hub, _stopped.repo)


def _push_by_trainer(folder: Path, wanted: dict[str, tuple[str, float | None]]) -> dict[str, Repo]:
    """Repositories that the Trainer itself pushed to, by name: hub_strategy, and at first so many bytes per second."""
    with _a_hub(folder) as hub:
        put_base(hub)
        with (
            (folder / "errors").open("w") as errors,
            subprocess.Popen(
                [sys.executable, "-m", "tests.commands.plain_trainer", str(folder)],
                cwd=Path(__file__).parents[2],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            ) as process,
        ):
            assert process.stdin is not None
            assert process.stdout is not None
            for name, (strategy, rate) in wanted.items():
                hub.slow_uploads(rate)
                process.stdin.write(f"{name} {strategy}\n")
                process.stdin.flush()
                while (line := process.stdout.readline()) != "pushed\n":
                    assert line, (folder / "errors").read_text()
                    if line == "saved\n":
                        hub.slow_uploads(None)
        return {name: hub.repo(name) for name in wanted}


@pytest.fixture(scope="session")
def _saves(tmp_path_factory: pytest.TempPathFactory) -> Repo:
    return _push_by_trainer(tmp_path_factory.mktemp("saves"), {"ann/saves": ("every_save", None)})["ann/saves"]


@pytest.fixture
def saves(_saves: Repo, hub: LoopbackHub) -> Repo:
    """The repository ann/saves, to which the Trainer itself pushed each save, and the base it names."""
    put_base(hub)
    return put_back(hub, _saves)


@pytest.fixture(scope="session")
def _others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Repo]:
    # The first push of ann/skipped takes until the last checkpoint is saved: 265 kB at 1 kB per second, then at once.
    wanted = {"ann/folders": ("all_checkpoints", None), "ann/skipped": ("every_save", 1000.0)}
    return _push_by_trainer(tmp_path_factory.mktemp("others"), wanted)


@pytest.fixture
def plain(saves: Repo, _others: dict[str, Repo], hub: LoopbackHub) -> dict[str, Repo]:
    """The Trainer's repositories by name: each save, folders, and one for which the Hub was too slow."""
    return {"ann/saves": saves} | {name: put_back(hub, repo) for name, repo in _others.items()}
