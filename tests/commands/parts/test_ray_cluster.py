"""Clusters that are not there, in one line each."""

import sys

import pytest

from pricer.commands.parts.ray_cluster import open_workers
from pricer.config import ModelConfig
from pricer.errors import ModelError


def refuse(address: str) -> str:
    """The error for this address."""
    with pytest.raises(ModelError) as caught, open_workers(address, None, ModelConfig(), print):
        pass
    assert caught.value.hint
    return caught.value.message


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)

    assert refuse("local") == "--ray needs Ray, which is not installed"


def test_an_address_where_nobody_listens_is_refused_at_once() -> None:
    assert refuse("127.0.0.1:1").startswith("there is no Ray cluster at 127.0.0.1:1: ")


def test_a_ray_client_is_refused() -> None:
    assert refuse("ray://127.0.0.1:10001") == "--ray ray://127.0.0.1:10001: answers cannot go through a Ray client"
