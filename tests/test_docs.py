"""The README says what the program does: every command, option, setting and file."""

import re
from pathlib import Path

import typer
import typer.main

from pricer.cli import app
from pricer.config_file import documentation

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_readme_names_every_command_and_option_and_no_other() -> None:
    group = typer.main.get_command(app)
    options = {
        option
        for command in group.commands.values()  # type: ignore[attr-defined]
        for parameter in command.params
        for option in parameter.opts
        if option.startswith("--")
    } | {"--version", "--help"}
    table = README.split("## Commands")[1].split("\n## ")[0]

    assert set(re.findall(r"--[a-z][a-z-]+", table)) == options - {"--help"}
    for name in group.commands:  # type: ignore[attr-defined]
        assert f"pricer {name}" in table


def test_the_readme_documents_every_setting_as_it_is() -> None:
    rows = [f"| `{name}` | `{default}` | {text} |" for name, default, text in documentation()]
    table = README.split("## Settings")[1].split("\n## ")[0]

    assert [line for line in table.splitlines() if line.startswith("| `")] == rows


def test_every_setting_has_a_sentence() -> None:
    assert [name for name, _, text in documentation() if not text.endswith(".")] == []


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in ROOT.glob("*.md"):
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (ROOT / target).exists(), f"{document.name}: {target}"
