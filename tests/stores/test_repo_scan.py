"""Which checkpoints a repository holds: pricer's own, and what other trainers left under commits, folders, branches."""

import json

import pytest

from pricer.core.checkpoints import Checkpoint
from pricer.errors import CheckpointError, HubError
from pricer.stores.hub import Hub
from pricer.stores.repo_scan import RepoScan, scan_repo
from tests.builders import a_checkpoint
from tests.loopback_hub import Commit, Fault, LoopbackHub, Repo
from tests.repositories import adapter_config, adapter_files, sha256

DEEP = b"[" * 100_000


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

    def test_a_tag_that_was_moved_to_another_step_is_left_out(self, repo: Repo) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        later = tagged(repo, a_checkpoint(6, b"b"), b"b")
        known = found().checkpoints
        repo.tags["step-000005"] = later.hash

        for knows in ((), known):
            result = found(knows)
            assert (steps(result), result.untagged) == ([6], ())
            assert result.notes == (
                "ann/plain at its tag step-000005 holds step-000006: left out (the tag was moved: put it back)",
            )

    @pytest.mark.parametrize("is_moved", [True, False])
    def test_the_best_checkpoint_is_found_without_its_own_tag(self, repo: Repo, is_moved: bool) -> None:
        other = tagged(repo, a_checkpoint(5, b"a"), b"a")
        best = tagged(repo, a_checkpoint(6, b"b"), b"b")
        repo.create_tag("best", best.hash)
        del repo.tags["step-000006"]
        if is_moved:
            repo.create_tag("step-000006", other.hash)

        result = found()

        assert [(c.step, c.commit) for c in result.checkpoints] == [(5, other.hash), (6, best.hash)]
        assert len(result.notes) == is_moved

    def test_without_any_tag_the_commits_of_the_steps_are_read(self, repo: Repo) -> None:
        commits = [tagged(repo, a_checkpoint(step, b"%d" % step), b"%d" % step) for step in (5, 6)]
        repo.tags.clear()

        result = found()

        assert (result.checkpoints, [c.step for c in result.untagged]) == ((), [5, 6])
        assert [c.commit for c in result.untagged] == [commit.hash for commit in commits]
        assert result.has_manifests
        assert result.notes == (
            "ann/plain has no tag step-… that can be used: its commits with such a title are read instead",
        )

    def test_without_tags_and_titles_the_head_is_read(self, repo: Repo) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        tagged(repo, a_checkpoint(6, b"b"), b"b")
        repo.tags.clear()
        repo.squash("main", "Super-squash branch 'main'", "ann")

        assert [c.step for c in found().untagged] == [6]

    @pytest.mark.parametrize("branch", ["main", "state"])
    def test_a_run_that_has_pushed_no_checkpoint_is_pricers_all_the_same(self, repo: Repo, branch: str) -> None:
        if branch != "main":
            repo.create_branch(branch)
        repo.commit({"run.json": b"{}", "config.yaml": b"{}"}, "start", branch=branch)

        result = found()

        assert (result.found, result.has_manifests, result.notes) == ((), True, ())

    @pytest.mark.parametrize(
        ("manifest", "problem"),
        [
            (None, "ann/plain at its tag step-000006 has no manifest.json"),
            (b"{", "ann/plain at its tag step-000006 has no manifest.json that can be read: "),
            (b"[]", "ann/plain at its tag step-000006 has no manifest.json that can be read: "),
            (b"[" * 100_000, "ann/plain at its tag step-000006 has no manifest.json that can be read: "),
            (
                b'{"step": 6}',
                "ann/plain at its tag step-000006 has no manifest.json that can be read: epoch is missing",
            ),
            (json.dumps(a_checkpoint(7).to_json()).encode(), "ann/plain at its tag step-000006 holds step-000007"),
            (b" " * 1_000_001, "ann/plain has a manifest.json of 1,000,001 bytes, which is too large"),
        ],
    )
    def test_a_tag_without_a_manifest_of_its_step_is_left_out_and_the_others_are_read(
        self, repo: Repo, manifest: bytes | None, problem: str
    ) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        files = adapter_files(b"b") | ({"manifest.json": manifest} if manifest is not None else {})
        delete = () if manifest is not None else ("manifest.json",)
        repo.create_tag("step-000006", repo.commit(files, "step-000006", delete=delete).hash)

        result = found()

        assert (steps(result), result.has_manifests) == ([5], True)
        (note,) = result.notes
        assert note.startswith(problem)
        assert ": left out" in note
        assert "\n" not in note

    def test_a_manifest_that_is_damaged_in_every_tag_is_an_error(self, repo: Repo) -> None:
        for step in (5, 6):
            commit = repo.commit({**adapter_files(b"%d" % step), "manifest.json": b"{%d" % step}, f"step-{step:06}")
            repo.create_tag(f"step-{step:06}", commit.hash)

        with pytest.raises(CheckpointError, match=r"at its tag step-000005 has no manifest.json that can be read"):
            found()

    def test_a_tag_of_a_commit_that_is_gone_is_left_out(self, repo: Repo) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        repo.tags["step-000006"] = "0" * 40

        result = found()

        assert steps(result) == [5]
        assert [note.endswith(": left out") for note in result.notes] == [True]

    def test_a_hub_that_fails_is_not_a_damaged_tag(self, repo: Repo, hub: LoopbackHub) -> None:
        tagged(repo, a_checkpoint(5, b"a"), b"a")
        hub.faults.script("POST", "/paths-info/", [Fault.status(503)])

        with pytest.raises(HubError, match="answers 503"):
            scan_repo(Hub("ann/plain", attempts=1))


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

    def test_what_is_known_at_the_same_place_is_not_read_again(self, repo: Repo, hub: LoopbackHub) -> None:
        for step in (2, 4):
            in_progress(repo, step)
        first = found()
        in_progress(repo, 6)
        before = len(hub.requests)

        second = found(first.checkpoints)

        assert steps(second) == [2, 4, 6]
        asked = [request.path.rpartition("/")[2] for request in hub.requests[before:] if "paths-info" in request.path]
        # Of a run's record, of a manifest, and of the adapter and the configuration of step 6, which is the head.
        assert set(asked) == {repo.commits()[0].hash}

    @pytest.mark.parametrize(
        "title", ["Training in progress, step 7", "Step 7 of 9", "checkpoint at step_7", "step-7: lower loss", "STEP 7"]
    )
    def test_titles_that_name_a_step(self, repo: Repo, title: str) -> None:
        repo.commit(adapter_files(b"a"), title)

        assert steps(found()) == [7]

    @pytest.mark.parametrize("title", ["footstep 7", "7 steps", "step", "steps 7", "step ٧"])
    def test_titles_that_name_none(self, repo: Repo, title: str) -> None:
        repo.commit(adapter_files(b"a"), title)

        assert steps(found()) == [0]  # the one adapter of a repository that names no step

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
            (
                {**adapter_files(b"a"), "adapter_config.json": b" " * 1_000_001},
                "has a adapter_config.json of 1,000,001 bytes, which is too large (at most 1,000,000)",
            ),
            (adapter_files(b"a", use_dora=True), "(step 1): use_dora is true, which is not supported"),
        ],
    )
    def test_a_commit_that_is_no_checkpoint_is_left_out(self, repo: Repo, files: dict[str, bytes], why: str) -> None:
        repo.commit(files, "step 1")
        in_progress(repo, 2)

        result = found()

        assert steps(result) == [2]
        (note,) = result.notes
        assert note.endswith(f"{why}: left out")

    def test_an_adapter_that_was_pushed_without_lfs_is_read_to_hash_it(self, repo: Repo) -> None:
        repo.commit_raw(adapter_files(b"tiny"), "step 1")

        (checkpoint,) = found().checkpoints

        assert checkpoint.adapter_sha256 == sha256(b"tiny")

    def test_a_last_adapter_without_a_step_is_said_to_be_left_out(self, repo: Repo) -> None:
        in_progress(repo, 2)
        repo.commit(adapter_files(b"last"), "End of training")

        result = found()

        assert steps(result) == [2]
        assert result.notes == (
            "main holds an adapter that differs from those of all steps, and nothing names its step: left out",
        )

    def test_a_last_adapter_has_the_step_that_the_trainer_counted(self, repo: Repo) -> None:
        in_progress(repo, 2)
        repo.commit({**adapter_files(b"last"), "trainer_state.json": b'{"global_step": 3}'}, "End of training")

        result = found()

        assert steps(result) == [2, 3]
        assert result.notes == ("the adapter in main is scored as step 3, by its trainer_state.json",)

    def test_a_last_commit_with_the_adapter_of_a_step_needs_no_word(self, repo: Repo) -> None:
        in_progress(repo, 2)
        repo.commit({"README.md": b"done"}, "End of training")

        assert found().notes == ()

    def test_epochs_stand_for_steps_where_there_are_none(self, repo: Repo) -> None:
        for epoch in (1, 2):
            repo.commit(adapter_files(b"%d" % epoch), f"Training in progress, epoch {epoch}")

        result = found()

        assert steps(result) == [1, 2]
        assert result.notes == ("ann/plain counts epochs, not steps: step 2 stands for its epoch 2",)


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

        result = found()

        assert steps(result) == [3]
        assert result.notes == ("adapters in folders of other trainings, old/checkpoint-2 for one (1): left out",)

    @pytest.mark.parametrize(
        ("folder", "is_epoch"),
        [
            ("outputs/checkpoint-{}", False),  # the whole output folder of a trainer
            ("checkpoint-{}/default", False),  # peft, with a named adapter
            ("global_step_{}", False),
            ("epoch_{}", True),  # torchtune
        ],
    )
    def test_folders_of_one_training_differ_in_the_step_alone(self, repo: Repo, folder: str, is_epoch: bool) -> None:
        names = [folder.format(step) for step in (1, 2)]
        repo.commit({**adapter_files(b"a", names[0] + "/"), **adapter_files(b"b", names[1] + "/")}, "upload")

        result = found()

        assert [(c.step, c.folder, c.epoch) for c in result.checkpoints] == [
            (step, name, float(step) if is_epoch else None) for step, name in enumerate(names, start=1)
        ]

    def test_a_branch_for_each_step(self, repo: Repo) -> None:
        names = {"step-2": 2, "checkpoint_4": 4, "ckpt6": 6, "run/step-8": 8, "lora-checkpoint-10": 10}
        heads = []
        for name, step in names.items():
            repo.create_branch(name)
            heads.append(repo.commit(adapter_files(b"%d" % step), "adapter", branch=name).hash)

        result = found()

        assert steps(result) == [2, 4, 6, 8, 10]
        assert [c.commit for c in result.checkpoints] == heads

    def test_a_tag_for_each_step(self, repo: Repo) -> None:
        commits = [repo.commit(adapter_files(b"%d" % step), "adapter").hash for step in (500, 1000)]
        for step, commit in zip((500, 1000), commits, strict=True):
            repo.create_tag(f"step-{step}", commit)

        result = found()

        assert [(c.step, c.commit) for c in result.checkpoints] == [(500, commits[0]), (1000, commits[1])]

    @pytest.mark.parametrize("name", ["v2", "footstep-2", "step-2-old", "steps-2", "two", "step-٢"])
    def test_branches_that_name_no_step(self, repo: Repo, name: str) -> None:
        repo.create_branch(name)
        repo.commit(adapter_files(b"a"), "adapter", branch=name)

        with pytest.raises(CheckpointError, match=f"main of ann/plain holds no adapter, its branches do: {name}"):
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


class TestOneAdapter:
    """The commonest repository: one adapter on main, under a title that names no step."""

    @pytest.mark.parametrize("title", ["Upload model trained with Unsloth", "Upload model", "End of training"])
    def test_it_is_one_checkpoint(self, repo: Repo, title: str) -> None:
        head = repo.commit({**adapter_files(b"a"), "README.md": b"# mine", "tokenizer.json": b"{}"}, title)

        result = found()

        (checkpoint,) = result.checkpoints
        assert (checkpoint.step, checkpoint.commit, checkpoint.folder) == (0, head.hash, "")
        assert result.notes == ("ann/plain names no step: the adapter in main is scored as step 0",)

    @pytest.mark.parametrize("place", ["", "last-checkpoint/", "adapter/"])
    def test_its_step_is_the_one_that_the_trainer_counted(self, repo: Repo, place: str) -> None:
        state = {f"{place}trainer_state.json": b'{"global_step": 300}'}
        repo.commit({**adapter_files(b"a"), **adapter_files(b"a", place), **state}, "Upload folder")

        result = found()

        assert steps(result) == [300]
        assert result.notes == (
            f"ann/plain names no step: the adapter in main is scored as step 300, by its {place}trainer_state.json",
        )

    def test_the_state_beside_another_adapter_says_nothing_about_it(self, repo: Repo) -> None:
        state = {"last-checkpoint/trainer_state.json": b'{"global_step": 300}'}
        repo.commit({**adapter_files(b"a"), **adapter_files(b"b", "last-checkpoint/"), **state}, "Upload folder")

        result = found()

        assert steps(result) == [0]
        assert result.notes[1:] == ("adapters in folders that name no step, last-checkpoint for one (1): left out",)

    @pytest.mark.parametrize(
        "state", [b"", b"[]", b"{}", b'{"global_step": "3"}', b'{"global_step": true}', b'{"global_step": -1}', DEEP]
    )
    def test_a_state_that_cannot_be_read_says_nothing(self, repo: Repo, state: bytes) -> None:
        repo.commit({**adapter_files(b"a"), "trainer_state.json": state}, "Upload folder")

        assert steps(found()) == [0]

    def test_it_may_lie_in_a_folder(self, repo: Repo) -> None:
        repo.commit({**adapter_files(b"a", "adapter/"), "README.md": b"# mine"}, "Upload folder")

        result = found()

        assert [(c.step, c.folder) for c in result.checkpoints] == [(0, "adapter")]
        assert result.notes == ("ann/plain names no step: the adapter in folder adapter is scored as step 0",)


class TestNothingUsable:
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
