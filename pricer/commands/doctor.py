"""`pricer doctor`: whether this machine can train, and what to do where it cannot. It imports nothing that may be
missing before the check that needs it; every check that fails is a line, and the next one goes on.
"""

import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import pricer
from pricer.core import machine_checks
from pricer.core.machine_checks import Finding, Status
from pricer.redaction import endpoint_problem, redact

_OF_TORCH = ("GPU", "driver", "4-bit product", "libraries")
# Seconds for all of them: libraries on a network disk take minutes to be imported for the first time.
_PATIENCE = 300.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `if_it_raises`: what an exception means that it did not foresee; `needs_hub`: it cannot be carried out
    without huggingface_hub.
    """

    name: str
    look: Callable[[], Iterable[Finding]]
    if_it_raises: Status = "warning"
    needs_hub: bool = False


def examine() -> Iterator[Finding]:
    """What is found, each thing as soon as it is known. No check raises, and no text holds a token."""
    for check in CHECKS:
        try:
            if check.needs_hub and endpoint_problem():
                continue  # said by the check of HF_ENDPOINT
            found: Iterable[Finding] = list(check.look())
        except Exception as error:
            found = [machine_checks.unexpected(check.name, check.if_it_raises, error)]
        for finding in found:
            yield replace(finding, text=redact(finding.text), hint=redact(finding.hint))


def _python() -> Iterable[Finding]:
    from pricer.stores.machine import python

    version, needed, fits = python()
    where = f"{version} on {platform.system()} {platform.machine()}, pricer {pricer.__version__}"
    if fits:
        return [Finding("python", "ok", where)]
    return [Finding("python", "failed", f"{where}, which needs {needed}", "install it anew with such a Python")]


def _packages() -> Iterable[Finding]:
    from pricer.stores.machine import is_installed, packages

    if not is_installed():
        text = "pricer itself is not installed, so what it needs is not known"
        return [Finding("packages", "failed", text, "pip install -e . -c constraints.txt, in its folder")]
    return [machine_checks.judge_packages(packages())]


def _launcher() -> Iterable[Finding]:
    return machine_checks.judge_launcher(os.environ)


def _endpoint() -> Iterable[Finding]:
    return [Finding("HF_ENDPOINT", "failed", *problem)] if (problem := endpoint_problem()) else []


def _of_torch() -> Iterable[Finding]:
    return ask_probe(_OF_TORCH[: _OF_TORCH.index("libraries")] if endpoint_problem() else _OF_TORCH)


def ask_probe(steps: Sequence[str], patience: float = _PATIENCE) -> Iterator[Finding]:
    """What the steps of pricer.ml.probe find, in a process of their own. One that ends the process or does not come to
    an end within `patience` seconds is a finding, and those after it get another process.
    """
    while steps:
        output, ended = _run_probe(steps, patience)
        last = None
        for record in _records(output):
            if "step" in record:
                last = record["step"]
            else:
                yield Finding(**record)
        if last == "":
            return
        if last is None:
            hint = "if both are as tested: please report it, with this output"
            yield Finding("torch", "failed", f"torch or bitsandbytes cannot be imported: {ended}", hint)
            return
        yield Finding(last, "failed", f"the check did not come to its end: {ended}")
        steps = steps[steps.index(last) + 1 :]


def _records(output: str) -> Iterator[dict[str, Any]]:
    """The lines of pricer.ml.probe among what libraries say."""
    known = ({"step"}, {field.name for field in fields(Finding)})
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.keys() in known:
            yield record


def _run_probe(steps: Sequence[str], patience: float) -> tuple[str, str]:
    """What the process said on stdout, and how it ended."""
    # With this process's own path: what is looked at is what it would import.
    code = f"import sys; sys.path[:] = {sys.path!r}; from pricer.ml.probe import main; main({list(steps)!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=patience, check=False
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), f"no answer in {patience:.0f} s"
    output = done.stdout.decode(errors="replace")
    if done.returncode < 0:
        return output, f"killed by {signal.Signals(-done.returncode).name}"
    said = done.stderr.decode(errors="replace").strip().splitlines()
    return output, said[-1] if said else f"exit code {done.returncode}"


def _memory() -> Iterable[Finding]:
    from pricer.stores.machine import memory

    return [machine_checks.judge_memory(*memory())]


def _disk() -> Iterable[Finding]:
    from pricer.stores.machine import look_at_disk
    from pricer.stores.runs import RUNS

    disk = look_at_disk(RUNS)
    return [machine_checks.judge_runs_disk(str(disk.folder), disk.free, disk.problem, str(disk.obstacle or ""))]


def _cache() -> Iterable[Finding]:
    from pricer.data.sources import data_cache
    from pricer.stores.hub import cache
    from pricer.stores.machine import look_at_disk

    disk = look_at_disk(cache())
    yield machine_checks.judge_cache_disk(str(disk.folder), disk.free, disk.problem)
    folder, variable = data_cache()
    yield from machine_checks.judge_data_cache(str(folder), variable, look_at_disk(folder).problem)


def _hub() -> Iterable[Finding]:
    from pricer.stores.machine import ask_hub

    return machine_checks.judge_hub(ask_hub())


def _wandb() -> Iterable[Finding]:
    from pricer.stores.wandb import find_login

    server, has_key = find_login()
    return [machine_checks.judge_wandb(server, has_key=has_key)]


CHECKS = (
    Check("python", _python),
    Check("packages", _packages, "failed"),
    Check("launcher", _launcher, "failed"),
    Check("HF_ENDPOINT", _endpoint, "failed"),
    Check("torch", _of_torch, "failed"),
    Check("memory", _memory),
    Check("disk", _disk, "failed"),
    Check("Hub cache", _cache, needs_hub=True),
    Check("Hub", _hub, needs_hub=True),
    Check("W&B", _wandb),
)
