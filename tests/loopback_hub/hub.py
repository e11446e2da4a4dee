"""The hub itself: starts and stops the server; a test arranges it and looks at it."""

import threading
from types import TracebackType

from tests.loopback_hub import file_routes, history_routes, repo_routes
from tests.loopback_hub.app import HubApp
from tests.loopback_hub.faults import Faults
from tests.loopback_hub.repos import Repo
from tests.loopback_hub.server import FaultyApp, Request, Server
from tests.loopback_hub.state import HubState


class LoopbackHub:
    """A Hub on 127.0.0.1, as a context manager. Tests call its methods directly; the client talks to `url`.

    Leaving the context fails if a route raised an error: that is a defect of this package, and must not pass for a
    fault that a test asked for.
    """

    def __init__(self, port: int = 0) -> None:
        """Port 0 means any free one."""
        self._port = port
        self._state = HubState()
        self._app = HubApp(self._state)
        for blueprint in (repo_routes.routes, history_routes.routes, file_routes.routes):
            self._app.register_blueprint(blueprint)
        self.faults = Faults()
        self._faulty_app = FaultyApp(self._app, self.faults, self._state.stopping)
        self._server: Server | None = None
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
        self._server = Server(self._faulty_app, self._port, self._app.failures)
        self._thread = threading.Thread(target=self._server.serve_until, args=(self._state.stopping,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the server, every open connection and every stall."""
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
        return list(self._faulty_app.requests)

    @property
    def connections(self) -> int:
        """The number of connections that are open now."""
        assert self._server is not None, "the hub is not started"
        return self._server.open_connections()

    def add_user(self, name: str, role: str = "write") -> str:
        """A token for the user, the same each time. With the role "read" it may not change anything."""
        return self._state.add_user(name, role)

    def create(self, repo_id: str, kind: str = "model", private: bool = False, gated: bool = False) -> Repo:
        """A repo with its first commit. Only the owner and `repo.readers` may download files of a gated one."""
        return self._state.create(repo_id, kind, private, gated)

    def repo(self, repo_id: str, kind: str | None = None) -> Repo:
        """The repo, or KeyError. `kind` is needed only if a model and a data set share the name."""
        with self._state.lock:
            found = [repo for (k, i), repo in self._state.repos.items() if i == repo_id and kind in (None, k)]
        if len(found) != 1:
            raise KeyError(f"{len(found)} repos are called {repo_id}")
        return found[0]

    def slow_uploads(self, bytes_per_second: float | None) -> None:
        """Read the body of every LFS upload at this rate; None means without a limit, also for those under way."""
        self._state.upload_rate = bytes_per_second

    def page_sizes(self, commits: int = 50, entries: int = 1000) -> None:
        """The maximum number of commits and of tree entries in one answer; the defaults are the Hub's."""
        self._state.commits_per_page = commits
        self._state.entries_per_page = entries
