"""The account on the Hub, and what its token may do."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from pricer.errors import HubError
from pricer.stores.hub import Hub

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Account:
    """The account whose token is in use. `role` is what the token may do (`read`, `write`, `fineGrained`); None if the
    Hub does not say.
    """

    name: str
    role: str | None


def read_account() -> Account:
    """The account whose token is in use; a HubError if there is no token."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise HubError("no token for the Hugging Face Hub was found", "hf auth login, or set HF_TOKEN")
    answer = Hub("this account", attempts=4).ask(lambda api: api.whoami())
    return Account(str(answer["name"]), _role(answer))


def _role(answer: dict[str, Any]) -> str | None:
    token = (answer.get("auth") or {}).get("accessToken") or {}
    role = token.get("role")
    return role if isinstance(role, str) else None


def may_write(repo: str) -> bool | None:
    """Whether the token may write to a repository; None if the Hub does not say."""
    from huggingface_hub.errors import HfHubHTTPError

    def check(api: Any) -> bool | None:
        try:
            api.auth_check(repo, write=True)
        except HfHubHTTPError as error:
            if error.response.status_code in (401, 403):
                return False
            # Not every Hub knows this question. What a token may do in general is the next best answer.
            return False if _role(api.whoami()) == "read" else None
        return True

    return _ask_if_it_says(repo, check)


def is_private(repo: str) -> bool | None:
    """Whether only its owner can see a repository; None if the Hub does not say."""
    private = _ask_if_it_says(repo, lambda api: api.model_info(repo).private)
    return private if isinstance(private, bool) else None


def _ask_if_it_says(repo: str, question: Callable[[Any], T]) -> T | None:
    # Nothing depends on these answers, so a Hub that does not know the question must not stop a training.
    try:
        return Hub(repo, attempts=1).ask(question)
    except HubError:
        return None
