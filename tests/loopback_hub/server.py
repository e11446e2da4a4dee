"""The hub itself: starts and stops the server, and is what a test arranges and looks at."""

import socket
import socketserver
import threading
from types import TracebackType
from typing import Any

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

from tests.loopback_hub import file_routes, history_routes, repo_routes
from tests.loopback_hub.app import HubApp
from tests.loopback_hub.faults import Faults
from tests.loopback_hub.gate import Gate, Request, cut
from tests.loopback_hub.repos import Repo
from tests.loopback_hub.state import HubState


class LoopbackHub:
    """A Hub on a free port of 127.0.0.1, as a context manager. Its methods need no HTTP; the server is for the client.

    Leaving it fails if a route failed: the mistake would be the hub's, and must not pass for a fault.
    """

    def __init__(self) -> None:
        self._state = HubState()
        self._app = HubApp(self._state)
        for blueprint in (repo_routes.routes, history_routes.routes, file_routes.routes):
            self._app.register_blueprint(blueprint)
        self.faults = Faults()
        self._gate = Gate(self._app, self.faults, self._state.stopping)
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> "LoopbackHub":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
        if kind is None and self._app.failures:
            raise RuntimeError("the loopback hub itself failed:\n" + "\n".join(self._app.failures))

    def start(self) -> None:
        self._server = _Server(self._gate, self._app.failures)
        self._thread = threading.Thread(target=self._server.serve_until, args=(self._state.stopping,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the server, and every connection and wait that is still going on."""
        if self._server is None or self._thread is None:
            return
        self._state.stopping.set()
        self._server.wake()
        self._thread.join()
        self._server.server_close()
        self._server.end_connections()
        self._server = self._thread = None

    @property
    def url(self) -> str:
        assert self._server is not None, "the hub is not started"
        return f"http://127.0.0.1:{self._server.port}"

    @property
    def requests(self) -> list[Request]:
        """All requests so far, in the order in which they were answered."""
        return list(self._gate.requests)

    def add_user(self, name: str, role: str = "write") -> str:
        """A user's token, the same each time; `role` "read" makes one that may change nothing."""
        return self._state.add_user(name, role)

    def create(self, repo_id: str, kind: str = "model", private: bool = False, gated: bool = False) -> Repo:
        """A repo with its first commit. `gated`: only the owner, and who is in `repo.readers`, may have its files."""
        return self._state.create(repo_id, kind, private, gated)

    def repo(self, repo_id: str, kind: str | None = None) -> Repo:
        """The repo; KeyError: there is none. `kind` is needed only where a model and a data set share the name."""
        with self._state.lock:
            found = [repo for (k, i), repo in self._state.repos.items() if i == repo_id and kind in (None, k)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} repos are called {repo_id}")
        return found[0]

    def slow_uploads(self, bytes_per_second: float | None) -> None:
        """Read the body of every LFS upload at that pace; None: as fast as it comes."""
        self._state.upload_rate = bytes_per_second

    def quota(self, max_bytes: int | None) -> None:
        """Refuse what would make all repos together hold more; None: no limit."""
        self._state.max_bytes = max_bytes

    def page_sizes(self, commits: int = 50, entries: int = 1000) -> None:
        """How many commits and tree entries one answer holds; the defaults are the Hub's."""
        self._state.commits_per_page = commits
        self._state.entries_per_page = entries


class _Handler(WSGIRequestHandler):
    """Quiet, and done after one request: werkzeug says "Connection: close" to each, as it cannot keep one alive."""

    # Headers and body are two small writes: held back for an acknowledgement, each answer would take 40 ms.
    disable_nagle_algorithm = True

    def run_wsgi(self) -> None:
        super().run_wsgi()
        # Also where nothing was answered: what is left of the body is not the next request.
        self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        return


class _Server(ThreadedWSGIServer):
    """One daemon thread per connection. It knows them all, so that it can end them."""

    request_queue_size = 128

    def __init__(self, app: Gate, failures: list[str]) -> None:
        self._failures = failures
        self._connections: set[socket.socket] = set()
        self._workers: list[threading.Thread] = []
        self._lock = threading.Lock()
        super().__init__("127.0.0.1", 0, app, handler=_Handler)

    def server_bind(self) -> None:
        # HTTPServer's asks the name service what 127.0.0.1 is called; that can take seconds, and nobody wants to know.
        socketserver.TCPServer.server_bind(self)
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def serve_until(self, stopping: threading.Event) -> None:
        """As serve_forever, which looks only now and then whether it is to stop."""
        while not stopping.is_set():
            self.handle_request()

    def wake(self) -> None:
        """Make the server look whether it is to stop, by a connection that asks for nothing."""
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
        """Connections that end early are what this server is for; what fails in the application comes to `log`."""

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        if type == "error":
            self._failures.append(message % args if args else message)

    def end_connections(self) -> None:
        """Cut what is still open and wait for its threads."""
        with self._lock:
            still_open, threads = list(self._connections), list(self._workers)
        for connection in still_open:
            cut(connection)
        for thread in threads:
            thread.join()
