"""pricer commands in processes of their own, for tests that kill them or fill their disk."""

import os
import signal
import subprocess
import sys
from pathlib import Path


def options(**settings: object) -> list[str]:
    """`--set` options; in a name "__" stands for the dot: train__epochs."""
    return [part for name, value in settings.items() for part in ("--set", f"{name.replace('__', '.')}={value}")]


def start(*arguments: str, folder: str | os.PathLike[str] = ".") -> subprocess.Popen[str]:
    Path(folder).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pricer", *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=folder)


def run(*arguments: str, folder: str | os.PathLike[str] = ".") -> tuple[int, str]:
    """Run a command to its end; its exit code and stderr."""
    process = start(*arguments, folder=folder)
    _, errors = process.communicate(timeout=900)
    return process.returncode, errors


def finish(*arguments: str, folder: str | os.PathLike[str] = ".") -> None:
    """Run a command to its end, which must be a good one."""
    code, errors = run(*arguments, folder=folder)
    assert code == 0, errors


def kill_after(seconds: float, *arguments: str, folder: str | os.PathLike[str] = ".") -> tuple[int, str] | None:
    """Start a command and kill it: None; if it ended before that, its exit code and stderr."""
    process = start(*arguments, folder=folder)
    try:
        _, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    return process.returncode, errors
