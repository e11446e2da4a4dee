"""W&B: what it records, that steps never go back, and that nothing it does stops a run."""

import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pricer.config import TrackingConfig
from pricer.stores import wandb
from pricer.stores.wandb import Report, Table, Tracker, TrackingLog, find_login
from tests.wandb_files import curve, session, sessions, table

FOLDER = Path("runs/mine")
SETTINGS = {"model": {"base": "builtin:base"}, "train": {"epochs": 3, "learning_rate": 0.0001}}
KEY = "0a1b2c3d4e" * 4
CLOSED = "http://127.0.0.1:9"  # the port of `discard`, where nobody listens


@pytest.fixture(autouse=True)
def no_service_outlives_a_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_SERVICE", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", CLOSED)
    yield
    assert services() == []


def services() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.name().startswith("wandb")]


def opened(mode: str, notes: list[str], run_id: str | None = None) -> Tracker:
    config = TrackingConfig.model_validate({"mode": mode, "project": "lamps"})
    return Tracker(config, settings=SETTINGS, folder=FOLDER, run_id=run_id, note=notes.append)


def training(step: int) -> dict[str, float | int | None]:
    return {
        "step": step,
        "epoch": step / 100,
        "loss": 10 / step,
        "learning_rate": 1e-4,
        "grad_norm": None if step == 10 else 0.3,
        "tokens_per_second": 5_000.0,
    }


def validation(step: int) -> dict[str, float | int | None]:
    return {"step": step, "epoch": step / 100, "val_mae": 40.0 + step}


class TestOffline:
    def test_a_run_that_goes_on_is_one_run_whose_steps_never_go_back(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        notes: list[str] = []
        tracker = opened("offline", notes)
        for record in (training(10), validation(10), training(20), training(30)):
            tracker.log(record, int(record["step"] or 0))
        tracker.finish()

        # Killed at step 30, which had no validation yet; the newest training state is that of step 10.
        again = opened("offline", notes, tracker.run_id)
        for record in (training(20), validation(20), training(30), validation(30), training(40)):
            again.log(record, int(record["step"] or 0))
        again.finish()

        assert notes == []
        paths = sorted(FOLDER.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
        first, second = map(session, paths)
        assert first.identity == second.identity == ("lamps", "mine", tracker.run_id)
        assert first.config == second.config == SETTINGS
        assert first.axes["*"] == second.axes["*"] == "step"
        rows = first.rows + second.rows
        assert [row["step"] for row in rows] == [10, 10, 20, 30, 20, 30, 40]
        assert [row["_step"] for row in rows] == [0, 1, 2, 3, 4, 5, 6]  # W&B's own count goes on too
        assert curve(rows, "loss") == [(10, 1.0), (20, 0.5), (30, 10 / 30), (40, 0.25)]
        assert curve(rows, "epoch") == [(10, 0.1), (20, 0.2), (30, 0.3), (40, 0.4)]
        assert curve(rows, "grad_norm") == [(20, 0.3), (30, 0.3), (40, 0.3)]
        assert curve(rows, "val_mae") == [(10, 50.0), (20, 60.0), (30, 70.0)]
        for name in ("learning_rate", "tokens_per_second"):
            assert [step for step, _ in curve(rows, name)] == [10, 20, 30, 40]
        # Neither the login nor the machine's name, command line or packages are in there.
        assert (first.host, second.host) == ("", "")
        assert not [path for path in paths if sys.executable.encode() in path.read_bytes()]
        written = [path for path in FOLDER.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not [path for path in written if KEY.encode() in path.read_bytes()]
        assert {path.name for path in written} == {
            "tracking.jsonl",
            f"run-{tracker.run_id}.wandb",
            "debug.log",
            "debug-internal.log",
        }

    def test_what_was_logged_outlives_a_kill(self) -> None:
        code = f"""
import os, pathlib, signal, time
from pricer.config import TrackingConfig
from pricer.stores.wandb import Tracker
folder = pathlib.Path("{FOLDER}")
tracker = Tracker(TrackingConfig(mode="offline"), settings={{}}, folder=folder, run_id="one",
                       note=print)
tracker.log({{"loss": 1.0}}, 10)
path = folder / "wandb/latest-run/run-one.wandb"
while not (path.exists() and b"loss" in path.read_bytes()):
    time.sleep(0.05)
os.kill(os.getpid(), signal.SIGKILL)
"""
        killed = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)
        assert (killed.returncode, killed.stdout) == (-signal.SIGKILL, b"")
        notes: list[str] = []

        tracker = opened("offline", notes, "one")
        tracker.log({"loss": 2.0}, 10)
        tracker.log({"loss": 3.0}, 20)
        tracker.finish()

        newest = max(FOLDER.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime)
        assert curve(session(newest).rows, "loss") == [(20, 3.0)]
        assert notes == []

    def test_auto_without_a_login_is_offline_and_says_so(self) -> None:
        notes: list[str] = []

        opened("auto", notes).finish()

        assert notes == [
            "not logged in to W&B: tracking offline; to upload it: wandb sync runs/mine/wandb/offline-run-*"
        ]
        assert len(list(FOLDER.glob("wandb/offline-run-*/*.wandb"))) == 1


POINTS = {step: {"eval/mae": 100.0 - step, "eval/no_price": 0.0} for step in (10, 20, 30)}
TABLE = Table("eval/predictions", 20, ("item", "price", "predicted"), (("a", 10.0, 12.0), ("b", 5.0, None)), "price",
              "predicted")  # fmt: skip
REPORT = Report("5bec", POINTS, {"eval/baseline/train median": 90.0}, TABLE)


class TestLogin:
    @pytest.mark.parametrize("key", [KEY, None])
    def test_whether_there_is_a_key_and_for_which_server(
        self, monkeypatch: pytest.MonkeyPatch, key: str | None
    ) -> None:
        monkeypatch.setenv("WANDB_BASE_URL", "http://ann:secret-word@127.0.0.1:9")
        if key:
            monkeypatch.setenv("WANDB_API_KEY", key)

        assert find_login() == (CLOSED, key is not None)


class TestReports:
    def test_they_are_drawn_over_the_steps_of_training_in_rows_that_go_on(self) -> None:
        notes: list[str] = []
        tracker = opened("offline", notes, "one")
        for step in (10, 20, 30):
            tracker.log(training(step), step)
        tracker.finish()

        again = opened("offline", notes, "one")
        again.send(REPORT)
        again.finish()

        assert notes == []
        first, second = sessions(FOLDER)
        assert first.identity == second.identity == ("lamps", "mine", "one")
        assert second.axes["*"] == "step"
        assert [row["_step"] for row in first.rows + second.rows] == [0, 1, 2, 3, 4, 5]
        assert curve(second.rows, "eval/mae") == [(10, 90.0), (20, 80.0), (30, 70.0)]
        assert curve(second.rows, "eval/no_price") == [(10, 0), (20, 0), (30, 0)]
        ((step, cell),) = curve(second.rows, "eval/predictions")
        assert (step, cell["nrows"]) == (20, 2)
        assert table(FOLDER, cell) == {
            "columns": ["item", "price", "predicted"],
            "data": [["a", 10.0, 12.0], ["b", 5.0, None]],
        }
        assert second.charts == ["eval/predictions-scatter"]
        assert second.summary["eval/baseline/train median"] == 90.0
        assert second.summary["step"] == 30

    def test_no_token_is_in_what_is_written(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        monkeypatch.setitem(SETTINGS, "data", {"source": f"https://me:{KEY}@host/x.csv", "names": [KEY]})
        tracker = opened("offline", [], "one")
        tracker.send(
            Report("5bec", {}, {}, Table("eval/predictions", 5, ("text", "a", "b"), ((KEY, 1.0, 2.0),), "a", "b"))
        )
        tracker.finish()

        (only,) = sessions(FOLDER)
        assert only.config["data"] == {"source": "https://me:***@host/x.csv", "names": ["***"]}
        ((_, cell),) = curve(only.rows, "eval/predictions")
        assert table(FOLDER, cell)["data"] == [["***", 1.0, 2.0]]
        written = [path for path in FOLDER.rglob("*") if path.is_file() and not path.is_symlink()]
        assert not [path for path in written if KEY.encode() in path.read_bytes()]


class TestLog:
    def log(self) -> TrackingLog:
        return TrackingLog(FOLDER / "tracking.jsonl", "one")

    def test_only_what_was_not_sent_is_left(self) -> None:
        assert self.log().unsent(REPORT) == REPORT
        for step in (10, 20):
            self.log().add({**POINTS[step], **({TABLE.name: TABLE} if step == 20 else {})}, step, "5bec")
        self.log().add_values({"eval/baseline/train median": 90.0, "best_step": 10})

        left = self.log().unsent(Report("5bec", POINTS, {**REPORT.summary, "best_step": 20}, TABLE))

        assert left == Report("5bec", {30: POINTS[30]}, {"best_step": 20}, None)
        assert self.log().unsent(Report("5bec", {10: POINTS[10]}, {}, TABLE)).is_empty
        assert (self.log().rows, self.log().last_step) == (2, 20)

    def test_a_curve_is_of_one_spec(self) -> None:
        self.log().add(POINTS[10], 10, "5bec")
        other = Report("07e4", {20: POINTS[20]}, {}, None)

        assert self.log().unsent(other).is_empty
        assert self.log().refused(other) == {"eval/mae", "eval/no_price"}
        assert self.log().refused(REPORT) == set()

    def test_of_what_another_machine_sent_nothing_is_repeated(self) -> None:
        log = self.log()
        log.add_summary({"step": 20, "eval/mae": 80.0, "loss": 1.0})

        # It may have sent any of the steps up to the last one of all.
        assert log.unsent(Report("5bec", {step: {"eval/mae": 1.0} for step in POINTS}, {}, TABLE)) == Report(
            "5bec", {30: {"eval/mae": 1.0}}, {}, TABLE
        )


class TestOff:
    def test_nothing_is_imported_or_written(self) -> None:
        code = """
import pathlib, sys
from pricer.config import TrackingConfig
from pricer.stores.wandb import Tracker
tracker = Tracker(TrackingConfig(), settings={}, folder=pathlib.Path("a"), run_id=None, note=print)
tracker.log({"loss": 1.0}, 1)
tracker.finish()
print(tracker.run_id, "wandb" in sys.modules, pathlib.Path("a").exists())
"""
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

        assert done.stdout == "None False False\n"

    @pytest.mark.parametrize("written", [False, "off"])
    def test_off_is_what_yaml_reads_as_false(self, written: Any) -> None:
        assert TrackingConfig(mode=written).mode == "off"


class TestNoService:
    """Online, with a W&B that does not answer."""

    @pytest.fixture(autouse=True)
    def impatient(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(wandb, "_PATIENCE", 1.0)

    def test_a_dead_network_is_one_note(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        notes: list[str] = []

        tracker = opened("online", notes)
        tracker.log(training(10), 10)
        tracker.finish()
        tracker.log(training(20), 20)
        tracker.finish()

        assert [note.split(":")[:2] for note in notes] == [
            ["tracking stopped, training goes on", f" Failed to get resume status for run {tracker.run_id}"]
        ]
        assert capfd.readouterr() == ("", "")
        assert not [path for path in FOLDER.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]

    def test_no_login_is_one_note_and_no_question(self, capfd: pytest.CaptureFixture[str]) -> None:
        notes: list[str] = []

        opened("online", notes).finish()

        assert notes == ["tracking stopped, training goes on: No API key configured. Use `wandb login` to log in."]
        assert capfd.readouterr() == ("", "")

    def test_a_wrong_key_is_one_note_that_does_not_hold_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY[:30])
        notes: list[str] = []

        opened("auto", notes).finish()

        assert notes == [
            "tracking stopped, training goes on: WANDB_API_KEY invalid: API key must have 40+ characters, has 30."
        ]


CHILD = f"""
import os, pathlib, psutil, signal, socket, sys, threading, time, traceback
from pricer.config import TrackingConfig
from pricer.stores import wandb
folder, notes = pathlib.Path("{FOLDER}"), []
def opened(mode):
    return wandb.Tracker(TrackingConfig(mode=mode), settings={{}}, folder=folder, run_id="one",
                              note=notes.append)
def wait_for_the_end():
    # Killed is not dead yet. The test times out if the service or the thread stays, as either holds up the process.
    children = psutil.Process().children()
    while any(child.is_running() and child.status() != psutil.STATUS_ZOMBIE for child in children):
        time.sleep(0.01)
    while "tracking" in [thread.name for thread in threading.enumerate()]:
        time.sleep(0.01)
"""


def in_a_process(code: str) -> tuple[list[str], str]:
    """What `code` prints, in a process of its own, whose end W&B could hold up; and its stderr."""
    done = subprocess.run([sys.executable, "-c", CHILD + code], capture_output=True, text=True, timeout=120, check=True)
    return done.stdout.splitlines(), done.stderr


@pytest.mark.parametrize(("sent", "why"), [("SIGSTOP", "no answer in 2 seconds"), ("SIGKILL", "")])
def test_a_service_process_that_hangs_or_dies_is_one_note(sent: str, why: str) -> None:
    (note,), errors = in_a_process(f"""
tracker = opened("offline")
tracker.log({{"loss": 1.0}}, 1)
path = folder / "wandb/latest-run/run-one.wandb"
while not (path.exists() and b"loss" in path.read_bytes()):
    time.sleep(0.05)
wandb._PATIENCE = 1.0
service, = psutil.Process().children()
service.send_signal(signal.{sent})
for step in range(2, 10_000):
    tracker.log({{"loss": 1.0}}, step)  # would not return if it waited for the service
tracker.finish()
wait_for_the_end()
print(*notes, sep="\\n")
""")

    assert errors == ""
    assert note.startswith(f"tracking stopped, training goes on: {why}")


def test_whoever_will_not_wait_need_not() -> None:
    lines, _ = in_a_process(f"""
def interrupt():
    main = threading.main_thread().ident
    def waits_for_a_thread():
        codes = [frame.f_code for frame, _ in traceback.walk_stack(sys._current_frames()[main])]
        return any(code.co_name == "join" and code.co_filename == threading.__file__ for code in codes)
    while not waits_for_a_thread():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)
with socket.create_server(("127.0.0.1", 0)) as silent:
    os.environ["WANDB_BASE_URL"] = f"http://127.0.0.1:{{silent.getsockname()[1]}}"
    os.environ["WANDB_API_KEY"] = "{KEY}"
    tracker = opened("online")
    silent.accept()  # W&B has asked, and waits for an answer
    threading.Thread(target=interrupt).start()
    try:
        tracker.finish()
    except KeyboardInterrupt:
        wait_for_the_end()
        print("interrupted", *notes, sep="\\n")
""")

    assert lines == ["interrupted", "tracking stopped, training goes on: interrupted"]


class FakeRun:
    """A W&B run that remembers, or fails where it is told to."""

    def __init__(self, fails: str = "", summary: Mapping[str, Any] | None = None, step: int = 0) -> None:
        self.fails = fails
        self.summary = dict(summary or {})
        self.step = step
        self.rows: list[tuple[int, dict[str, Any]]] = []

    def define_metric(self, name: str, **_: Any) -> None:
        """What it is drawn over."""

    def log(self, data: dict[str, Any], *, step: int, commit: bool) -> None:
        if self.fails == "log":
            raise OSError(28, "No space left on device")
        self.rows.append((step, data))

    def finish(self) -> None:
        if self.fails == "finish":
            raise RuntimeError("")


def fake_wandb(monkeypatch: pytest.MonkeyPatch, run: FakeRun) -> None:
    def init(**_: Any) -> FakeRun:
        if run.fails == "init":
            raise ValueError("refused\nby W&B")
        return run

    def teardown() -> None:
        if run.fails == "teardown":
            sys.exit(3)

    fake = SimpleNamespace(
        Settings=dict, setup=lambda settings: SimpleNamespace(settings=settings), init=init, teardown=teardown
    )
    monkeypatch.setitem(sys.modules, "wandb", fake)


def test_neither_opening_nor_logging_waits_for_w_and_b(monkeypatch: pytest.MonkeyPatch) -> None:
    started = threading.Event()
    run = FakeRun()
    fake_wandb(monkeypatch, run)
    monkeypatch.setattr(sys.modules["wandb"], "init", lambda **_: run if started.wait(60) else None)

    tracker = opened("online", [])
    tracker.log({"loss": 1.0}, 10)
    started.set()
    tracker.finish()

    assert run.rows == [(0, {"loss": 1.0, "step": 10})]


@pytest.mark.parametrize(
    ("where", "why"),
    [("init", "refused"), ("log", "[Errno 28] No space left on device"), ("finish", "RuntimeError"), ("teardown", "3")],
)
def test_whatever_fails_is_one_note(where: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_wandb(monkeypatch, FakeRun(where))
    notes: list[str] = []

    tracker = opened("offline", notes)
    for step in range(1, 4):
        tracker.log(training(step), step)
    tracker.finish()

    assert notes == [f"tracking stopped, training goes on: {why}"]


def test_on_another_machine_the_summary_says_how_far_the_run_is(monkeypatch: pytest.MonkeyPatch) -> None:
    # The first machine logged 57 rows up to step 30, W&B gives the second the last of each metric.
    run = FakeRun(summary={"step": 30, "loss": 0.3, "val_mae": 41.0, "_runtime": 9}, step=57)
    fake_wandb(monkeypatch, run)

    tracker = opened("online", [], "one")
    for step in (20, 30, 40):
        tracker.log({"loss": 1.0, "new": 2.0}, step)
    tracker.finish()

    assert run.rows == [
        (57, {"new": 2.0, "step": 20}),
        (58, {"new": 2.0, "step": 30}),
        (59, {"loss": 1.0, "new": 2.0, "step": 40}),
    ]
