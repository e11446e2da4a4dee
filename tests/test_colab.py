"""The notebook for Colab: its commands are those of the program, and its cells run from a cut session to the report."""

import gzip
import json
import re
import shlex
import sys
import tomllib
from base64 import b64decode
from pathlib import Path

import nbformat
import pytest
import typer.testing
from nbclient.exceptions import DeadKernelError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell

from pricer.cli import app
from pricer.config_file import config_path, load_config
from pricer.redaction import token_in
from tests.loopback_hub import LoopbackHub
from tests.notebook import COLAB, output_of, read_notebook, run_cells, source_of

ROOT = COLAB.parent.parent
RUNNER = typer.testing.CliRunner()
# What the first cell offers for OPTIONS, and a value for everything else that stands in braces behind a "!".
EXAMPLE = "--set train.epochs=2 --set tracking.mode=auto"
VALUES = {"CONFIG": "quickstart", "OPTIONS": EXAMPLE, "RUN": "t4", "REPO": "ann/prices", "PRODUCT": "'A lamp'"}

# 64 items in batches of 16 are 4 steps an epoch; × 15 = 60 steps, a checkpoint every 10.
SETTINGS = (
    "data.train_limit=64",
    "data.val_limit=8",
    "data.test_limit=8",
    "adapter.r=4",
    "train.epochs=15",
    "train.batch_size=16",
    "train.checkpoint_every=10",
    "train.val_items=4",
    "eval.batch_tokens=256",
)
STEPS = [f"step-{step:06d}" for step in range(10, 61, 10)]


def parameters() -> dict[str, object]:
    """The names that the first cell sets, with the values that they have in the repository."""
    values: dict[str, object] = {}
    exec(source_of(read_notebook(), "parameters"), values)
    return {name: value for name, value in values.items() if name.isupper()}


def commands() -> list[list[str]]:
    """The arguments of each `!pricer`, in order."""
    code = "\n".join(cell.source for cell in read_notebook().cells if cell.cell_type == "code")
    lines = re.findall(r"^ *!pricer (.+)$", code, flags=re.MULTILINE)
    return [shlex.split(re.sub(r"{(\w+)}", lambda found: VALUES[found[1]], line)) for line in lines]


def is_accepted(arguments: list[str]) -> bool:
    """Whether the program knows the command and its options."""
    # All options are looked up before any is acted on, --help too.
    return RUNNER.invoke(app, [*arguments, "--help"]).exit_code == 0


def test_it_is_a_notebook_without_outputs_and_without_a_token() -> None:
    notebook = read_notebook()
    nbformat.validate(notebook)

    cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.id for cell in cells if cell.outputs or cell.execution_count is not None] == []
    assert not token_in(COLAB.read_text(encoding="utf-8"))
    assert "widgets" not in notebook.metadata


def test_its_commands_and_options_exist() -> None:
    verbs = [arguments[0] for arguments in commands()]

    assert verbs == ["--version", "doctor", "train", "train", "train", "eval", "pick", "pick", "report", "predict"]
    assert [arguments for arguments in commands() if not is_accepted(arguments)] == []
    assert not is_accepted(["train", "--resum"])
    assert not is_accepted(["evaluate", "--all-checkpoints"])


def test_its_config_and_the_settings_that_it_offers_exist() -> None:
    assert EXAMPLE in source_of(read_notebook(), "parameters")

    config = load_config(config_path(str(parameters()["CONFIG"])), shlex.split(EXAMPLE)[1::2])

    assert config.model.base == "meta-llama/Llama-3.2-3B"
    assert (config.train.epochs, config.tracking.mode) == (2, "auto")


def test_it_needs_the_reader_to_say_where_pricer_is() -> None:
    assert parameters() == {
        "SOURCE": "",
        "CONFIG": "llama-3.2-3b-t4",
        "OPTIONS": "",
        "RUN": "t4",
        "REPO": "",
        "RESUME": False,
    }


def test_it_names_the_oldest_torch_that_pricer_takes() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    oldest = next(name for name in project["dependencies"] if name.startswith("torch>=")).removeprefix("torch>=")

    assert f"pricer takes torch {oldest} and" in source_of(read_notebook(), "install")


def test_what_it_says_a_command_says_is_what_the_command_says() -> None:
    quoted = re.findall("“(.+?)”", source_of(read_notebook(), "about-resume"))
    program = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "pricer").rglob("*.py"))

    assert len(quoted) == 2
    assert [text for text in quoted if text not in program] == []


def with_parameters(resume: bool, token: str) -> NotebookNode:
    """The notebook for the demo's base, on a machine where, as on Colab, the notebook alone can read the secret."""
    notebook = read_notebook()
    given = {
        "CONFIG": "quickstart",
        "OPTIONS": " ".join(f"--set {setting}" for setting in SETTINGS),
        "RUN": "demo",
        "RESUME": resume,
    }
    assert set(given) < set(parameters())
    lines = [f"{name} = {value!r}" for name, value in given.items()]
    lines += ["import huggingface_hub.utils._auth as auth", f"auth._get_token_from_google_colab = lambda: {token!r}"]
    cells = {cell.id: cell for cell in notebook.cells}
    # Installing is what the tests' own environment has done.
    del cells["install"]
    position = list(cells).index("parameters") + 1
    notebook.cells = list(cells.values())
    notebook.cells.insert(position, new_code_cell("\n".join(lines), id="given"))
    return notebook


def new_machine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home and a cache in `folder` that hold nothing yet; it is where the notebook works, too."""
    home = folder / ".home"
    home.mkdir(parents=True)
    monkeypatch.setenv("HOME", str(home))
    for name in ("HF_HOME", "HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.setenv(name, str(home / name))
    return folder


def shown_report(html: str) -> bytes:
    """The page in the frame of an output."""
    return gzip.decompress(b64decode(html.partition('atob("')[2].partition('"')[0]))


@pytest.mark.slow
def test_a_session_is_cut_and_the_next_one_goes_on_to_the_report(
    hub: LoopbackHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    token = hub.add_user("ann")
    monkeypatch.delenv("HF_TOKEN")
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))

    def has_a_training_state() -> bool:
        try:
            repo = hub.repo("ann/pricer-demo")
        except KeyError:
            return False
        return "state" in repo.branches and "optimizer.pt" in repo.files("state")

    cut = with_parameters(resume=False, token=token)
    with pytest.raises(DeadKernelError):
        run_cells(cut, new_machine(tmp_path / "first", monkeypatch), cut=has_a_training_state)

    repo = hub.repo("ann/pricer-demo")
    assert re.search(r"optimizer steps +60 \(4 an epoch\)", output_of(cut, "plan"))
    assert "Checkpoints go to ann/pricer-demo" in output_of(cut, "login")
    assert output_of(cut, "resume") == output_of(cut, "eval") == ""
    assert repo.private
    assert STEPS[0] in repo.tags
    assert STEPS[-1] not in repo.tags

    whole = with_parameters(resume=True, token=token)
    second = new_machine(tmp_path / "second", monkeypatch)
    run_cells(whole, second)

    assert output_of(whole, "train") == ""
    assert re.search(r"going on with demo after step [1-5]0\b", output_of(whole, "resume"))
    assert set(repo.tags) == {*STEPS, "best"}
    assert [step for step in STEPS if step not in output_of(whole, "eval")] == []
    picked = json.loads((second / "runs/demo/selection.json").read_text(encoding="utf-8"))["candidate"]["step"]
    assert repo.tags["best"] == repo.tags[f"step-{picked:06d}"]
    assert f"best: step {picked} " in output_of(whole, "pick")
    assert re.search(r"confirmed: MAE \$[\d,.]+ ± [\d,.]+ on 8 test items", output_of(whole, "confirm"))
    assert shown_report(output_of(whole, "show")) == (second / "report.html").read_bytes()
    assert re.search(r"\$[\d,]+  80 %: \$[\d,]+ to \$[\d,]+|no price", output_of(whole, "predict"))
    shown = [cell.outputs for notebook in (cut, whole) for cell in notebook.cells if cell.cell_type == "code"]
    assert token not in json.dumps(shown)
