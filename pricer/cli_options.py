"""Options that several commands have, and how an option is made."""

from typing import Annotated, Any

import typer


def make_option(usage: str, text: str, minimum: int | None = None) -> Any:
    """Make an option from its usage (`--name` for a flag, `--name VALUE` for a value) and its help text."""
    name, _, value = usage.partition(" ")
    return typer.Option(name, metavar=value or None, help=text, min=minimum)


def refuse_if(is_wrong: bool, option: str, message: str) -> None:
    """Report wrong usage if `is_wrong`: exit code 2 and a line that names the option."""
    if is_wrong:
        raise typer.BadParameter(message, param_hint=option)


def refuse_run_and_repo(run: str | None, repo: str | None) -> None:
    """Report wrong usage if a run is named in both ways."""
    refuse_if(run is not None and repo is not None, "--repo", "give --run or --repo, not both")


SetOption = Annotated[
    list[str] | None, make_option("--set KEY=VALUE", "Override a setting: train.epochs=2. Repeatable.")
]
JsonOption = Annotated[bool, make_option("--json", "Print everything as JSON.")]
RunOption = Annotated[str | None, make_option("--run NAME", "Name of the run. Default: the newest.")]
RepoOption = Annotated[str | None, make_option("--repo USER/NAME", "Use the run in this Hub repository.")]
