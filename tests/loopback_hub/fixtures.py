"""The fixture `hub`: a loopback Hub for one test, which the libraries of this process and of its children talk to."""

import sys
import time
import warnings
from collections.abc import Iterator
from types import SimpleNamespace

import pytest

from tests.loopback_hub.server import LoopbackHub


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[LoopbackHub]:
    """A hub with the user "ann", who is logged in: her token is in HF_TOKEN. Other tests stay offline.

    A test of `datasets` should import it on top of its file, so that it is here to be told about the hub.
    """
    # huggingface_hub 2.4 hands LFS uploads to its HTTP client by an old name. pytest takes this back after the test.
    warnings.filterwarnings("ignore", message="Use 'content=", category=DeprecationWarning)
    with LoopbackHub() as loopback:
        connect(loopback, monkeypatch, token=loopback.add_user("ann"))
        yield loopback
        disconnect(loopback)


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds that huggingface_hub would have waited before it tried again, in order; it does not wait."""
    import huggingface_hub.file_download
    import huggingface_hub.utils._http

    waited: list[float] = []
    clock = SimpleNamespace(**{**vars(time), "sleep": waited.append})
    monkeypatch.setattr(huggingface_hub.utils._http, "time", clock)
    monkeypatch.setattr(huggingface_hub.file_download, "time", clock)
    return waited


def connect(loopback: LoopbackHub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    """Point processes that start from here at the hub, and the libraries that this one has imported."""
    # Before the environment changes, which it would keep for the tests to come.
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
        # A proxy knows no way to this machine's loopback interface.
        "NO_PROXY": "127.0.0.1",
        "no_proxy": "127.0.0.1",
    }.items():
        monkeypatch.setenv(name, value)
    # A client from before would not see that.
    client.close_session()
    files = "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", loopback.url)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", loopback.url + files)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setattr(constants, "HF_URL_HOSTS", constants.HF_URL_HOSTS | {"127.0.0.1"})
    monkeypatch.setattr(client, "_HUB_ORIGINS", client._HUB_ORIGINS | {client._url_origin(loopback.url)})
    # `huggingface_hub.create_repo` and the like are methods of this one object.
    monkeypatch.setattr(huggingface_hub.hf_api.api, "endpoint", loopback.url)
    if "datasets" in sys.modules:
        for name, setting in _datasets_settings(loopback.url, offline=False).items():
            monkeypatch.setattr(f"datasets.config.{name}", setting)


def disconnect(loopback: LoopbackHub) -> None:
    """Close the connections that huggingface_hub keeps, and let nothing remember the hub: the next has another port."""
    from huggingface_hub import HfFileSystem
    from huggingface_hub.utils._http import close_session

    close_session()
    HfFileSystem.clear_instance_cache()
    config = sys.modules.get("datasets.config")
    if config is not None and loopback.url == config.HF_ENDPOINT:
        # It may have been imported by this very test, and have kept what it read then.
        for name, value in _datasets_settings("https://huggingface.co", offline=True).items():
            setattr(config, name, value)


def _datasets_settings(endpoint: str, *, offline: bool) -> dict[str, str | bool]:
    return {
        "HF_ENDPOINT": endpoint,
        "HUB_DATASETS_URL": endpoint + "/datasets/{repo_id}/resolve/{revision}/{path}",
        "HF_HUB_OFFLINE": offline,
        "HF_DATASETS_OFFLINE": offline,
        # Both ask other hosts than the Hub's: the data set viewer's, and a bucket that counts downloads.
        "USE_PARQUET_EXPORT": offline,
        "HF_UPDATE_DOWNLOAD_COUNTS": offline,
    }
