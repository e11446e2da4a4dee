"""Routes that move files: preupload, LFS, commit, download."""

import base64
import hashlib
import hmac
import json
import re
from typing import Any

from flask import Blueprint, Response, g, jsonify, request
from flask.typing import ResponseReturnValue

from tests.loopback_hub.app import STORAGE, author, state, user, writable
from tests.loopback_hub.git import LFS_ABOVE_BYTES, Blob, is_safe, lfs_blob, regular_blob, wants_lfs
from tests.loopback_hub.repos import Refusal, Repo

routes = Blueprint("files", __name__)


@routes.post("/api/<api_repo:repo>/preupload/<quoted:revision>")
def preupload(repo: tuple[str, str], revision: str) -> ResponseReturnValue:
    """How to upload each file, and the hash of the present content, so that the client can skip unchanged files."""
    tree = writable(repo).resolve(revision).tree
    answers = []
    for file in request.get_json()["files"]:
        path = file["path"]
        known = {"oid": tree[path].etag} if path in tree else {}
        mode = "lfs" if wants_lfs(path, file["size"]) else "regular"
        answers.append({"path": path, "uploadMode": mode, "shouldIgnore": False, **known})
    return jsonify({"files": answers})


@routes.post("/<web_repo:repo>.git/info/lfs/objects/batch")
def lfs_batch(repo: tuple[str, str]) -> ResponseReturnValue:
    """Where to upload each LFS object. For an object that is already there the answer has no actions."""
    changed = writable(repo)
    asked = request.get_json()
    if asked.get("operation") != "upload" or "basic" not in asked.get("transfers", ["basic"]):
        raise Refusal(422, "Only basic uploads are known here")
    objects = {item["oid"]: item["size"] for item in asked["objects"]}
    answers = [_upload_object(changed, oid, size) for oid, size in objects.items()]
    response = jsonify({"transfer": "basic", "objects": answers})
    response.content_type = "application/vnd.git-lfs+json"
    return response


@routes.put(f"{STORAGE}<api_repo:repo>/<oid>")
def lfs_upload(repo: tuple[str, str], oid: str) -> ResponseReturnValue:
    """Store an LFS object if its content matches the size and hash in the URL."""
    changed = state().repos.get(repo)
    size = request.args.get("size", -1, int)
    signed = request.args.get("signature")
    if changed is None or signed != upload_signature(changed, oid, size):
        raise Refusal(403, "SignatureDoesNotMatch")
    body: bytes = g.upload
    if len(body) != size or hashlib.sha256(body).hexdigest() != oid:
        raise Refusal(400, f"The content of {oid} does not match its URL")
    changed.store(oid, body)
    response = Response(status=200)
    response.headers["ETag"] = f'"{hashlib.md5(body).hexdigest()}"'
    return response


@routes.post("/<web_repo:repo>.git/info/lfs/objects/verify")
def lfs_verify(repo: tuple[str, str]) -> ResponseReturnValue:
    changed = writable(repo)
    asked = request.get_json()
    if changed.object_size(asked["oid"]) != asked["size"]:
        raise Refusal(404, f"LFS object not found: {asked['oid']}")
    return jsonify({})


@routes.post("/api/<api_repo:repo>/commit/<quoted:revision>")
def commit(repo: tuple[str, str], revision: str) -> ResponseReturnValue:
    """Make one commit from lines of JSON: a header, then files to add and paths to delete."""
    changed = writable(repo)
    if request.args.get("create_pr"):
        raise Refusal(400, "Pull requests are not known here")
    header: dict[str, str] = {}
    added: dict[str, Blob] = {}
    deleted: set[str] = set()
    for line in request.get_data().splitlines():
        item = json.loads(line)
        key, value = item["key"], item["value"]
        if key == "header":
            header = value
        elif key == "file":
            added[_path(value)] = _regular(value)
        elif key == "lfsFile":
            added[_path(value)] = _pointer(changed, value)
        elif key == "deletedFile":
            deleted.add(_path(value))
        elif key == "deletedFolder":
            deleted.add(f"{_path(value)}/")
        else:
            raise Refusal(400, f"Unknown operation: {key}")
    summary = header.get("summary", "")
    if not summary:
        raise Refusal(400, '"value.summary" is not allowed to be empty')
    parent = header.get("parentCommit", "")
    if parent and not re.fullmatch("[0-9a-f]{7,40}", parent):
        raise Refusal(400, f"Invalid parent commit: {parent}")
    message = f"{summary}\n\n{header.get('description', '')}".strip()
    made = changed.apply(added, deleted, message, revision.removeprefix("refs/heads/"), author(), parent)
    kinds = "" if changed.kind == "model" else f"{changed.kind}s/"
    address = f"{request.host_url}{kinds}{changed.id}/commit/{made.hash}"
    return jsonify({"success": True, "commitOid": made.hash, "commitUrl": address, "hookOutput": ""})


@routes.get("/<web_repo:repo>/resolve/<quoted:revision>/<file_path:path>")
def resolve(repo: tuple[str, str], revision: str, path: str) -> ResponseReturnValue:
    """The file or the requested range of it. The headers tell its commit, size and hash, for HEAD too."""
    shown = state().downloadable(*repo, user())
    g.commit = shown.resolve(revision).hash
    blob = shown.blob(revision, path)
    response = Response(shown.content(blob), content_type="application/octet-stream")
    response.set_etag(blob.etag)
    if blob.sha256:
        response.headers["X-Linked-ETag"] = f'"{blob.sha256}"'
        response.headers["X-Linked-Size"] = str(blob.size)
    return response.make_conditional(request, accept_ranges=True, complete_length=len(shown.content(blob)))


def upload_signature(repo: Repo, sha256: str, size: int) -> str:
    """The signature in an upload URL. It stands in for a token."""
    return hmac.new(b"loopback", f"{repo.kind} {repo.id} {sha256} {size}".encode(), "sha256").hexdigest()


def _upload_object(repo: Repo, oid: str, size: int) -> dict[str, Any]:
    answer: dict[str, Any] = {"oid": oid, "size": size}
    if not re.fullmatch("[0-9a-f]{64}", oid):
        return answer | {"error": {"code": 422, "message": f"Invalid oid: {oid}"}}
    if repo.object_size(oid) == size:
        return answer
    kinds = "" if repo.kind == "model" else f"{repo.kind}s/"
    place = f"{request.host_url.rstrip('/')}{STORAGE}{repo.kind}s/{repo.id}/{oid}"
    answer["actions"] = {
        "upload": {"href": f"{place}?size={size}&signature={upload_signature(repo, oid, size)}"},
        "verify": {"href": f"{request.host_url}{kinds}{repo.id}.git/info/lfs/objects/verify"},
    }
    return answer | {"authenticated": True}


def _path(value: dict[str, Any]) -> str:
    path = str(value["path"]).rstrip("/")
    if not is_safe(path):
        raise Refusal(400, f"Invalid path in repo: {path}")
    return path


def _regular(value: dict[str, Any]) -> Blob:
    text = value["content"]
    content = base64.b64decode(text, validate=True) if value.get("encoding") == "base64" else text.encode()
    if len(content) > LFS_ABOVE_BYTES:
        raise Refusal(
            400, f"Your push was rejected because it contains files larger than 10 MiB. Offending file: {value['path']}"
        )
    return regular_blob(content)


def _pointer(repo: Repo, value: dict[str, Any]) -> Blob:
    held = repo.object_size(value["oid"])
    # A copy within the Hub gives no size.
    if held is None or value.get("size", held) != held:
        raise Refusal(
            400,
            "Your push was rejected because an LFS pointer pointed to a file that does not exist. "
            f"Offending file: {value['path']}",
        )
    return lfs_blob(value["oid"], held)
