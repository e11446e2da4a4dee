"""Which checkpoints a repository holds: pricer's own, and what other trainers left under commits, folders, branches."""

import json

import pytest

from pricer.core.checkpoints import Checkpoint, Member
from pricer.errors import CheckpointError, HubError
from pricer.stores.hub import Hub
from pricer.stores.repo_scan import RepoScan, scan_repo
from tests.builders import a_checkpoint
from tests.loopback_hub import Commit, LoopbackHub, Repo
from tests.repositories import adapter_config, adapter_files, sha256


@pytest.fixture
def repo(hub: LoopbackHub) -> Repo:
    return hub.create("ann/plain")


def found(known: tuple[Checkpoint, ...] = ()) -> RepoScan:
    return scan_repo(Hub("ann/plain"), known)


def steps(result: RepoScan) -> list[int]:
    return [checkpoint.step for checkpoint in result.checkpoints]


def in_progress(repo: Repo, step: int, weights: bytes | None = None) -> Commit:
    """A commit as the Trainer makes it."""
    return repo.commit(adapter_files(weights or b"weights %d" % step), f"Training in progress, step {step}")


def tagged(repo: Repo, checkpoint: Checkpoint, weights: bytes, tag: str | None = None) -> Commit:
    files = {**adapter_files(weights), "manifest.json": json.dumps(checkpoint.to_json()).encode()}
    commit = repo.commit(files, checkpoint.name)
    repo.create_tag(tag or checkpoint.name, commit.hash)
    return commit


def a_soup() -> Checkpoint:
    members = (Member(5, a_checkpoint(5, b"a").id), Member(10, a_checkpoint(10, b"b").id))
    return a_checkpoint(10, b"soup", members=members)


class TestOfPricer:
    def test_tags_say_which_commits_are_checkpoints(self, repo: Repo) -> None:
        first, second = a_checkpoint(5, b"a"), a_checkpoint(1000, b"b")
        commits = [tagged(repo, second, b"b"), tagged(repo, first, b"a")]
        repo.create_tag("best", commits[0].hash)

        result = found()

        assert result.has_manifests
        assert result.checkpoints == (first, second)
        assert [c.commit for c in result.checkpoints] == [commits[1].hash, commits[0].hash]
        assert result.tags["best"] == commits[0].hash

    def test_only_tags_of_that_form_count(self, repo: Repo) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        for name in ("step-5", "step-000006x", "my-step-000007", "step-000008/extra", "v1", "step-٠٠٠٠٠٩"):
            repo.create_tag(name)

        assert steps(found()) == [5]

    def test_what_is_known_at_the_same_commit_is_not_read_again(self, repo: Repo, hub: LoopbackHub) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        known = found().checkpoints
        before = len(hub.requests)

        assert found(known).checkpoints == known
        assert [request.path for request in hub.requests[before:]] == ["/api/models/ann/plain/refs"]

    def test_a_tag_that_was_moved_is_read_again(self, repo: Repo) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        known = found().checkpoints
        del repo.tags["step-000005"]
        later = tagged(repo, a_checkpoint(5, b"b"), b"b")

        (now,) = found(known).checkpoints

        assert (now, now.commit) == (a_checkpoint(5, b"b"), later.hash)

    def test_a_tag_that_was_moved_to_another_step_is_refused(self, repo: Repo) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        later = tagged(repo, a_checkpoint(6, b"b"), b"b")
        known = found().checkpoints
        repo.tags["step-000005"] = later.hash

        for knows in ((), known):
            with pytest.raises(CheckpointError, match="at its tag step-000005 holds step-000006"):
                found(knows)

    def test_soups_are_no_steps(self, repo: Repo) -> None:
        commit = tagged(repo, a_checkpoint(5, b"a"), b"a")
        soup = a_soup()
        average = tagged(repo, soup, b"soup")

        result = found()

        assert (result.checkpoints, result.soups) == ((a_checkpoint(5, b"a"),), (soup,))
        assert (result.checkpoints[0].commit, result.soups[0].commit) == (commit.hash, average.hash)
        assert found((*result.checkpoints, *result.soups)) == result

    def test_soups_of_another_trainers_checkpoints_are_found(self, repo: Repo) -> None:
        in_progress(repo, 5)
        in_progress(repo, 10)
        tagged(repo, a_soup(), b"soup")

        result = found()

        assert (steps(result), result.soups, result.has_manifests) == ([5, 10], (a_soup(),), False)

    @pytest.mark.parametrize(
        "name", ["soup-000005", "soup-5-10", "soup-000005-000010x", "soup", "my-soup-000005-000010"]
    )
    def test_only_soups_of_that_form_count(self, repo: Repo, name: str) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        repo.create_tag(name)

        assert found().soups == ()

    def test_a_tag_says_soup_or_step_and_holds_the_same(self, repo: Repo) -> None:
        tagged(repo, a_soup(), b"soup", "step-000010")

        with pytest.raises(CheckpointError, match="at its tag step-000010 holds soup-000005-000010"):
            found()

    @pytest.mark.parametrize(
        ("manifest", "problem"),
        [
            (None, "ann/plain at its tag step-000005 has no manifest.json"),
            (b"{", "ann/plain at its tag step-000005 has no manifest.json that can be read: "),
            (b"[]", "ann/plain at its tag step-000005 has no manifest.json that can be read: "),
            (b"[" * 100_000, "ann/plain at its tag step-000005 has no manifest.json that can be read: "),
            (
                b'{"step": 5}',
                "ann/plain at its tag step-000005 has no manifest.json that can be read: epoch is missing",
            ),
            (json.dumps(a_checkpoint(6).to_json()).encode(), "ann/plain at its tag step-000005 holds step-000006"),
        ],
    )
    def test_a_tag_without_a_manifest_of_its_step_is_refused(
        self, repo: Repo, manifest: bytes | None, problem: str
    ) -> None:
        files = adapter_files(b"a") | ({"manifest.json": manifest} if manifest is not None else {})
        repo.create_tag("step-000005", repo.commit(files, "step-000005").hash)

        with pytest.raises(CheckpointError) as caught:
            found()

        assert caught.value.message.startswith(problem)
        assert "\n" not in caught.value.message

    def test_a_manifest_of_a_million_bytes_is_too_large(self, repo: Repo) -> None:
        repo.create_tag("step-000005", repo.commit({"manifest.json": b" " * 1_000_001}, "step-000005").hash)

        with pytest.raises(HubError, match=r"manifest.json of 1,000,001 bytes, which is too large"):
            found()


class TestCommits:
    def test_the_trainers_titles_name_steps(self, repo: Repo) -> None:
        commits = [in_progress(repo, step) for step in (2, 4, 1000)]

        result = found()

        assert not result.has_manifests
        assert result.notes == ()
        assert result.checkpoints == tuple(
            Checkpoint(
                step=step,
                epoch=None,
                base="acme/base",
                base_revision=None,
                prompt_fingerprint=None,
                data_fingerprint=None,
                adapter_sha256=sha256(b"weights %d" % step),
                adapter_config_sha256=sha256(adapter_config()),
                answers=None,
            )
            for step in (2, 4, 1000)
        )
        assert [c.commit for c in result.checkpoints] == [commit.hash for commit in commits]

    @pytest.mark.parametrize(
        "title", ["Training in progress, step 7", "Step 7 of 9", "checkpoint at step_7", "step-7: lower loss", "STEP 7"]
    )
    def test_titles_that_name_a_step(self, repo: Repo, title: str) -> None:
        repo.commit(adapter_files(b"a"), title)

        assert steps(found()) == [7]

    @pytest.mark.parametrize("title", ["footstep 7", "7 steps", "step", "steps 7", "step ٧"])
    def test_titles_that_name_none(self, repo: Repo, title: str) -> None:
        repo.commit(adapter_files(b"a"), title)

        with pytest.raises(CheckpointError, match="ann/plain holds no checkpoint that can be read"):
            found()

    def test_the_race_of_the_trainers_own_pushes_is_named_and_scored_once(self, repo: Repo) -> None:
        # Eight uploads that were all read after step 8 had overwritten the folder; each has another README.
        for step in range(1, 9):
            files = {**adapter_files(b"weights 8"), "README.md": b"step %d" % step}
            repo.commit(files, f"Training in progress, step {step}")

        result = found()

        assert steps(result) == [8]
        assert result.notes == (
            f"steps 1, 2, 3, 4, 5, 6, 7, 8 hold the same adapter (sha256 {sha256(b'weights 8')[:12]}…): it is scored "
            "once, as step 8",
        )

    def test_a_step_that_was_pushed_twice_is_the_newer_commit(self, repo: Repo) -> None:
        old, new = in_progress(repo, 2, b"old"), in_progress(repo, 2, b"new")

        result = found()

        (checkpoint,) = result.checkpoints
        assert (checkpoint.commit, checkpoint.adapter_sha256) == (new.hash, sha256(b"new"))
        assert result.notes == (
            f"commit {old.hash[:7]} (Training in progress, step 2) holds another adapter than commit {new.hash[:7]} "
            "(Training in progress, step 2), which is scored as step 2",
        )

    @pytest.mark.parametrize(
        ("files", "why"),
        [
            ({"README.md": b"soon"}, "has no adapter_model.safetensors"),
            ({"adapter_model.safetensors": b"a"}, "has no adapter_config.json"),
            (adapter_files(b"tiny"), "keeps its adapter outside LFS, where its sha256 is not known"),
        ],
    )
    def test_a_commit_that_is_no_checkpoint_is_left_out(self, repo: Repo, files: dict[str, bytes], why: str) -> None:
        commit = (repo.commit_raw if len(files) == 2 else repo.commit)(files, "step 1")
        in_progress(repo, 2)

        result = found()

        assert steps(result) == [2]
        assert result.notes == (f"commit {commit.hash[:7]} (step 1) {why}: left out",)

    @pytest.mark.parametrize("title", ["End of training", "Model save"])
    def test_the_trainers_last_commit_names_no_step_and_is_said_to_be_left_out(self, repo: Repo, title: str) -> None:
        in_progress(repo, 2)
        last = repo.commit(adapter_files(b"last"), title)

        result = found()

        assert steps(result) == [2]
        assert result.notes == (
            f"commit {last.hash[:7]} ({title}) names no step, and holds the adapter of none: left out",
        )

    def test_a_last_commit_with_the_adapter_of_a_step_needs_no_word(self, repo: Repo) -> None:
        in_progress(repo, 2)
        repo.commit({"README.md": b"done"}, "End of training")

        assert found().notes == ()

    def test_epochs_stand_for_steps_where_there_are_none(self, repo: Repo) -> None:
        for epoch in (1, 2):
            repo.commit(adapter_files(b"%d" % epoch), f"Training in progress, epoch {epoch}")

        result = found()

        assert steps(result) == [1, 2]
        assert result.notes == (
            "the commits of ann/plain count epochs, not steps: step 2 stands for the end of epoch 2",
        )


class TestFoldersAndBranches:
    def test_a_folder_for_each_checkpoint(self, repo: Repo) -> None:
        for step in (2, 10):
            head = repo.commit(adapter_files(b"%d" % step, folder=f"checkpoint-{step}/"), "upload")

        result = found()

        assert [(c.step, c.commit, c.folder) for c in result.checkpoints] == [
            (2, head.hash, "checkpoint-2"),
            (10, head.hash, "checkpoint-10"),
        ]

    def test_a_folder_deeper_down_is_no_checkpoint_of_this_training(self, repo: Repo) -> None:
        repo.commit(adapter_files(b"a", folder="old/checkpoint-2/") | adapter_files(b"b", folder="checkpoint-3/"), "up")

        assert steps(found()) == [3]

    def test_a_branch_for_each_step(self, repo: Repo) -> None:
        names = {"step-2": 2, "checkpoint_4": 4, "ckpt6": 6, "run/step-8": 8, "lora-checkpoint-10": 10}
        heads = []
        for name, step in names.items():
            repo.create_branch(name)
            heads.append(repo.commit(adapter_files(b"%d" % step), "adapter", branch=name).hash)

        result = found()

        assert steps(result) == [2, 4, 6, 8, 10]
        assert [c.commit for c in result.checkpoints] == heads

    @pytest.mark.parametrize("name", ["v2", "footstep-2", "step-2-old", "steps-2", "two", "step-٢"])
    def test_branches_that_name_no_step(self, repo: Repo, name: str) -> None:
        repo.create_branch(name)
        repo.commit(adapter_files(b"a"), "adapter", branch=name)

        with pytest.raises(CheckpointError, match="holds no checkpoint that can be read"):
            found()

    def test_a_folder_is_believed_before_a_commit_that_says_otherwise(self, repo: Repo) -> None:
        late = in_progress(repo, 2, b"late")
        repo.commit(adapter_files(b"right", folder="checkpoint-2/"), "upload")

        result = found()

        (checkpoint,) = result.checkpoints
        assert (checkpoint.folder, checkpoint.adapter_sha256) == ("checkpoint-2", sha256(b"right"))
        assert result.notes == (
            f"commit {late.hash[:7]} (Training in progress, step 2) holds another adapter than folder checkpoint-2, "
            "which is scored as step 2",
        )

    def test_places_that_agree_need_no_word(self, repo: Repo) -> None:
        in_progress(repo, 2, b"same")
        repo.commit(adapter_files(b"same", folder="checkpoint-2/"), "Training in progress, step 2, checkpoint")

        result = found()

        assert (steps(result), result.notes) == ([2], ())


class TestNothingUsable:
    def test_nothing_at_all(self, repo: Repo) -> None:
        with pytest.raises(CheckpointError) as caught:
            found()

        assert caught.value.message == "ann/plain holds no checkpoint that can be read"
        assert caught.value.hint == (
            "one is a tag step-…, a commit or branch that names its step, or a folder checkpoint-N, with an "
            "adapter_model.safetensors in it"
        )

    def test_pickled_adapters_alone(self, repo: Repo) -> None:
        repo.commit({"adapter_model.bin": b"\x80", "adapter_config.json": adapter_config()}, "step 2")

        with pytest.raises(CheckpointError, match="ann/plain holds no checkpoint that can be read"):
            found()

    def test_no_such_repository(self, hub: LoopbackHub) -> None:
        with pytest.raises(HubError, match=r"^there is no repository ann/plain on the Hub, or this account may not"):
            found()

    @pytest.mark.parametrize(
        ("config", "problem"),
        [
            (b"{", "adapter_config.json of ann/plain, commit {commit} (step 2): "),
            (
                b"[]",
                "adapter_config.json of ann/plain, commit {commit} (step 2): it holds an empty list, not an object",
            ),
            (b"[" * 100_000, "adapter_config.json of ann/plain, commit {commit} (step 2): "),
            (b"\xff", "adapter_config.json of ann/plain, commit {commit} (step 2): "),
            (adapter_config(base=None), "adapter_config.json of ann/plain, commit {commit} (step 2), names no base"),
            (
                adapter_config(auto_map={"x": "y.Z"}),
                "adapter_config.json of ann/plain, commit {commit} (step 2): auto_map is an object, which is not "
                "supported",
            ),
        ],
    )
    def test_a_config_that_is_not_plain_lora_is_refused(self, repo: Repo, config: bytes, problem: str) -> None:
        files = {"adapter_model.safetensors": b"a", "adapter_config.json": config}
        commit = repo.commit(files, "step 2")

        with pytest.raises(CheckpointError) as caught:
            found()

        assert caught.value.message.startswith(problem.replace("{commit}", commit.hash[:7]))
        assert "\n" not in caught.value.message
