"""`pricer doctor`: whether this machine can train, and what to do if it cannot.

Modules that may be missing are imported inside the check that needs them.
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
from pricer.stores import machine

# Steps of pricer.ml.probe. The step "libraries" imports huggingface_hub.
_TORCH_STEPS = ("GPU", "driver", "4-bit product", "libraries")
# Seconds for all steps together. On a network disk the first import of the libraries takes minutes.
_TIMEOUT = 300.0


@dataclass(frozen=True, slots=True)
class Check:
    """One check. `if_it_raises` is its status after an unexpected exception. `needs_hub`: it needs huggingface_hub."""

    name: str
    look: Callable[[], Iterable[Finding]]
    if_it_raises: Status = "warning"
    needs_hub: bool = False


def examine() -> Iterator[Finding]:
    """Run all checks and yield each finding as soon as it is known. Never raises. No text contains a token."""
    for check in CHECKS:
        try:
            if check.needs_hub and endpoint_problem():
                continue  # the check of HF_ENDPOINT reports it
            found: Iterable[Finding] = list(check.look())
        except Exception as error:
            found = [machine_checks.report_unexpected(check.name, check.if_it_raises, error)]
        for finding in found:
            yield replace(finding, text=redact(finding.text), hint=redact(finding.hint))


def _python() -> Iterator[Finding]:
    version, needed, fits = machine.python()
    where = f"{version} on {platform.system()} {platform.machine()}, pricer {pricer.__version__}"
    misfit = Finding("python", "failed", f"{where}, which needs {needed}", f"install pricer with Python {needed}")
    yield Finding("python", "ok", where) if fits else misfit


def _packages() -> Iterator[Finding]:
    if machine.is_installed():
        yield machine_checks.judge_packages(machine.packages())
    else:
        text = "pricer itself is not installed, so its requirements are unknown"
        yield Finding("packages", "failed", text, "pip install -e . -c constraints.txt, in its folder")


def _endpoint() -> Iterator[Finding]:
    if problem := endpoint_problem():
        yield Finding("HF_ENDPOINT", "failed", *problem)


def ask_probe(steps: Sequence[str], timeout: float = _TIMEOUT) -> Iterator[Finding]:
    """Run steps of pricer.ml.probe in a separate process. A step that ends the process, or does not finish within
    `timeout` seconds, is a finding; the steps after it get another process.
    """
    while steps:
        output, ended = _run_probe(steps, timeout)
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
        yield Finding(last, "failed", f"the check did not finish: {ended}")
        steps = steps[steps.index(last) + 1 :]


def _records(output: str) -> Iterator[dict[str, Any]]:
    """The JSON lines of pricer.ml.probe, without the output of libraries."""
    known = ({"step"}, {field.name for field in fields(Finding)})
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.keys() in known:
            yield record


def _run_probe(steps: Sequence[str], timeout: float) -> tuple[str, str]:
    """The text that the process wrote to stdout, and how the process ended."""
    # The probe gets the path of this process, so that it imports the same packages.
    code = f"import sys; sys.path[:] = {sys.path!r}; from pricer.ml.probe import main; main({list(steps)!r})"
    try:
        done = subprocess.run(
            [sys.executable, "-c", code], stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout, check=False
        )
    except subprocess.TimeoutExpired as error:
        return (error.stdout or b"").decode(errors="replace"), f"no answer in {timeout:.0f} s"
    output = done.stdout.decode(errors="replace")
    if done.returncode < 0:
        return output, f"killed by {signal.Signals(-done.returncode).name}"
    errors = done.stderr.decode(errors="replace").strip().splitlines()
    return output, errors[-1] if errors else f"exit code {done.returncode}"


def _runs_disk() -> Iterator[Finding]:
    from pricer.stores.runs import RUNS

    disk = machine.look_at_disk(RUNS)
    yield machine_checks.judge_runs_disk(str(disk.folder), disk.free, disk.problem, str(disk.obstacle or ""))


def _caches() -> Iterator[Finding]:
    from pricer.stores.hub_cache import cache

    disk = machine.look_at_disk(cache())
    yield machine_checks.judge_cache_disk(str(disk.folder), disk.free, disk.problem)


def _wandb() -> Iterator[Finding]:
    from pricer.stores.wandb import find_login

    server, has_key = find_login()
    yield machine_checks.judge_wandb(server, has_key=has_key)


CHECKS = (
    Check("python", _python),
    Check("packages", _packages, "failed"),
    Check("launcher", lambda: machine_checks.judge_launcher(os.environ), "failed"),
    Check("HF_ENDPOINT", _endpoint, "failed"),
    Check("torch", lambda: ask_probe(_TORCH_STEPS[:-1] if endpoint_problem() else _TORCH_STEPS), "failed"),
    Check("memory", lambda: [machine_checks.judge_memory(*machine.memory())]),
    Check("disk", _runs_disk, "failed"),
    Check("Hub cache", _caches, needs_hub=True),
    Check("Hub", lambda: machine_checks.judge_hub(machine.ask_hub()), needs_hub=True),
    Check("W&B", _wandb),
)
