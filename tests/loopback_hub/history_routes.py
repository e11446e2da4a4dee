"""Routes about the content and history of a repo: refs, branches, tags, commits, trees, squash."""

from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, g, jsonify, request
from flask.typing import ResponseReturnValue

from tests.loopback_hub.app import author, readable, state, timestamp, writable
from tests.loopback_hub.git import is_safe, tree_oid
from tests.loopback_hub.repos import Refusal, Repo, no_entry, no_revision

routes = Blueprint("history", __name__)


@routes.get("/api/<api_repo:repo>/refs")
def refs(repo: tuple[str, str]) -> ResponseReturnValue:
    shown = readable(repo)
    branches, tags = _refs(shown.branches, "refs/heads/"), _refs(shown.tags, "refs/tags/")
    return jsonify({"branches": branches, "converts": [], "tags": tags, "pullRequests": []})


@routes.post("/api/<api_repo:repo>/branch/<quoted:branch>")
def create_branch(repo: tuple[str, str], branch: str) -> ResponseReturnValue:
    changed = writable(repo)
    _check_name(branch, "branch")
    changed.create_branch(branch, (request.get_json(silent=True) or {}).get("startingPoint") or "main")
    return jsonify({"success": True})


@routes.delete("/api/<api_repo:repo>/branch/<quoted:branch>")
def delete_branch(repo: tuple[str, str], branch: str) -> ResponseReturnValue:
    if branch == "main":
        raise Refusal(403, "Cannot delete the default branch")
    return _delete_ref(writable(repo).branches, branch)


@routes.post("/api/<api_repo:repo>/tag/<quoted:revision>")
def create_tag(repo: tuple[str, str], revision: str) -> ResponseReturnValue:
    changed = writable(repo)
    name = request.get_json()["tag"]
    _check_name(name, "tag")
    changed.create_tag(name, revision)
    return jsonify({"success": True})


@routes.delete("/api/<api_repo:repo>/tag/<quoted:tag>")
def delete_tag(repo: tuple[str, str], tag: str) -> ResponseReturnValue:
    return _delete_ref(writable(repo).tags, tag)


@routes.post("/api/<api_repo:repo>/super-squash/<quoted:branch>")
def squash(repo: tuple[str, str], branch: str) -> ResponseReturnValue:
    squashed = writable(repo)
    message = (request.get_json(silent=True) or {}).get("message") or f"Super-squash branch '{branch}'"
    return jsonify({"success": True, "commitOid": squashed.squash(branch, message, author()).hash})


@routes.get("/api/<api_repo:repo>/commits/<quoted:revision>")
def commits(repo: tuple[str, str], revision: str) -> ResponseReturnValue:
    """One page of the history, newest first. `p` counts pages from 0."""
    history = readable(repo).commits(revision)
    page = request.args.get("p", 0, int)
    limit = min(request.args.get("limit", state().commits_per_page, int), state().commits_per_page)
    shown = history[page * limit : (page + 1) * limit]
    response = jsonify(
        [
            {
                "id": commit.hash,
                "title": commit.title,
                "message": commit.description,
                "authors": [{"user": commit.author, "avatar": ""}],
                "date": timestamp(commit.date),
                "parents": [commit.parent] if commit.parent else [],
            }
            for commit in shown
        ]
    )
    response.headers["X-Total-Count"] = str(len(history))
    if (page + 1) * limit < len(history):
        _link_next(response, p=str(page + 1), limit=str(limit))
    return response


@routes.get("/api/<api_repo:repo>/tree/<quoted:revision>", defaults={"folder": ""})
@routes.get("/api/<api_repo:repo>/tree/<quoted:revision>/<file_path:folder>")
def tree(repo: tuple[str, str], revision: str, folder: str) -> ResponseReturnValue:
    """One page of the files and folders in `folder`, by path, starting at position `cursor`."""
    shown = readable(repo)
    g.commit = shown.resolve(revision).hash
    folder = folder.replace("%2F", "/").rstrip("/")
    entries = _entries(shown, revision, folder, deep=_flag("recursive"))
    if folder and not entries:
        raise no_entry(folder)
    start = request.args.get("cursor", 0, int)
    limit = min(request.args.get("limit", state().entries_per_page, int), state().entries_per_page)
    response = jsonify([_describe(shown, revision, path) for path in entries[start : start + limit]])
    if start + limit < len(entries):
        _link_next(response, cursor=str(start + limit))
    return response


@routes.post("/api/<api_repo:repo>/paths-info/<quoted:revision>")
def paths_info(repo: tuple[str, str], revision: str) -> ResponseReturnValue:
    """Like `tree`, for given paths. Paths that do not exist are left out."""
    shown = readable(repo)
    g.commit = shown.resolve(revision).hash
    asked = request.get_json() if request.is_json else {"paths": request.form.getlist("paths")}
    known = set(_entries(shown, revision, "", deep=True))
    paths = [path.rstrip("/") for path in asked["paths"]]
    return jsonify([_describe(shown, revision, path) for path in paths if path in known])


def _refs(names: dict[str, str], prefix: str) -> list[dict[str, str]]:
    return [{"name": name, "ref": prefix + name, "targetCommit": commit} for name, commit in sorted(names.items())]


def _delete_ref(refs: dict[str, str], name: str) -> ResponseReturnValue:
    if name not in refs:
        raise no_revision(name)
    del refs[name]
    return jsonify({"success": True})


def _check_name(name: str, what: str) -> None:
    if not is_safe(name) or name.startswith(("-", "refs/")) or name.endswith(".lock") or set(name) & set(" ~^:?*[\\"):
        raise Refusal(400, f"Invalid reference for a {what}: {name}")


def _flag(name: str) -> bool:
    return (request.args.get(name) or request.form.get(name) or "").lower() == "true"


def _link_next(response: Response, **query: str) -> None:
    rest = {**request.args.to_dict(), **query}
    response.headers["Link"] = f'<{request.base_url}?{urlencode(rest)}>; rel="next"'


def _entries(repo: Repo, revision: str, folder: str, *, deep: bool) -> list[str]:
    """Paths of files and folders, sorted."""
    start = f"{folder}/" if folder else ""
    entries: set[str] = set()
    for path in repo.resolve(revision).tree:
        if not path.startswith(start):
            continue
        parts = path[len(start) :].split("/")
        depth = len(parts) if deep else 1
        # A hostile path may start with a slash. The folder before it has no name and is left out.
        entries |= {start + "/".join(parts[: count + 1]) for count in range(depth) if parts[: count + 1] != [""]}
    return sorted(entries)


def _describe(repo: Repo, revision: str, path: str) -> dict[str, Any]:
    files = repo.resolve(revision).tree
    if path not in files:
        return {"type": "directory", "oid": tree_oid(files, f"{path}/"), "size": 0, "path": path}
    blob = files[path]
    entry: dict[str, Any] = {"type": "file", "oid": blob.oid, "size": blob.size, "path": path}
    if blob.sha256:
        entry["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    if _flag("expand"):
        commit = repo.last_change(revision, path)
        entry["lastCommit"] = {"id": commit.hash, "title": commit.title, "date": timestamp(commit.date)}
    return entry
