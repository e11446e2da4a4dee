"""Every request goes through here: it is written down, and what is to go wrong with it goes wrong."""

import os
import socket
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import unquote

from werkzeug.wrappers import Response

from tests.loopback_hub.faults import Fault, Faults

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `status` is what was answered, or would have been; None: it was not carried out and not answered."""

    method: str
    path: str
    query: str
    token: str | None
    status: int | None
    fault: str | None


class Gate:
    """A WSGI application around another: asks `faults` about each request, keeps `requests` in order of answering."""

    def __init__(self, app: "WSGIApplication", faults: Faults, stopping: threading.Event) -> None:
        self.app = app
        self.faults = faults
        self.stopping = stopping
        self.requests: list[Request] = []

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        raw_path = environ["RAW_URI"].partition("?")[0]
        # The server has unquoted the path, and with it the slashes that the client quotes in the names of branches.
        environ["PATH_INFO"] = (
            unquote(raw_path.replace("%2F", "%252F").replace("%2f", "%252F")).encode().decode("latin1")
        )
        connection: socket.socket = environ["werkzeug.socket"]
        fault = self.faults.next(environ["REQUEST_METHOD"], unquote(raw_path))
        if fault is not None and not fault.carries_out:
            self._write_down(environ, raw_path, fault.code or None, fault)
            return self._refuse(environ, start_response, connection, fault)
        # The whole answer, before any of it is sent: what is written down is there when the client goes on.
        answer = Response.from_app(self.app, environ, buffered=True)
        self._write_down(environ, raw_path, answer.status_code, fault)
        if fault is None:
            return answer(environ, start_response)
        if fault.name == "cut half answer" and answer.get_data() and environ["REQUEST_METHOD"] != "HEAD":
            return self._half(answer, environ, start_response, connection, fault)
        cut(connection, fault.reset)
        raise ConnectionAbortedError

    def _write_down(self, environ: "WSGIEnvironment", path: str, status: int | None, fault: Fault | None) -> None:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ") or None
        name = fault.name if fault else None
        self.requests.append(
            Request(environ["REQUEST_METHOD"], unquote(path), environ["QUERY_STRING"], token, status, name)
        )

    def _refuse(
        self, environ: "WSGIEnvironment", start_response: "StartResponse", connection: socket.socket, fault: Fault
    ) -> Iterable[bytes]:
        if fault.code:
            answer = Response(fault.body, fault.code, list(fault.headers), content_type="application/json")
            return answer(environ, start_response)
        if fault.name == "stall":
            self.stopping.wait(fault.seconds)
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
        cut(connection, fault.reset)
        raise ConnectionAbortedError

    def _half(
        self,
        answer: Response,
        environ: "WSGIEnvironment",
        start_response: "StartResponse",
        connection: socket.socket,
        fault: Fault,
    ) -> Iterator[bytes]:
        body = b"".join(answer(environ, start_response))
        yield body[: len(body) // 2]
        cut(connection, fault.reset)
        raise ConnectionAbortedError


def cut(connection: socket.socket, reset: bool = False) -> None:
    """End the connection in both directions. The server closes the socket itself, as it does after every request.

    `reset`: with a TCP reset, as from a machine that knows nothing of the connection any more.
    """
    try:
        if reset:
            _reset(connection)
        else:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        # The client was quicker.
        return


def _reset(connection: socket.socket) -> None:
    """Only a close without lingering resets, but the server shuts down before it closes: a dead socket steps in."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near, far = socket.socketpair()
    far.close()
    os.dup2(near.fileno(), connection.fileno(), inheritable=False)
    near.close()
