"""One repository on the Hub: what is read and written, and what every failure becomes."""

import errno
import time
import traceback
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path

import pytest

from pricer.errors import HubError, Interrupted
from pricer.stores.commit_budget import CommitBudget
from pricer.stores.hub import Hub, Refs, RemoteCommit, RemoteFile
from pricer.stores.hub_accounts import Account, read_account
from pricer.stores.hub_errors import pause
from pricer.waits import listening
from tests.loopback_hub import Fault, LoopbackHub, Repo

REPO = "ann/prices"
WEIGHTS = "adapter_model.safetensors"
SEE_STATUS = "is ENDPOINT up?"
IS_IT_UP = "is the network up?"
WHO_AM_I = "hf auth whoami; hf auth login"
RIGHTS = "what the token may do, and how much space is left: ENDPOINT/settings"


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    repo = hub.create(REPO)
    repo.commit({"README.md": b"prices", WEIGHTS: b"weights"}, "two files")
    return repo


def once() -> Hub:
    """Nothing is tried again."""
    return Hub(REPO, attempts=1)


def failure(request: Callable[[], object]) -> HubError:
    """The error of a request; whatever it says must be one line."""
    with pytest.raises(HubError) as raised:
        request()
    assert "\n" not in raised.value.message
    return raised.value


def sent(hub: LoopbackHub, method: str, path: str) -> int:
    """How many requests of that kind came."""
    return sum(request.method == method and path in request.path for request in hub.requests)


class TestFailures:
    @pytest.mark.parametrize(
        ("fault", "message", "hint", "transient", "retry_after"),
        [
            (
                Fault.status(409),
                "the Hub answers 409 for ann/prices: Cannot do this: another conflicting operation is in progress",
                SEE_STATUS,
                True,
                None,
            ),
            (Fault.status(429), "the Hub answers 429 for ann/prices: Too Many Requests", SEE_STATUS, True, None),
            (Fault.status(429, 3), "the Hub answers 429 for ann/prices: Too Many Requests", SEE_STATUS, True, 3.0),
            (Fault.rate_limit(7), "the Hub answers 429 for ann/prices: Too Many Requests", SEE_STATUS, True, 7.0),
            (
                Fault.status(500),
                "the Hub answers 500 for ann/prices: Internal Error - We're working hard to fix this as soon as "
                "possible!",
                SEE_STATUS,
                True,
                None,
            ),
            (Fault.status(503, 9), "the Hub answers 503 for ann/prices: Service Unavailable", SEE_STATUS, True, 9.0),
            (Fault.status(404), "the Hub answers 404 for ann/prices: Not found", SEE_STATUS, False, None),
            (
                Fault.status(401),
                "the Hub refuses access to ann/prices (401): Invalid username or password.",
                WHO_AM_I,
                False,
                None,
            ),
            (Fault.status(403), "the Hub refuses access to ann/prices (403): Forbidden", RIGHTS, False, None),
        ],
        ids=lambda value: value.name if isinstance(value, Fault) else None,
    )
    def test_a_refusal_says_what_the_hub_said(
        self,
        hub: LoopbackHub,
        repo: Repo,
        fault: Fault,
        message: str,
        hint: str,
        transient: bool,
        retry_after: float | None,
    ) -> None:
        hub.faults.script("GET", "/refs", [fault])

        error = failure(once().refs)

        assert (error.message, error.hint) == (message, hint.replace("ENDPOINT", hub.url))
        assert (error.transient, error.retry_after, error.limited) == (transient, retry_after, False)

    def test_the_public_hub_has_a_page_that_says_whether_it_is_up(
        self, hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        hub.faults.script("GET", "/refs", [Fault.status(503)])
        monkeypatch.delenv("HF_ENDPOINT")

        assert failure(once().refs).hint == "see https://status.huggingface.co"

    @pytest.mark.parametrize(
        ("fault", "reason"),
        [
            (Fault.cut_request(), "Server disconnected without sending a response."),
            (Fault.cut_request(reset=True), "[Errno 104] Connection reset by peer"),
            (Fault.cut_answer(), "Server disconnected without sending a response."),
            (Fault.cut_half_answer(), "peer closed connection without sending complete message body"),
            (Fault.stall(0.01), "Server disconnected without sending a response."),
        ],
        ids=lambda value: value.name if isinstance(value, Fault) else None,
    )
    def test_a_broken_connection_may_be_there_again_later(
        self, hub: LoopbackHub, repo: Repo, fault: Fault, reason: str
    ) -> None:
        hub.faults.script("GET", "/refs", [fault])

        error = failure(once().refs)

        assert error.message.startswith(f"the Hub cannot be reached for ann/prices: {reason}")
        assert (error.hint, error.transient, error.retry_after) == (IS_IT_UP, True, None)

    def test_a_signal_during_a_request_is_no_failure_of_the_hub(self) -> None:
        def stop(_: object) -> None:
            raise Interrupted("stopped by SIGTERM")

        with pytest.raises(Interrupted, match=r"^stopped by SIGTERM$"):
            Hub(REPO).ask(stop)

    @pytest.mark.parametrize("code", [401, 403])
    def test_a_refusal_after_an_answer_is_doubted_twice(self, hub: LoopbackHub, repo: Repo, code: int) -> None:
        waited: list[float] = []
        opened = Hub(REPO, wait=waited.append)
        hub.faults.script("GET", "/refs", [None, *[Fault.status(code)] * 5])
        opened.refs()

        error = failure(opened.refs)

        assert (error.refused, error.transient, len(waited), hub.faults.left) == (True, False, 2, 2)
        opened.refs()  # refused twice, and then answered

    def test_a_refusal_of_the_first_request_is_believed(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.faults.script("GET", "/refs", [Fault.status(403)])

        error = failure(Hub(REPO).refs)

        assert (error.refused, error.transient, len(hub.requests)) == (True, False, 1)

    def test_a_repository_that_is_not_there_is_named(self, hub: LoopbackHub) -> None:
        error = failure(Hub("ann/missing").refs)

        assert error.message == "there is no repository ann/missing on the Hub, or this account may not see it"
        assert error.hint == "a private one needs `hf auth login`, or HF_TOKEN"
        assert not error.transient

    @pytest.mark.parametrize("revision", ["elsewhere", "0" * 40])
    def test_an_unknown_revision_is_named(self, repo: Repo, revision: str) -> None:
        for request in (lambda: once().commits(revision), lambda: once().files(revision, [WEIGHTS])):
            error = failure(request)

            assert error.message == f"ann/prices on the Hub has no such revision or file: Invalid rev id: {revision}"
            assert not error.transient

    def test_gated_files_need_their_terms_accepted(self, hub: LoopbackHub) -> None:
        gated = hub.create("bob/base", gated=True)
        head = gated.commit({"config.json": b"{}"}).hash
        opened = Hub("bob/base")

        error = failure(lambda: opened.read(head, "config.json", 100))

        assert error.message == "bob/base is gated: its terms have to be accepted first"
        assert error.hint == f"accept them on {hub.url}/bob/base, then `hf auth login`"
        assert not error.transient

    @pytest.mark.parametrize("name", ["a/b/c", "ann/pri ces", "-ann/prices", "ann/prices.git", "ann/../prices"])
    def test_a_name_that_cannot_be_one_is_refused_before_anything_is_sent(self, hub: LoopbackHub, name: str) -> None:
        error = failure(Hub(name).refs)

        assert (error.message, error.hint) == (f"{name!r} cannot name a repository on the Hub", "USER/NAME")
        assert not error.transient
        assert hub.requests == []

    def test_switched_off_is_not_tried_again(
        self, hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

        error = failure(Hub(REPO).refs)

        assert (error.message, error.hint) == ("the Hub is switched off (HF_HUB_OFFLINE)", "unset HF_HUB_OFFLINE")
        assert not error.transient
        assert hub.requests == []

    @pytest.mark.parametrize("revision", ["main", None])
    def test_switched_off_it_reads_what_the_cache_has(
        self, hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch, revision: str | None
    ) -> None:
        commit = revision or repo.commit({"a/b.txt": b"ab", "c.txt": b"c"}, "files").hash
        if revision:
            repo.commit({"a/b.txt": b"ab", "c.txt": b"c"}, "files")
        online = Hub(REPO)
        online.download(commit, online.all_files(commit)["a/b.txt"], 10)
        before = len(hub.requests)
        monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)

        assert Hub(REPO).read(commit, "a/b.txt", 10) == b"ab"
        assert {path: file.size for path, file in Hub(REPO).all_files(commit).items()} == {"a/b.txt": 2}
        assert Hub(REPO).all_files("0" * 40) == {}
        problem = failure(lambda: Hub(REPO).read(commit, "c.txt", 10))
        assert problem.message.startswith(
            f"c.txt of {REPO} ({commit[:12]}) is not in the cache, and the Hub is switched"
        )
        assert len(hub.requests) == before

    @pytest.mark.parametrize("token", ["hf_aB3dE6gH9jK2mN5pQ8sT1vW4yZ7", "correct-horse-battery-staple"])
    def test_a_token_that_is_none_is_refused_and_not_shown(
        self, hub: LoopbackHub, repo: Repo, monkeypatch: pytest.MonkeyPatch, token: str
    ) -> None:
        monkeypatch.setenv("HF_TOKEN", token)

        for request in (
            once().refs,
            lambda: once().commit({"a": b"a"}, "a"),
            lambda: once().read("main", "a", 9),
            read_account,
        ):
            error = failure(request)

            assert error.hint == WHO_AM_I
            assert not error.transient
            assert token not in "".join(traceback.format_exception(error))

    def test_no_error_shows_the_token(self, hub: LoopbackHub, repo: Repo) -> None:
        token = hub.add_user("ann")
        head = repo.branches["main"]
        requests: list[tuple[str, str, Callable[[], object]]] = [
            ("GET", "/refs", once().refs),
            ("POST", "/paths-info/", lambda: once().files(head, [WEIGHTS])),
            ("POST", "/commit/", lambda: once().commit({"a": b"a"}, "a")),
            ("POST", "/tag/", lambda: once().tag("best", head)),
        ]
        for method, path, request in requests:
            for fault in (Fault.status(401), Fault.status(500), Fault.cut_request(), Fault.rate_limit(1)):
                hub.faults.script(method, path, [fault])
                error = failure(request)
                assert token not in f"{error.message} {error.hint} {''.join(traceback.format_exception(error))}"
        assert {request.token for request in hub.requests} == {token}  # it was sent all along

    def test_a_full_disk_is_no_network_that_is_down(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        def full(*arguments: object, **how: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("huggingface_hub.HfApi.hf_hub_download", full)

        with pytest.raises(OSError, match=r"^\[Errno 28\] No space left on device$"):
            once().read(repo.branches["main"], "README.md", 6)

    def test_no_error_shows_the_signature_of_an_address(self, repo: Repo, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*arguments: object, **how: object) -> None:
            raise RuntimeError("refused: https://storage/x?X-Amz-Signature=0123456789abcdef0123456789abcdef, again")

        monkeypatch.setattr("huggingface_hub.HfApi.list_repo_refs", refuse)

        assert failure(once().refs).message == (
            "the Hub cannot be reached for ann/prices: refused: https://storage/x?… again"
        )


class TestWaits:
    def test_each_is_announced_with_its_seconds(self, hub: LoopbackHub, repo: Repo) -> None:
        heard: list[str | None] = []
        hub.faults.script("GET", "/refs", [Fault.status(503, 4), Fault.status(429, 300)])

        with listening(lambda wait: heard.append(wait.text if wait else None)):
            Hub(REPO, wait=lambda seconds: heard.append(f"{seconds:.0f}")).refs()

        assert heard == [
            "the Hub answers 503 for ann/prices: Service Unavailable; next try in 4 s",
            "4",
            None,
            "the Hub answers 429 for ann/prices: Too Many Requests; next try in 5 min",
            "300",
            None,
        ]

    def test_a_wait_inside_the_library_is_announced_too(
        self, hub: LoopbackHub, repo: Repo, waits: list[float], capfd: pytest.CaptureFixture[str]
    ) -> None:
        heard: list[str | None] = []
        hub.faults.script("PUT", "/", [Fault.status(503), Fault.cut_request()])

        with listening(lambda wait: heard.append(wait.text if wait else None)):
            once().commit({WEIGHTS: b"weights that the repository lacks"}, "step-000005")

        assert heard == ["the Hub answers 503; next try in 1 s", "the connection to the Hub failed; next try in 2 s"]
        assert waits == [1, 2]
        assert capfd.readouterr().err == ""

    def test_what_the_hub_asks_for_is_waited(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        hub.faults.script("GET", "/refs", [Fault.status(429, 3), Fault.rate_limit(7), Fault.status(503, 1)])

        refs = Hub(REPO, wait=waited.append).refs()

        assert refs.branches == {"main": repo.branches["main"]}
        assert waited == [3.0, 7.0, 1.0]

    def test_a_date_to_wait_for_is_understood(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        for date in (formatdate(time.time() + 90, usegmt=True), formatdate(0, usegmt=True), "soon", "²"):
            hub.faults.script("GET", "/refs", [Fault("status 503", 503, (("Retry-After", date),))])

        Hub(REPO, wait=waited.append).refs()

        assert 80 < waited[0] <= 90
        assert waited[1] == 1.0  # long ago: at once, but no flood
        assert all(seconds > 1 for seconds in waited[2:])  # as if nothing had been said

    def test_else_waits_double_with_some_jitter(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        hub.faults.script("GET", "/refs", [Fault.status(500), Fault.cut_request(), Fault.cut_answer()])

        Hub(REPO, wait=waited.append).refs()

        # 0.5 · 2, · 4, · 8 seconds, each give or take a quarter
        assert [round(seconds / middle) for seconds, middle in zip(waited, (1, 2, 4), strict=True)] == [1, 1, 1]
        assert all(0.75 <= seconds / middle <= 1.25 for seconds, middle in zip(waited, (1, 2, 4), strict=True))

    @pytest.mark.parametrize("failures", [10, 100, 100_000])
    def test_a_wait_is_about_a_minute_at_most(self, failures: int) -> None:
        assert 45 <= pause(failures, HubError("down", transient=True)) <= 75
        assert pause(failures, HubError("down", transient=True, retry_after=1.5)) == 1.5

    def test_a_read_is_tried_so_many_times_and_no_more(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        hub.faults.script("GET", "/refs", [Fault.status(503, 2)] * 5)

        error = failure(Hub(REPO, attempts=3, wait=waited.append).refs)

        assert error.message == "the Hub answers 503 for ann/prices: Service Unavailable"
        assert (waited, hub.faults.left) == ([2.0, 2.0], 2)

    def test_what_will_not_change_is_not_tried_again(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        hub.faults.script("GET", "/refs", [Fault.status(400)])

        failure(Hub(REPO, wait=waited.append).refs)

        assert (waited, len(hub.requests)) == ([], 1)

    def test_whoever_waits_may_give_up(self, hub: LoopbackHub, repo: Repo) -> None:
        def give_up(seconds: float) -> None:
            raise HubError(f"no patience for {seconds:.0f} seconds")

        hub.faults.script("GET", "/refs", [Fault.status(429, 30)])

        assert failure(Hub(REPO, wait=give_up).refs).message == "no patience for 30 seconds"


class TestReading:
    def test_refs_are_names_to_commits(self, repo: Repo) -> None:
        head = repo.branches["main"]
        repo.create_branch("state")
        repo.create_tag("best", head)

        assert once().refs() == Refs({"main": head, "state": head}, {"best": head})

    def test_commits_come_newest_first_however_many_pages_they_fill(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.page_sizes(commits=2)
        for number in (3, 4, 5):
            repo.commit({"README.md": str(number).encode()}, f"commit {number}\n\nwith a body")

        commits = once().commits()

        assert [commit.title for commit in commits] == [
            "commit 5",
            "commit 4",
            "commit 3",
            "two files",
            "initial commit",
        ]
        assert commits[0] == RemoteCommit(repo.branches["main"], "commit 5")
        assert sent(hub, "GET", "/commits/main") == 3  # 2 + 2 + 1

    def test_all_files_are_listed_however_many_pages_they_fill(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.page_sizes(entries=2)
        head = repo.commit({f"checkpoint-{step}/{WEIGHTS}": b"w" for step in (5, 10)}).hash

        files = once().all_files(head)

        # Folders are entries too, and no files.
        assert sorted(files) == [
            ".gitattributes",
            "README.md",
            WEIGHTS,
            f"checkpoint-10/{WEIGHTS}",
            f"checkpoint-5/{WEIGHTS}",
        ]

    def test_a_file_is_known_by_its_size_and_hash(self, repo: Repo) -> None:
        found = once().files(repo.branches["main"], [WEIGHTS, "README.md", "absent", "checkpoint-5"])

        assert sorted(found) == ["README.md", WEIGHTS]
        # `printf weights | sha256sum`
        weights = "9a129038d9a00aed0cf6a7ea059ca50a813449061ab87848cf1a13eafdf33b2c"
        # `printf prices | git hash-object --stdin`
        assert found["README.md"] == RemoteFile("README.md", 6, None, "93c59fc481c6f3009ba8170eab2e96121773cb5b")
        assert (found[WEIGHTS].size, found[WEIGHTS].sha256) == (7, weights)

    @pytest.mark.parametrize("name", [WEIGHTS, "README.md"])
    def test_a_file_holds_its_own_content_and_no_other(self, repo: Repo, name: str) -> None:
        file = once().files(repo.branches["main"], [name])[name]
        own, same_size, longer = Path("own"), Path("same size"), Path("longer")
        own.write_bytes(repo.files()[name])
        same_size.write_bytes(bytes(file.size))
        longer.write_bytes(repo.files()[name] + b"\n")

        assert [file.is_same_as(path) for path in (own, same_size, longer)] == [True, False, False]

    def test_a_small_file_is_read_and_one_that_is_not_there_is_none(self, repo: Repo) -> None:
        head = repo.branches["main"]

        assert once().read(head, "README.md", 6) == b"prices"
        assert once().read(head, WEIGHTS, 7) == b"weights"
        assert once().read(head, "absent", 100) is None

    def test_a_file_that_is_too_large_is_refused_before_any_of_it_is_fetched(
        self, hub: LoopbackHub, repo: Repo
    ) -> None:
        head = repo.commit({"notes.txt": bytes(1234)}).hash

        error = failure(lambda: once().read(head, "notes.txt", 1233))

        assert error.message == ("ann/prices has a notes.txt of 1,234 bytes, which is too large (at most 1,233)")
        assert not error.transient
        assert sent(hub, "GET", "/resolve/") + sent(hub, "HEAD", "/resolve/") == 0

    def test_a_download_lies_at_its_path_in_a_folder_or_in_the_shared_cache(self, repo: Repo, home: Path) -> None:
        head = repo.commit({f"checkpoint-5/{WEIGHTS}": b"step 5"}).hash
        file = once().files(head, [f"checkpoint-5/{WEIGHTS}"])[f"checkpoint-5/{WEIGHTS}"]

        placed = once().download(head, file, 6, into=Path("here"))
        cached = once().download(head, file, 6)

        assert placed.resolve() == Path("here/checkpoint-5", WEIGHTS).resolve()
        assert cached.is_relative_to(home)
        assert placed.read_bytes() == cached.read_bytes() == b"step 5"

    @pytest.mark.usefixtures("waits")
    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    @pytest.mark.parametrize(
        "fault",
        [Fault.status(425), Fault.status(503), Fault.cut_answer(), Fault.cut_half_answer()],
        ids=lambda fault: fault.name,
    )
    def test_a_download_that_fails_on_its_way_is_begun_again(
        self, hub: LoopbackHub, repo: Repo, method: str, fault: Fault
    ) -> None:
        hub.faults.script(method, "/resolve/", [fault])
        opened = Hub(REPO, wait=lambda seconds: None)

        assert opened.read(repo.branches["main"], WEIGHTS, 7) == b"weights"
        assert hub.faults.left == 0


class TestCommitting:
    def test_files_are_committed_beside_what_is_there(self, repo: Repo) -> None:
        Path("weights").write_bytes(b"new weights")

        commit = once().commit({WEIGHTS: Path("weights"), "a/b.txt": b"text"}, "more")

        assert commit == repo.branches["main"]
        assert repo.commits()[0].title == "more"
        assert {name: content for name, content in repo.files().items() if name != ".gitattributes"} == {
            "README.md": b"prices",
            WEIGHTS: b"new weights",
            "a/b.txt": b"text",
        }

    def test_a_commit_is_sent_once_whatever_becomes_of_it(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        opened = Hub(REPO, wait=waited.append)
        for fault in (Fault.status(500), Fault.status(429, 1), Fault.cut_request(), Fault.cut_answer()):
            hub.faults.script("POST", "/commit/", [fault])
            before = sent(hub, "POST", "/commit/")

            error = failure(lambda: opened.commit({"a.txt": b"a"}, "a"))

            assert error.transient
            assert sent(hub, "POST", "/commit/") == before + 1
        assert waited == []

    def test_where_only_the_content_matters_a_commit_is_sent_again(self, hub: LoopbackHub, repo: Repo) -> None:
        waited: list[float] = []
        hub.faults.script("POST", "/commit/", [Fault.status(503, 2), Fault.cut_answer()])

        Hub(REPO, wait=waited.append).commit({"card.md": b"a card"}, "card", retry=True)

        assert (waited[0], len(waited), hub.faults.left) == (2.0, 2, 0)
        assert repo.files()["card.md"] == b"a card"

    def test_a_commit_on_top_of_an_older_one_is_refused(self, repo: Repo) -> None:
        parent = repo.branches["main"]
        repo.commit({"README.md": b"edited by hand"}, "edit")

        error = failure(lambda: Hub(REPO).commit({"a.txt": b"a"}, "a", parent=parent))

        assert error.message == (
            "the Hub answers 412 for ann/prices: A commit has happened since. Please refresh and try again."
        )
        assert error.transient
        assert repo.titles() == ["edit", "two files", "initial commit"]

    def test_a_commit_beyond_the_budget_is_not_sent(self, hub: LoopbackHub, repo: Repo) -> None:
        opened = Hub(REPO, before_commit=CommitBudget(Path("commits.jsonl"), per_hour=1, clock=lambda: 1000.0).take)
        opened.commit({"a.txt": b"a"}, "a")
        before = len(hub.requests)

        error = failure(lambda: opened.commit({"b.txt": b"b"}, "b"))

        assert (error.limited, error.transient, error.retry_after) == (True, True, 3600.0)
        assert len(hub.requests) == before

    def test_one_branch_is_committed_to_and_squashed_without_the_other(self, repo: Repo) -> None:
        start = repo.branches["main"]
        for _ in range(2):  # once it is there, nothing changes
            once().branch("state", start)

        for number in (1, 2):
            once().commit({"state.json": str(number).encode()}, f"state {number}", branch="state")
        once().squash("state", "state 2")

        assert repo.titles("state") == ["state 2"]
        assert repo.files("state")["state.json"] == b"2"
        assert repo.branches["main"] == start

    def test_a_repository_that_is_there_keeps_its_visibility(self, hub: LoopbackHub) -> None:
        for private in (True, False):
            Hub("ann/new").create(private=private)

        assert hub.repo("ann/new").private


class TestTags:
    def test_a_tag_that_is_in_its_place_is_not_taken_away_for_a_moment(self, hub: LoopbackHub, repo: Repo) -> None:
        for _ in range(2):
            once().tag("best", repo.branches["main"])

        assert sent(hub, "DELETE", "/tag/") == 0

    def test_a_tag_moves_only_if_that_is_asked_for(self, repo: Repo) -> None:
        first = repo.branches["main"]
        repo.create_tag("step-000005", first)
        second = repo.commit({"README.md": b"second"}).hash

        error = failure(lambda: once().tag("step-000005", second))

        assert error.message == f"the tag step-000005 of {REPO} is at {first[:12]}, not at {second[:12]}"
        assert not error.transient
        assert repo.tags == {"step-000005": first}
        once().tag("step-000005", second, move=True)
        assert repo.tags == {"step-000005": second}

    @pytest.mark.parametrize("fault", [Fault.cut_answer(), Fault.cut_request(), Fault.status(500)])
    @pytest.mark.parametrize("method", ["POST", "DELETE"])
    def test_a_lost_answer_is_no_reason_to_stop_half_way(
        self, hub: LoopbackHub, repo: Repo, method: str, fault: Fault
    ) -> None:
        repo.create_tag("best", repo.branches["main"])
        second = repo.commit({"README.md": b"second"}).hash
        hub.faults.script(method, "/tag/", [fault])

        Hub(REPO, wait=lambda seconds: None).tag("best", second, move=True)

        assert repo.tags == {"best": second}
        assert hub.faults.left == 0


class TestAccountsAndBases:
    def test_the_user_is_whose_token_it_is(self, hub: LoopbackHub) -> None:
        assert read_account() == Account("ann", "write")

    def test_without_a_token_there_is_no_user(self, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.delenv("HF_TOKEN")

        error = failure(read_account)

        assert (error.message, error.hint) == (
            "no token for the Hugging Face Hub was found",
            "hf auth login, or set HF_TOKEN",
        )
        assert hub.requests == []

    @pytest.mark.parametrize(
        ("readme", "licence"),
        [
            (b"---\nlicense: llama3.2\n---\n# A base\n", "llama3.2"),
            (b"---\nlicense: [mit, apache-2.0]\n---\n", None),
            (b"---\ntags: [x]\n---\n", None),
            (b"no front matter", None),
        ],
    )
    def test_the_licence_of_a_base_is_what_its_card_states(
        self, hub: LoopbackHub, readme: bytes, licence: str | None
    ) -> None:
        hub.create("bob/base").commit({"README.md": readme})

        assert Hub("bob/base").licence("main") == licence
        assert Hub("bob/base").licence(None) == licence
