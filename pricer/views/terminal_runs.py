"""The table of all runs."""

import json
from collections.abc import Sequence
from datetime import datetime

from pricer.commands.runs import Overview
from pricer.views import terminal

_COLUMNS = ("run", "state", "steps", "checkpoints", "scored", "best", "MAE (val)", "n", "by", "picked", "started")
# What a narrow terminal does without, in this order.
_SPARED = ("checkpoints", "by", "n", "started", "best", "scored", "picked", "steps")


def show(runs: Sequence[Overview], *, as_json: bool) -> None:
    """A line for each run, as a table or as JSON, on stdout; what is wrong with a damaged one on stderr."""
    if as_json:
        terminal.line(json.dumps({"runs": [run.to_json() for run in runs]}, indent=2))
        return
    terminal.fitting_table("Runs here, the newest first", _COLUMNS, [_row(run) for run in runs], _SPARED)
    for run in runs:
        if run.problem:
            terminal.note(f"{run.name} is damaged: {run.problem}")


def _row(run: Overview) -> list[str]:
    if run.state == "damaged":
        return [run.name, run.state, *[""] * (len(_COLUMNS) - 2)]
    mae = run.best.metric("mae") if run.best else None
    return [
        run.name,
        run.state,
        _steps(run),
        f"{run.checkpoints:,}",
        f"{run.scored:,}",
        "" if run.best is None else f"{run.best.candidate.step:,}",
        _error(run) if mae is None else terminal.dollars(mae),
        "" if mae is None else f"{mae.n:,}",
        "" if run.best is None else run.best.spec.estimator,
        _picked(run),
        _local(run.started),
    ]


def _steps(run: Overview) -> str:
    done = f"{run.step:,}"
    return done if run.steps is None else f"{done}/{run.steps:,}"


def _picked(run: Overview) -> str:
    if run.picked is None:
        return ""
    if run.picked.is_soup:
        return "soup " + "+".join(f"{step:,}" for step in run.picked.members)
    return f"{run.picked.step:,}"


def _error(run: Overview) -> str:
    return "several specs" if run.scored else ""


def _local(started: str | None) -> str:
    """A time of run.json as this machine's clock has it, to the minute."""
    try:
        return f"{datetime.fromisoformat(started or '').astimezone():%Y-%m-%d %H:%M}"
    except ValueError:
        return started or ""
