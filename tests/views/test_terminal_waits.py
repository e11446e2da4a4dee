"""Waits for the Hub on a terminal, in a log, and at the end of training."""

import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from pricer.commands.parts.uploads import Uploads
from pricer.config import HubConfig, RunConfig
from pricer.stores.runs import Run, create_run
from pricer.views.terminal_progress import Watcher
from pricer.waits import Wait, announced
from tests.builders import a_saved_checkpoint
from tests.loopback_hub import Fault, LoopbackHub
from tests.processes import start

BUSY = "the Hub answers 503 for ann/prices: Service Unavailable"
LATER = "pricer push --run quickstart"
DEADLINE = 60.0  # seconds, far more than any of it takes


def test_without_a_terminal_a_wait_is_a_line_and_many_are_no_flood(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    now = 0.0
    monkeypatch.setattr("pricer.views.terminal_progress.time.monotonic", lambda: now)
    said = []

    with Watcher():
        while now < 8 * 3600:  # a night, with a try each minute
            with announced(Wait(BUSY, 60.0)):
                if capsys.readouterr().err == f"{BUSY}; next try in 60 s\n":
                    said.append(now)
                now += 60.0

    # After a line the next is due in 15 s, then in 30, 60, 120, 240, 480 and 900 s.
    assert said[:8] == [0, 60, 120, 180, 300, 540, 1020, 1920]
    assert len(said) == 8 + (8 * 3600 - 60 - 1920) // 900


def test_after_a_quiet_time_waits_are_said_as_at_first(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    times = iter([0.0, 20.0, 2000.0, 2016.0, 2040.0])
    monkeypatch.setattr("pricer.views.terminal_progress.time.monotonic", lambda: next(times))

    with Watcher():
        for _ in range(5):
            with announced(Wait(BUSY, 1.0)):
                pass

    # The second interval is 30 s long. At 2,000 s it begins again with 15 s, and 2,040 is before 2,016 + 30.
    assert capsys.readouterr().err.splitlines() == [f"{BUSY}; next try in 1 s"] * 4


def test_at_the_end_of_training_the_next_wait_is_a_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("pricer.views.terminal_progress.time.monotonic", lambda: 0.0)
    with Watcher() as watcher:
        for _ in range(2):
            with announced(Wait(BUSY, 4.0)):
                pass
        watcher.uploading(0, 2, "step 5", LATER)
        with announced(Wait(BUSY, 8.0)):
            pass

    assert capsys.readouterr().err.splitlines() == [
        f"{BUSY}; next try in 4 s",
        f"uploading what is left: 2. Ctrl-C leaves it for later: {LATER}",
        f"{BUSY}; next try in 8 s",
    ]


def test_what_a_note_has_said_is_not_said_twice(capsys: pytest.CaptureFixture[str]) -> None:
    wait = Wait(BUSY, 4.0)

    with Watcher() as watcher:
        watcher.note(wait.text)
        with announced(wait):
            pass

    assert capsys.readouterr().err.splitlines() == [f"{BUSY}; next try in 4 s"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.2, "1 s"), (3.2, "4 s"), (119.0, "119 s"), (120.0, "2 min"), (3600.0, "60 min")]
)
def test_seconds_become_minutes_when_they_are_many(seconds: float, text: str) -> None:
    assert Wait(BUSY, seconds).text == f"{BUSY}; next try in {text}"


def a_waiting_run() -> Run:
    run = create_run(RunConfig(hub=HubConfig(repo="ann/prices")), "quickstart", None, {"repo": "ann/prices"})
    for step in (5, 10):
        Uploads(run, "ann/prices", print).put_checkpoint(a_saved_checkpoint(Path(f"out-{step}"), step)[0], step)
    return run


def read_until(read: Callable[[], str], text: str) -> str:
    shown, end = "", time.monotonic() + DEADLINE
    while text not in shown:
        assert time.monotonic() < end, shown
        shown += read()
    return shown


def read_to_the_end(terminal: int) -> str:
    """What a process writes until it ends. A terminal that nobody reads is full at some time, and blocks it."""
    shown = b""
    with suppress(OSError):  # how Linux says that nobody writes any more
        while text := os.read(terminal, 65_536):
            shown += text
    return shown.decode(errors="replace")


def test_a_terminal_counts_down_and_ctrl_c_leaves_the_rest_for_later(hub: LoopbackHub) -> None:
    hub.create("ann/prices")
    hub.faults.random(1.0, seed=0, kinds=[Fault.status(503, 7)], spare="no path has this")
    a_waiting_run()
    ours, theirs = pty.openpty()
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "150", "PYTHONUTF8": "1"}
    with subprocess.Popen([sys.executable, "-m", "pricer", "push"], stderr=theirs, env=environment) as process:
        os.close(theirs)
        shown = read_until(lambda: os.read(ours, 65_536).decode(errors="replace"), "next try in 5 s")
        process.send_signal(signal.SIGINT)
        shown += read_to_the_end(ours)
    os.close(ours)

    assert process.returncode == 130
    assert f"{BUSY}; next try in 7 s" in shown
    assert f"to continue: {LATER}" in shown
    assert "0/2 step 5" in shown
    assert f"Ctrl-C leaves the rest for later: {LATER}" in shown
    assert "stopped; 2 uploads are left, safe in runs/quickstart/outbox" in shown


def test_a_log_says_what_is_waited_for_and_how_to_leave(hub: LoopbackHub) -> None:
    hub.create("ann/prices")
    hub.faults.random(1.0, seed=0, kinds=[Fault.status(503)], spare="no path has this")
    a_waiting_run()

    with start("push") as process:
        assert process.stderr is not None
        lines = sorted(process.stderr.readline() for _ in range(2))
        process.send_signal(signal.SIGINT)
        end = process.stderr.readlines()[-2:]

    assert process.returncode == 130
    assert lines[0].startswith(f"{BUSY}; next try in ")
    assert lines[1] == f"uploading what is left: 2. Ctrl-C leaves it for later: {LATER}\n"
    assert end == ["stopped; 2 uploads are left, safe in runs/quickstart/outbox\n", f"to continue: {LATER}\n"]
