"""How a command ends: one line and an exit code for each failure, and a quiet end if nobody reads its output."""

import logging
import os
import select
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import typer

# The exit code of a program that the signal SIGPIPE ended.
OUTPUT_CLOSED = 128 + 13

# Defaults for variables that torch and trl read when they are imported. A value that the user has set wins.
_ENVIRONMENT = {
    # torch's threads wait for each other by spinning, 300,000 times by default. If another process uses the same cores,
    # this at least halves the speed (EXPERIMENTS.md).
    "GOMP_SPINCOUNT": "1000",
    # Batches differ in length and leave gaps in the memory of torch's GPU allocator that no other batch fits into.
    "PYTORCH_ALLOC_CONF": "expandable_segments:True",
    # trl reports every training to its authors.
    "HF_HUB_DISABLE_TELEMETRY": "1",
}


@contextmanager
def exit_codes() -> Iterator[None]:
    """Turn every failure into one line with a hint, and an exit code. PRICER_DEBUG=1 also shows the traceback.

    This decorator also prepares the process for a command: it sets the environment variables that libraries read when
    they are imported, and silences warnings.
    """
    debug = os.environ.get("PRICER_DEBUG") == "1"
    for name, value in _ENVIRONMENT.items():
        if name != "PYTORCH_ALLOC_CONF" or "PYTORCH_CUDA_ALLOC_CONF" not in os.environ:  # its old name
            os.environ.setdefault(name, value)
    if not debug:
        # A user cannot fix the warnings of libraries. The tests treat every warning as an error.
        warnings.simplefilter("ignore")
        logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    try:
        yield
        for stream in (sys.stdout, sys.stderr):
            stream.flush()  # a closed pipe or a full disk shows here
    except (typer.Exit, typer.BadParameter):
        raise
    except BrokenPipeError as failure:
        # The pipe may also be a connection to the Hub, and then there is an error to report.
        raise typer.Exit(OUTPUT_CLOSED if output_is_closed() else _report(failure)) from None
    except (Exception, KeyboardInterrupt) as failure:
        if debug:
            from pricer.views import terminal

            terminal.note(traceback.format_exc())
        raise typer.Exit(_report(failure)) from None


def output_is_closed() -> bool:
    """Whether stdout or stderr is a pipe whose reader, for example `head`, has closed it.

    A closed stream is redirected to /dev/null.
    """
    closed = False
    for number in (1, 2):
        pipe = select.poll()
        pipe.register(number, 0)
        if any(event & select.POLLERR for _, event in pipe.poll(0)):
            # Python flushes both streams at exit, and would report an error for a closed one.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
            closed = True
    return closed


def _report(failure: BaseException) -> int:
    """Say what went wrong, and return the exit code."""
    from pricer.errors import Interrupted, PricerError, SaidElsewhere, first_line
    from pricer.redaction import endpoint_problem
    from pricer.views import terminal

    match failure:
        case KeyboardInterrupt():
            terminal.note("interrupted; what was saved before is whole")
            return 130
        case SaidElsewhere():
            return 1
        case Interrupted():
            terminal.note(f"{failure.message}\nto continue: {failure.hint}")
            return 130
        case ValueError() if problem := endpoint_problem():
            terminal.error(PricerError(*problem))
        case PricerError():
            terminal.error(failure)
        case OSError():
            where = f": {failure.filename}" if failure.filename else ""
            terminal.error(PricerError(f"{failure.strerror or failure}{where}", "what was saved before is whole"))
        case _:
            what = f"unexpected {type(failure).__name__}: {first_line(failure)}"
            terminal.error(PricerError(what, "PRICER_DEBUG=1 shows where; please report it"))
    return 1
