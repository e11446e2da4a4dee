"""What every test gets: its own home and working folder, no network, no colour, one thread."""

import os
import sys
from pathlib import Path

# Before anything imports torch, datasets or huggingface_hub: they read these once, when they are imported.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
os.environ["NO_COLOR"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import pytest
from hypothesis import settings

from tests.hub.fixtures import hub  # noqa: F401  # a fixture, for whoever asks for it

# The same examples every time, so that a red test stays red; no deadline, because machines are shared.
settings.register_profile("pricer", derandomize=True, deadline=None, database=None, max_examples=60)
settings.load_profile("pricer")


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
