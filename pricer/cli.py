"""The command line: parse, call one command, show what it returned, exit with its code."""

import importlib.util
import io
import logging
import os
import select
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

import pricer
from pricer.core.metrics import choosing_metrics

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,  # rich's help costs a quarter of a second
    pretty_exceptions_enable=False,
    help="Fine-tune a language model to price products, and find its best checkpoint by measurement.",
)


class SplitName(StrEnum):
    """The splits that can be evaluated."""

    val = "val"
    test = "test"


class CandidatesName(StrEnum):
    """What can be chosen from."""

    checkpoints = "checkpoints"
    soup = "soup"


def _metric_name(name: str) -> str:
    # An enum made from the table would be nothing that a type checker knows.
    if name not in choosing_metrics():
        raise typer.BadParameter(f"{name!r} is not one of {', '.join(map(repr, choosing_metrics()))}.")
    return name


RepoOption = Annotated[
    str | None,
    typer.Option("--repo", metavar="USER/NAME", help="The run that this Hub repository holds."),
]
RunOption = Annotated[str | None, typer.Option("--run", metavar="NAME", help="The run. Default: the newest one.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")]


@app.callback(invoke_without_command=True)
def _options(version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False) -> None:
    if version:
        typer.echo(f"pricer {pricer.__version__}")
        raise typer.Exit


@app.command()
def train(
    config: Annotated[
        str, typer.Argument(help="A YAML file, or the name of one that comes along.", show_default=True)
    ] = "quickstart",
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override a setting: --set train.epochs=2. Repeatable."),
    ] = None,
    run: Annotated[
        str | None, typer.Option("--run", metavar="NAME", help="Name of the run. Default: after the config.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with an interrupted run (the newest one, or --run) as it was.")
    ] = False,
    repo: Annotated[
        str | None,
        typer.Option(
            "--repo",
            metavar="USER/NAME",
            help="Put checkpoints into this Hub repository; with --resume, go on with the run that did.",
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show steps, checkpoints, sizes and upload, and train nothing.")
    ] = False,
    gpu: Annotated[
        str | None,
        typer.Option("--gpu", metavar="NAME", help="With --dry-run: estimate the memory on t4, a100-40, h100, …"),
    ] = None,
) -> None:
    """Fine-tune a base with QLoRA and keep a checkpoint every N steps."""
    with _errors():
        if resume and (config != "quickstart" or override or dry_run):
            raise typer.BadParameter(
                "a run goes on with its own config: give --run NAME and nothing else", param_hint="--resume"
            )
        if gpu is not None and not dry_run:
            raise typer.BadParameter("a run takes the GPU that is there; add --dry-run", param_hint="--gpu")
        from pricer.config_file import config_path, load_config
        from pricer.views import terminal

        to_repo = [f"hub.repo={repo}"] if repo and not resume else []
        settings = None if resume else load_config(config_path(config), [*(override or []), *to_repo])
        if settings and dry_run:
            from pricer.commands.parts.plan import find_gpu, plan

            terminal.planned(plan(settings, find_gpu(gpu) if gpu is not None else None))
            return
        with terminal.Watcher() as watcher:
            from pricer.commands import train as command

            if settings is None:
                result = command.resume(run, watcher) if repo is None else command.resume_repo(repo, run, watcher)
            else:
                result = command.start(settings, Path(config).stem, run, watcher)
        terminal.trained(result)


@app.command(name="eval")
def evaluate(
    run: RunOption = None,
    all_checkpoints: Annotated[bool, typer.Option("--all-checkpoints", help="Score every checkpoint.")] = False,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="STEP|REVISION|best|last", help="Score one. Default: last."),
    ] = None,
    split: Annotated[SplitName, typer.Option("--split", help="Held-out items to score on.")] = SplitName.val,
    limit: Annotated[
        int | None, typer.Option("--limit", metavar="N", min=1, help="Only the first N items. Default: all.")
    ] = None,
    repo: RepoOption = None,
    config: Annotated[
        str | None,
        typer.Option("--config", metavar="CONFIG", help="With --repo: data and prompt. Default: the repository's own."),
    ] = None,
    override: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="With --repo: override a setting. Repeatable."),
    ] = None,
    race: Annotated[
        bool,
        typer.Option("--race", help="With --all-checkpoints, on val: stop scoring those that cannot win any more."),
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Score checkpoints and baselines on held-out items."""
    with _errors():
        _refuse_both(run, repo)
        if repo is None and (config or override):
            raise typer.BadParameter("a run has its own config; with --repo there is a choice", param_hint="--config")
        if all_checkpoints and checkpoint is not None:
            raise typer.BadParameter("give --all-checkpoints or --checkpoint, not both", param_hint="--checkpoint")
        if race and not all_checkpoints:
            raise typer.BadParameter("a race takes several: give --all-checkpoints, too", param_hint="--race")
        if race and split is not SplitName.val:
            raise typer.BadParameter("a race chooses, which is what --split val is for", param_hint="--race")
        from pricer.core.items import Split
        from pricer.views import terminal

        which = "all" if all_checkpoints else checkpoint or "last"
        with terminal.Watcher() as watcher:
            from pricer.commands.evaluate import evaluate_run, race_run
            from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
            from pricer.config_file import config_path
            from pricer.stores.runs import find_run

            given = GivenConfig(config_path(config) if config else None, override or [])
            source = find_run(run, note=watcher.note) if repo is None else open_hub_run(repo, given, watcher.note)
            if race:
                result = race_run(source, limit, watcher)
            else:
                result = evaluate_run(source, which, Split(split.value), limit, watcher)
        if all_checkpoints and not as_json:
            from pricer.views import terminal_chart

            terminal_chart.show(result.evaluations)
        terminal.evaluated(result, as_json=as_json)
        if result.breakdown and not as_json:
            from pricer.views import terminal_breakdown

            terminal_breakdown.show(result.evaluations[-1].name, result.breakdown)
        from pricer.commands.parts.wandb_sending import send

        sys.stdout.flush()  # what follows may wait for W&B
        send(result.run, result.report, terminal.note, "the evaluation stands")


@app.command()
def pick(
    run: RunOption = None,
    repo: RepoOption = None,
    metric: Annotated[
        str,
        typer.Option(
            "--metric", metavar=f"<{'|'.join(choosing_metrics())}>", callback=_metric_name, help="What best means."
        ),
    ] = "mae",
    candidates: Annotated[
        CandidatesName,
        typer.Option("--candidates", help="The checkpoints; or with averages of the best one's neighbours (soup)."),
    ] = CandidatesName.checkpoints,
    confirm: Annotated[
        bool, typer.Option("--confirm", help="Score the pick on the test split, once: the number to publish.")
    ] = False,
    as_json: JsonOption = False,
) -> None:
    """Choose the checkpoint with the best validation result."""
    with _errors():
        _refuse_both(run, repo)
        # Read when numpy is imported. Its products are short: two threads gain little, and when something else runs on
        # these cores they wait for each other so long that 1 s became 25 s.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
        from pricer.commands.parts.wandb_report import pick_report
        from pricer.commands.parts.wandb_sending import send
        from pricer.commands.pick import pick as command
        from pricer.views import terminal, terminal_pick

        if candidates is CandidatesName.soup:
            with terminal.Watcher() as watcher:
                from functools import partial

                from pricer.commands.parts.soups import score_soups

                soups = partial(score_soups, watcher=watcher)
                result = command(run, metric, repo, soups, watcher.note)
        else:
            result = command(run, metric, repo)
        if not as_json:
            from pricer.views import terminal_chart

            terminal_chart.show_pick(result)
            terminal_pick.picked(result, as_json=False)
        confirmed, problem = None, result.problem
        if confirm:
            sys.stdout.flush()  # scoring takes a while
            with terminal.Watcher() as watcher:
                from pricer.commands.parts.confirmation import confirm as score

                confirmed = score(result, watcher)
            problem = confirmed.problem
        if as_json:
            terminal_pick.picked(result, as_json=True, confirmed=confirmed)
        elif confirmed:
            terminal_pick.confirmation(result, confirmed)
        else:
            terminal_pick.next_step(result)
        sys.stdout.flush()  # what follows may wait for W&B
        send(result.run, pick_report(result.selection), terminal.note, "the pick stands")
        if problem:
            raise problem


@app.command()
def runs(as_json: JsonOption = False) -> None:
    """List the runs here: how far each is, what is scored, and its best error."""
    with _errors():
        from pricer.commands.runs import overviews
        from pricer.views import terminal_runs

        terminal_runs.show(overviews(), as_json=as_json)


@app.command()
def predict(
    text: Annotated[
        str | None, typer.Argument(metavar="[TEXT]", help="A description. Default: JSON lines on standard input.")
    ] = None,
    file: Annotated[
        Path | None,
        typer.Option("--file", metavar="FILE", help="A text in each line, or in a .jsonl file an object or a string."),
    ] = None,
    run: RunOption = None,
    repo: RepoOption = None,
    checkpoint: Annotated[
        str | None,
        typer.Option("--checkpoint", metavar="STEP|REVISION|best|last", help="Default: best, or last if none is."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A line of JSON for each text on stdout.")] = False,
) -> None:
    """Price a description, or many, each with an 80 % interval."""
    with _errors():
        _refuse_both(run, repo)
        if text is not None and file is not None:
            raise typer.BadParameter("give a text or --file, not both", param_hint="--file")
        if text is None and file is None and sys.stdin.isatty():
            raise typer.BadParameter("give a text, --file, or JSON lines on standard input", param_hint="TEXT")
        from pricer.config import DataConfig
        from pricer.core.items import Item
        from pricer.data.texts import one_text, read_lines_of, read_texts
        from pricer.views import terminal

        def read(config: DataConfig) -> list[Item]:
            if text is not None:
                return [one_text(text)]
            return read_texts(file, config) if file else read_lines_of(sys.stdin.buffer.read(), config)

        with terminal.Watcher() as watcher:
            from pricer.commands.parts.hub_runs import GivenConfig, open_hub_run
            from pricer.commands.predict import predict as command
            from pricer.stores.runs import find_run

            given = GivenConfig(None, [])
            source = find_run(run, note=watcher.note) if repo is None else open_hub_run(repo, given, watcher.note)
            result = command(source, checkpoint, read, watcher)
        terminal.predicted(result, as_json=as_json)


@app.command()
def report(
    runs: Annotated[
        list[str] | None, typer.Argument(metavar="[RUN]...", help="Several runs over each other.", show_default=False)
    ] = None,
    run: RunOption = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", metavar="FILE", help="Default: report.html of the run, or runs/comparison.html."),
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="The main charts as pictures, too, beside it.")] = False,
) -> None:
    """Write what is known of a run, or of several, as one page of charts and tables."""
    with _errors():
        if runs and run is not None:
            raise typer.BadParameter("name the runs, or give --run, not both", param_hint="--run")
        names = runs or ([run] if run is not None else [])
        if len(set(names)) < len(names):
            raise typer.BadParameter("name each run once", param_hint="RUN")
        from pricer.commands.report import report as command
        from pricer.views import terminal

        result = command(names, output, terminal.note, pictures=png)
        terminal.reported(result)
        if result.problem:
            raise result.problem


@app.command()
def push(run: RunOption = None) -> None:
    """Deliver to the Hub what training could not."""
    with _errors():
        from pricer.views import terminal

        with terminal.Watcher() as watcher:
            from pricer.commands.push import push as command

            result = command(run, watcher)
        terminal.pushed(result)


@app.command()
def doctor(as_json: JsonOption = False) -> None:
    """Check whether this machine can train: versions, GPU, memory, disk, Hub, W&B, clock."""
    with _errors():
        from pricer.commands.doctor import examine
        from pricer.views import terminal_doctor

        if not terminal_doctor.show(examine(), as_json=as_json):
            raise typer.Exit(1)


def _refuse_both(run: str | None, repo: str | None) -> None:
    if run is not None and repo is not None:
        raise typer.BadParameter("give --run or --repo, not both", param_hint="--repo")


@contextmanager
def _errors() -> Iterator[None]:
    """Every failure as one line with a hint, and its exit code; a traceback only with PRICER_DEBUG=1."""
    debug = os.environ.get("PRICER_DEBUG") == "1"
    # Read when torch is imported. Its threads wait for each other by spinning, 300,000 times around if nothing is said,
    # which costs half of the speed or more when something else runs on these cores (EXPERIMENTS.md).
    os.environ.setdefault("GOMP_SPINCOUNT", "1000")
    # So is this, by torch's GPU allocator: batches of ever other lengths leave gaps that nothing fits into otherwise.
    if "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its old name
        os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")
    # trl tells its makers of every training otherwise.
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    if not debug:
        # What libraries deprecate is nothing a user can mend; the tests run with every warning an error.
        warnings.simplefilter("ignore")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # what cannot be shown is met here
    except (typer.Exit, typer.BadParameter):
        raise
    except BrokenPipeError as failure:
        # Of the Hub's connections and other pipes there is something to say.
        raise typer.Exit(_NOBODY_READS if _nobody_reads() else _explain(failure)) from None
    except (Exception, KeyboardInterrupt) as failure:
        if debug:
            from pricer.views import terminal

            terminal.note(traceback.format_exc())
        raise typer.Exit(_explain(failure)) from None


def _explain(failure: BaseException) -> int:
    """Say what went wrong, and return the exit code."""
    from pricer.errors import Interrupted, PricerError
    from pricer.redaction import endpoint_problem
    from pricer.views import terminal

    match failure:
        case ValueError() if problem := endpoint_problem():
            terminal.error(PricerError(*problem))
        case KeyboardInterrupt():
            terminal.note("interrupted; what was saved before is whole")
            return 130
        case Interrupted():
            terminal.note(f"{failure.message}\ngo on: {failure.hint}")
            return 130
        case PricerError():
            terminal.error(failure)
        case OSError():
            where = f": {failure.filename}" if failure.filename else ""
            terminal.error(PricerError(f"{failure.strerror or failure}{where}", "what was saved before is whole"))
        case _:
            what = (str(failure).strip() or "no message").splitlines()[0]
            terminal.error(
                PricerError(
                    f"unexpected {type(failure).__name__}: {what}", "PRICER_DEBUG=1 shows where; please report it"
                )
            )
    return 1


# As of a program that the signal SIGPIPE ended.
_NOBODY_READS = 128 + 13


def _nobody_reads() -> bool:
    """Whether stdout or stderr is a pipe that its reader, `head` for one, has closed; then nothing is written there any
    more.
    """
    closed = False
    for number in (1, 2):
        pipe = select.poll()
        pipe.register(number, 0)
        if any(event & select.POLLERR for _, event in pipe.poll(0)):
            # Python writes what is left at its end, and would say that it cannot.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            closed = True
    return closed


def main() -> None:
    """The entry point of the `pricer` command."""
    if importlib.util.find_spec("fcntl") is None:  # file locks, which Windows does not have
        sys.exit("error: pricer runs on Linux and macOS; on Windows use WSL")
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an arrow in ASCII is no reason to fail
    try:
        app()
    except SystemExit as ended:
        if ended.code and _nobody_reads():  # met outside of the commands, as by --help
            sys.exit(_NOBODY_READS)
        raise
