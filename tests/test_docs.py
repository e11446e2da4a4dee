"""The documents say what the program does: every command, option and setting, and links that lead somewhere."""

import re
from pathlib import Path

import pytest

from tools.docs import COMMANDS, PAGES, SECTIONS, blocks, update

ROOT = Path(__file__).parent.parent
DOCUMENTS = [
    *ROOT.glob("*.md"),
    *(ROOT / "docs").glob("*.md"),
    *(ROOT / "tools").glob("*.md"),
    ROOT / "pricer/assets/README.md",
]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_generated_parts_are_what_the_code_says(page: Path) -> None:
    text = page.read_text(encoding="utf-8")

    assert update(text) == text, "run `make docs`"


def test_every_command_and_every_section_of_settings_has_its_part() -> None:
    found = [block for page in PAGES for block in blocks(page.read_text(encoding="utf-8"))]

    assert found == [("pricer", name) for name in COMMANDS] + [("settings:", name) for name in SECTIONS]


def test_every_setting_has_a_sentence() -> None:
    fields = {f"{name}.{key}": field for name, one in SECTIONS.items() for key, field in type(one).model_fields.items()}

    assert [name for name, field in fields.items() if not (field.description or "").endswith(".")] == []


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= 160


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_the_links_of_a_document_lead_somewhere(document: Path) -> None:
    for target, anchor in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text(encoding="utf-8")):
        path = document.parent / target if target else document
        assert path.exists(), target
        assert not anchor or anchor in anchors(path), f"{target}#{anchor}"


def anchors(document: Path) -> set[str]:
    """The headings of a page as GitHub makes links of them."""
    headings = re.findall(r"^#+ (.+)$", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


# CHANGELOG and EXPERIMENTS also tell what was.
@pytest.mark.parametrize(
    "document", [one for one in DOCUMENTS if one.stem not in ("CHANGELOG", "EXPERIMENTS")], ids=name_of
)
def test_the_documents_name_only_settings_and_options_that_there_are(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    settings = {f"{name}.{key}" for name, one in SECTIONS.items() for key in type(one).model_fields}
    options = {option for command in COMMANDS.values() for parameter in command.params for option in parameter.opts}

    named = set(re.findall(rf"`((?:{'|'.join(SECTIONS)})\.[a-z_]+)`", text))
    assert named <= settings
    assert set(re.findall(r"pricer [a-z ]+(--[a-z-]+)", text)) <= options
