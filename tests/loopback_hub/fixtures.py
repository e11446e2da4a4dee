"""The fixtures `hub` (a loopback Hub for one test), `repo` and `waits`, which tests/conftest.py makes known to all."""

import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest

from tests.loopback_hub.hub import LoopbackHub
from tests.loopback_hub.repos import Repo


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub with the user "ann", whose token is in HF_TOKEN. This process and its children talk to it.

    A test file that uses `datasets` must import it at the top, so that it can be pointed at the hub.
    """
    with connected_hub(monkeypatch) as loopback:
        yield loopback


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    """The empty repository `ann/prices`."""
    return hub.create("ann/prices")


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds for which huggingface_hub would have waited before each further attempt. It does not wait."""
    import huggingface_hub.file_download
    import huggingface_hub.utils._http

    waited: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": waited.append})
    monkeypatch.setattr(huggingface_hub.utils._http, "time", clock)
    monkeypatch.setattr(huggingface_hub.file_download, "time", clock)
    return waited


@contextmanager
def connected_hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """What `hub` is, for fixtures that live longer than one test."""
    with warnings.catch_warnings(), LoopbackHub() as loopback:
        # huggingface_hub 2.4 passes LFS uploads to its HTTP client by a deprecated name.
        warnings.filterwarnings("ignore", message="Use 'content=", category=DeprecationWarning)
        connect(loopback, monkeypatch, token=loopback.add_user("ann"))
        yield loopback
        _disconnect(loopback)


def connect(loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Point child processes and the libraries that this process has imported at the hub, as the token's user."""
    # Imported before the environment changes: it would keep the changed values for all later tests.
    import huggingface_hub.hf_api
    import huggingface_hub.utils._http as client
    from huggingface_hub import constants

    for name, value in {
        "HF_ENDPOINT": loopback.url,
        "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_OFFLINE": "0",
        "TRANSFORMERS_OFFLINE": "0",
        "HF_DATASETS_OFFLINE": "0",
        "HF_UPDATE_DOWNLOAD_COUNTS": "0",
        # A proxy cannot reach this machine's loopback interface.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    # The old HTTP client would not see these changes.
    client.close_session()
    files = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", loopback.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", loopback.url + files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
    monkeypatch.setattr(client, "_HUB_ORIGINS", client._HUB_ORIGINS | {client._url_origin(loopback.url)})
    # Functions such as `huggingface_hub.create_repo` are methods of this one object.
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", loopback.url)
    if "datasets" in sys.modules:
        for name, setting in _datasets_settings(loopback.url, offline=False).items():
            monkeypatch.setattr(f"datasets.config.{name}", setting)


def _disconnect(loopback: LoopbackHub) -> None:
    """Close huggingface_hub's connections and clear caches of this hub: the next one has another port."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils._http import close_session

    close_session()
    HfFileSystem.clear_instance_cache()
    config = sys.modules.get("datasets.config")
    if config is not None and loopback.url == config.HF_ENDPOINT:
        # If this very test imported `datasets`, it has kept the hub's address.
        for name, value in _datasets_settings("https://huggingface.co", offline=True).items():
            setattr(config, name, value)


def _datasets_settings(endpoint: str, *, offline: bool) -> dict[str, str | bool]:
    return {
        "HF_ENDPOINT": endpoint,
        "HUB_DATASETS_URL": endpoint + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": offline,
        "HF_DATASETS_OFFLINE": offline,
        # Both would contact other hosts: the data set viewer, and a bucket that counts downloads.
        "USE_PARQUET_EXPORT": offline,
        "HF_UPDATE_DOWNLOAD_COUNTS": offline,
    }
