"""What the hub knows: users, repos and limits, and who may do what. Routes change it, tests arrange it."""

import hashlib
import string
import threading
from dataclasses import dataclass

from tests.loopback_hub.repos import Refusal, Repo

KINDS = ("model", "dataset", "space")


@dataclass(frozen=True, slots=True)
class User:
    """The owner of a token. With the `role` "read" the token may not change anything."""

    name: str
    role: str = "write"


class HubState:
    """One lock guards everything in here, including the repos."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        """Set when the hub stops, so that slow uploads and stalls end at once."""
        self.tokens: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.upload_rate: float | None = None
        self.commits_per_page = 50
        self.entries_per_page = 1000

    def add_user(self, name: str, role: str) -> str:
        """A token for the user. The same name and role give the same token."""
        digest = int.from_bytes(hashlib.sha512(f"{name}/{role}".encode()).digest())
        letters = string.ascii_letters
        token = "hf_"
        for _ in range(34):
            digest, index = divmod(digest, len(letters))
            token += letters[index]
        with self.lock:
            self.tokens[token] = User(name, role)
        return token

    def user(self, authorization: str | None) -> User | None:
        """The owner of the request's token; None if it has none. An unknown token is refused."""
        if not authorization:
            return None
        user = self.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise Refusal(401, "Invalid credentials in Authorization header")
        return user

    def create(self, repo_id: str, kind: str, private: bool, gated: bool) -> Repo:
        if kind not in KINDS or repo_id.count("/") != 1:
            raise Refusal(400, f"Invalid repo: {kind} {repo_id}")
        with self.lock:
            if (kind, repo_id) in self.repos:
                raise Refusal(409, f"You already created this {kind} repo: {repo_id}")
            repo = Repo(repo_id, kind, private=private, gated=gated, lock=self.lock)
            self.repos[kind, repo_id] = repo
            return repo

    def readable(self, kind: str, repo_id: str, user: User | None) -> Repo:
        """The repo, if the user may know that it exists. A gated repo hides only its files."""
        repo = self.repos.get((kind, repo_id))
        if repo is not None and (not repo.private or (user is not None and user.name == repo.owner)):
            return repo
        # The answers for a missing and for a hidden repo are the same. Without a login both are a 401.
        if user is None:
            raise Refusal(401, "Invalid username or password.", "RepoNotFound")
        raise Refusal(404, "Repository not found", "RepoNotFound")

    def writable(self, kind: str, repo_id: str, user: User | None) -> Repo:
        repo = self.readable(kind, repo_id, user)
        if user is None:
            raise Refusal(401, "Invalid username or password.")
        if user.name != repo.owner:
            raise Refusal(403, "Forbidden: pass `create_pr=1` as a query parameter to create a Pull Request")
        if user.role != "write":
            raise Refusal(403, "Forbidden: you must use a write token to upload to a repository.")
        return repo

    def downloadable(self, kind: str, repo_id: str, user: User | None) -> Repo:
        repo = self.readable(kind, repo_id, user)
        if not repo.gated or (user is not None and (user.name == repo.owner or user.name in repo.readers)):
            return repo
        restricted = f"Access to {kind} {repo_id} is restricted"
        if user is None:
            message = f"{restricted}. You must have access to it and be authenticated to access it. Please log in."
            raise Refusal(401, message, "GatedRepo")
        raise Refusal(403, f"{restricted} and you are not in the authorized list.", "GatedRepo")
