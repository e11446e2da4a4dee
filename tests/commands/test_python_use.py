"""`import pricer`: the lines in the README work on a run that was really trained, and importing costs nothing."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")
CODE = next(block for block in re.findall(r"```python\n(.*?)```", README, re.DOTALL) if "import pricer" in block)


@pytest.mark.usefixtures("trained")
def test_the_lines_in_the_readme_print_a_price_and_an_interval(capsys: pytest.CaptureFixture[str]) -> None:
    names: dict[str, Any] = {}
    exec(compile(CODE, "README.md", "exec"), names)

    *_, low, high = (float(number) for number in re.findall(r"\d+\.\d+", capsys.readouterr().out))
    assert names["result"].checkpoint.name == "step-000006"
    assert (low, high) == names["result"].predictions[0].distribution.interval(0.8)


def test_importing_pricer_imports_nothing_heavy() -> None:
    code = "import sys, pricer; print(*{'torch', 'transformers', 'numpy', 'typer'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
