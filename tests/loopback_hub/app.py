"""The Flask application: who asks, how a refusal is answered, how addresses are read. Routes have their own files."""

import itertools
import time
from datetime import datetime
from typing import cast

from flask import Flask, Response, current_app, g, jsonify, request
from flask.typing import ResponseReturnValue
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BaseConverter, Map

from tests.loopback_hub.refusals import Refusal
from tests.loopback_hub.repos import Repo
from tests.loopback_hub.state import HubState, User

STORAGE = "/lfs-storage/"
"""Addresses that stand for the object storage: they are signed, and take no token."""


class ApiRepoConverter(BaseConverter):
    """`models/ann/prices` or `datasets/ann/prices`, as the addresses under /api have it: a kind and an id."""

    regex = r"(?:models|datasets)/[^/]+/[^/]+"
    part_isolating = False

    def to_python(self, value: str) -> tuple[str, str]:
        kinds, _, repo_id = value.partition("/")
        return kinds[:-1], repo_id


class WebRepoConverter(BaseConverter):
    """`ann/prices` or `datasets/ann/prices`, as the addresses of files have it."""

    regex = r"(?:datasets/)?[^/]+/[^/]+"
    part_isolating = False

    def to_python(self, value: str) -> tuple[str, str]:
        parts = value.split("/")
        return ("model", value) if len(parts) == 2 else ("dataset", "/".join(parts[1:]))


class QuotedConverter(BaseConverter):
    """One part of an address in which the client has quoted slashes: a branch, a tag, a folder."""

    def __init__(self, url_map: Map) -> None:
        super().__init__(url_map)
        self.regex = r"[^/]+"

    def to_python(self, value: str) -> str:
        return value.replace("%2F", "/").replace("%2f", "/")


class FilePathConverter(BaseConverter):
    """A path with slashes in it, also a hostile one that starts with a slash."""

    regex = r".+"
    part_isolating = False


class HubApp(Flask):
    """Answers one request at a time, under the hub's lock, after its body has come in outside of it."""

    def __init__(self, state: HubState) -> None:
        super().__init__("tests.loopback_hub", static_folder=None)
        self.state = state
        self.failures: list[str] = []
        """Tracebacks of the hub's own mistakes. They must not pass for a fault that a test asked for."""
        self.request_numbers = itertools.count(1)
        # A connection that ends in the middle of a request is the server's business, not a 500.
        self.config["PROPAGATE_EXCEPTIONS"] = True
        self.url_map.merge_slashes = False
        self.url_map.strict_slashes = False
        self.url_map.converters |= {
            "api_repo": ApiRepoConverter,
            "web_repo": WebRepoConverter,
            "quoted": QuotedConverter,
            "file_path": FilePathConverter,
        }
        self.before_request(_take_in)
        self.after_request(_finish)
        self.register_error_handler(Refusal, _refused)
        self.register_error_handler(Exception, _failed)

    def dispatch_request(self) -> ResponseReturnValue:
        with self.state.lock:
            return super().dispatch_request()


def state() -> HubState:
    return cast(HubApp, current_app).state


def user() -> User | None:
    """Who asks; None: nobody logged in."""
    return cast(User | None, g.user)


def readable(repo: tuple[str, str]) -> Repo:
    return state().readable(*repo, user())


def writable(repo: tuple[str, str]) -> Repo:
    return state().writable(*repo, user())


def author() -> str:
    asking = user()
    return asking.name if asking else "anonymous"


def timestamp(date: datetime) -> str:
    """A date as the Hub writes it."""
    return date.strftime("%Y-%m-%dT%H:%M:%S.000Z")


def _take_in() -> None:
    """Read the body at the hub's pace, and see whose token it is."""
    if request.path.startswith(STORAGE):
        g.upload = _read_slowly()
        g.user = None
        return
    request.get_data()
    g.user = state().user(request.headers.get("Authorization"))


def _read_slowly() -> bytes:
    """The body of an upload, at `upload_rate` bytes per second; None: as fast as it comes."""
    rate = state().upload_rate
    if rate is None:
        return request.get_data()
    began = time.monotonic()
    body = b""
    # A twentieth of a second's worth each time: the client sees a steady trickle, and a stop is noticed at once.
    while chunk := request.stream.read(max(1, int(rate / 20))):
        body += chunk
        if state().stopping.wait(max(0.0, began + len(body) / rate - time.monotonic())):
            raise ConnectionAbortedError
    return body


def _finish(response: Response) -> Response:
    response.headers["X-Request-Id"] = f"Root=1-{next(cast(HubApp, current_app).request_numbers):08x}"
    if "commit" in g:
        response.headers["X-Repo-Commit"] = g.commit
    return response


def _refused(refusal: Refusal) -> Response:
    response = jsonify({"error": refusal.message, **refusal.body})
    response.status_code = refusal.status
    response.headers["X-Error-Message"] = refusal.message
    if refusal.code:
        response.headers["X-Error-Code"] = refusal.code
    return response


def _failed(error: Exception) -> ResponseReturnValue:
    if isinstance(error, HTTPException):
        # The Hub has many more addresses than this one: to ask for one that is missing here is worth a look.
        return jsonify({"error": f"{error.code} {request.method} {request.path}"}), error.code or 500
    if isinstance(error, ConnectionError):
        raise error
    import traceback

    cast(HubApp, current_app).failures.append("".join(traceback.format_exception(error)))
    return jsonify({"error": "Internal Error - We're working hard to fix this as soon as possible!"}), 500
