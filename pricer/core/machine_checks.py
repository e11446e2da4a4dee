"""Whether a machine can train: its packages, launcher, memory, disks, Hub and W&B, judged in one line each."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pricer.core.ranks import read_ranks
from pricer.errors import ModelError, first_line

Status = Literal["ok", "warning", "failed", "unknown"]
"""`failed`: training cannot work. `warning`: training works, but something is missing or unusual. `unknown`: the check
got no answer.
"""

# Limits in bytes. The libraries alone take 0.5 GB of memory. For an 8B model, a checkpoint takes 0.1 GB, the
# optimizer's state takes 0.2 GB, and the base is a download of 16 GB.
_LITTLE_MEMORY = 2e9
_LITTLE_RUNS, _NO_RUNS = 5e9, 0.5e9
_LITTLE_CACHE = 20e9
# Seconds. Signed upload addresses expire after minutes to an hour. A Date header has whole seconds only.
_MAX_SKEW = 60.0


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check. `hint` says what the user should do; it is empty if there is nothing to do."""

    name: str
    status: Status
    text: str
    hint: str = ""


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether training can work."""
    return all(finding.status != "failed" for finding in findings)


@dataclass(frozen=True, slots=True)
class Package:
    """A required package.

    `installed` is its version, None if it is missing. `tested` is the version that the tests ran with, None if any
    version will do. `wanted` is the requirement that `installed` violates, None if it violates none.
    """

    name: str
    installed: str | None
    tested: str | None
    wanted: str | None = None


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """The Hub's answer to a "who am I" request.

    If there was no answer, `problem` says why, and the fields after `off_by` are None. `off_by` is the environment
    variable that switches the Hub off. `role` is the token's role (read, write, fineGrained …). `skew` is the number of
    seconds by which this machine's clock is ahead of the Hub's.
    """

    endpoint: str
    has_token: bool
    problem: str = ""
    off_by: str = ""
    status: int | None = None
    account: str | None = None
    role: str | None = None
    skew: float | None = None


def show_one_gpu(visible: str | None) -> str:
    """The shell command that makes only one GPU visible: the first in `visible` (the value of CUDA_VISIBLE_DEVICES)."""
    return f"export CUDA_VISIBLE_DEVICES={(visible or '').partition(',')[0].strip() or '0'}"


def report_unexpected(name: str, status: Status, error: Exception) -> Finding:
    """The finding for a check that raised."""
    kind, line = type(error).__name__, first_line(error)
    text = f"could not be checked: {kind if line == kind else f'{kind}: {line}'}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Finding(name, status, text, f"pip install {error.name.partition('.')[0]}")
    return Finding(name, status, text, "if all packages are as tested: please report it, with this output")


def judge_packages(packages: Sequence[Package]) -> Finding:
    """One finding for all packages. It names each package that is missing or differs from the tested version."""
    missing = [package for package in packages if package.installed is None]
    # 2.13.0+cpu is a build of 2.13.0.
    unlike = [p for p in packages if p.installed and (p.wanted or p.tested not in (None, p.installed.split("+")[0]))]
    parts = ["missing: " + ", ".join(package.name for package in missing)] if missing else []
    parts += [
        f"{p.name} {p.installed} ({f'pricer asks for {p.wanted}' if p.wanted else f'tested: {p.tested}'})"
        for p in unlike
    ]
    if not parts:
        torch = next((f", torch {p.installed}" for p in packages if p.name == "torch"), "")
        return Finding("packages", "ok", f"all {len(packages)} as tested together{torch}")
    # Keep a different torch that pricer accepts: pip might replace it by a build for another CUDA version, or for none.
    wanted = missing or [p for p in unlike if p.wanted is not None or p.name != "torch"]
    install = " ".join(["pip install", *(f"{p.name}=={p.tested}" if p.tested else p.name for p in wanted)])
    return Finding("packages", "failed" if missing else "warning", "; ".join(parts), install if wanted else "")


def judge_launcher(environment: Mapping[str, str]) -> list[Finding]:
    """A finding if this process is one of several that cannot find each other. Training refuses to start then."""
    try:
        read_ranks(environment)
    except ModelError as error:
        return [Finding("launcher", "failed", error.message, error.hint)]
    return []


def judge_memory(available: int, total: int) -> Finding:
    """Judge the main memory. Both numbers are in bytes."""
    text = f"{format_gigabytes(available)} of {format_gigabytes(total)} available"
    is_short = available < _LITTLE_MEMORY
    return Finding("memory", "warning" if is_short else "ok", text, "end other programs" if is_short else "")


def judge_runs_disk(folder: str, free: int | None, problem: str, obstacle: str = "") -> Finding:
    """Judge the disk for runs. `free` is in bytes, None if unknown. `obstacle` is a file in the place of the folder."""
    hint = "make room, or start pricer in a folder on another disk"
    if obstacle:
        return Finding("disk", "failed", problem, f"remove or rename {obstacle}")
    if problem:
        return Finding("disk", "failed", f"{folder} cannot be written: {problem}", hint)
    return _judge_free("disk", folder, free, hint, little=_LITTLE_RUNS, none=_NO_RUNS)


def judge_cache_disk(folder: str, free: int | None, problem: str) -> Finding:
    """Judge the disk for downloaded bases and data sets. If it is full, earlier downloads can still be used."""
    hint = "make room, or set HF_HOME to a folder on another disk"
    if problem:
        text = f"{folder} cannot be written, nothing can be downloaded: {problem}"
        return Finding("Hub cache", "warning", text, hint)
    return _judge_free("Hub cache", folder, free, hint, little=_LITTLE_CACHE, none=-math.inf)


def _judge_free(name: str, folder: str, free: int | None, hint: str, *, little: float, none: float) -> Finding:
    if free is None:
        return Finding(name, "unknown", f"how much is free for {folder} cannot be said")
    text = f"{format_gigabytes(free)} free for {folder}"
    if free < little:
        need = "" if name == "disk" else " (an 8B is a download of 16 GB)"
        return Finding(name, "failed" if free < none else "warning", text + need, hint)
    return Finding(name, "ok", text)


def judge_hub(answer: HubAnswer) -> list[Finding]:
    """Three findings: the endpoint, the login, and this machine's clock compared with the Hub's."""
    return [_endpoint(answer), _login(answer), _clock(answer)]


def _endpoint(answer: HubAnswer) -> Finding:
    if answer.off_by:
        hint = f"to download and to push: unset {answer.off_by}"
        return Finding("Hub", "warning", f"switched off by {answer.off_by}", hint)
    if answer.problem:
        text = f"{answer.endpoint} is not reachable: {answer.problem}"
        return Finding("Hub", "warning", text, "to download and to push: check the network, and HF_ENDPOINT")
    if answer.status not in (200, 401, 403):
        is_public = answer.endpoint == "https://huggingface.co"
        hint = "later again; https://status.huggingface.co" if is_public else f"later again; is {answer.endpoint} up?"
        return Finding("Hub", "warning", f"{answer.endpoint} answers {answer.status}", hint)
    return Finding("Hub", "ok", f"{answer.endpoint} answers")


def _login(answer: HubAnswer) -> Finding:
    if not answer.has_token:
        text = "no token: needed for gated bases, for private repositories and to push"
        return Finding("Hub login", "warning", text, "hf auth login, or set HF_TOKEN")
    if answer.status in (401, 403):
        text = f"the Hub refuses the token ({answer.status})"
        return Finding("Hub login", "warning", text, "hf auth login; a token in HF_TOKEN goes before that login")
    if answer.account is None:
        return Finding("Hub login", "unknown", "a token is there; who it belongs to was not answered")
    text = f"{answer.account}, token of role {answer.role}" if answer.role else answer.account
    if answer.role == "read":
        hint = f"to push, a token of role write: {answer.endpoint}/settings/tokens"
        return Finding("Hub login", "warning", f"{text}: it cannot push", hint)
    return Finding("Hub login", "ok", text)


def _clock(answer: HubAnswer) -> Finding:
    if answer.skew is None:
        return Finding("clock", "unknown", "not compared, for want of an answer from the Hub")
    if abs(answer.skew) < _MAX_SKEW:
        return Finding("clock", "ok", f"within {max(1, math.ceil(abs(answer.skew)))} s of the Hub's")
    way = "ahead of" if answer.skew > 0 else "behind"
    text = f"{_duration(abs(answer.skew))} {way} the Hub's, and uploads may be refused"
    return Finding("clock", "warning", text, "set it: sudo timedatectl set-ntp true")


def judge_wandb(host: str, *, has_key: bool) -> Finding:
    """Whether `tracking.mode: auto` is online on this machine, which requires a W&B key."""
    if has_key:
        return Finding("W&B", "ok", f"a key for {host} is there (not tried): tracking.mode auto is online")
    text = f"no key for {host}: tracking.mode auto is offline"
    return Finding("W&B", "warning", text, "wandb login, or set WANDB_API_KEY")


def format_gigabytes(count: float) -> str:
    """Bytes in GB with one decimal."""
    return f"{count / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"
