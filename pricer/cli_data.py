"""The commands about data and configs: init, data, config schema."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from pricer.cli_errors import exit_codes
from pricer.cli_options import JsonOption, SetOption, make_option

if TYPE_CHECKING:
    from pricer.data.columns import Question


@exit_codes()
def init(
    source: Annotated[
        str, typer.Argument(metavar="FILE|USER/DATASET", help="A file, a folder, a pattern, or a Hub data set.")
    ],
    output: Annotated[Path | None, make_option("--output FILE", "The config. Default: after the source.")] = None,
    description: Annotated[
        list[str] | None, make_option("--description COLUMN", "The text. Several columns: repeat it.")
    ] = None,
    price: Annotated[str | None, make_option("--price COLUMN", "The price.")] = None,
    title: Annotated[str | None, make_option("--title COLUMN", "The title above the description.")] = None,
    category: Annotated[str | None, make_option("--category COLUMN", "The category, to break down errors.")] = None,
    time: Annotated[str | None, make_option("--time COLUMN", "Split by time: the newest items are the test.")] = None,
    unit: Annotated[str | None, make_option("--unit UNIT", "The unit of prices: €, kWh. Default: found, or $.")] = None,
    decimal_mark: Annotated[
        Literal[".", ","] | None, make_option("--decimal-mark <.|,>", "The decimal mark of prices that are text.")
    ] = None,
    base: Annotated[str | None, make_option("--base BASE", "The base model. Default: by the GPU.")] = None,
) -> None:
    """Write a commented config for your data."""
    from pricer.commands.init import Options
    from pricer.commands.init import init as command
    from pricer.data.columns import Given
    from pricer.views import terminal_data, terminal_progress

    given = Given(tuple(description) if description else None, price, title, category, decimal_mark)
    is_terminal = sys.stdin.isatty() and sys.stderr.isatty()
    ask = _ask if is_terminal else None
    result = command(source, Options(given, unit, base, time), output, ask, terminal_progress.Watcher)
    terminal_data.initialised(result)


@exit_codes()
def data(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a bundled one.")
    ] = "quickstart",
    override: SetOption = None,
    as_json: JsonOption = False,
) -> None:
    """Clean, split and count the data of a config."""
    from pricer.config_file import config_path, load_config
    from pricer.views import terminal_data, terminal_progress

    settings = load_config(config_path(config), override or [])
    overrides = [part for setting in override or [] for part in ("--set", setting)]
    arguments = [*([] if config == "quickstart" else [config]), *overrides]
    with terminal_progress.Watcher() as watcher:
        from pricer.commands.data import prepare_data

        result = prepare_data(settings, arguments, watcher)
    terminal_data.prepared(result, as_json=as_json)


config_app = typer.Typer(rich_markup_mode=None, no_args_is_help=True, help="What a config file can hold.")


@config_app.command()
@exit_codes()
def schema() -> None:
    """Print the JSON schema of config files, for editors."""
    from pricer.config_schema import schema_text
    from pricer.views import terminal

    terminal.line(schema_text().rstrip("\n"))


def _ask(question: "Question") -> str:
    """Ask on the terminal for one of the candidates, by name or by number."""
    from pricer.views import terminal

    terminal.note(question.text)
    for number, name in enumerate(question.candidates, start=1):
        terminal.note(f"  {number}  {name}")
    while True:
        answer: str = typer.prompt("column or number", default="1", err=True).strip()
        if answer in question.candidates:
            return answer
        if answer.isdecimal() and 1 <= int(answer) <= len(question.candidates):
            return question.candidates[int(answer) - 1]
