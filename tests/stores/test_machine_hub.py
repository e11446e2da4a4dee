"""Who this machine is to the Hub, asked of a loopback one: answers, refusals, silence, and another clock."""

import time
from types import SimpleNamespace

import huggingface_hub.constants
import pytest

from pricer.core.machine_checks import HubAnswer
from pricer.stores import machine as machine_file
from pricer.stores.machine import ask_hub
from tests.loopback_hub import Fault, LoopbackHub

WHO = "/api/whoami-v2"


def test_an_account_with_its_role_and_the_time_there(hub: LoopbackHub) -> None:
    answer = ask_hub()

    assert (answer.endpoint, answer.has_token, answer.status) == (hub.url, True, 200)
    assert (answer.account, answer.role, answer.problem) == ("ann", "write", "")
    assert answer.skew is not None
    assert abs(answer.skew) < 5
    assert [request.path for request in hub.requests] == [WHO]


def test_a_token_that_is_nobodys(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf" + "_" + "a1" * 15)

    answer = ask_hub()

    assert (answer.has_token, answer.status, answer.account) == (True, 401, None)
    assert answer.skew is not None


def test_without_a_token_none_is_sent_and_the_clock_is_compared_all_the_same(
    hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")

    answer = ask_hub()

    assert (answer.has_token, answer.status, answer.skew is None) == (False, 401, False)
    assert [request.token for request in hub.requests] == [None]


@pytest.mark.parametrize("ahead", [-600.0, 86400.0])
def test_a_clock_that_is_off(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, ahead: float) -> None:
    monkeypatch.setattr(machine_file, "time", SimpleNamespace(time=lambda: time.time() + ahead))

    skew = ask_hub().skew

    assert skew is not None
    assert abs(skew - ahead) < 5


def test_a_hub_in_trouble(hub: LoopbackHub) -> None:
    hub.faults.script("GET", WHO, [Fault.status(503)])

    answer = ask_hub()

    assert (answer.status, answer.account, answer.problem) == (503, None, "")


def test_silence_has_an_end(hub: LoopbackHub) -> None:
    hub.faults.script("GET", WHO, [Fault.stall(30)])
    start = time.monotonic()

    answer = ask_hub(timeout=0.3)

    assert answer.problem == "timed out"
    assert time.monotonic() - start < 10


def test_a_dead_port_and_a_password_in_its_address(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", "http://ann:secret-word@127.0.0.1:9")

    answer = ask_hub()

    assert answer == HubAnswer("http://127.0.0.1:9", True, problem="[Errno 111] Connection refused")


def test_a_token_that_a_library_quotes_is_not_passed_on(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.get_token", lambda: "not like a token")

    def quoting(**_: object) -> None:
        raise ValueError("Illegal header value b'Bearer not like a token'")

    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(get=lambda *_, **__: quoting()))

    assert ask_hub().problem == "Illegal header value b'Bearer ***'"


@pytest.mark.parametrize("content", ["[]", "no JSON", '{"name": 3}', '{"name": "x", "auth": null}', "{}"])
def test_a_page_that_is_no_hub(hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    import httpx2

    answered = httpx2.Response(200, text=content)
    monkeypatch.setattr("huggingface_hub.utils.get_session", lambda: SimpleNamespace(get=lambda *_, **__: answered))

    answer = ask_hub()

    assert (answer.problem, answer.status) == ("what answers there is not a Hub", None)


@pytest.mark.parametrize(
    ("of_hub", "of_transformers", "variable"),
    [("1", "", "HF_HUB_OFFLINE"), ("", "1", "TRANSFORMERS_OFFLINE"), ("1", "1", "HF_HUB_OFFLINE")],
)
def test_offline_asks_nobody(of_hub: str, of_transformers: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", of_hub)
    monkeypatch.setenv("TRANSFORMERS_OFFLINE", of_transformers)

    assert ask_hub() == HubAnswer("https://huggingface.co", False, problem="switched off", off_by=variable)
