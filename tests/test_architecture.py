"""The shape of the project: imports point inwards, and heavy packages come late."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "pricer"
HEAVY = (
    *("torch", "transformers", "trl", "peft", "datasets", "wandb", "huggingface_hub", "sklearn", "bitsandbytes"),
    *("plotext", "plotly", "kaleido", "jinja2", "ray"),
)

# What a tier may import from pricer, besides itself and pricer.errors; and what of it only type checkers may see.
ALLOWED = {
    "core": set[str](),
    "data": {"config", "core", "redaction"},
    "ml": {"config", "core"},
    "stores": {"config", "config_file", "core", "redaction", "waits"},
    "commands": {"config", "config_file", "config_schema", "core", "data", "ml", "redaction", "stores", "views"},
    "views": {"core", "redaction", "waits"},
}
TYPES = {"views": {"commands", "config"}}


def imported(file: Path) -> set[str]:
    """Every module that a file imports, anywhere in it."""
    return names_in(ast.parse(file.read_text(encoding="utf-8")))


def imported_for_types(file: Path) -> set[str]:
    """Every module that a file imports below `if TYPE_CHECKING:` alone."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    checks = [node for node in tree.body if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"]
    tree.body = [node for node in tree.body if node not in checks]
    return set().union(*map(names_in, checks)) - names_in(tree)


def names_in(tree: ast.AST) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module)
    return names


@pytest.mark.parametrize("tier", ALLOWED)
def test_imports_point_inwards(tier: str) -> None:
    outward = {
        f"{file.name} imports {name}"
        for file in (PACKAGE / tier).rglob("*.py")
        for name in imported(file)
        if name.startswith("pricer.") and name.split(".")[1] not in {tier, "errors", *ALLOWED[tier]}
        if name not in imported_for_types(file) or name.split(".")[1] not in TYPES.get(tier, ())
    }

    assert outward == set()


def test_the_core_uses_the_standard_library_and_numpy_alone() -> None:
    used = {
        name.split(".")[0]
        for file in (PACKAGE / "core").rglob("*.py")
        for name in imported(file)
        if not name.startswith("pricer")
    }

    assert used - {"numpy"} <= sys.stdlib_module_names
    assert used.isdisjoint({"os", "time", "datetime", "random", "socket", "subprocess", "shutil"})


@pytest.mark.parametrize(
    ("library", "home"),
    [
        ("trl", {"ml/sft.py"}),
        ("peft", {"ml/adapters.py"}),
        ("bitsandbytes", {"ml/__init__.py", "ml/base.py", "ml/merging.py", "ml/probe.py"}),
        ("sklearn", {"ml/baselines.py"}),
        (
            "huggingface_hub",
            {
                *("data/hub_data.py", "data/hub_problems.py", "commands/parts/model_card.py"),
                *(
                    f"stores/{name}.py"
                    for name in ("bases", "hub", "hub_accounts", "hub_cache", "hub_client", "hub_errors", "machine")
                ),
            },
        ),
        ("wandb", {"stores/wandb.py"}),
        ("packaging", {"stores/machine.py"}),
        ("pynvml", {"ml/probe.py"}),
        ("plotext", {"views/terminal.py"}),
        ("plotly", {"views/report/figures.py"}),
        ("kaleido", {"views/report/figures.py"}),
        ("jinja2", {"views/markdown.py", "views/report/page.py"}),
        ("ray", {"commands/parts/ray_cluster.py"}),
        ("typer", {"cli.py", "cli_data.py", "cli_errors.py", "cli_eval.py", "cli_options.py", "cli_runs.py"}),
        ("yaml", {"config_file.py", "stores/repo_card.py"}),
        ("pydantic", {"config.py", "config_values.py", "config_file.py", "stores/records.py"}),
    ],
)
def test_each_library_has_one_home(library: str, home: set[str]) -> None:
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if library in {name.split(".")[0] for name in imported(file)}
    }

    assert found == home


@pytest.mark.parametrize(
    "modules",
    [
        "pricer.cli",
        "pricer.cli, pricer.views.terminal, pricer.commands.pick, pricer.commands.parts.wandb_report",
        "pricer.views.terminal_tables, pricer.commands.runs",
    ],
)
def test_help_pick_and_runs_import_nothing_heavy(modules: str) -> None:
    code = f"import sys, {modules}; print(*[name for name in {HEAVY} if name in sys.modules])"

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == []


def test_the_doctor_starts_where_all_packages_but_typer_are_missing() -> None:
    code = (
        "import sys, typer; typers = set(sys.modules);"
        "import pricer.cli, pricer.views.terminal, pricer.commands.doctor;"
        "print(*{name.split('.')[0] for name in set(sys.modules) - typers} - set(sys.stdlib_module_names))"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["pricer"]


def test_bitsandbytes_comes_without_the_compiler_which_stays_usable() -> None:
    code = (
        "import sys, torch, pricer.ml;"
        "print('bitsandbytes' in sys.modules, 'torch._inductor.compile_fx' in sys.modules);"
        "print(torch.compile(lambda x: x + 1, backend='eager')(torch.tensor(1)).item())"
    )

    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert found.stdout.split() == ["True", "False", "2"]


def test_no_file_of_the_package_is_longer_than_300_lines() -> None:
    lengths = {file.name: file.read_text(encoding="utf-8").count("\n") for file in PACKAGE.rglob("*.py")}

    assert {name: length for name, length in lengths.items() if length > 300} == {}


def test_only_the_terminal_prints() -> None:
    printing = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if any(
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "print"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        )
    }

    assert printing == {"views/terminal.py"}


def test_no_command_imports_torch() -> None:
    found = {
        file.relative_to(PACKAGE).as_posix()
        for file in (PACKAGE / "commands").rglob("*.py")
        if "torch" in {name.split(".")[0] for name in imported(file)}
    }

    assert found == set()


def test_pages_of_the_hub_are_those_of_the_hub_that_is_in_use() -> None:
    """`hub_address` knows HF_ENDPOINT, an address that is written out does not."""
    written = [
        f"{file.name}, line {node.lineno}"
        for file in PACKAGE.rglob("*.py")
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if "huggingface.co/" in node.value and "\n" not in node.value  # a docstring may cite its documentation
    ]

    assert written == []
