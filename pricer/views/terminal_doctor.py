"""What `pricer doctor` found: a line for each thing, or JSON."""

import json
from collections.abc import Iterable
from dataclasses import asdict

from pricer.core.machine_checks import Finding, is_fit
from pricer.views import terminal

_WORDS = {"ok": "OK", "warning": "warning", "failed": "FAILED", "unknown": "–"}


def show(findings: Iterable[Finding], *, as_json: bool) -> bool:
    """Every finding, each as soon as it is there, and the verdict, on stdout; return the verdict: training can work."""
    found = []
    for finding in findings:
        found.append(finding)
        if not as_json:
            terminal.line(_line(finding))
    fit = is_fit(found)
    if as_json:
        # In ASCII: what the Hub or a driver said may be anything.
        terminal.line(json.dumps({"fit": fit, "checks": [asdict(finding) for finding in found]}, indent=2))
    else:
        failed = ", ".join(finding.name for finding in found if finding.status == "failed")
        terminal.line("training can work here" if fit else f"training cannot work here: {failed}")
    return fit


def _line(finding: Finding) -> str:
    # One line, whatever was quoted.
    text = " ".join(finding.text.split())
    todo = f" → {finding.hint}" if finding.hint else ""
    return f"{finding.name:<14} {_WORDS[finding.status]:<8} {text}{todo}"
