"""The client of huggingface_hub as pricer sets it up, and whether the user has switched the Hub off."""

import functools
import logging
import os
from typing import Any

# Seconds without a byte, in either direction, after which a connection counts as dead. huggingface_hub sets no limit,
# so an upload that hangs would hang for ever.
_SILENCE = 60.0


def hub_client() -> Any:
    """A client of the Hub that HF_ENDPOINT names, with the token of this machine."""
    from huggingface_hub import HfApi

    _configure_client()
    return HfApi()


def is_offline() -> bool:
    """Whether the user has switched the Hub off (HF_HUB_OFFLINE)."""
    from huggingface_hub import constants

    return constants.is_offline_mode()


def offline_variable() -> str:
    """The environment variable that switches the Hub off, if it is off."""
    # huggingface_hub reads TRANSFORMERS_OFFLINE where HF_HUB_OFFLINE is empty.
    is_other = os.environ.get("TRANSFORMERS_OFFLINE") and not os.environ.get("HF_HUB_OFFLINE")
    return "TRANSFORMERS_OFFLINE" if is_other else "HF_HUB_OFFLINE"


@functools.cache
def _configure_client() -> None:
    """Set up huggingface_hub, once: connections that do not hang, no bars, no warnings with addresses in them."""
    from huggingface_hub import set_client_factory
    from huggingface_hub.utils import disable_progress_bars  # type: ignore[attr-defined]

    # Private, so pyproject.toml has an upper bound. A client of our own would lack the library's request hook.
    from huggingface_hub.utils._http import default_client_factory

    def client() -> Any:
        made = default_client_factory()
        made.timeout = _SILENCE
        return made

    # Uploads by Xet do not pass the client. They read these when the first one starts.
    os.environ.setdefault("HF_XET_CLIENT_READ_TIMEOUT", f"{_SILENCE:.0f}s")
    os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")
    set_client_factory(client)
    disable_progress_bars()
    logging.getLogger("huggingface_hub").setLevel(logging.CRITICAL)
