"""The repository of a new run: made, refused where it cannot be pushed to, and looked at before training begins."""

import os
from pathlib import Path

import pytest

from pricer.commands import train
from pricer.commands.parts.claim import claim, name_repo, refuse_read_only
from pricer.config import HubConfig, RunConfig
from pricer.errors import HubError
from pricer.stores.runs import create_run
from tests.commands.conftest import Listener, to_hub
from tests.loopback_hub import Fault, LoopbackHub, Repo
from tests.loopback_hub.fixtures import connect
from tests.repositories import Cli

pytestmark = pytest.mark.usefixtures("no_pauses")


def claimed(repo: str = "ann/prices", *, private: bool = True, run_id: str | None = None) -> tuple[str, list[str]]:
    notes: list[str] = []
    name = name_repo(repo, "pricer", "first")
    claim(name, run_id, notes.append, private=private)
    return name, notes


def refusal(repo: str = "ann/prices") -> HubError:
    with pytest.raises(HubError) as raised:
        claimed(repo)
    return raised.value


def test_a_repository_is_made_as_private_as_the_config_says(hub: LoopbackHub) -> None:
    assert claimed("auto") == ("ann/pricer-first", [])
    assert claimed("ann/open", private=False) == ("ann/open", [])

    assert (hub.repo("ann/pricer-first").private, hub.repo("ann/open").private) == (True, False)


def test_a_repository_that_is_public_already_is_said_to_be(hub: LoopbackHub) -> None:
    hub.create("ann/prices")

    assert claimed()[1] == [
        "ann/prices is public, although hub.private is true: it was there before, and keeps its visibility"
    ]
    assert claimed(private=False)[1] == []


class TestTokens:
    @pytest.fixture
    def reader(self, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch) -> Repo:
        """The repository of somebody whose token may only read."""
        connect(hub, monkeypatch, hub.add_user("ann", "read"))
        return hub.create("ann/prices", private=True)

    def test_one_that_may_only_read_is_refused(self, hub: LoopbackHub, reader: Repo) -> None:
        error = refusal()

        assert error.message == "the token of this machine may not write to ann/prices"
        assert error.hint == f"make one that may: {hub.url}/settings/tokens, then hf auth login"

    def test_where_the_hub_does_not_know_the_question_its_role_says_it(self, hub: LoopbackHub, reader: Repo) -> None:
        hub.faults.script("GET", "/auth-check", [Fault.status(404)] * 3)

        assert refusal().message == "the token of this machine may not write to ann/prices"

    def test_where_nobody_says_it_training_is_not_held_up(self, hub: LoopbackHub, reader: Repo) -> None:
        hub.faults.script("GET", "/auth-check|whoami", [Fault.status(404)] * 9)

        refuse_read_only("ann/prices")

    def test_a_refusal_by_mistake_is_none(self, hub: LoopbackHub) -> None:
        hub.create("ann/prices", private=True)
        hub.faults.script("GET", "/auth-check", [Fault.status(403), Fault.status(401)])

        claimed()

        assert hub.faults.left == 0

    def test_somebody_elses_repository_is_refused(self, hub: LoopbackHub) -> None:
        hub.create("bob/prices")

        assert refusal("bob/prices").message == "the token of this machine may not write to bob/prices"

    def test_a_run_is_not_started_and_not_resumed_with_it(
        self, hub: LoopbackHub, reader: Repo, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(train, "prepare", lambda *_: pytest.fail("data and base were looked for"))
        for repo in ("ann/prices", "ann/new"):
            with pytest.raises(HubError, match=f"may not write to {repo}"):
                train.start(to_hub(repo), "quickstart", None, Listener())
        assert not Path("runs").exists()
        create_run(RunConfig(hub=HubConfig(repo="ann/prices")), "old", None, {"repo": "ann/prices"})

        result = Cli("train", "--resume")

        assert result.err.splitlines() == [
            "error: the token of this machine may not write to ann/prices",
            f" hint: make one that may: {os.environ['HF_ENDPOINT']}/settings/tokens, then hf auth login",
        ]
        assert result.code == 1


class TestOtherRuns:
    def test_one_with_checkpoints_says_which_run_it_holds(self, hub: LoopbackHub) -> None:
        repo = hub.create("ann/prices", private=True)
        repo.commit({"run.json": b'{"id": "0123456789", "started": "2026-11-26T21:05:00.5+00:00"}'}, "step-000005")

        error = refusal()

        assert error.message == (
            "ann/prices holds the checkpoints of another run (id 01234567, started 2026-11-26 21:05 UTC)"
        )
        assert error.hint == ("pricer train --resume --repo ann/prices, or another repository: --repo USER/NEW")
        assert claimed(run_id="0123456789")[0] == "ann/prices"

    def test_tags_alone_are_checkpoints_too(self, hub: LoopbackHub) -> None:
        hub.create("ann/prices", private=True).create_tag("step-000005")

        assert refusal().message == "ann/prices holds the checkpoints of another run"

    @pytest.mark.parametrize("record", [b"", b"[]", b'{"id": 5, "started": []}', b'{"id": "\\u001b[2J\\n"}'])
    def test_what_it_says_of_itself_may_be_anything(self, hub: LoopbackHub, record: bytes) -> None:
        repo = hub.create("ann/prices", private=True)
        repo.create_tag("step-000005", repo.commit({"run.json": record}).hash)

        assert refusal().message.isprintable()

    def test_what_else_is_in_a_repository_is_no_run(self, hub: LoopbackHub) -> None:
        hub.create("ann/prices", private=True).commit({"README.md": b"mine", "model.safetensors": b"x"})

        assert claimed()[0] == "ann/prices"


def test_a_name_of_ones_own_needs_no_request(hub: LoopbackHub) -> None:
    assert name_repo("ann/prices", "pricer", "first") == "ann/prices"
    assert hub.requests == []
