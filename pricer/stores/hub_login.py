"""Who this machine is to the Hub, whether the Hub answers, and what time it is there: one request."""

import time
from email.utils import parsedate_to_datetime
from typing import Any

from pricer.core.machine_checks import HubAnswer
from pricer.redaction import without_password
from pricer.stores.hub import offline_variable


def ask_hub(timeout: float = 5.0) -> HubAnswer:
    """What the Hub answers to "who am I", once; no answer within `timeout` seconds is one of the findings."""
    from huggingface_hub import constants, get_token
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

    token, endpoint = get_token(), without_password(constants.ENDPOINT)
    has_token = token is not None
    if constants.is_offline_mode():
        return HubAnswer(endpoint, has_token, problem="switched off", off_by=offline_variable())
    headers = build_hf_headers(token=token or False)
    start = time.time()
    try:
        answer = get_session().get(f"{constants.ENDPOINT}/api/whoami-v2", headers=headers, timeout=timeout)
    except Exception as error:  # each library on the way has classes of its own for what the network does
        said = str(error).strip().splitlines() or [type(error).__name__]
        # A login's token is in no variable, and may look like no token.
        problem = said[0].replace(constants.ENDPOINT, endpoint).replace(token or "\0", "***")
        return HubAnswer(endpoint, has_token, problem=problem)
    skew = _skew(answer.headers.get("date", ""), (start + time.time()) / 2)
    if answer.status_code != 200:
        return HubAnswer(endpoint, has_token, status=answer.status_code, skew=skew)
    name, role = _account(answer)
    if name is None:
        return HubAnswer(endpoint, has_token, problem="what answers there is not a Hub")
    return HubAnswer(endpoint, has_token, status=200, account=name, role=role, skew=skew)


def _account(answer: Any) -> tuple[str | None, str | None]:
    """The account's name and its token's role; None what is not said."""
    try:
        record = answer.json()
        name, token = record["name"], record.get("auth", {}).get("accessToken", {})
        role = token.get("role")
    except (ValueError, KeyError, TypeError, AttributeError):
        return None, None
    return (name if isinstance(name, str) else None), (role if isinstance(role, str) else None)


def _skew(date: str, now: float) -> float | None:
    """Seconds by which `now`, a time of this machine's, is ahead of an answer's Date; None without one."""
    try:
        # Whole seconds, cut off: on average half a second has gone by since.
        return now - (parsedate_to_datetime(date).timestamp() + 0.5)
    except (ValueError, TypeError):
        return None
