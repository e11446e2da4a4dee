"""Routes about users and whole repos: whoami, create, delete, settings, access, info, card validation."""

import re
from typing import Any

import yaml
from flask import Blueprint, g, jsonify, request
from flask.typing import ResponseReturnValue

from tests.loopback_hub.app import readable, state, timestamp, user, writable
from tests.loopback_hub.git import Commit
from tests.loopback_hub.repos import Refusal, Repo

routes = Blueprint("repos", __name__)


@routes.get("/api/whoami-v2")
def who_am_i() -> ResponseReturnValue:
    sender = user()
    if sender is None:
        raise Refusal(401, "Invalid username or password.")
    access = {"displayName": "tests", "role": sender.role, "createdAt": "2026-01-01T00:00:00.000Z"}
    return jsonify(
        {
            "type": "user",
            "id": f"id-of-{sender.name}",
            "name": sender.name,
            "fullname": sender.name.title(),
            "email": f"{sender.name}@example.com",
            "emailVerified": True,
            "isPro": False,
            "canPay": False,
            "avatarUrl": "",
            "orgs": [],
            "auth": {"type": "access_token", "accessToken": access},
        }
    )


@routes.post("/api/repos/create")
def create() -> ResponseReturnValue:
    asked = request.get_json()
    kind, repo_id = _own_repo(asked, f"create a {asked.get('type', 'model')}")
    address = f"{request.host_url}{'' if kind == 'model' else f'{kind}s/'}{repo_id}"
    private = asked.get("visibility") == "private" or asked.get("private") is True
    try:
        repo = state().create(repo_id, kind, private, gated=False)
    except Refusal as refusal:
        if refusal.status == 409:
            # With exist_ok the client takes the URL of the repo from this answer.
            refusal.body["url"] = address
        raise
    return jsonify({"url": address, "name": repo.id, "id": f"{kind} {repo.id}", "private": repo.private})


@routes.delete("/api/repos/delete")
def delete() -> ResponseReturnValue:
    kind, repo_id = _own_repo(request.get_json(), "delete a repo")
    writable((kind, repo_id))
    del state().repos[kind, repo_id]
    return "OK"


@routes.put("/api/<api_repo:repo>/settings")
def settings(repo: tuple[str, str]) -> ResponseReturnValue:
    changed = writable(repo)
    asked = request.get_json()
    if "visibility" in asked or "private" in asked:
        changed.private = asked.get("visibility") == "private" or asked.get("private") is True
    if "gated" in asked:
        changed.gated = asked["gated"]
    return jsonify({"private": changed.private, "gated": changed.gated})


@routes.get("/api/<api_repo:repo>/auth-check")
def may_read(repo: tuple[str, str]) -> ResponseReturnValue:
    state().downloadable(*repo, user())
    return "OK"


@routes.get("/api/<api_repo:repo>/auth-check/write")
def may_write(repo: tuple[str, str]) -> ResponseReturnValue:
    writable(repo)
    return "OK"


@routes.get("/api/<api_repo:repo>")
def info(repo: tuple[str, str]) -> ResponseReturnValue:
    return _info(readable(repo), "main")


@routes.get("/api/<api_repo:repo>/revision/<quoted:revision>")
def info_at(repo: tuple[str, str], revision: str) -> ResponseReturnValue:
    return _info(readable(repo), revision)


@routes.post("/api/validate-yaml")
def validate_card() -> ResponseReturnValue:
    """Check the front matter of a README. Without front matter the answer is a warning, not an error."""
    front = front_matter(request.get_json()["content"])
    if front is None:
        return jsonify({"errors": [], "warnings": [{"message": "empty or missing yaml metadata in repo card"}]})
    try:
        card = yaml.safe_load(front)
    except yaml.YAMLError as error:
        return jsonify({"errors": [{"message": str(error)}], "warnings": []}), 400
    problems = card_problems(card) if isinstance(card, dict) else ["metadata is not a mapping"]
    return jsonify({"errors": [{"message": text} for text in problems], "warnings": []}), 400 if problems else 200


def card_problems(card: dict[str, Any]) -> list[str]:
    """What the documentation of model cards does not allow in these metadata.

    https://github.com/huggingface/hub-docs/blob/main/modelcard.md has the keys. The Hub itself knows every licence and
    task by name; here only the kinds of values are checked.
    """
    texts, lists = ("license", "library_name", "pipeline_tag"), ("datasets", "tags", "metrics")
    problems = [f'"{key}" must be a string' for key in texts if not isinstance(card.get(key, ""), str)]
    problems += [f'"{key}" must be a list of strings' for key in lists if not _is_list(card.get(key, []))]
    if card.get("base_model_relation", "adapter") not in ("adapter", "finetune", "merge", "quantized"):
        problems.append('"base_model_relation" must be one of adapter, finetune, merge, quantized')
    for index, model in enumerate(card.get("model-index") or ()):
        problems += [f'"model-index[{index}].{place}" is required' for place in _missing(model)]
    return problems


def _is_list(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(value, str) for value in values)


def _missing(model: dict[str, Any]) -> list[str]:
    """The places in an entry of model-index that lack what is required there."""
    places = [key for key in ("name", "results") if not model.get(key)]
    for index, result in enumerate(model.get("results") or ()):
        wanted = {"task": ("type",), "dataset": ("type", "name"), "source": ("url",) if "source" in result else ()}
        places += [
            f"results[{index}].{part}.{key}" for part in wanted for key in wanted[part] if not result[part].get(key)
        ]
        metrics = result.get("metrics") or [{}]
        places += [
            f"results[{index}].metrics[{n}].{key}"
            for n, metric in enumerate(metrics)
            for key in ("type", "value")
            if metric.get(key) is None
        ]
    return places


def front_matter(readme: str) -> str | None:
    """The YAML between the two lines of dashes at the top, or None."""
    found = re.match(r"---\r?\n(.*?)\r?\n---\s", readme + "\n", re.DOTALL)
    return found[1] if found else None


def _own_repo(asked: dict[str, Any], what: str) -> tuple[str, str]:
    """Kind and id of the repo that the request's body names. It must be the user's own."""
    sender = user()
    if sender is None:
        raise Refusal(401, "Invalid username or password.")
    owner = asked.get("organization") or sender.name
    if owner != sender.name or sender.role != "write":
        raise Refusal(403, f'You don\'t have the rights to {what} under the namespace "{owner}"')
    return asked.get("type") or "model", f"{owner}/{asked['name']}"


def _info(repo: Repo, revision: str) -> ResponseReturnValue:
    commit = repo.resolve(revision)
    g.commit = commit.hash
    answer: dict[str, Any] = {
        "_id": f"id-of-{repo.id}",
        "id": repo.id,
        "author": repo.owner,
        "sha": commit.hash,
        "lastModified": timestamp(commit.date),
        "createdAt": timestamp(repo.commits()[-1].date),
        "private": repo.private,
        "gated": repo.gated,
        "disabled": False,
        "downloads": 0,
        "likes": 0,
        "tags": [],
        "usedStorage": repo.stored_bytes(),
        "siblings": [_sibling(commit, path) for path in sorted(commit.tree)],
    }
    if repo.kind == "model":
        answer["modelId"] = repo.id
    card = _card(repo, commit)
    if card is not None:
        answer["cardData"] = card
    wanted = request.args.getlist("expand")
    if wanted:
        answer = {key: value for key, value in answer.items() if key in {"_id", "id", *wanted}}
    return jsonify(answer)


def _card(repo: Repo, commit: Commit) -> dict[str, Any] | None:
    """The README's front matter; None if there is none or it cannot be read."""
    readme = commit.tree.get("README.md")
    front = front_matter(repo.content(readme).decode(errors="replace")) if readme else None
    if front is None:
        return None
    try:
        card = yaml.safe_load(front)
    except yaml.YAMLError:
        return None
    return card if isinstance(card, dict) else None


def _sibling(commit: Commit, path: str) -> dict[str, Any]:
    answer: dict[str, Any] = {"rfilename": path}
    if request.args.get("blobs", "").lower() == "true":
        blob = commit.tree[path]
        answer |= {"size": blob.size, "blobId": blob.oid}
        if blob.sha256:
            answer["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return answer
