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
def test_the_lines_in_the_readme_print_the_price_and_the_interval_of_the_newest_run(
    capsys: pytest.CaptureFixture[str],
) -> None:
    names: dict[str, Any] = {}
    exec(compile(CODE, "README.md", "exec"), names)

    result = names["result"]
    ((item, prediction),) = zip(result.items, result.predictions, strict=True)
    price, interval = prediction.estimate("median"), result.intervals(item, prediction)[0.8]
    assert result.checkpoint.name == "step-000006"
    assert capsys.readouterr().out == f"486DX2, 66 MHz, 8 MB RAM, 340 MB hard disk {price} {interval}\n"


def test_importing_pricer_imports_nothing_heavy() -> None:
    code = "import sys, pricer; print(*{'torch', 'transformers', 'numpy', 'typer'} & set(sys.modules))"

    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split() == []
