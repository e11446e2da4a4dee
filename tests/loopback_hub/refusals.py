"""What the Hub answers when it refuses: a status, and the two headers by which the client tells refusals apart."""


class Refusal(Exception):  # noqa: N818 (it is an answer, not a mishap)
    """The request gets `status`, the code in X-Error-Code and the message in X-Error-Message and in the body."""

    def __init__(self, status: int, message: str, code: str | None = None, **body: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.body = body


def no_repo(known_user: bool) -> Refusal:
    """A repo that is missing and one that is hidden look the same. Who did not log in gets 401 for both."""
    if known_user:
        return Refusal(404, "Repository not found", "RepoNotFound")
    return Refusal(401, "Invalid username or password.", "RepoNotFound")


def no_revision(revision: str) -> Refusal:
    return Refusal(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def no_entry(path: str) -> Refusal:
    return Refusal(404, f"Entry not found: {path}", "EntryNotFound")


def bad_token() -> Refusal:
    return Refusal(401, "Invalid credentials in Authorization header")
