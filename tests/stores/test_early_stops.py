"""The request to stop a training early, in a folder and on the Hub, where it is a claim of whoever may write."""

from pathlib import Path

import pytest

from pricer.core.early_stopping import EarlyStop
from pricer.errors import HubError, RunError
from pricer.stores.early_stops import STOP, drop_stop, fetch_stop, read_stop, send_stop, write_stop
from pricer.stores.hub import Hub
from tests.loopback_hub import Fault, LoopbackHub, Repo

REQUEST = EarlyStop(best=4, newest=8, worse=2, spec_fingerprint="5pec")


def test_a_request_in_a_folder_is_read_back_and_dropped(tmp_path: Path) -> None:
    assert read_stop(tmp_path) is None
    write_stop(tmp_path, REQUEST)
    assert read_stop(tmp_path) == REQUEST

    drop_stop(tmp_path)

    assert read_stop(tmp_path) is None
    drop_stop(tmp_path)  # there is none


def test_a_damaged_request_is_named(tmp_path: Path) -> None:
    (tmp_path / STOP).write_text('{"best": 4}')

    with pytest.raises(RunError, match=r"stop\.json is damaged: newest is missing"):
        read_stop(tmp_path)


def test_a_request_on_the_hub_is_sent_once(repo: Repo) -> None:
    repo.create_branch("state")
    hub = Hub(repo.id)

    send_stop(hub, REQUEST)
    send_stop(hub, REQUEST)

    assert fetch_stop(hub, repo.branches["state"]) == REQUEST
    assert repo.titles("state") == ["stop early", "initial commit"]
    assert STOP not in repo.files()


def test_a_training_that_has_ended_is_not_asked_to_stop(repo: Repo) -> None:
    send_stop(Hub(repo.id), REQUEST)

    assert (sorted(repo.branches), repo.titles()) == (["main"], ["initial commit"])


def test_a_lost_answer_costs_nothing(repo: Repo, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.stores.hub.pause", lambda *_: 0.0)
    repo.create_branch("state")
    hub.faults.script("POST", "/commit/", [Fault.status(503), Fault.cut_answer()])

    send_stop(Hub(repo.id), REQUEST)

    assert fetch_stop(Hub(repo.id), repo.branches["state"]) == REQUEST


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"[" * 100_000, "which is too large"),
        (b"[" * 9_000, "cannot be read"),
        (b'{"best": 4, "newest": 8, "worse": 2, "spec_fingerprint": "a\\u001b[2J"}', "is no fingerprint"),
        (b'{"best": 4, "newest": 8, "worse": 99, "spec_fingerprint": "5pec"}', "no 99 checkpoints are between"),
    ],
)
def test_what_is_no_request_is_an_error_of_one_line(repo: Repo, content: bytes, problem: str) -> None:
    head = repo.commit({STOP: content}).hash

    with pytest.raises(HubError, match=problem) as caught:
        fetch_stop(Hub(repo.id), head)

    assert "\n" not in caught.value.message
    assert caught.value.message.isprintable()
