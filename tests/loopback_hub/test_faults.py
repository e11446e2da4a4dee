"""Each fault as the real client sees it, and what it does about it by itself."""

import socket
import threading
import time
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, hf_hub_download, snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from tests.loopback_hub import COMMON_FAULTS, Fault, LoopbackHub, Repo

WEIGHTS = bytes(range(256)) * 400
LOST = (httpx2.RemoteProtocolError, httpx2.NetworkError)
"""What a connection that ends too early looks like."""


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    repo = hub.create("ann/prices")
    repo.commit({"w.safetensors": WEIGHTS, "a.txt": b"a"})
    return repo


def commit(name: str = "b.txt", content: bytes = b"b") -> str:
    addition = CommitOperationAdd(path_in_repo=name, path_or_fileobj=content)
    return HfApi().create_commit("ann/prices", [addition], commit_message="more").oid


def happened(hub: LoopbackHub, method: str, path: str) -> list[tuple[int | None, str | None]]:
    return [(sent.status, sent.fault) for sent in hub.requests if sent.method == method and path in sent.path]


@pytest.mark.parametrize("code", [403, 412, 503])
def test_a_commit_that_is_answered_with_an_error_is_not_done(hub: LoopbackHub, repo: Repo, code: int) -> None:
    head = repo.branches["main"]
    hub.faults.script("POST", "/commit/", [Fault.status(code)])

    with pytest.raises(HfHubHTTPError) as error:
        commit()

    assert error.value.response.status_code == code
    assert repo.branches["main"] == head
    assert hub.faults.left == 0
    assert commit() == repo.branches["main"]


def test_a_404_says_no_more_than_that(hub: LoopbackHub, repo: Repo) -> None:
    hub.faults.script("GET", "/api/models/", [Fault.status(404), Fault.status(401)])

    with pytest.raises(HfHubHTTPError) as missing:
        HfApi().model_info("ann/prices")
    assert not isinstance(missing.value, RepositoryNotFoundError)
    with pytest.raises(HfHubHTTPError):
        HfApi().model_info("ann/prices")


def test_a_lost_answer_is_an_error_although_the_commit_is_there(hub: LoopbackHub, repo: Repo) -> None:
    before = len(repo.commits())
    for fault in (Fault.cut_answer(), Fault.cut_answer(reset=True), Fault.cut_half_answer()):
        hub.faults.script("POST", "/commit/", [fault])
        with pytest.raises(LOST):
            commit(f"{fault.name}-{fault.reset}.txt")

    assert len(repo.commits()) == before + 3
    assert {"cut answer-False.txt", "cut answer-True.txt", "cut half answer-False.txt"} <= set(repo.files())
    assert happened(hub, "POST", "/commit/") == [(200, "cut answer"), (200, "cut answer"), (200, "cut half answer")]


@pytest.mark.parametrize("reset", [False, True], ids=["end", "reset"])
def test_a_cut_request_does_nothing(hub: LoopbackHub, repo: Repo, reset: bool) -> None:
    head = repo.branches["main"]
    hub.faults.script("POST", "/commit/", [Fault.cut_request(reset=reset)])

    with pytest.raises(LOST):
        commit(content=b"b" * 3_000_000)

    assert repo.branches["main"] == head
    assert happened(hub, "POST", "/commit/") == [(None, "cut request")]


@pytest.mark.parametrize(
    ("fault", "waited"),
    [
        (Fault.status(429, retry_after=2), 3.0),  # a second more than was asked for
        (Fault.rate_limit(reset_in=4), 5.0),
        (Fault.status(503), 1.0),
        (Fault.status(503, retry_after=2), 3.0),
        (Fault.cut_request(), 1.0),
        (Fault.cut_answer(), 1.0),
        (Fault.cut_half_answer(reset=True), 1.0),
    ],
    ids=lambda value: value.name if isinstance(value, Fault) else "",
)
def test_an_upload_is_tried_again(
    hub: LoopbackHub, repo: Repo, waits: list[float], fault: Fault, waited: float
) -> None:
    hub.faults.script("PUT", "/lfs-storage/", [fault])

    commit("new.safetensors", WEIGHTS[1:])

    assert repo.files()["new.safetensors"] == WEIGHTS[1:]
    assert waits == [waited]
    assert len(happened(hub, "PUT", "/lfs-storage/")) == 2


def test_an_upload_that_keeps_failing_is_given_up(hub: LoopbackHub, repo: Repo, waits: list[float]) -> None:
    hub.faults.script("PUT", "/lfs-storage/", [Fault.status(500)] * 6)

    with pytest.raises(RuntimeError, match="Error while uploading") as error:
        commit("new.safetensors", WEIGHTS[1:])

    assert isinstance(error.value.__cause__, HfHubHTTPError)
    assert waits == [1, 2, 4, 8, 8]


def test_a_download_goes_on_where_it_was_cut(
    hub: LoopbackHub, repo: Repo, waits: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    # What came in of an unfinished chunk is thrown away, and a chunk is 10 MB.
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 1000)
    hub.faults.script("GET", "/resolve/", [Fault.cut_half_answer(), Fault.cut_half_answer()])

    path = hf_hub_download("ann/prices", "w.safetensors")

    assert Path(path).read_bytes() == WEIGHTS
    # The second try asked for the second half, the third for the last quarter.
    assert [status for status, _ in happened(hub, "GET", "/resolve/")] == [200, 206, 206]
    assert waits == [1, 1]


@pytest.mark.parametrize(
    ("fault", "error"),
    [(Fault.cut_half_answer(reset=True), httpx2.ReadError), (Fault.status(503), HfHubHTTPError)],
    ids=["reset", "503"],
)
def test_a_download_is_tried_once(hub: LoopbackHub, repo: Repo, fault: Fault, error: type[Exception]) -> None:
    hub.faults.script("GET", "/resolve/", [fault])

    with pytest.raises(error):
        hf_hub_download("ann/prices", "w.safetensors")

    assert len(happened(hub, "GET", "/resolve/")) == 1


def test_without_the_hub_what_was_fetched_is_still_there(hub: LoopbackHub, repo: Repo) -> None:
    folder = snapshot_download("ann/prices")
    hub.faults.script("GET", "/api/models/ann/prices/revision/", [Fault.status(503), Fault.status(503)])

    assert snapshot_download("ann/prices") == folder
    with pytest.raises(LocalEntryNotFoundError):
        snapshot_download("ann/prices", cache_dir="elsewhere")


def test_a_stalled_request_runs_into_the_clients_limit(hub: LoopbackHub, repo: Repo) -> None:
    hub.faults.script("GET", "/api/models/ann/prices", [Fault.stall(9999)])

    with pytest.raises(httpx2.TimeoutException):
        HfApi().model_info("ann/prices", timeout=0.1)


def test_stopping_waits_neither_for_stalls_nor_for_slow_uploads() -> None:
    with LoopbackHub() as loopback:
        head = {"Authorization": f"Bearer {loopback.add_user('ann')}"}
        loopback.create("ann/prices")
        loopback.slow_uploads(10)
        loopback.faults.script("GET", "whoami", [Fault.stall(9999)])
        errors: list[type[Exception]] = []

        def ask(method: str, path: str, content: bytes = b"") -> None:
            try:
                httpx2.request(method, loopback.url + path, content=content, headers=head, timeout=None)
            except httpx2.HTTPError as error:
                errors.append(type(error))

        threads = [
            threading.Thread(target=ask, args=("GET", "/api/whoami-v2")),
            threading.Thread(target=ask, args=("PUT", f"/lfs-storage/models/ann/prices/{'0' * 64}", WEIGHTS)),
        ]
        for thread in threads:
            thread.start()
        unfinished = socket.create_connection(("127.0.0.1", httpx2.URL(loopback.url).port or 0))
        unfinished.sendall(b"POST /api/repos/create HTTP/1.1\r\nContent-Length: 100\r\n\r\n{")
        while loopback.connections < 3 or loopback.faults.left:
            time.sleep(0.01)
        began = time.monotonic()
    # The stall and the upload (102,400 bytes at 10 bytes per second) would each go on for hours.
    assert time.monotonic() - began < 600
    unfinished.close()
    for thread in threads:
        thread.join()
    assert len(errors) == 2


def test_slow_uploads_take_their_time(hub: LoopbackHub, repo: Repo) -> None:
    hub.slow_uploads(len(WEIGHTS) * 5)
    began = time.monotonic()
    commit("new.safetensors", WEIGHTS[1:])
    assert time.monotonic() - began > 0.19

    hub.slow_uploads(1)
    hub.slow_uploads(None)
    commit("more.safetensors", WEIGHTS[2:])  # would take 28 hours at 1 byte per second
    assert repo.files()["more.safetensors"] == WEIGHTS[2:]


def test_scripts_go_one_after_the_other_and_may_let_requests_through(hub: LoopbackHub, repo: Repo) -> None:
    hub.faults.script("*", "/commits/", [None, Fault.status(403)])
    hub.faults.script("GET", "/commits/main$", [Fault.status(409)])

    seen = []
    for _ in range(4):
        try:
            seen.append(len(HfApi().list_repo_commits("ann/prices")))
        except HfHubHTTPError as error:
            seen.append(error.response.status_code)

    assert seen == [2, 403, 409, 2]


def test_random_faults_spare_what_they_should_and_repeat_with_their_seed(hub: LoopbackHub, repo: Repo) -> None:
    def run() -> list[str | None]:
        hub.faults.random(rate=0.5, seed=7, spare="/refs$")
        first = len(hub.requests)
        for _ in range(30):
            try:
                HfApi().model_info("ann/prices")
            except (HfHubHTTPError, *LOST):
                pass
            HfApi().list_repo_refs("ann/prices")
        hub.faults.clear()
        return [sent.fault for sent in hub.requests[first:]]

    faults = run()

    assert run() == faults
    assert set(faults) - {None} <= {fault.name for fault in COMMON_FAULTS}
    assert 8 < sum(fault is not None for fault in faults) < 22
    HfApi().delete_files("ann/prices", ["a.txt"])


def test_a_stubborn_client_gets_everything_through_bad_weather(
    hub: LoopbackHub, repo: Repo, waits: list[float]
) -> None:
    hub.faults.random(rate=0.3, seed=3)
    api = HfApi()
    for step in range(8):
        addition = CommitOperationAdd(f"step-{step}.safetensors", WEIGHTS[step:])
        while f"step-{step}.safetensors" not in repo.files():
            try:
                api.create_commit("ann/prices", [addition], commit_message=f"step {step}", num_threads=1)
            except (HfHubHTTPError, RuntimeError, *LOST):
                continue
    hub.faults.clear()

    api.create_commit("ann/prices", [CommitOperationDelete("w.safetensors")], commit_message="tidy")

    assert all(repo.files()[f"step-{step}.safetensors"] == WEIGHTS[step:] for step in range(8))
    assert repo.titles()[1:9] == [f"step {step}" for step in range(7, -1, -1)]
