"""The command line: parse, call one command, show what it returned, exit with its code."""

import importlib.util
import io
import os
import sys
from pathlib import Path
from typing import Annotated

import typer

import pricer
from pricer import cli_data, cli_eval, cli_runs
from pricer.cli_errors import OUTPUT_CLOSED, exit_codes, output_is_closed
from pricer.cli_options import JsonOption, RepoOption, RunOption, SetOption, make_option, refuse_if, refuse_run_and_repo
from pricer.core.metrics import choosing_metrics

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help costs a quarter of a second
    pretty_exceptions_enable=False,
    help="Fine-tune a language model to price products, and find its best checkpoint by measurement.",
)


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, make_option("--version", "Show the version.")] = False) -> None:
    if version:
        typer.echo(f"pricer {pricer.__version__}")
        raise typer.Exit


app.command()(cli_data.init)
app.command()(cli_data.data)
app.add_typer(cli_data.config_app, name="config")


@app.command()
@exit_codes()
def train(
    config: Annotated[
        str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a bundled one.")
    ] = "quickstart",
    override: SetOption = None,
    run: Annotated[str | None, make_option("--run NAME", "Name of the run. Default: after the config.")] = None,
    resume: Annotated[bool, make_option("--resume", "Continue the newest run, or --run, with its config.")] = False,
    repo: Annotated[str | None, make_option("--repo USER/NAME", "Push to it; with --resume, continue its run.")] = None,
    take_over: Annotated[
        bool,
        make_option("--take-over", "With --resume: take the run from a machine that is dead."),
    ] = False,
    dry_run: Annotated[bool, make_option("--dry-run", "Show steps, checkpoints and sizes; train nothing.")] = False,
    gpu: Annotated[str | None, make_option("--gpu NAME", "With --dry-run: estimate its memory. t4, h100, …")] = None,
    processes: Annotated[
        int | None, make_option("--processes N", "With --dry-run: plan for a launcher that starts N.", minimum=1)
    ] = None,
) -> None:
    """Fine-tune a base with QLoRA and keep a checkpoint every N steps."""
    from pricer.core.ranks import choose_gpu, read_ranks

    ranks = read_ranks(os.environ)
    if ranks.count > 1:  # before a library sees the GPUs of the other processes
        os.environ["CUDA_VISIBLE_DEVICES"] = choose_gpu(os.environ.get("CUDA_VISIBLE_DEVICES"), ranks)
    if ranks.rank and not dry_run:
        from pricer.commands.parts.several_processes import follow

        follow(ranks)
    if ranks.rank:
        return
    given = config != "quickstart" or bool(override) or dry_run
    refuse_if(resume and given, "--resume", "a run continues with its own config: give --run NAME and nothing else")
    refuse_if(take_over and not resume, "--take-over", "only a run that is resumed can be taken over: add --resume")
    refuse_if(gpu is not None and not dry_run, "--gpu", "a run takes the GPU that is there; add --dry-run")
    is_launch = processes is not None and not dry_run
    refuse_if(
        is_launch, "--processes", f"a launcher starts them: torchrun --nproc-per-node {processes} -m -- pricer train"
    )
    from pricer.config_file import config_path, load_config, parse_config
    from pricer.views import terminal_progress, terminal_tables

    overrides = [*(override or []), *([f"hub.repo={repo}"] if repo and not resume else [])]
    # The quickstart's settings are for its own data. Other data gets the defaults, which look at it.
    has_own_data = config == "quickstart" and any(given.startswith("data.source=") for given in overrides)
    stem = "run" if has_own_data else Path(config).stem
    settings = None
    if not resume:
        settings = parse_config(b"", "", overrides) if has_own_data else load_config(config_path(config), overrides)
    if settings and dry_run:
        from pricer.commands.parts.plan import plan as make_plan
        from pricer.core.gpus import find_gpu

        planned_gpu = find_gpu(gpu) if gpu is not None else None
        with terminal_progress.Watcher() as watcher:
            plan = make_plan(settings, planned_gpu, watcher.preparing, processes=processes or ranks.count)
        terminal_tables.planned(plan)
        return
    with terminal_progress.Watcher() as watcher:
        from pricer.commands import train as command

        if settings:
            result = command.start(settings, stem, run, watcher)
        elif repo is None:
            result = command.resume(run, watcher, take_over=take_over)
        else:
            result = command.resume_repo(repo, run, watcher, take_over=take_over)
    terminal_tables.trained(result)


app.command(name="eval")(cli_eval.evaluate)


app.command()(cli_runs.watch)


@app.command()
@exit_codes()
def pick(
    run: RunOption = None,
    repo: RepoOption = None,
    metric: Annotated[str, make_option(f"--metric <{'|'.join(choosing_metrics())}>", "What best means.")] = "mae",
    confirm: Annotated[bool, make_option("--confirm", "Also score the pick on the test split, once.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the checkpoint with the best validation result."""
    refuse_run_and_repo(run, repo)
    is_unknown = metric not in choosing_metrics()
    refuse_if(is_unknown, "--metric", f"{metric!r} is not one of {', '.join(choosing_metrics())}")
    # OpenBLAS reads this when numpy is imported. The matrix products here are short, so a second thread gains little.
    # When another process used the cores, waiting for each other slowed the threads from 1 s to 25 s.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    from pricer.commands import pick as command
    from pricer.commands.parts.wandb_report import pick_report, send
    from pricer.views import terminal, terminal_pick, terminal_progress

    with terminal_progress.Watcher() as watcher:
        result = command.pick(run, metric, repo, watcher.note)
    confirmed = None
    try:
        if confirm:
            with terminal_progress.Watcher() as watcher:
                confirmed = command.confirm(result, watcher)
    finally:  # a confirmation that fails or is interrupted does not cost the ranking
        if confirmed or not (confirm and as_json):
            terminal_pick.picked(result, as_json=as_json, confirmed=confirmed)
    if confirmed and not as_json:
        terminal_pick.confirmation(result, confirmed)
    elif not as_json:
        terminal_pick.next_step(result)
    sys.stdout.flush()  # W&B may take a while
    send(result.run, pick_report(result.selection), terminal.note, "the pick stands")
    if problem := (confirmed or result).problem:
        raise problem


app.command()(cli_runs.runs)


@app.command()
@exit_codes()
def predict(
    text: Annotated[str | None, typer.Argument(metavar="TEXT", help="A description. Default: standard input.")] = None,
    file: Annotated[
        Path | None, make_option("--file FILE", "A .csv, .jsonl or .parquet file, or one text a line.")
    ] = None,
    run: RunOption = None,
    repo: RepoOption = None,
    checkpoint: Annotated[
        str | None, make_option("--checkpoint STEP|ID|best|last", "Default: best, else last.")
    ] = None,
    as_json: Annotated[bool, make_option("--json", "Print one line of JSON for each text.")] = False,
) -> None:
    """Price one description or many, each with an 80 % interval."""
    refuse_run_and_repo(run, repo)
    refuse_if(text is not None and file is not None, "--file", "give a text or --file, not both")
    is_missing = text is None and file is None and sys.stdin.isatty()
    refuse_if(is_missing, "TEXT", "give a text, --file, or JSON lines on standard input")
    from pricer.data.texts import read_input
    from pricer.views import terminal_progress, terminal_tables

    with terminal_progress.Watcher() as watcher:
        from pricer.commands.parts.hub_runs import open_run
        from pricer.commands.predict import predict as command

        source = open_run(run, repo, watcher.note)
        result = command(source, checkpoint, lambda data: read_input(text, file, sys.stdin.buffer, data), watcher)
    terminal_tables.predicted(result, as_json=as_json)


app.command()(cli_runs.report)
app.command()(cli_runs.push)


@app.command()
@exit_codes()
def doctor(as_json: JsonOption = False) -> None:
    """Check whether this machine can train: versions, GPU, memory, disk, Hub, W&B, clock."""
    from pricer.commands.doctor import examine
    from pricer.views import terminal

    if not terminal.findings(examine(), as_json=as_json):
        raise typer.Exit(1)


def main() -> None:
    """The entry point of the `pricer` command."""
    if importlib.util.find_spec("fcntl") is None:  # file locks, which Windows does not have
        sys.exit("error: pricer runs on Linux and macOS; on Windows use WSL")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal that has only ASCII shows ? for an arrow
    try:
        app()
    except SystemExit as ended:
        if ended.code and output_is_closed():  # happens outside the commands, for example in --help
            sys.exit(OUTPUT_CLOSED)
        raise
