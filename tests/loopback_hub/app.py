"""The Flask application: its URL converters, the user of a request, and how refusals are answered. No routes."""

import itertools
import time
import traceback
from datetime import datetime
from typing import cast

from flask import Flask, Response, current_app, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map

from tests.loopback_hub.repos import Refusal, Repo
from tests.loopback_hub.state import HubState, User

STORAGE = "/lfs-storage/"
"""URLs of the object storage. They are signed and need no token."""


class ApiRepoConverter(BaseConverter):
    """Kind and id from `models/ann/prices` or `datasets/ann/prices`, as in URLs under /api."""

    regex = r"(?:models|datasets|spaces)/[^/]+/[^/]+"
    part_isolating = False

    def to_python(self, value: str) -> tuple[str, str]:
        kinds, _, repo_id = value.partition("/")
        return kinds[:-1], repo_id


class WebRepoConverter(BaseConverter):
    """Kind and id from `ann/prices` or `datasets/ann/prices`, as in URLs of files."""

    regex = r"(?:datasets/|spaces/)?[^/]+/[^/]+"
    part_isolating = False

    def to_python(self, value: str) -> tuple[str, str]:
        parts = value.split("/")
        return ("model", value) if len(parts) == 2 else (parts[0].removesuffix("s"), "/".join(parts[1:]))


class QuotedConverter(BaseConverter):
    """One part of a URL in which the client has quoted slashes: a branch, a tag, a folder."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map)
        self.regex = r"[^/]+"

    def to_python(self, value: str) -> str:
        return value.replace("%2F", "/").replace("%2f", "/")


class FilePathConverter(BaseConverter):
    """A path with slashes. A hostile one may start with a slash."""

    regex = r".+"
    part_isolating = False


class HubApp(Flask):
    """Answers one request at a time, under the hub's lock. Bodies are read before the lock is taken."""

    def __init__(self, state: HubState) -> None:
        super().__init__("tests.loopback_hub", static_folder=None)
        self.state = state
        self.failures: list[str] = []
        """Tracebacks of errors in the routes."""
        self.request_numbers = itertools.count(1)
        # A connection that ends in the middle of a request must reach the server, not become a 500.
        self.config["PROPAGATE_EXCEPTIONS"] = True
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = False
        self.url_map.converters |= {
            "api_repo": ApiRepoConverter,
            "web_repo": WebRepoConverter,
            "quoted": QuotedConverter,
            "file_path": FilePathConverter,
        }
        self.before_request(_read_request)
        self.after_request(_add_headers)
        self.register_error_handler(Refusal, _answer_refusal)
        self.register_error_handler(Exception, _answer_failure)

    def dispatch_request(self) -> ResponseReturnValue:
        with self.state.lock:
            return super().dispatch_request()


def state() -> HubState:
    return cast(HubApp, current_app).state


def user() -> User | None:
    """The user who sent the request; None without a login."""
    return cast(User | None, g.user)


def readable(repo: tuple[str, str]) -> Repo:
    return state().readable(*repo, user())


def writable(repo: tuple[str, str]) -> Repo:
    return state().writable(*repo, user())


def author() -> str:
    """Who makes a commit. Only for routes that have called `writable`, which refuses requests without a login."""
    return cast(User, g.user).name


def timestamp(date: datetime) -> str:
    """A date in the Hub's format."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _read_request() -> None:
    """Read the body, and find the user by the token."""
    if request.path.startswith(STORAGE):
        g.upload = _read_slowly()
        g.user = None
        return
    request.get_data()
    g.user = state().user(request.headers.get("Authorization"))


def _read_slowly() -> bytes:
    """Read the body of an upload at `upload_rate` bytes per second, from the moment that it is None without a limit."""
    body, began = b"", time.monotonic()
    while (rate := state().upload_rate) is not None:
        # Chunks of a twentieth of a second give the client a steady stream.
        chunk = request.stream.read(max(1, int(rate / 20)))
        if not chunk:
            return body
        body += chunk
        if state().stopping.wait(max(0.0, began + len(body) / rate - time.monotonic())):
            raise ConnectionAbortedError
    return body + request.stream.read()


def _add_headers(response: Response) -> Response:
    response.headers["X-Request-Id"] = f"Root=1-{next(cast(HubApp, current_app).request_numbers):08x}"
    if "commit" in g:
        response.headers["X-Repo-Commit"] = g.commit
    return response


def _answer_refusal(refusal: Refusal) -> Response:
    response = jsonify({"error": refusal.message, **refusal.body})
    response.status_code = refusal.status
    response.headers["X-Error-Message"] = refusal.message
    if refusal.code:
        response.headers["X-Error-Code"] = refusal.code
    return response


def _answer_failure(error: Exception) -> ResponseReturnValue:
    if isinstance(error, HTTPException):
        # The real Hub has many more routes. Name the one that is missing here.
        return jsonify({"error": f"{error.code} {request.method} {request.path}"}), error.code or 500
    if isinstance(error, ConnectionError):
        raise error
    cast(HubApp, current_app).failures.append("".join(traceback.format_exception(error)))
    return jsonify({"error": "Internal Error - We're working hard to fix this as soon as possible!"}), 500
