"""All that the hub knows: users, repos, limits. The routes change it, tests arrange it and look at it."""

import hashlib
import hmac
import string
import threading
from dataclasses import dataclass

from tests.loopback_hub.refusals import Refusal, bad_token, no_repo
from tests.loopback_hub.repos import Repo

KINDS = ("model", "dataset")


@dataclass(frozen=True, slots=True)
class User:
    """Who a token belongs to. `role` "read": it may look, not change."""

    name: str
    role: str = "write"


class HubState:
    """One lock guards everything in here, the repos included."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.stopping = threading.Event()
        """Set when the hub stops: whoever waits, for a slow upload or a stall, ends at once."""
        self.tokens: dict[str, User] = {}
        self.repos: dict[tuple[str, str], Repo] = {}
        self.max_bytes: int | None = None
        self.upload_rate: float | None = None
        self.commits_per_page = 50
        self.entries_per_page = 1000

    def add_user(self, name: str, role: str) -> str:
        """A token for the user; the same name and role give the same token."""
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
        """Whose token came with the request; None: none came. A token that was never given out is refused."""
        if not authorization:
            return None
        user = self.tokens.get(authorization.removeprefix("Bearer "))
        if user is None:
            raise bad_token()
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
        """The repo, if the user may know of it. Of a gated repo everybody may, but for its files."""
        repo = self.repos.get((kind, repo_id))
        if repo is None or (repo.private and (user is None or user.name != repo.owner)):
            raise no_repo(user is not None)
        return repo

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
        if user is None:
            raise Refusal(
                401,
                f"Access to {kind} {repo_id} is restricted. You must have access to it and be authenticated to access "
                "it. Please log in.",
                "GatedRepo",
            )
        raise Refusal(
            403, f"Access to {kind} {repo_id} is restricted and you are not in the authorized list.", "GatedRepo"
        )

    def check_quota(self, more: int) -> None:
        """Refuse `more` bytes where they would go over the limit on all repos together."""
        if self.max_bytes is None:
            return
        if sum(repo.stored_bytes() for repo in self.repos.values()) + more > self.max_bytes:
            raise Refusal(
                403,
                "Private repository storage limit reached, please upgrade your plan to increase your private storage "
                "limit.",
            )


def upload_signature(repo: Repo, sha256: str, size: int) -> str:
    """What an upload address holds in place of a token, as the Hub's signed addresses do."""
    return hmac.new(b"loopback", f"{repo.kind} {repo.id} {sha256} {size}".encode(), "sha256").hexdigest()
