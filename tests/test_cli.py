"""The command line: exit codes and exact texts, for good input and bad."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import pricer
from pricer.cli import app
from pricer.core.items import Split
from pricer.stores.bases import ASSETS
from pricer.stores.files import write_json
from tests.repositories import RUNNER, Cli


def write(name: str, *lines: str) -> str:
    Path(name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return name


GOOD = [json.dumps({"description": f"A lamp of {n} watts", "price": 10 + n}) for n in range(60)]


def fails(result: Cli, *lines: str) -> None:
    """The command failed with exactly these lines on stderr, and said nothing on stdout."""
    assert result.err.splitlines() == list(lines)
    assert (result.code, result.out) == (1, "")


def test_help_names_the_verbs() -> None:
    result = Cli("--help")

    assert result.code == 0
    assert [line.split()[0] for line in result.out.split("Commands:")[1].strip().splitlines()] == [
        *("init", "data", "train", "eval", "watch", "pick", "runs", "predict", "report", "push", "doctor", "config"),
    ]


def test_the_installed_command_shows_its_version() -> None:
    command = Path(sys.executable).parent / "pricer"

    shown = subprocess.run([str(command), "--version"], capture_output=True, text=True, check=True)

    assert shown.stdout == f"pricer {pricer.__version__}\n"


@pytest.mark.parametrize(
    ("command", "problem"),
    [
        ("nonsense", "No such command 'nonsense'."),
        ("train --epochs 3", "No such option: --epochs"),
        ("train --resume --set train.epochs=3", "--resume: a run continues with its own config"),
        ("train --resume --dry-run", "--resume: a run continues with its own config"),
        ("train --gpu t4", "--gpu: a run takes the GPU that is there; add --dry-run"),
        ("eval --split train", "'train' is not one of 'val', 'test'."),
        ("eval --limit 0", "'--limit': Input should be greater than or equal to 1"),
        ("eval --all-checkpoints --checkpoint last", "--checkpoint: give --all-checkpoints or --checkpoint, not both"),
        ("eval --race", "--race: a race compares several checkpoints: add --all-checkpoints"),
        ("eval --race --all-checkpoints --split test", "a race chooses a checkpoint, which only --split val may do"),
        ("eval --race --all-checkpoints --data a.csv", "a race chooses a checkpoint, which only --split val may do"),
        ("eval --shard 0/8", "--shard: 0/8 is no shard: they are numbered from 1 to 8"),
        ("eval --ray=", "--ray: the address is empty; on one machine, --ray local"),
        ("eval --data a.csv --split val", "--split: --data scores all items, whatever their split"),
        ("watch --run a --repo ann/prices", "--repo: give --run or --repo, not both"),
        ("watch --every 0", "'--every': Input should be greater than or equal to 1"),
        ("predict lamp --file lamps.txt", "--file: give a text or --file, not both"),
        ("predict lamp --run a --repo ann/prices", "--repo: give --run or --repo, not both"),
        ("pick --metric luck", "'luck' is not one of mae, median_ae, rmsle, r2, mape, hit_rate"),
    ],
)
def test_wrong_usage_says_what_is_wrong(command: str, problem: str) -> None:
    result = Cli(*command.split())

    assert problem in result.err.splitlines()[-1]
    assert (result.code, result.out) == (2, "")


def test_all_problems_of_a_config_are_named_at_once() -> None:
    write("mine.yaml", "train:", "  learnin_rate: 1e-4", "  epochs: many", "dta: {}")

    fails(
        Cli("train", "mine.yaml"),
        "error: train.epochs is 'many': input should be a valid number, unable to parse string as a number, "
        "or input should be 'auto' (mine.yaml, line 3)",
        "error: train.learnin_rate is not a setting (mine.yaml, line 2); did you mean train.learning_rate?",
        "error: dta is not a section (mine.yaml, line 4); did you mean data?",
    )


def test_a_config_that_is_not_there() -> None:
    fails(
        Cli("train", "nope.yaml"),
        "error: there is no config nope.yaml",
        " hint: known by name: llama-3.1-8b-a100, llama-3.2-3b-a100, llama-3.2-3b-t4, quickstart",
    )


def test_a_data_file_that_is_not_there() -> None:
    fails(
        Cli("train", "--set", "data.source=items.jsonl"),
        "error: there is no file or folder items.jsonl",
        " hint: data.source is relative to the folder you start pricer in; a Hub data set is USER/NAME",
    )


def test_a_bad_row_is_named_with_its_line() -> None:
    write("items.jsonl", *GOOD[:3], '{"description": "A lamp", "price": -3}', *GOOD[3:])

    fails(
        Cli("train", "--set", "data.source=items.jsonl", "--set", "data.on_bad_row=error"),
        "error: price is -3, not above zero (items.jsonl, line 4)",
        " hint: mend these rows, or data.on_bad_row: reject",
    )


def test_an_empty_split() -> None:
    write("items.jsonl", *GOOD)

    fails(
        Cli("train", "--set", "data.source=items.jsonl", "--set", "data.val_fraction=0"),
        "error: the val split of items.jsonl is empty: data.val_fraction is 0",
        " hint: a data.val_fraction above 0",
    )


@pytest.mark.parametrize("command", [["eval"], ["pick"], ["predict", "A lamp"], ["train", "--resume"]])
def test_a_run_that_does_not_exist(command: list[str]) -> None:
    fails(Cli(*command), "error: there is no run here yet (no runs/*/run.json)", " hint: pricer train")
    fails(Cli(*command, "--run", "gone"), "error: there is no run gone", " hint: pricer train")


def test_eval_and_pick_before_there_is_anything_to_choose_from() -> None:
    write_json(Path("runs/early/run.json"), {"started": "2000", "finished": None})

    fails(
        Cli("eval", "--run", "early"),
        "error: the run early has no checkpoint yet",
        " hint: pricer train --resume --run early",
    )
    fails(Cli("pick"), "error: no checkpoint has been evaluated yet", " hint: pricer eval --all-checkpoints")


def test_a_traceback_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRICER_DEBUG", "1")

    result = RUNNER.invoke(app, ["pick"])

    assert "Traceback (most recent call last)" in result.stderr
    assert "pricer.errors.RunError: there is no run here yet" in result.stderr
    assert result.exit_code == 1


@pytest.mark.parametrize(
    ("error", "lines"),
    [
        (
            ZeroDivisionError("division by zero"),
            [
                "error: unexpected ZeroDivisionError: division by zero",
                " hint: PRICER_DEBUG=1 shows where; please report it",
            ],
        ),
        (
            OSError(28, "No space left on device", "runs/a/selection.json"),
            ["error: No space left on device: runs/a/selection.json", " hint: what was saved before is whole"],
        ),
        # Of another pipe than stdout, which ends a command quietly.
        (BrokenPipeError(32, "Broken pipe"), ["error: Broken pipe", " hint: what was saved before is whole"]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_unexpected_error_is_one_line_too(
    monkeypatch: pytest.MonkeyPatch, error: Exception, lines: list[str]
) -> None:
    def fail(*_: object) -> None:
        raise error

    monkeypatch.setattr("pricer.commands.pick.pick", fail)

    fails(Cli("pick"), *lines)


def test_ctrl_c_is_exit_code_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("pricer.commands.pick.pick", interrupted)

    assert Cli("pick").code == 130


def test_a_dry_run_of_the_quickstart() -> None:
    result = Cli("train", "--dry-run", "--set", "train.epochs=2", "--set", "train.batch_size=50")

    # 5,013 training items / 50 = 100.3: 101 steps an epoch.
    lines = result.out.splitlines()
    assert lines[0] == "training items    5,013"
    assert lines[1] == "validation items  618: an error's 95 % interval is ± $27 at most"
    assert lines[3:5] == ["optimizer steps   202 (101 an epoch)", "batch             50 items"]
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("size", "micro_batch", "batch"),
    [
        (16, 4, "16 = 2 processes x 2 parts x 4 items"),
        (16, 8, "16 = 2 processes x 8 items"),
        (16, "auto", "16 = 2 processes x 8 items"),
        (16, 3, "16 = 2 processes x 8 items in parts of 3"),
    ],
)
def test_a_dry_run_shows_how_processes_share_a_batch(size: int, micro_batch: int | str, batch: str) -> None:
    settings = ["--set", f"train.batch_size={size}", "--set", f"train.micro_batch={micro_batch}"]

    lines = Cli("train", "--dry-run", "--processes", "2", *settings).out.splitlines()

    assert [line.split(maxsplit=1)[1] for line in lines if line.startswith("batch ")] == [batch]


def test_a_dry_run_refuses_a_batch_that_processes_cannot_share() -> None:
    result = Cli("train", "--dry-run", "--processes", "4", "--set", "train.batch_size=10")

    assert result.err.splitlines()[-2:] == [
        "error: train.batch_size is 10, which 4 processes cannot share equally",
        " hint: --set train.batch_size=8 or --set train.batch_size=12",
    ]


def test_a_dry_run_counts_what_a_rule_leaves_out() -> None:
    rows = [json.dumps({"description": f"A lamp of {n} watts", "price": 10 + n}) for n in range(60)]

    result = Cli("train", "--dry-run", "--set", f"data.source={write('items.jsonl', *rows)}", *LIMIT)

    # Prices from 60 to 69 are above 59.
    assert "left out: 10 of 60 rows (above max_price 10)" in result.err


def test_a_dry_run_says_what_auto_stands_for_and_why() -> None:
    result = Cli("train", "--dry-run", "--set", f"data.source={write('items.jsonl', *GOOD)}")

    shown = dict(line.split(maxsplit=1) for line in result.out.split("settings that are auto:\n")[1].splitlines())
    assert shown["train.learning_rate"] == "0.002   the base has 2.2 M parameters, and smaller bases need more"
    assert re.fullmatch(r"0\.2 +\d+ items give an error's 95 % interval of at most ± \$\d+", shown["data.val_fraction"])
    assert shown.keys() >= {"prompt.max_length", "train.epochs", "train.batch_size", "train.checkpoint_every"}
    assert "validation items cannot tell checkpoints apart, 100 are a minimum: set a larger data" in result.err


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        (["data.val_fraction=0"], "error: the val split of items.jsonl is empty: data.val_fraction is 0"),
        (
            ["prompt.price_format=padded", "prompt.price_width=1"],
            "error: prompt.price_width is 1, the dearest training item costs 68",
        ),
        (["prompt.max_length=9"], "error: prompt.max_length is 9: the question and the price alone take "),
    ],
)
def test_a_dry_run_refuses_what_training_refuses(settings: list[str], problem: str) -> None:
    write("items.jsonl", *GOOD)
    options = [part for setting in ("data.source=items.jsonl", *settings) for part in ("--set", setting)]

    planned, trained = Cli("train", "--dry-run", *options), Cli("train", *options)

    assert planned.err.startswith(problem)
    assert (planned.code, planned.err) == (trained.code, trained.err)


def test_a_price_without_end_is_refused_even_if_the_length_is_auto() -> None:
    write("items.jsonl", *GOOD, *[json.dumps({"description": f"A star {n}", "price": 1e300}) for n in range(40)])

    fails(
        Cli("train", "--dry-run", "--set", "data.source=items.jsonl"),
        "error: the dearest training item costs 1e+300, which takes 302 tokens to write",
        " hint: data.max_price leaves out what cannot be a price",
    )


def llama_3b() -> Path:
    """The config of Llama 3.2 3B with a tokenizer, and without weights."""
    folder = Path("llama-3.2-3b")
    shutil.copytree(Path(__file__).parent / "bases" / folder.name, folder)
    for file in (ASSETS / "base").glob("tokenizer*.json"):
        shutil.copy(file, folder)
    return folder.resolve()


def test_a_dry_run_for_a_gpu_estimates_its_memory() -> None:
    result = Cli("train", "--dry-run", "--gpu", "T4", "--set", f"model.base={llama_3b()}", *T4_RECIPE)

    # A T4 has no bfloat16. 1.26 GB of activations are 28 x 2 x 3072 x 4096 of inputs and 135,528 x 4096 of one layer.
    assert result.out.splitlines()[-11:] == [
        "",
        "memory on t4, estimated, 32 x 128 tokens in one forward pass:",
        "                           activations kept       checkpointing",
        "  base                              2.24 GB             2.24 GB",
        "  adapter and gradients             0.11 GB             0.07 GB",
        "  optimizer                         0.15 GB             0.15 GB",
        "  activations                      15.54 GB             1.26 GB",
        "  transients                        0.33 GB             0.23 GB",
        "  CUDA                              1.00 GB             1.00 GB",
        "  sum, of 15.78 GB          19.37 GB (123%)       4.95 GB (31%)",
        "  micro-batch that fits            16 of 32            32 of 32",
    ]
    assert "as nf4/float16" in result.out


def test_a_dry_run_says_what_is_dequantized_and_what_is_paged() -> None:
    paged = ("--set", "train.optimizer=paged_adamw_32bit")

    result = Cli("train", "--dry-run", "--gpu", "a100-40", "--set", f"model.base={llama_3b()}", *T4_RECIPE, *paged)

    # 28 x 3072 x (2 x 3072 + 2 x 1024 + 3 x 8192) weights of 2 bytes are 5.64 GB, a seventh of what is free, and all
    # 3,212,749,824 are 6.43. Any optimizer has two numbers of 4 bytes for each of 18,350,080.
    assert result.out.splitlines()[-8:-5] == [
        "  base, dequantized                 6.43 GB             6.43 GB",
        "  adapter and gradients             0.11 GB             0.07 GB",
        "  optimizer, paged                  0.15 GB             0.15 GB",
    ]


def test_a_dry_run_without_a_gpu_says_how_to_name_one() -> None:
    result = Cli("train", "--dry-run", "--set", "model.device=cpu")

    assert "memory" not in result.out
    assert result.err == "memory: --gpu NAME estimates what training takes of a GPU, for instance --gpu a100-40\n"


def test_a_gpu_that_is_not_known() -> None:
    fails(
        Cli("train", "--dry-run", "--gpu", "t5"),
        "error: there is no GPU known as t5",
        " hint: known by name: t4, v100-16, v100-32, rtx-16, rtx-24, rtx-32, l4, a10, l40s, a100-40, a100-80, h100, "
        "h200",
    )


LIMIT = ["--set", "data.max_price=59"]
T4_RECIPE = [
    option
    for setting in (
        "train.batch_size=32",
        "prompt.max_length=128",
        "adapter.r=32",
        "adapter.dropout=0.1",
        "adapter.target_modules=[q_proj, k_proj, v_proj, o_proj]",
    )
    for option in ("--set", setting)
]
SMALL = [
    option
    for setting in (
        "data.train_limit=32",
        "data.val_limit=6",
        "data.test_limit=6",
        "adapter.r=4",
        "train.epochs=1",
        "train.batch_size=16",
        "train.checkpoint_every=1",
        "train.val_items=4",
    )
    for option in ("--set", setting)
]


def test_train_eval_pick_and_the_number_to_publish() -> None:
    trained = Cli("train", *SMALL)
    assert (trained.code, trained.out) == (0, "quickstart: 2 checkpoints in runs/quickstart/checkpoints\n")
    assert "step-000001  epoch 0.50  val loss " in trained.err

    scored = Cli("eval", "--all-checkpoints", "--json")
    record = json.loads(scored.out)
    assert [e["candidate"]["name"] for e in record["evaluations"]] == [
        "train median",
        "tf-idf + ridge",
        "base embeddings + ridge",
        "untuned base",
        "step-000001",
        "step-000002",
    ]
    assert record["n"] == 6

    table = Cli("eval", "--all-checkpoints").out
    assert "quickstart: 6 items of the val split, by the median" in table
    assert [line.split() for line in table.splitlines() if line.split()[1:3] == ["greedy", "mode"]] == [
        ["checkpoint", "greedy", "mode", "mean", "median"]
    ]
    assert "\x1b" not in table

    priced = Cli("predict", "A 486 PC of 33 MHz")
    assert (priced.code, priced.out.count("\n")) == (0, 1)
    assert re.fullmatch(r"\$[\d,]+  80 %: \$[\d,]+ to \$[\d,]+\n", priced.out) or priced.out.startswith("no price")
    assert "no best checkpoint of quickstart has been picked yet: this is the last one, step-000002" in priced.err
    correction = "" if priced.out.startswith("no price") else "; the interval is corrected on 6 validation items"
    assert priced.err.splitlines()[-1] == f"median of the model's distribution, step-000002 of quickstart{correction}"

    picked = Cli("pick")
    assert picked.code == 0
    assert "quickstart: ranking by mae" in picked.out
    assert picked.err.splitlines()[-1] == "next, for the number to publish: pricer pick --confirm --run quickstart"
    shown = json.loads(Cli("pick", "--json").out)
    assert "confirmation" not in shown
    best = shown["candidate"]
    assert f"best: step {best['step']} ({best['id'][:7]}), $" in picked.out

    confirmed = Cli("pick", "--confirm")
    assert confirmed.code == 0
    assert re.match(
        r"confirmed: MAE \$[\d,.]+ ± [\d,.]+ on 6 test items; validation said", confirmed.out.splitlines()[-1]
    )
    assert "next, for the number to publish" not in confirmed.err
    again = json.loads(Cli("pick", "--confirm", "--json").out)["confirmation"]
    assert (again["candidate"]["id"], again["metric"]["n"], again["look"], again["before"]) == (best["id"], 6, 1, [])

    final = json.loads(Cli("eval", "--checkpoint", "best", "--split", "test", "--json").out)
    assert final["evaluations"][-1]["candidate"]["id"] == best["id"]
    assert final["evaluations"][-1]["spec"]["split"] == Split.TEST.value

    write("lines.jsonl", '{"id": "x7", "description": "A 486 PC"}', "", '"A Pentium PC with 16 MB"')
    many = Cli("predict", "--file", "lines.jsonl", "--json")
    first, second = [json.loads(line) for line in many.out.splitlines()]
    assert (first["id"], second["id"]) == ("x7", "2")
    assert first["estimator"] == "median"
    assert first["corrected_by"] == (first["interval_80"] and {**first["corrected_by"], "category": None, "n": 6})
    outer, inner = first["raw_interval_95"], first["raw_interval_80"]
    assert outer[0] <= inner[0] <= inner[1] <= outer[1]
    assert (first["interval_80"] is None) == (first["price"] is None)
    piped = RUNNER.invoke(app, ["predict", "--json"], input=Path("lines.jsonl").read_text())
    assert piped.stdout == many.out
    write("bad.jsonl", '"A 486 PC"', '{"description": ""}')
    fails(Cli("predict", "--file", "bad.jsonl"), "error: description is empty (bad.jsonl, line 2)")


@pytest.mark.parametrize(("words", "expected"), [("pricer ev", ["eval"]), ("pricer eval --sp", ["--split"])])
def test_the_tab_key_completes_commands_and_options(words: str, expected: list[str]) -> None:
    environment = {"_PRICER_COMPLETE": "complete_bash", "COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
    command = Path(sys.executable).parent / "pricer"

    shown = subprocess.run(
        [str(command)], capture_output=True, text=True, env={**os.environ, **environment}, check=True
    )

    assert shown.stdout.split() == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, "expandable_segments:True"),
        ({"PYTORCH_ALLOC_CONF": "max_split_size_mb:128"}, "max_split_size_mb:128"),
        ({"PYTORCH_CUDA_ALLOC_CONF": "max_split_size_mb:128"}, None),  # its old name
    ],
)
def test_torchs_gpu_allocator_grows_its_segments_unless_it_is_told_otherwise(
    given: dict[str, str], expected: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(name, "")  # so that what the command sets is taken back
        monkeypatch.delenv(name)
    for name, value in given.items():
        monkeypatch.setenv(name, value)

    Cli("runs")

    assert os.environ.get("PYTORCH_ALLOC_CONF") == expected


def started(
    *arguments: str, stdout: int = subprocess.PIPE, environment: dict[str, str] | None = None
) -> subprocess.CompletedProcess[bytes]:
    """The command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "pricer", *arguments],
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, **(environment or {})},
        check=False,
    )


ASCII = {"PYTHONIOENCODING": "ascii"}
POSIX = {"LC_ALL": "POSIX", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}


@pytest.mark.parametrize("environment", [ASCII, POSIX])
def test_what_an_encoding_does_not_have_is_replaced(environment: dict[str, str]) -> None:
    code = """
import sys
from pricer import cli
from pricer.commands import doctor
from pricer.core.machine_checks import Finding

doctor.CHECKS = (doctor.Check("GPU", lambda: [Finding("GPU", "warning", "none", "buy one")]),)
sys.argv[1:] = ["doctor"]
cli.main()
"""

    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, **environment}, check=False
    )

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == b"GPU            warning  none ? buy one\ntraining can work here\n"


def test_json_says_everything_in_ascii_too() -> None:
    code = "from pricer.views import terminal; terminal.record({'name': 'Lämpchen'})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, env={**os.environ, **ASCII}, text=True, check=True
    )

    assert json.loads(done.stdout) == {"name": "Lämpchen"}


@pytest.mark.parametrize("arguments", [["--help"], ["runs", "--json"], ["runs"]])
def test_a_reader_that_goes_away_ends_a_command_quietly(arguments: list[str]) -> None:
    write_json(Path("runs/early/run.json"), {"started": "2000", "finished": None})
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = started(*arguments, stdout=writer)
    finally:
        os.close(writer)

    # 128 + 13, as of a program that SIGPIPE ended
    assert (done.returncode, done.stderr) == (141, b"")


def test_an_endpoint_that_is_no_address_is_named() -> None:
    done = started("train", environment={"HF_ENDPOINT": "http://[::1"})

    assert done.returncode == 1
    assert done.stderr.decode().splitlines() == [
        "error: HF_ENDPOINT=http://[::1 is no address: Invalid IPv6 URL",
        " hint: unset HF_ENDPOINT, or set it to one like https://huggingface.co",
    ]


def test_a_system_without_file_locks_is_told_so_in_one_line() -> None:
    code = "import sys; sys.modules['fcntl'] = None; from pricer.cli import main; main()"  # as on Windows

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: pricer runs on Linux and macOS; on Windows use WSL\n"
