"""The lease of a repository: one process trains a run, and no other one pushes meanwhile."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pricer.errors import HubError, LeaseLost
from pricer.stores import hub_lease
from pricer.stores.hub import Hub
from pricer.stores.hub_lease import HubLease, Owner, identify_folder
from pricer.stores.processes import Process, has_ended, this_process
from pricer.stores.records import parse_record
from tests.loopback_hub import Fault, LoopbackHub, Repo

Be = Callable[[Process], None]
REPO = "ann/prices"
ELSEWHERE = Process("another machine", "gpu-7", 4711, "1")
RESUME = "pricer train --resume --run prices"


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Be:
    """Be another process from now on."""

    def be(process: Process) -> None:
        monkeypatch.setattr(hub_lease, "this_process", lambda: process)

    return be


@pytest.fixture
def living() -> Iterator[Process]:
    """Another process of this machine that runs until the test ends."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        yield process_of(child)
        child.kill()


def process_of(child: subprocess.Popen[Any]) -> Process:
    stat = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8")
    return replace(this_process(), pid=child.pid, started=stat.rpartition(")")[2].split()[19])


def a_lease(folder: str = "here", *, run: str | None = "run", finished: bool = False, attempts: int = 1) -> HubLease:
    hub = Hub(REPO, attempts=attempts, wait=lambda _: None)
    return HubLease(hub, Owner(run, folder, RESUME, lambda: finished), lambda: {"run.json": b"{}", "config.yaml": b""})


def held(repo: Repo) -> dict[str, Any]:
    lease: dict[str, Any] = json.loads(repo.files("state")["lease.json"])
    return lease


def refusal(lease: HubLease, **how: bool) -> HubError:
    with pytest.raises(HubError) as raised:
        lease.acquire(**how)
    assert not lease.is_held
    assert not raised.value.transient
    return raised.value


class TestAcquiring:
    def test_it_says_who_holds_it_and_which_run_it_is(self, repo: Repo) -> None:
        main = repo.branches["main"]

        a_lease().acquire()

        here, lease = this_process(), held(repo)
        assert (lease["run_id"], lease["holder"], lease["released"]) == ("run", "here", None)
        assert (lease["host"], lease["pid"], lease["machine"]) == (here.host, os.getpid(), here.machine)
        assert lease["since"] == lease["renewed"]
        assert repo.files("state")["run.json"] == b"{}"
        assert (repo.branches["main"], repo.tags) == (main, {})

    def test_another_machine_is_refused_and_told_who_holds_it(self, repo: Repo, at: Be) -> None:
        at(ELSEWHERE)
        a_lease("there").acquire()
        since = held(repo)["since"][:16].replace("T", " ")
        at(this_process())

        error = refusal(a_lease())

        assert isinstance(error, LeaseLost)
        assert error.message == f"ann/prices is being trained by gpu-7 (process 4711) since {since} UTC"
        assert error.hint == f"wait until it ends; if that machine is dead: {RESUME} --take-over"
        assert held(repo)["holder"] == "there"

    @pytest.mark.parametrize("method", ["look", "acquire"])
    def test_a_branch_that_is_squashed_while_it_is_read_is_read_again(
        self, repo: Repo, at: Be, monkeypatch: pytest.MonkeyPatch, method: str
    ) -> None:
        at(ELSEWHERE)
        a_lease("there").acquire()
        at(this_process())
        heads = [repo.branches["state"]]
        read_refs = Hub.refs

        def refs_before_a_squash(hub: Hub) -> Any:
            refs = read_refs(hub)
            if len(heads) == 1:
                heads.append(repo.squash("state", "training state", "ann").hash)
            return refs

        monkeypatch.setattr(Hub, "refs", refs_before_a_squash)

        getattr(a_lease(), method)(take_over=True)

        assert heads[0] != heads[1]
        assert held(repo)["holder"] == ("here" if method == "acquire" else "there")

    def test_a_process_that_lives_in_another_folder_of_this_machine_is_not_pushed_aside(
        self, repo: Repo, at: Be, living: Process
    ) -> None:
        at(living)
        a_lease("there").acquire()
        at(this_process())

        assert f"(process {living.pid})" in refusal(a_lease()).message

    def test_a_process_of_this_machine_that_was_killed_holds_nothing(self, repo: Repo, at: Be, living: Process) -> None:
        at(living)
        a_lease("there").acquire()
        at(this_process())
        os.kill(living.pid, signal.SIGKILL)  # it becomes a zombie, because nobody waits for it yet

        lease = a_lease()
        lease.acquire()

        assert (held(repo)["holder"], lease.had_other_holder) == ("here", True)

    def test_a_later_process_with_the_same_number_is_not_taken_for_it(self, repo: Repo, living: Process) -> None:
        assert not has_ended(living)
        assert has_ended(replace(living, started="1"))
        assert not has_ended(replace(living, started="1", machine="another machine"))  # nobody can know

    def test_the_same_folder_goes_on_without_a_word(self, repo: Repo, at: Be) -> None:
        at(ELSEWHERE)  # for example before this machine was started again
        a_lease("here").acquire()
        at(this_process())

        lease = a_lease("here")
        lease.acquire()

        assert lease.is_held
        assert not lease.had_other_holder

    def test_a_released_lease_is_free(self, repo: Repo, at: Be) -> None:
        at(ELSEWHERE)
        first = a_lease("there")
        first.acquire()
        first.release()
        at(this_process())

        second = a_lease()
        second.acquire()

        assert (second.is_held, second.had_other_holder, first.is_held) == (True, True, False)

    def test_a_machine_that_is_dead_can_be_taken_over(self, repo: Repo, at: Be) -> None:
        at(ELSEWHERE)
        a_lease("there").acquire()
        at(this_process())

        lease = a_lease()
        lease.acquire(take_over=True)

        assert held(repo)["holder"] == "here"
        assert lease.previous is not None
        assert lease.previous.host == "gpu-7"

    def test_of_two_that_start_together_one_succeeds(self, repo: Repo, at: Be, monkeypatch: pytest.MonkeyPatch) -> None:
        at(ELSEWHERE)
        other = a_lease("there")
        at(this_process())
        commit, lease = Hub.commit, a_lease()

        def be_late(self: Hub, *arguments: Any, **how: Any) -> str:
            monkeypatch.setattr(Hub, "commit", commit)
            other.acquire()
            return commit(self, *arguments, **how)

        monkeypatch.setattr(Hub, "commit", be_late)

        assert "gpu-7" in refusal(lease).message
        assert other.check() == repo.branches["state"]

    def test_a_lost_answer_is_recognised(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.faults.script("POST", "/commit/", [Fault.cut_answer()])

        a_lease().acquire()

        assert repo.titles("state") == ["lease", "initial commit"]

    def test_a_conflict_is_not_taken_for_a_branch_that_is_there(self, hub: LoopbackHub, repo: Repo) -> None:
        hub.faults.script("POST", "/branch/", [Fault.status(409)])

        a_lease().acquire()

        assert held(repo)["holder"] == "here"

    def test_a_copy_of_the_folder_is_another_folder(self) -> None:
        Path("run").mkdir()
        own = identify_folder(Path("run"))
        shutil.copytree("run", "copy")
        Path("run").rename("moved")

        assert identify_folder(Path("moved")) == own
        assert identify_folder(Path("copy")) != own


class TestOtherRuns:
    def test_a_repository_with_checkpoints_of_another_run_is_refused(self, repo: Repo) -> None:
        repo.commit({"run.json": b'{"id": "1234567890", "started": "2026-11-26T21:05:00.1+00:00"}'})

        for take_over in (False, True):
            error = refusal(a_lease(), take_over=take_over)
            assert error.message == (
                "ann/prices holds the checkpoints of another run (id 12345678, started 2026-11-26 21:05 UTC)"
            )

    def test_a_run_that_has_just_begun_is_not_replaced(self, repo: Repo, at: Be) -> None:
        at(ELSEWHERE)
        a_lease("there", run="other").acquire()
        at(this_process())

        for take_over in (False, True):
            assert "holds the checkpoints of another run (id other)" in refusal(a_lease(), take_over=take_over).message

    def test_a_run_that_ended_before_its_first_checkpoint_is_replaced(self, repo: Repo, at: Be) -> None:
        at(ELSEWHERE)
        first = a_lease("there", run="other")
        first.acquire()
        first.release()
        at(this_process())

        a_lease().acquire()

        assert held(repo)["run_id"] == "run"
        at(ELSEWHERE)
        with pytest.raises(HubError, match="holds the checkpoints of another run"):
            a_lease("there", run="other").acquire()

    def test_a_run_that_was_finished_elsewhere_is_not_trained(self, repo: Repo) -> None:
        repo.commit({"run.json": b'{"id": "run", "finished": "2026-11-26T21:05:00"}'})

        error = refusal(a_lease())

        assert error.message == (
            "the training in ann/prices was finished on another machine, there is nothing to go on with"
        )
        a_lease(finished=True).acquire()  # its own uploads are still welcome


class TestChecking:
    def test_while_nothing_changes_a_check_is_one_request(self, hub: LoopbackHub, repo: Repo) -> None:
        lease = a_lease()
        lease.acquire()
        before = len(hub.requests)

        lease.check()

        assert [request.path.rpartition("/")[2] for request in hub.requests[before:]] == ["refs"]

    def test_a_squash_of_the_branch_loses_nothing(self, repo: Repo) -> None:
        lease = a_lease()
        lease.acquire()
        repo.squash("state", "squashed", "ann")

        assert lease.check() == repo.branches["state"]

    def test_it_is_lost_to_whoever_took_it_over(self, repo: Repo, at: Be) -> None:
        lease = a_lease()
        lease.acquire()
        at(ELSEWHERE)
        other = a_lease("there")
        other.acquire(take_over=True)
        since = held(repo)["since"][:16].replace("T", " ")

        for release in (False, True):
            if release:
                other.release()  # it has trained, so what is here is out of date all the same
            with pytest.raises(LeaseLost) as raised:
                replace_held(lease).check()
            assert raised.value.message == (
                f"gpu-7 (process 4711) has taken over the training in ann/prices at {since} UTC"
            )

    @pytest.mark.parametrize("what", ["branch", "file"])
    def test_a_lease_that_somebody_deleted_is_made_anew(self, repo: Repo, what: str) -> None:
        lease = a_lease()
        lease.acquire()
        if what == "branch":
            del repo.branches["state"]
        else:
            repo.commit({}, "tidy", branch="state", delete=["lease.json"])

        assert lease.check() == repo.branches["state"]
        assert held(repo)["holder"] == "here"

    def test_a_branch_that_is_gone_because_the_run_was_finished_is_not_made_anew(self, repo: Repo) -> None:
        lease = a_lease()
        lease.acquire()
        repo.commit({"run.json": b'{"id": "run", "finished": "2026-11-26T21:05:00"}'})
        del repo.branches["state"]

        with pytest.raises(LeaseLost, match="was finished on another machine"):
            lease.check()
        assert "state" not in repo.branches

    def test_a_lease_that_could_not_be_acquired_is_acquired_by_the_first_check(
        self, hub: LoopbackHub, repo: Repo
    ) -> None:
        lease = a_lease()
        hub.faults.script("GET", "/refs", [Fault.status(503)])
        with pytest.raises(HubError) as raised:
            lease.acquire()
        assert raised.value.transient

        lease.check()

        assert held(repo)["holder"] == "here"

    def test_whoever_was_to_take_over_does_so_when_the_hub_is_back(self, hub: LoopbackHub, repo: Repo, at: Be) -> None:
        own = this_process()
        at(ELSEWHERE)
        a_lease("there").acquire()
        at(own)
        lease = a_lease()
        hub.faults.script("GET", "/refs", [Fault.status(503)])
        with pytest.raises(HubError):
            lease.acquire(take_over=True)

        lease.check()

        assert held(repo)["holder"] == "here"

    @pytest.mark.parametrize(("method", "path"), [("POST", "/paths-info/"), ("HEAD", "/lease.json")])
    def test_a_commit_that_the_hub_does_not_find_yet_is_read_later(
        self, hub: LoopbackHub, repo: Repo, method: str, path: str
    ) -> None:
        lease = a_lease()
        lease.acquire()
        repo.squash("state", "state of step-000005", "ann")  # so that the head is another one
        hub.faults.script(method, path, [replace(Fault.status(404), headers=(("X-Error-Code", "EntryNotFound"),))])
        with pytest.raises(HubError) as raised:
            lease.check()
        assert raised.value.transient

        assert lease.check() == repo.branches["state"]

    def test_it_is_renewed(self, monkeypatch: pytest.MonkeyPatch, repo: Repo) -> None:
        monkeypatch.setattr(hub_lease, "_now", lambda: "2026-11-26T21:00:00+00:00")
        lease = a_lease()
        monkeypatch.setattr(hub_lease, "_now", lambda: "2026-11-26T21:30:00+00:00")

        renewed = parse_record(hub_lease.Lease, lease.renew())

        assert renewed.describe().endswith("since 2026-11-26 21:00 UTC, last renewed 2026-11-26 21:30 UTC")


def replace_held(lease: HubLease) -> HubLease:
    """The lease as its process believes it to be, after an earlier check has found out."""
    lease.is_held = True
    return lease


class TestHostileLeases:
    @pytest.mark.parametrize(
        "change",
        [
            {"host": "a\nb"},
            {"host": "\x1b[2J"},
            {"host": "x" * 101},
            {"since": "\u202e"},
            {"pid": -1},
            {"pid": 2**31},
            {"pid": "5"},
            {"extra": 1},
        ],
        ids=str,
    )
    def test_a_lease_that_is_none_is_refused_until_it_is_taken_over(
        self, repo: Repo, at: Be, change: dict[str, Any]
    ) -> None:
        at(ELSEWHERE)
        a_lease("there").acquire()
        repo.commit({"lease.json": json.dumps({**held(repo), **change}).encode()}, "x", branch="state")
        at(this_process())

        error = refusal(a_lease())

        assert error.message.startswith("lease.json on the branch state of ann/prices cannot be read: ")
        assert error.message.isprintable()
        assert error.hint == f"if nobody trains this run: {RESUME} --take-over"
        a_lease().acquire(take_over=True)

    @pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"\xff"])
    def test_what_is_no_json_is_no_lease(self, repo: Repo, content: bytes) -> None:
        repo.create_branch("state")
        repo.commit({"lease.json": content}, "x", branch="state")

        assert "lease.json on the branch state of ann/prices cannot be read: " in refusal(a_lease()).message
        a_lease().acquire(take_over=True)
