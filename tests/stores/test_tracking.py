"""W&B: what it records, that steps never go back, and that nothing it does stops a run."""

import importlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

from pricer.config import TrackingConfig
from pricer.stores import tracking
from pricer.stores.tracking import Tracker, open_tracker

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
    return open_tracker(config, run_name="mine", settings=SETTINGS, folder=FOLDER, run_id=run_id, note=notes.append)


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


def records_of(path: Path) -> Iterator[Any]:
    """The records of a .wandb file: a LevelDB log with a 7-byte head, in blocks of 32 KiB, none torn here."""
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")
    data, at, whole = path.read_bytes(), 7, b""
    assert data[:4] == b":W&B"
    while at + 7 <= len(data):
        if (left := 32_768 - at % 32_768) < 7:  # too little for another head: filled with zeros
            at += left
            continue
        length, kind = int.from_bytes(data[at + 4 : at + 6], "little"), data[at + 6]
        whole += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # full, last; not: first, middle
            record = messages.Record()
            record.ParseFromString(whole)
            yield record
            whole = b""


def session(path: Path) -> SimpleNamespace:
    """What one session wrote: the run, its config, its rows and which metric is drawn over which."""
    records = list(records_of(path))
    run = next(record.run for record in records if record.HasField("run"))
    return SimpleNamespace(
        identity=(run.project, run.display_name, run.run_id),
        host=run.host,
        config={item.key: json.loads(item.value_json) for item in run.config.update if item.key != "_wandb"},
        rows=[
            {(item.key or item.nested_key[0]): json.loads(item.value_json) for item in record.history.item}
            for record in records
            if record.HasField("history")
        ],
        axes={
            record.metric.glob_name or record.metric.name: record.metric.step_metric
            for record in records
            if record.HasField("metric")
        },
    )


def curve(rows: list[dict[str, Any]], name: str) -> list[tuple[int, Any]]:
    return [(row["step"], row[name]) for row in rows if name in row]


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
from pricer.stores.tracking import open_tracker
folder = pathlib.Path("{FOLDER}")
tracker = open_tracker(TrackingConfig(mode="offline"), run_name="mine", settings={{}}, folder=folder, run_id="one",
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


class TestOff:
    def test_nothing_is_imported_or_written(self) -> None:
        code = """
import pathlib, sys
from pricer.config import TrackingConfig
from pricer.stores.tracking import open_tracker
tracker = open_tracker(TrackingConfig(), run_name="a", settings={}, folder=pathlib.Path("a"), run_id=None, note=print)
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
        monkeypatch.setattr(tracking, "_PATIENCE", 1.0)

    def test_a_dead_network_is_one_note(
        self, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setenv("WANDB_API_KEY", KEY)
        notes: list[str] = []
        began = time.monotonic()

        tracker = opened("online", notes)
        tracker.log(training(10), 10)
        assert time.monotonic() - began < 0.5
        tracker.finish()
        tracker.log(training(20), 20)
        tracker.finish()

        assert time.monotonic() - began < 8
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


@pytest.mark.parametrize(("sent", "why"), [("SIGSTOP", "no answer in 2 seconds"), ("SIGKILL", "")])
def test_a_service_process_that_hangs_or_dies_is_one_note(sent: str, why: str) -> None:
    # In a process of its own, whose end W&B could hold up too.
    code = f"""
import os, pathlib, psutil, signal, time
from pricer.config import TrackingConfig
from pricer.stores import tracking
folder, notes = pathlib.Path("{FOLDER}"), []
tracker = tracking.open_tracker(TrackingConfig(mode="offline"), run_name="mine", settings={{}}, folder=folder,
                                run_id="one", note=notes.append)
tracker.log({{"loss": 1.0}}, 1)
path = folder / "wandb/latest-run/run-one.wandb"
while not (path.exists() and b"loss" in path.read_bytes()):
    time.sleep(0.05)
tracking._PATIENCE = 1.0
service, = psutil.Process().children()
service.send_signal(signal.{sent})
began = time.monotonic()
for step in range(2, 10_000):
    tracker.log({{"loss": 1.0}}, step)
logged = time.monotonic() - began
tracker.finish()
finished = time.monotonic() - began
print(logged < 1, finished < 5, service.is_running() and service.status() != "zombie", *notes, sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)

    *measured, note = done.stdout.splitlines()
    assert measured == ["True", "True", "False"]
    assert note.startswith(f"tracking stopped, training goes on: {why}")
    assert done.stderr == ""


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


@pytest.mark.parametrize(
    ("where", "why"),
    [
        ("init", "refused"),
        ("log", "[Errno 28] No space left on device"),
        ("finish", "RuntimeError"),
        ("teardown", "3"),
    ],
)
def test_whatever_fails_is_one_note(where: str, why: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fake_wandb(monkeypatch, FakeRun(where))
    notes: list[str] = []

    tracker = opened("offline", notes)
    for step in range(1, 4):
        tracker.log(training(step), step)
    tracker.finish()

    assert notes == [f"tracking stopped, training goes on: {why}"]


def test_a_damaged_record_of_steps_is_one_note(monkeypatch: pytest.MonkeyPatch) -> None:
    fake_wandb(monkeypatch, FakeRun())
    FOLDER.mkdir(parents=True)
    (FOLDER / "tracking.jsonl").write_text("nonsense\n", encoding="utf-8")
    notes: list[str] = []

    opened("offline", notes, "one").finish()

    assert notes == ["tracking stopped, training goes on: not a JSON object (runs/mine/tracking.jsonl, line 1)"]


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


def test_a_new_w_and_b_run_begins_from_the_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    for run_id in ("one", "two"):
        run = FakeRun()
        fake_wandb(monkeypatch, run)
        tracker = opened("offline", [], run_id)
        tracker.log({"loss": 1.0}, 10)
        tracker.finish()

        assert run.rows == [(0, {"loss": 1.0, "step": 10})]
