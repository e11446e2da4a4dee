"""The generated parts of docs/: the options of every command and all settings, as the code has them.

    python -m tools.docs

A page marks the place: what lies between `<!-- pricer eval -->` or `<!-- settings: train -->` and `<!-- end -->` is
written anew. The text around it is written by hand.
"""

import inspect
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import typer.main
import yaml
from pydantic import BaseModel

from pricer.cli import app
from pricer.config import RunConfig

DOCS = Path(__file__).parent.parent / "docs"
PAGES = (DOCS / "commands.md", DOCS / "settings.md")
COMMANDS: dict[str, Any] = {
    f"{name} {inner}".strip(): found
    for name, command in typer.main.get_command(app).commands.items()  # type: ignore[attr-defined]
    for inner, found in getattr(command, "commands", {"": command}).items()
}
SECTIONS: dict[str, BaseModel] = {name: field.default for name, field in RunConfig.model_fields.items()}
_BLOCK = re.compile(r"<!-- (pricer|settings:) ([a-z ]+) -->\n.*?<!-- end -->", re.DOTALL)


def update(page: str) -> str:
    """The page with every generated part as the code has it now."""
    return _BLOCK.sub(lambda match: f"<!-- {match[1]} {match[2]} -->\n{_block(match[1], match[2])}\n<!-- end -->", page)


def blocks(page: str) -> list[tuple[str, str]]:
    """The generated parts that a page has, each as its kind, `pricer` or `settings:`, and its name."""
    return [(match[1], match[2]) for match in _BLOCK.finditer(page)]


def _block(kind: str, name: str) -> str:
    return _command(name) if kind == "pricer" else _section(SECTIONS[name], name)


def _command(name: str) -> str:
    """What `pricer NAME --help` says, as Markdown."""
    command = COMMANDS[name]
    context = command.context_class(command, info_name=f"pricer {name}")
    usage = " ".join([f"pricer {name}", *command.collect_usage_pieces(context)])
    records = (parameter.get_help_record(context) for parameter in command.params)
    # An argument is shown with its Python type.
    rows = ((f"`{_cell(re.sub(r' <(list.)?str.*', '', option))}`", _cell(text)) for option, text in records)
    return f"{inspect.cleandoc(command.help)}\n\n```\n{usage}\n```\n\n{_table(('', ''), rows)}"


def _section(section: BaseModel, name: str) -> str:
    """The settings of one section, with their defaults and their documentation."""
    fields = type(section).model_fields.items()
    rows = (
        (f"`{name}.{key}`", f"`{_as_yaml(field.default)}`", _cell(field.description or "")) for key, field in fields
    )
    return f"{inspect.cleandoc(section.__doc__ or '')}\n\n{_table(('Setting', 'Default', ''), rows)}"


def _as_yaml(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True).removesuffix("\n").removesuffix("\n...").strip()


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def _table(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Write the generated parts of every page anew."""
    for page in PAGES:
        page.write_text(update(page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
