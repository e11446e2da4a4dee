"""What every test gets: its own home and working folder, no network, no colour, one thread."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

# Before anything imports torch, datasets or huggingface_hub: they read these once, when they are imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

from tests.loopback_hub.fixtures import hub, repo, waits  # noqa: F401 (fixtures for all tests)

# The same examples every time, so that a red test stays red; no deadline, because machines are shared.
settings.register_profile("pricer", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("pricer")


def pytest_configure(config: pytest.Config) -> None:
    """Hide the GPU, before anything could have used it, unless the tests that need one were asked for."""
    if hides_gpus(config.option.markexpr):
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
    if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
        # As in a shell's background job. The processes of the tests would inherit it, and wait for ever after Ctrl-C.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # A launcher's variables, as in a shell of a batch job, would be met by every training.
    for name in ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "SLURM_STEP_NUM_TASKS"):
        os.environ.pop(name, None)


# The files that take the longest: where files are shared out among processes, none of them comes last.
LONGEST = ("test_train", "test_sft", "test_repositories", "test_hub_runs", "test_hostile_repos", "test_cli")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Let the longest files start first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path.stem, len(LONGEST)))


def hides_gpus(marks: str) -> bool:
    """Whether tests chosen by this expression (pytest -m) run without a GPU: all do but `gpu`, which need one. A test
    that means the CPU would find another precision, optimizer and memory on a machine that has a GPU.
    """
    return marks != "gpu"


@pytest.fixture(scope="session", autouse=True)
def _no_data_in_the_checkout(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Fixtures that several tests share also work in a folder of their own: they make data folders."""
    os.chdir(tmp_path_factory.mktemp("shared"))


@pytest.fixture(scope="session", autouse=True)
def _every_cpu_computes_in_float32() -> Iterator[None]:
    """`model.compute_dtype: auto` is the same on every machine that runs the tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pricer.ml.devices.has_fast_bfloat16", lambda: False)
        yield


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The home of one test. It works in `tmp_path`, and what libraries cache goes into `tmp_path/.home`."""
    folder = tmp_path / ".home"
    folder.mkdir()
    cache = folder / "huggingface"
    for name, value in {
        "HOME": folder,
        "HF_HOME": cache,
        "HF_HUB_CACHE": cache / "hub",
        "HF_DATASETS_CACHE": cache / "datasets",
    }.items():
        monkeypatch.setenv(name, str(value))
    for name in ("PRICER_DEBUG", "FORCE_COLOR", "HF_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    # Libraries that an earlier test imported have read that test's environment.
    if "datasets" in sys.modules:
        monkeypatch.setattr("datasets.config.HF_CACHE_HOME", cache)
        monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", cache / "datasets")
        monkeypatch.setattr("datasets.config.DOWNLOADED_DATASETS_PATH", cache / "datasets" / "downloads")
        monkeypatch.setattr("datasets.config.EXTRACTED_DATASETS_PATH", cache / "datasets" / "downloads" / "extracted")
    if "huggingface_hub" in sys.modules:
        monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(cache))
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache / "hub"))
        monkeypatch.setattr("huggingface_hub.constants.HF_TOKEN_PATH", str(cache / "token"))
    monkeypatch.chdir(tmp_path)
    return folder
