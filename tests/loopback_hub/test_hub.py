"""The loopback hub through the real client: committed files come back, and what is not allowed is refused."""

import hashlib
import json
import os
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationDelete,
    HfApi,
    RepoFile,
    hf_hub_download,
    snapshot_download,
)
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils._http import get_session

from tests.loopback_hub import LfsFile, LoopbackHub

WEIGHTS = bytes(range(256)) * 40


@pytest.fixture
def api(hub: LoopbackHub) -> HfApi:
    return HfApi()


def status_of(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return int(error.value.response.status_code)


def add(path: str, content: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path_in_repo=path, path_or_fileobj=content)


def test_only_its_public_names_are_used_outside_and_it_knows_nothing_of_pricer() -> None:
    own = Path(__file__).parent
    internal = "|".join(file.stem for file in own.glob("*.py") if file.stem not in ("__init__", "fixtures"))
    reach_in = re.compile(rf"from tests\.loopback_hub\.({internal}) |from tests\.loopback_hub import ({internal})\b")

    outside = [file for file in own.parent.rglob("*.py") if own not in file.parents]
    assert [file.name for file in outside if reach_in.search(file.read_text(encoding="utf-8"))] == []
    inside = [file for file in own.glob("*.py") if file.name != Path(__file__).name]
    assert [file.name for file in inside if "pricer" in file.read_text(encoding="utf-8").replace("pricer/", "")] == []


def test_it_can_be_started_by_hand() -> None:
    command = [sys.executable, "-m", "tests.loopback_hub", "--user", "bob"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2]) as process:
        assert process.stdout is not None
        exported = dict(pair.split("=") for pair in process.stdout.readline().removeprefix("export ").split())
        headers = {"Authorization": f"Bearer {exported['HF_TOKEN']}"}
        answer = httpx2.get(f"{exported['HF_ENDPOINT']}/api/whoami-v2", headers=headers)
        process.terminate()

    assert answer.json()["name"] == "bob"


def test_a_user_has_one_token_that_says_who_it_is(hub: LoopbackHub, api: HfApi) -> None:
    token = hub.add_user("ann")

    assert token == os.environ["HF_TOKEN"]
    assert token.startswith("hf_")
    assert len(token) == 37
    assert api.whoami()["name"] == "ann"
    with pytest.raises(HfHubHTTPError, match="Invalid user token"):
        api.whoami(token="hf_nobody")


def test_what_is_committed_comes_back(hub: LoopbackHub, api: HfApi) -> None:
    api.create_repo("ann/prices", private=True)
    made = api.create_commit(
        "ann/prices",
        [add("step-1/adapter.safetensors", WEIGHTS), add("notes.txt", b"hello"), add("empty.bin", b"")],
        commit_message="step 1",
        commit_description="loss 0.5",
    )

    repo = hub.repo("ann/prices")
    head = repo.commits()[0]
    assert made.oid == head.hash == repo.branches["main"]
    assert made.commit_url == f"{hub.url}/ann/prices/commit/{head.hash}"
    assert (head.title, head.description, head.author) == ("step 1", "loss 0.5", "ann")
    assert repo.titles() == ["step 1", "initial commit"]
    assert repo.private
    assert repo.lfs == {hashlib.sha256(WEIGHTS).hexdigest()}
    folder = Path(snapshot_download("ann/prices"))
    assert folder.name == head.hash
    fetched = {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if not path.is_dir()
    }
    assert fetched == repo.files()
    assert fetched["step-1/adapter.safetensors"] == WEIGHTS


def test_a_folder_is_uploaded_and_old_files_are_deleted(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    hub.create("ann/prices").commit({"old/a.txt": b"a", "old/b.txt": b"b", "kept.txt": b"k"})
    (tmp_path / "up").mkdir()
    (tmp_path / "up" / "w.safetensors").write_bytes(WEIGHTS)

    api.upload_folder(repo_id="ann/prices", folder_path=tmp_path / "up", path_in_repo="new", delete_patterns="*")
    api.create_commit("ann/prices", [CommitOperationDelete("old/")], commit_message="clean up")

    assert set(hub.repo("ann/prices").files()) == {".gitattributes", "kept.txt", "new/w.safetensors"}


def test_a_file_that_has_not_changed_is_not_committed_again(hub: LoopbackHub, api: HfApi) -> None:
    head = hub.create("ann/prices").commit({"w.safetensors": WEIGHTS, "a.txt": b"a"})

    again = api.create_commit(
        "ann/prices", [add("w.safetensors", WEIGHTS), add("a.txt", b"a")], commit_message="the same"
    )

    assert again.oid == head.hash
    assert not [sent for sent in hub.requests if "/commit/" in sent.path or sent.method == "PUT"]


def test_a_commit_goes_only_on_the_parent_it_was_made_for(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    first = repo.commit({"a.txt": b"1"})
    second = api.create_commit("ann/prices", [add("a.txt", b"2")], commit_message="2", parent_commit=first.hash)

    with pytest.raises(HfHubHTTPError, match="A commit has happened since") as refused:
        api.create_commit("ann/prices", [add("a.txt", b"3")], commit_message="3", parent_commit=first.hash)

    assert status_of(refused) == 412
    assert repo.branches["main"] == second.oid


def test_the_same_commits_have_the_same_hashes_in_every_hub() -> None:
    heads = set()
    for _ in range(2):
        with LoopbackHub() as loopback:
            repo = loopback.create("ann/prices")
            repo.commit({"a.txt": b"1"})
            heads.add(repo.commit({"a.txt": b"1"}, "again").hash)
    assert len(heads) == 1


def test_tags_are_made_once_and_deleted(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    first = repo.commit({"a.txt": b"1"})
    repo.commit({"a.txt": b"2"}, "second")

    api.create_tag("ann/prices", tag="step-1", revision=first.hash, tag_message="the first")
    api.create_tag("ann/prices", tag="step-1", exist_ok=True)
    with pytest.raises(HfHubHTTPError) as exists:
        api.create_tag("ann/prices", tag="step-1")
    with pytest.raises(RevisionNotFoundError):
        api.create_tag("ann/prices", tag="other", revision="f" * 40)
    with pytest.raises(BadRequestError, match="Invalid reference"):
        api.create_tag("ann/prices", tag="not a tag")

    assert status_of(exists) == 409
    assert [(tag.name, tag.target_commit) for tag in api.list_repo_refs("ann/prices").tags] == [("step-1", first.hash)]
    assert Path(hf_hub_download("ann/prices", "a.txt", revision="step-1")).read_bytes() == b"1"
    api.delete_tag("ann/prices", tag="step-1")
    assert repo.tags == {}
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag("ann/prices", tag="step-1")


def test_branches_grow_apart_also_with_slashes_in_their_names(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    first = repo.commit({"a.txt": b"1"})
    repo.commit({"a.txt": b"2"}, "second")

    api.create_branch("ann/prices", branch="runs/one", revision=first.hash)
    api.create_branch("ann/prices", branch="runs/one", exist_ok=True)
    with pytest.raises(HfHubHTTPError) as exists:
        api.create_branch("ann/prices", branch="runs/one")
    with pytest.raises(RevisionNotFoundError):
        api.create_branch("ann/prices", branch="two", revision="nowhere")
    api.create_commit("ann/prices", [add("b.txt", b"b")], commit_message="on the branch", revision="runs/one")

    assert status_of(exists) == 409
    assert [commit.title for commit in api.list_repo_commits("ann/prices", revision="runs/one")] == [
        "on the branch",
        "initial commit",
        "initial commit",
    ]
    assert repo.files("runs/one")["a.txt"] == b"1"
    assert [entry.path for entry in api.list_repo_tree("ann/prices", revision="runs/one")] == [
        ".gitattributes",
        "a.txt",
        "b.txt",
    ]
    api.delete_branch("ann/prices", branch="runs/one")
    assert set(repo.branches) == {"main"}
    with pytest.raises(RevisionNotFoundError):
        api.create_commit("ann/prices", [add("b.txt", b"b")], commit_message="gone", revision="runs/one")


def test_long_lists_come_in_pages(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    hub.page_sizes(commits=4, entries=3)
    for step in range(10):
        repo.commit({f"steps/{step}.txt": b"x"}, f"step {step}\n\nloss 0.{step}")

    commits = api.list_repo_commits("ann/prices")
    tree = list(api.list_repo_tree("ann/prices", recursive=True))

    # Ten and the initial commit: pages of 4, 4 and 3. Twelve entries, with .gitattributes and the folder: four pages.
    assert [commit.title for commit in commits] == [f"step {step}" for step in range(9, -1, -1)] + ["initial commit"]
    assert commits[0].message == "loss 0.9"
    assert commits[0].authors == ["ann"]
    assert commits[0].created_at > commits[1].created_at
    assert len(tree) == 12
    assert sum("/commits/" in sent.path for sent in hub.requests) == 3
    assert sum("/tree/" in sent.path for sent in hub.requests) == 4


def test_a_tree_tells_what_identifies_each_file(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    first = repo.commit({"d/w.safetensors": WEIGHTS}, "weights")
    repo.commit({"a.txt": b"hello\n"}, "text")

    found = {entry.path: entry for entry in api.list_repo_tree("ann/prices", recursive=True, expand=True)}

    weights, text = found["d/w.safetensors"], found["a.txt"]
    assert isinstance(weights, RepoFile)
    assert isinstance(text, RepoFile)
    assert weights.lfs is not None
    assert weights.last_commit is not None
    assert weights.lfs.sha256 == hashlib.sha256(WEIGHTS).hexdigest()
    assert weights.size == weights.lfs.size == len(WEIGHTS)
    assert weights.last_commit.oid == first.hash
    # `echo hello | git hash-object --stdin`
    assert text.blob_id == "ce013625030ba8dba906f756967f9e9ca394464a"
    paths = api.get_paths_info("ann/prices", ["d", "d/w.safetensors", "none"])
    assert [entry.path for entry in paths] == ["d", "d/w.safetensors"]
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("ann/prices", "none"))


def test_a_squash_drops_what_nothing_names(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    attributes = repo.stored_bytes()
    first = repo.commit({"w.safetensors": b"1" * 1000}, "one")
    repo.create_tag("best", first.hash)
    second = repo.commit({"w.safetensors": b"2" * 1000}, "two")
    repo.commit({"w.safetensors": b"3" * 1000, "a.txt": b"x" * 10}, "three")
    assert repo.stored_bytes() == attributes + 3010

    api.super_squash_history("ann/prices", commit_message="only the last")

    # The tag keeps the first; of the second nothing is left.
    assert [commit.title for commit in api.list_repo_commits("ann/prices")] == ["only the last"]
    assert repo.stored_bytes() == attributes + 2010
    assert repo.files("best")["w.safetensors"] == b"1" * 1000
    with pytest.raises(RevisionNotFoundError):
        hf_hub_download("ann/prices", "w.safetensors", revision=second.hash)
    api.delete_tag("ann/prices", tag="best")
    api.super_squash_history("ann/prices")
    assert repo.stored_bytes() == attributes + 1010


def test_info_holds_the_card(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices", kind="dataset", gated=True)
    head = repo.commit({"README.md": b"---\nlicense: mit\ntags:\n- prices\n---\n# Prices\n", "w.bin": WEIGHTS})

    info = api.dataset_info("ann/prices", files_metadata=True)

    assert (info.id, info.sha, info.private, info.gated) == ("ann/prices", head.hash, False, "auto")
    assert info.card_data is not None
    assert info.card_data["license"] == "mit"
    assert {file.rfilename: file.size for file in info.siblings or []}["w.bin"] == len(WEIGHTS)
    assert api.dataset_info("ann/prices", revision=head.hash[:10]).sha == head.hash
    with pytest.raises(RevisionNotFoundError):
        api.dataset_info("ann/prices", revision="nowhere")


def test_a_card_that_cannot_be_read_is_refused(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("ann/prices")

    with pytest.raises(ValueError, match=r"Invalid metadata in README\.md"):
        api.create_commit("ann/prices", [add("README.md", b"---\na: [\n---\n")], commit_message="card")
    for metadata, problem in {
        b"license: 3": '"license" must be a string',
        b"tags: [1]": '"tags" must be a list of strings',
        b"base_model_relation: lora": '"base_model_relation" must be one of',
        b"model-index:\n- name: a\n  results:\n  - task: {}\n    dataset: {type: b, name: b}": "task.type",
    }.items():
        with pytest.raises(ValueError, match=problem):
            api.create_commit("ann/prices", [add("README.md", b"---\n" + metadata + b"\n---\n")], commit_message="card")
    with pytest.warns(UserWarning, match="empty or missing yaml metadata"):
        api.create_commit("ann/prices", [add("README.md", b"# no metadata\n")], commit_message="card")


def test_private_repos_are_hidden_from_others(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("ann/prices", private=True).commit({"a.txt": b"a"})
    bob = hub.add_user("bob")

    with pytest.raises(RepositoryNotFoundError) as stranger:
        api.model_info("ann/prices", token=False)
    with pytest.raises(RepositoryNotFoundError) as other:
        api.model_info("ann/prices", token=bob)
    with pytest.raises(HfHubHTTPError, match="Invalid credentials") as unknown:
        api.model_info("ann/prices", token="hf_unknown")
    assert (status_of(stranger), status_of(other), status_of(unknown)) == (401, 404, 401)
    assert not api.file_exists("ann/prices", "a.txt", token=bob)
    assert api.file_exists("ann/prices", "a.txt")
    assert not api.file_exists("ann/prices", "b.txt")
    api.update_repo_settings("ann/prices", private=False)
    assert api.repo_exists("ann/prices", token=False)
    api.auth_check("ann/prices", token=bob)
    with pytest.raises(HfHubHTTPError, match="Forbidden"):
        api.auth_check("ann/prices", token=bob, write=True)


def test_gated_repos_show_everything_but_their_files(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices", gated=True)
    repo.commit({"a.txt": b"a"})
    bob = hub.add_user("bob")

    assert api.model_info("ann/prices", token=bob).gated == "auto"
    with pytest.raises(GatedRepoError) as other:
        hf_hub_download("ann/prices", "a.txt", token=bob)
    with pytest.raises(GatedRepoError) as stranger:
        hf_hub_download("ann/prices", "a.txt", token=False)
    assert (status_of(other), status_of(stranger)) == (403, 401)
    repo.readers.add("bob")
    assert Path(hf_hub_download("ann/prices", "a.txt", token=bob)).read_bytes() == b"a"


def test_only_the_owner_may_write_and_only_with_a_write_token(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")
    head = repo.commit({"a.txt": b"a"})
    reader = hub.add_user("ann", role="read")

    for token, status in ((hub.add_user("bob"), 403), (reader, 403), (False, 401)):
        for attempt in (
            lambda token=token: api.create_commit("ann/prices", [add("a", b"")], commit_message="m", token=token),
            lambda token=token: api.create_tag("ann/prices", tag="t", token=token),
            lambda token=token: api.super_squash_history("ann/prices", token=token),
            lambda token=token: api.delete_repo("ann/prices", token=token),
            lambda token=token: api.create_repo("ann/other", token=token),
        ):
            with pytest.raises(HfHubHTTPError) as refused:
                attempt()
            assert status_of(refused) == status
    assert repo.branches == {"main": head.hash}
    api.delete_repo("ann/prices")
    with pytest.raises(KeyError):
        hub.repo("ann/prices")


def test_an_upload_must_be_what_it_says(hub: LoopbackHub) -> None:
    hub.create("ann/prices")
    right, wrong = hashlib.sha256(WEIGHTS).hexdigest(), hashlib.sha256(b"else").hexdigest()
    headers = {"Authorization": f"Bearer {os.environ['HF_TOKEN']}"}
    client = get_session()

    def ask(oid: str, size: int) -> str:
        batch = client.post(
            f"{hub.url}/ann/prices.git/info/lfs/objects/batch",
            json={"operation": "upload", "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]},
            headers=headers,
        )
        return str(batch.json()["objects"][0]["actions"]["upload"]["href"])

    def commit(path: str, oid: str) -> int:
        lines = [
            {"key": "header", "value": {"summary": "m"}},
            {"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": oid, "size": len(WEIGHTS)}},
        ]
        body = "\n".join(json.dumps(line) for line in lines)
        url = f"{hub.url}/api/models/ann/prices/commit/main"
        return int(client.post(url, content=body, headers=headers).status_code)

    assert client.put(ask(wrong, len(WEIGHTS)), content=WEIGHTS).status_code == 400
    assert client.put(ask(right, 5), content=WEIGHTS).status_code == 400
    assert client.put(ask(right, 5).partition("&")[0], content=WEIGHTS).status_code == 403
    assert commit("w.bin", right) == 400
    assert client.put(ask(right, len(WEIGHTS)), content=WEIGHTS).status_code == 200
    assert commit("w.bin", right) == 200
    for path in ("../w.bin", "/etc/w.bin", "a/../../w.bin", ".git/config", "a//b"):
        assert commit(path, right) == 400
    assert set(hub.repo("ann/prices").files()) == {".gitattributes", "w.bin"}


def test_hostile_repos_can_be_arranged(hub: LoopbackHub, api: HfApi, tmp_path: Path) -> None:
    repo = hub.create("ann/prices")
    repo.commit_raw({"short.bin": LfsFile(b"abc", size=5), "false.bin": LfsFile(b"abc", sha256="0" * 64)}, "lies")
    repo.commit_raw({"../up.txt": b"x", "/etc/root.txt": b"x"}, "hostile", branch="main")

    paths = {entry.path for entry in api.list_repo_tree("ann/prices", recursive=True)}
    assert {"../up.txt", "/etc/root.txt", "short.bin", "false.bin"} <= paths
    with pytest.raises(OSError, match="should be of size 5 but has size 3"):
        hf_hub_download("ann/prices", "short.bin")
    # The client believes what the Hub says of the content.
    assert Path(hf_hub_download("ann/prices", "false.bin")).read_bytes() == b"abc"
    assert get_session().get(f"{hub.url}/ann/prices/resolve/main//etc/root.txt").content == b"x"


def test_another_process_finds_the_hub(hub: LoopbackHub) -> None:
    hub.create("ann/prices", private=True).commit({"a.txt": b"from the hub"})
    script = "import huggingface_hub as h; print(open(h.hf_hub_download('ann/prices', 'a.txt')).read())"

    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)

    assert done.stdout == "from the hub\n"


def test_clients_at_once_get_one_history(hub: LoopbackHub, api: HfApi) -> None:
    repo = hub.create("ann/prices")

    def commit(step: int) -> str:
        operations = [add(f"{step}.safetensors", WEIGHTS[step:])]
        return api.create_commit("ann/prices", operations, commit_message=f"step {step}").oid

    with ThreadPoolExecutor(8) as pool:
        made = set(pool.map(commit, range(24)))

    history = repo.commits()
    assert {step.hash for step in history[:-1]} == made
    assert [step.parent for step in history[:-1]] == [step.hash for step in history[1:]]
    assert len(repo.files()) == len(repo.lfs) + 1 == 25


def test_a_mistake_of_the_hub_itself_does_not_pass_for_a_fault() -> None:
    loopback = LoopbackHub()
    loopback.page_sizes(commits=None)  # type: ignore[arg-type]
    loopback.create("ann/prices")
    loopback.start()
    assert httpx2.get(f"{loopback.url}/api/models/ann/prices/commits/main").status_code == 500

    with pytest.raises(RuntimeError, match="the loopback hub itself failed"):
        loopback.__exit__(None, None, None)


def test_a_space_is_a_repo_of_its_own_kind(hub: LoopbackHub, api: HfApi) -> None:
    hub.create("ann/page", kind="space").commit({"app.py": b"print()"})

    assert api.repo_info("ann/page", repo_type="space").id == "ann/page"
    assert Path(hf_hub_download("ann/page", "app.py", repo_type="space")).read_bytes() == b"print()"
    with pytest.raises(RepositoryNotFoundError):
        api.model_info("ann/page")
