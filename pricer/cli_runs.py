"""The commands about whole runs: watch, runs, report, push."""

from pathlib import Path
from typing import Annotated

import typer

from pricer.cli_errors import exit_codes
from pricer.cli_options import JsonOption, RepoOption, RunOption, make_option, refuse_if


@exit_codes()
def watch(
    run: RunOption = None,
    repo: RepoOption = None,
    every: Annotated[int, make_option("--every SECONDS", "Time between two looks.", minimum=1)] = 60,
) -> None:
    """Score each checkpoint of a training as it appears, and end when the training has ended.

    If both use the same GPU, training is slower and has less memory.
    """
    refuse_if(run is not None and repo is not None, "--repo", "give --run or --repo, not both")
    from pricer.views import terminal_progress, terminal_tables

    with terminal_progress.Watcher() as watcher:
        from pricer.commands.watch import watch as command

        result = command(run, repo, watcher, every)
    terminal_tables.watched(result)


@exit_codes()
def runs(as_json: JsonOption = False) -> None:
    """List the runs here: their progress, their scores and their best error."""
    from pricer.commands.runs import overviews
    from pricer.views import terminal_tables

    terminal_tables.runs(overviews(), as_json=as_json)


@exit_codes()
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="RUN", help="Runs to compare.", show_default=False)
    ] = None,
    run: RunOption = None,
    output: Annotated[Path | None, make_option("--output FILE", "Default: report.html in the run's folder.")] = None,
    png: Annotated[bool, make_option("--png", "Also write the main charts as pictures.")] = False,
) -> None:
    """Write one HTML page of charts and tables about a run or several."""
    refuse_if(bool(runs) and run is not None, "--run", "name the runs, or give --run, not both")
    names = runs or ([run] if run is not None else [])
    refuse_if(len(set(names)) < len(names), "RUN", "name each run once")
    from pricer.commands.report import report as command
    from pricer.views import terminal, terminal_tables

    result = command(names, output, terminal.note, pictures=png)
    terminal_tables.reported(result)
    if result.problem:
        raise result.problem


@exit_codes()
def push(
    run: RunOption = None,
    repo: Annotated[
        str | None, make_option("--repo USER/NEW", "Move the run to this repository: push all its checkpoints there.")
    ] = None,
) -> None:
    """Push the checkpoints to the Hub that training could not push."""
    from pricer.views import terminal_progress, terminal_tables

    with terminal_progress.Watcher() as watcher:
        from pricer.commands.push import push as command

        result = command(run, watcher, repo)
    terminal_tables.pushed(result)
