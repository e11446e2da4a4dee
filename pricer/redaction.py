"""Remove secrets before text is shown or written: tokens from text, passwords from addresses."""

import os
import re
from urllib.parse import urlsplit, urlunsplit

_VARIABLES = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "WANDB_API_KEY")
_HUB = "https://huggingface.co"
# A shorter value could be an ordinary word of other texts.
_SHORTEST = 8

# 40 hex digits do not count as a token: they may be a commit hash.
_TOKEN = re.compile(
    r"""
    hf_[A-Za-z0-9]{20,}
    | wandb_v1_[A-Za-z0-9_-]{16,}
    | gh[opsur]_[A-Za-z0-9]{20,}
    | github_pat_[A-Za-z0-9_]{20,}
    | (?<![A-Za-z0-9])sk-(?=[A-Za-z_-]*[0-9])[A-Za-z0-9_-]{20,}  # without a digit it is a word with hyphens
    | (?P<kept>[Bb]earer\s+)(?=[A-Za-z._~+/=-]*[0-9])[A-Za-z0-9._~+/=-]{8,}
    """,
    re.VERBOSE,
)


def redact(text: str) -> str:
    """The text with `***` in place of every token from the environment and everything that looks like a token."""
    values = {os.environ.get(name, "").strip() for name in _VARIABLES}
    # The longest first, because a shorter token may be part of a longer one.
    for value in sorted((value for value in values if len(value) >= _SHORTEST), key=len, reverse=True):
        text = text.replace(value, "***")
    return _TOKEN.sub(lambda found: f"{found['kept'] or ''}***", text)


def token_in(text: str) -> bool:
    """Whether the text is a token or holds one."""
    return redact(text) != text


def without_password(address: str) -> str:
    """An address without the user name and password before its host. An incomplete address keeps the part after its
    last @.
    """
    try:
        parts = urlsplit(address)
    except ValueError:
        return address.rpartition("@")[2]
    if not parts.netloc:
        return address.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


def hub_address(page: str = "") -> str:
    """The address of a page, for example a repository, on the Hub that HF_ENDPOINT names. It has no password."""
    endpoint = without_password(os.environ.get("HF_ENDPOINT") or _HUB).rstrip("/")
    return f"{endpoint}/{page}" if page else endpoint


def endpoint_problem() -> tuple[str, str] | None:
    """The problem with HF_ENDPOINT and a hint, if it keeps huggingface_hub from being imported; otherwise None."""
    endpoint = os.environ.get("HF_ENDPOINT", "")
    try:
        urlsplit(endpoint)
    except ValueError as error:
        text = f"HF_ENDPOINT={without_password(endpoint)} is no address: {error}"
        return text, f"unset HF_ENDPOINT, or set it to one like {_HUB}"
    return None
