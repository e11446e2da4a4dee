"""The server: one thread per connection. It records every request and lets its fault happen."""

import os
import socket
import socketserver
import struct
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Response

from tests.loopback_hub.faults import Fault, Faults

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment


@dataclass(frozen=True, slots=True)
class Request:
    """One request. `status` is the answer, even if its connection was cut; None if the request was not carried out."""

    method: str
    path: str
    query: str
    token: str | None
    status: int | None
    fault: str | None


class FaultyApp:
    """A WSGI application around `app`. It asks `faults` about each request, and records it in `requests`."""

    def __init__(self, app: "WSGIApplication", faults: Faults, stopping: threading.Event) -> None:
        self.app = app
        self.faults = faults
        self.stopping = stopping
        self.requests: list[Request] = []
        """In the order in which they were answered."""

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        raw_path = environ["RAW_URI"].partition("?")[0]
        # The server has unquoted the path, including the slashes that the client quotes in names of branches.
        environ["PATH_INFO"] = (
            unquote(raw_path.replace("%2F", "%252F").replace("%2f", "%252F")).encode().decode("latin1")
        )
        fault = self.faults.next(environ["REQUEST_METHOD"], unquote(raw_path))
        if fault is not None and not fault.carries_out:
            self._record(environ, raw_path, fault.code or None, fault)
            return self._refuse(environ, start_response, fault)
        # Buffer the whole answer: the record must be there before the client goes on.
        answer = Response.from_app(self.app, environ, buffered=True)
        self._record(environ, raw_path, answer.status_code, fault)
        if fault is None:
            return answer(environ, start_response)
        if fault.name == "cut half answer" and answer.get_data() and environ["REQUEST_METHOD"] != "HEAD":
            return half_of(answer, environ, start_response, fault)
        raise cut(environ["werkzeug.socket"], fault.reset)

    def _record(self, environ: "WSGIEnvironment", path: str, status: int | None, fault: Fault | None) -> None:
        token = environ.get("HTTP_AUTHORIZATION", "").removeprefix("Bearer ") or None
        name = fault.name if fault else None
        self.requests.append(
            Request(environ["REQUEST_METHOD"], unquote(path), environ["QUERY_STRING"], token, status, name)
        )

    def _refuse(self, environ: "WSGIEnvironment", start_response: "StartResponse", fault: Fault) -> Iterable[bytes]:
        if fault.code:
            answer = Response(fault.body, fault.code, list(fault.headers), content_type="application/json")
            return answer(environ, start_response)
        if fault.name == "stall":
            self.stopping.wait(fault.seconds)
        else:
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0) // 2)
        raise cut(environ["werkzeug.socket"], fault.reset)


def half_of(
    answer: Response, environ: "WSGIEnvironment", start_response: "StartResponse", fault: Fault
) -> Iterator[bytes]:
    body = b"".join(answer(environ, start_response))
    yield body[: len(body) // 2]
    raise cut(environ["werkzeug.socket"], fault.reset)


def cut(connection: socket.socket, reset: bool = False) -> ConnectionAbortedError:
    """End the connection in both directions, with a TCP reset if asked. The server closes the socket itself.

    Returns the error with which the request's handler ends.
    """
    try:
        if reset:
            _reset(connection)
        else:
            connection.shutdown(socket.SHUT_RDWR)
    except OSError:
        pass  # the client has ended it first
    return ConnectionAbortedError()


def _reset(connection: socket.socket) -> None:
    """Only closing without lingering resets, but the server shuts down before it closes. So swap in a dead socket."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near, far = socket.socketpair()
    far.close()
    os.dup2(near.fileno(), connection.fileno(), inheritable=False)
    near.close()


class Handler(WSGIRequestHandler):
    """Quiet, and finished after one request: werkzeug cannot keep a connection alive."""

    # Headers and body are two small writes. Delayed acknowledgement would cost 40 ms per answer.
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        super().run_wsgi()
        # After a fault the rest of the body may be unread. It is not the next request.
        self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        return


class Server(ThreadedWSGIServer):
    """One daemon thread per connection. It keeps track of all connections, so that it can end them."""

    request_queue_size = 128

    def __init__(self, app: FaultyApp, port: int, failures: list[str]) -> None:
        self._failures = failures
        self._connections: set[socket.socket] = set()
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()
        super().__init__("127.0.0.1", port, app, handler=Handler)

    def server_bind(self) -> None:
        # HTTPServer would ask the name service for the name of 127.0.0.1, which can take seconds.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def serve_until(self, stopping: threading.Event) -> None:
        """Like serve_forever, but `wake` makes it look at `stopping` at once."""
        while not stopping.is_set():
            self.handle_request()

    def wake(self) -> None:
        socket.create_connection(("127.0.0.1", self.port)).close()

    def process_request(self, request: Any, client_address: Any) -> None:
        thread = threading.Thread(target=self.process_request_thread, args=(request, client_address), daemon=True)
        with self._lock:
            self._connections.add(request)
            self._workers = [known for known in self._workers if known.is_alive()]
            self._workers.append(thread)
            thread.start()

    def shutdown_request(self, request: Any) -> None:
        super().shutdown_request(request)
        with self._lock:
            self._connections.discard(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Connections that end early are normal here. Errors of the application reach `log`."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        if type == "error":
            self._failures.append(message % args if args else message)

    def open_connections(self) -> int:
        with self._lock:
            return len(self._connections)

    def end_connections(self) -> None:
        """Cut every open connection and wait for its thread."""
        with self._lock:
            still_open, threads = list(self._connections), list(self._workers)
        for connection in still_open:
            cut(connection)
        for thread in threads:
            thread.join()
