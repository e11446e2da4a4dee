"""The outbox, and the worker that delivers it while training goes on."""

import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pricer.errors import CheckpointError, HubError, PricerError
from pricer.stores.files import write_atomically
from pricer.stores.outbox import Entry, Outbox
from pricer.stores.uploader import Uploader
from pricer.waits import Wait, listening
from tests.builders import Killed

DEADLINE = 60.0  # seconds, far more than any of it takes


def an_outbox() -> Outbox:
    return Outbox(Path("outbox"))


def put(step: int) -> None:
    """Leave a checkpoint, from a source that is gone afterwards."""
    source = Path("source")
    source.write_text("weights")
    an_outbox().put("checkpoint", step, [source])
    source.unlink()


def put_state(step: int, *, keep_all: bool = False) -> None:
    """Leave a training state."""
    an_outbox().put("state", step, [])
    if not keep_all:
        an_outbox().thin_states()


def names() -> list[str]:
    return [entry.folder.name for entry in an_outbox().entries()]


class TestOutbox:
    def test_nothing_is_in_a_new_one(self) -> None:
        assert an_outbox().entries() == []

    def test_entries_come_in_the_order_in_which_they_were_put(self) -> None:
        for step in (10, 5, 1_000_000):
            put(step)

        assert names() == ["000001-checkpoint-000010", "000002-checkpoint-000005", "000003-checkpoint-1000000"]
        assert [(entry.number, entry.kind, entry.step) for entry in an_outbox().entries()] == [
            (1, "checkpoint", 10),
            (2, "checkpoint", 5),
            (3, "checkpoint", 1_000_000),
        ]

    def test_clearing_it_removes_all_but_the_record_of_commits(self) -> None:
        put(5)
        put_state(5)
        (an_outbox().folder / ".000003-checkpoint-000010.x").mkdir()  # what a kill left of an entry
        an_outbox().budget.take()

        an_outbox().clear()

        assert [path.name for path in an_outbox().folder.iterdir()] == ["commits.jsonl"]

    def test_an_entry_is_named_in_words(self) -> None:
        put(5000)
        put_state(5000)

        assert [entry.name for entry in an_outbox().entries()] == ["step 5,000", "the training state of step 5,000"]

    def test_of_training_states_the_oldest_and_the_newest_wait(self) -> None:
        for step in (5, 10, 15, 20):
            put(step)
            put_state(step)

        # The oldest may be on its way.
        assert names() == [
            "000001-checkpoint-000005",
            "000002-state-000005",
            "000003-checkpoint-000010",
            "000005-checkpoint-000015",
            "000007-checkpoint-000020",
            "000008-state-000020",
        ]

    def test_all_training_states_wait_if_all_are_wanted(self) -> None:
        for step in (5, 10, 15):
            put_state(step, keep_all=True)

        assert names() == ["000001-state-000005", "000002-state-000010", "000003-state-000015"]

    def test_a_delivered_entry_is_dropped_and_no_other(self) -> None:
        put(5)
        put(10)

        an_outbox().drop(an_outbox().entries()[0])

        assert names() == ["000002-checkpoint-000010"]

    def test_an_entry_can_go_behind_the_others(self) -> None:
        put(5)
        put_state(5)
        put(10)

        an_outbox().requeue(an_outbox().entries()[1])

        assert names() == ["000001-checkpoint-000005", "000003-checkpoint-000010", "000004-state-000005"]

    def test_numbers_go_on_when_it_is_opened_again(self) -> None:
        put(5)
        put_state(5)

        Outbox(Path("outbox")).put("checkpoint", 10, [])

        assert names() == ["000001-checkpoint-000005", "000002-state-000005", "000003-checkpoint-000010"]

    def test_an_entry_that_a_kill_left_half_written_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def kill(source: Path, target: Path) -> None:
            target.write_text("half")
            raise Killed

        put(5)
        with monkeypatch.context() as patch:
            patch.setattr("pricer.stores.outbox.link_or_copy", kill)
            with pytest.raises(Killed):
                an_outbox().put("checkpoint", 10, [Path("anything")])
        # A kill by the system leaves the folder that was being filled.
        Path("outbox/.000002-checkpoint-000010.x1/new").mkdir(parents=True)

        assert names() == ["000001-checkpoint-000005"]
        put(10)
        assert names() == ["000001-checkpoint-000005", "000002-checkpoint-000010"]

    def test_an_entry_that_a_kill_left_half_dropped_is_not_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        put(5)
        with monkeypatch.context() as patch:
            patch.setattr("shutil.rmtree", lambda folder, ignore_errors: None)
            an_outbox().drop(an_outbox().entries()[0])
        assert names() == []

        put(5)
        an_outbox().drop(an_outbox().entries()[0])

        assert list(Path("outbox").iterdir()) == []

    def test_a_sweep_removes_what_a_kill_left_half_made_and_half_removed(self) -> None:
        put(5)
        for name in (".000002-checkpoint-000010.x1/new", ".000001-state-000005.gone"):
            Path("outbox", name).mkdir(parents=True)
        Path("outbox/commits.jsonl").touch()

        an_outbox().sweep()

        assert sorted(path.name for path in Path("outbox").iterdir()) == ["000001-checkpoint-000005", "commits.jsonl"]

    def test_what_else_lies_there_is_no_entry(self) -> None:
        put(5)
        for name in ("commits.jsonl", "000002-checkpoint", "x-state-000005", "000002-other-000005", "2-state-5"):
            Path("outbox", name).mkdir()

        assert names() == ["000001-checkpoint-000005"]

    def test_an_entry_keeps_its_bytes_when_the_source_is_replaced_or_removed(self) -> None:
        replaced, removed = Path("replaced"), Path("removed")
        for source in (replaced, removed):
            source.write_text("weights of step 5")

        an_outbox().put("checkpoint", 5, [replaced, removed])
        write_atomically(replaced, "weights of step 10")
        removed.unlink()

        entry = an_outbox().entries()[0].folder
        assert {path.name: path.read_text() for path in entry.iterdir()} == {
            "replaced": "weights of step 5",
            "removed": "weights of step 5",
        }

    def test_a_file_takes_its_room_once_while_its_source_is_there(self) -> None:
        Path("source").write_text("weights")

        an_outbox().put("checkpoint", 5, [Path("source")])

        assert Path("outbox/000001-checkpoint-000005/source").samefile("source")

    def test_contents_are_kept_beside_the_files(self) -> None:
        an_outbox().put("state", 5, [], {"metrics.jsonl": b"one\n"})

        assert Path("outbox/000001-state-000005/metrics.jsonl").read_bytes() == b"one\n"


class Hub:
    """Where entries are delivered to: fails as often as it is told to, then takes each."""

    def __init__(self, *failures: BaseException) -> None:
        self.failures = list(failures)
        self.delivered: list[str] = []
        self.tries: list[str] = []

    def __call__(self, entry: Entry) -> None:
        self.tries.append(entry.folder.name)
        if self.failures:
            raise self.failures.pop(0)
        self.delivered.append(entry.folder.name)


class Down(Hub):
    """Fails always."""

    def __init__(self, failure: Exception) -> None:
        super().__init__()
        self.failure = failure

    def __call__(self, entry: Entry) -> None:
        self.tries.append(entry.folder.name)
        raise self.failure


TRANSIENT = HubError("the Hub answers 503", transient=True)
PERMANENT = HubError("the Hub refuses access (403)", "hf auth login")
LIMITED = HubError("120 commits in an hour", transient=True, retry_after=0.0, limited=True)


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, str]]:
    """What waits were asked for: failures in a row, and the last one. They take no time."""
    pauses: list[tuple[int, str]] = []

    def no_pause(failures: int, error: HubError) -> float:
        pauses.append((failures, error.message))
        return 0.0

    monkeypatch.setattr("pricer.stores.uploader.pause", no_pause)
    return pauses


@pytest.fixture
def start(notes: list[str], asked: list[tuple[int, str]]) -> Iterator[Callable[..., Uploader]]:
    """Start uploaders that are stopped at the end of the test."""
    started: list[Uploader] = []

    def begin(deliver: Callable[[Entry], None], note: Callable[[str], None] = notes.append) -> Uploader:
        uploader = Uploader(an_outbox(), note)
        uploader.start(deliver)
        started.append(uploader)
        return uploader

    yield begin
    for uploader in started:
        uploader.stop()
        uploader._thread.join(DEADLINE)
        assert not uploader._thread.is_alive()


def drained(uploader: Uploader) -> list[str]:
    """Names of what is left after a drain."""
    return [entry.folder.name for entry in uploader.drain(lambda left: None, DEADLINE)]


class TestDelivering:
    def test_all_is_delivered_in_order_and_dropped(self, start: Callable[..., Uploader], notes: list[str]) -> None:
        for step in (5, 10, 15):
            put(step)
        hub = Hub()

        assert drained(start(hub)) == []

        assert hub.delivered == ["000001-checkpoint-000005", "000002-checkpoint-000010", "000003-checkpoint-000015"]
        assert (names(), notes) == ([], [])

    def test_what_comes_later_is_delivered_without_a_drain(self, start: Callable[..., Uploader]) -> None:
        arrived = threading.Event()
        uploader = start(lambda entry: arrived.set())

        put(5)
        uploader.wake()

        assert arrived.wait(DEADLINE)

    def test_of_states_that_came_meanwhile_only_the_newest_is_delivered(self, start: Callable[..., Uploader]) -> None:
        under_way, go_on = threading.Event(), threading.Event()
        delivered = []

        def deliver(entry: Entry) -> None:
            under_way.set()
            assert go_on.wait(DEADLINE)
            delivered.append(entry.step)

        put_state(5)
        uploader = start(deliver)
        assert under_way.wait(DEADLINE)
        for step in (10, 15):
            put_state(step)
        go_on.set()

        assert drained(uploader) == []
        assert delivered == [5, 15]
        assert list(Path("outbox").iterdir()) == []

    @pytest.mark.parametrize(
        ("every", "order"),
        [
            (600.0, ["checkpoint 5", "state 5", "checkpoint 10", "checkpoint 15", "state 10", "state 15"]),
            (0.0, ["checkpoint 5", "state 5", "checkpoint 10", "state 10", "checkpoint 15", "state 15"]),
        ],
    )
    def test_checkpoints_that_wait_go_before_states_except_now_and_then(
        self, start: Callable[..., Uploader], monkeypatch: pytest.MonkeyPatch, every: float, order: list[str]
    ) -> None:
        monkeypatch.setattr("pricer.stores.uploader._STATE_EVERY", every)
        for step in (5, 10, 15):
            put(step)
            put_state(step, keep_all=True)
        delivered = []

        assert drained(start(lambda entry: delivered.append(f"{entry.kind} {entry.step}"))) == []

        assert delivered == order


class TestFailures:
    def test_what_failed_is_tried_again_before_the_next_one(
        self, start: Callable[..., Uploader], asked: list[tuple[int, str]]
    ) -> None:
        put(5)
        put(10)
        hub = Hub(TRANSIENT, TRANSIENT, TRANSIENT)

        assert drained(start(hub)) == []

        assert hub.tries == ["000001-checkpoint-000005"] * 4 + ["000002-checkpoint-000010"]
        # Which failure it is counts anew when the drain begins, which may be before or after the first one.
        assert [message for _, message in asked] == [TRANSIENT.message] * 3

    def test_what_cannot_work_any_more_is_skipped_and_named(
        self, start: Callable[..., Uploader], notes: list[str]
    ) -> None:
        put(5)
        put(10)
        hub = Hub(CheckpointError("step-000005 is not what its manifest says"))
        uploader = start(hub)

        assert drained(uploader) == ["000001-checkpoint-000005"]

        assert hub.delivered == ["000002-checkpoint-000010"]
        assert notes == [
            "step 5 cannot be pushed: step-000005 is not what its manifest says; if it is of no use, remove "
            "outbox/000001-checkpoint-000005"
        ]

    def test_a_trouble_and_a_refusal_are_said_once_each_until_something_is_delivered(
        self, start: Callable[..., Uploader], notes: list[str]
    ) -> None:
        for step in (5, 10):
            put(step)
        failures: list[HubError | None] = [TRANSIENT, TRANSIENT, PERMANENT, PERMANENT, None, TRANSIENT, TRANSIENT, None]

        def deliver(entry: Entry) -> None:
            if problem := failures.pop(0):
                raise problem

        assert drained(start(deliver)) == []

        assert notes == [
            "step 5 is not on the Hub yet: the Hub answers 503; next try in 1 s",
            "step 5 is refused for good: the Hub refuses access (403) (hf auth login); it stays in outbox",
            "step 10 is not on the Hub yet: the Hub answers 503; next try in 1 s",
        ]

    @pytest.mark.parametrize(("problem", "tries"), [(TRANSIENT, 10), (PERMANENT, 3)])
    def test_a_drain_ends_after_so_many_failures_in_a_row(
        self, start: Callable[..., Uploader], problem: HubError, tries: int
    ) -> None:
        put(5)
        put(10)
        hub = Down(problem)
        uploader = start(hub)

        assert drained(uploader) == ["000001-checkpoint-000005", "000002-checkpoint-000010"]

        # Those before the drain began do not count: the outage may be over.
        assert len(hub.tries) >= tries
        assert set(hub.tries) == {"000001-checkpoint-000005"}
        assert uploader.problem is problem

    def test_a_limit_is_waited_for_and_does_not_count(
        self, start: Callable[..., Uploader], asked: list[tuple[int, str]]
    ) -> None:
        put(5)
        hub = Hub(*[LIMITED] * 50)

        assert drained(start(hub)) == []

        assert hub.delivered == ["000001-checkpoint-000005"]
        assert set(asked) == {(0, LIMITED.message)}

    def test_every_wait_is_announced_from_the_first_one_and_a_refusal_is_tried_again_rarely(
        self, start: Callable[..., Uploader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.stores.uploader.pause", lambda failures, error: failures / 1000)
        put(5)
        arrived, waits = threading.Event(), list[Wait | None]()
        failures = [TRANSIENT, TRANSIENT, PERMANENT]

        def deliver(entry: Entry) -> None:
            if failures:
                raise failures.pop(0)
            arrived.set()

        with listening(waits.append):
            start(deliver)
            assert arrived.wait(DEADLINE)

        trouble, refusal = f"is not on the Hub yet: {TRANSIENT.message}", f"is refused for good: {PERMANENT.message}"
        # 0.001 s for each failure in a row, ten times that after a refusal; None: the wait is over.
        expected = [(trouble, 0.001), (trouble, 0.002), (refusal, 0.03)]
        assert waits == [e for text, seconds in expected for e in (Wait(f"step 5 {text}", seconds), None)]

    def test_while_training_goes_on_nothing_is_given_up(self, start: Callable[..., Uploader]) -> None:
        put(5)
        arrived = threading.Event()
        failures = [PERMANENT] * 100

        def deliver(entry: Entry) -> None:
            if failures:
                raise failures.pop()
            arrived.set()

        start(deliver)

        assert arrived.wait(DEADLINE)

    @pytest.mark.parametrize(
        "exception",
        [
            OSError(28, "No space left on device"),
            RuntimeError("whatever"),
            MemoryError(),
            RecursionError(),
            KeyError("main"),
            UnicodeDecodeError("utf-8", b"\xff", 0, 1, "invalid start byte"),
            AssertionError(),
            BlockingIOError(11, "busy"),
            TimeoutError(),
            PricerError("a sentence"),
            SystemExit(1),
            KeyboardInterrupt(),
            BaseException("a panic of a library that is not written in Python"),
        ],
        ids=lambda exception: type(exception).__name__,
    )
    def test_no_exception_ends_the_worker(self, start: Callable[..., Uploader], exception: BaseException) -> None:
        put(5)
        hub = Hub(exception)

        assert drained(start(hub)) == []
        assert hub.tries == ["000001-checkpoint-000005"] * 2

    def test_an_unexpected_exception_is_named_with_its_kind(
        self, start: Callable[..., Uploader], notes: list[str]
    ) -> None:
        put(5)

        assert drained(start(Hub(KeyError("main")))) == []
        assert notes == ["step 5 is not on the Hub yet: KeyError: 'main'; next try in 1 s"]

    def test_an_outbox_that_cannot_be_read_is_said_and_tried_again(
        self, start: Callable[..., Uploader], notes: list[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.stores.uploader._LOCK_WAIT", 0.01)
        put(5)
        entries, failures = Outbox.entries, [OSError(5, "Input/output error")]

        def flaky(self: Outbox) -> list[Entry]:
            if threading.current_thread().name == "uploader" and failures:
                raise failures.pop()
            return entries(self)

        monkeypatch.setattr(Outbox, "entries", flaky)

        assert drained(start(Hub())) == []
        assert notes == ["the outbox cannot be read: [Errno 5] Input/output error"]


class TestEnding:
    def test_a_drain_ends_in_time_although_a_delivery_hangs(self, start: Callable[..., Uploader]) -> None:
        put(5)
        released = threading.Event()
        delivered: list[int] = []

        def deliver(entry: Entry) -> None:
            released.wait(DEADLINE)
            delivered.append(entry.step)

        uploader = start(deliver)

        left = uploader.drain(lambda left: None, 0.05)

        assert ([entry.step for entry in left], delivered) == ([5], [])
        released.set()

    def test_a_delivery_that_waits_is_given_up_when_it_is_stopped(self, start: Callable[..., Uploader]) -> None:
        put(5)
        waiting, raised = threading.Event(), threading.Event()
        problems: list[HubError] = []

        def deliver(entry: Entry) -> None:
            waiting.set()
            try:
                uploader.wait(3600)
            except HubError as error:
                problems.append(error)
                raised.set()
                raise

        uploader = start(deliver)
        assert waiting.wait(DEADLINE)

        uploader.stop()

        assert raised.wait(DEADLINE)
        assert (problems[0].message, problems[0].transient) == ("stopped", True)
        assert names() == ["000001-checkpoint-000005"]

    def test_after_a_stop_nothing_more_is_delivered_or_said(
        self, start: Callable[..., Uploader], notes: list[str]
    ) -> None:
        under_way, go_on = threading.Event(), threading.Event()
        tries = []

        def deliver(entry: Entry) -> None:
            tries.append(entry.step)
            under_way.set()
            assert go_on.wait(DEADLINE)
            raise TRANSIENT

        put(5)
        put(10)
        uploader = start(deliver)
        assert under_way.wait(DEADLINE)

        uploader.stop()
        go_on.set()
        uploader._thread.join(DEADLINE)

        assert (tries, notes) == ([5], [])
        assert names() == ["000001-checkpoint-000005", "000002-checkpoint-000010"]

    def test_a_drain_hurries_a_long_wait(self, start: Callable[..., Uploader], monkeypatch: pytest.MonkeyPatch) -> None:
        pausing = threading.Event()

        def pause(failures: int, error: HubError) -> float:
            pausing.set()
            return 3600.0

        monkeypatch.setattr("pricer.stores.uploader.pause", pause)
        put(5)
        uploader = start(Hub(TRANSIENT))
        assert pausing.wait(DEADLINE)

        assert drained(uploader) == []

    def test_a_drain_does_not_hurry_a_wait_that_the_hub_asked_for(
        self, start: Callable[..., Uploader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        pausing = threading.Event()

        def pause(failures: int, error: HubError) -> float:
            pausing.set()
            return error.retry_after or 0.0

        monkeypatch.setattr("pricer.stores.uploader.pause", pause)
        put(5)
        hub = Hub(HubError("the Hub answers 429", transient=True, retry_after=3600.0))
        uploader = start(hub)
        assert pausing.wait(DEADLINE)

        left = uploader.drain(lambda left: None, 0.05)

        assert ([entry.step for entry in left], len(hub.tries)) == ([5], 1)


class TestTwo:
    def test_the_second_waits_for_the_first(
        self, start: Callable[..., Uploader], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("pricer.stores.uploader._LOCK_WAIT", 0.01)
        put(5)
        under_way, go_on, told = threading.Event(), threading.Event(), threading.Event()
        said: list[str] = []
        delivered: list[tuple[str, int]] = []

        def slowly(entry: Entry) -> None:
            under_way.set()
            assert go_on.wait(DEADLINE)
            delivered.append(("first", entry.step))

        def note(text: str) -> None:
            said.append(text)
            told.set()

        first = start(slowly)
        assert under_way.wait(DEADLINE)
        second = start(lambda entry: delivered.append(("second", entry.step)), note)
        assert told.wait(DEADLINE)
        assert delivered == []

        go_on.set()
        assert drained(first) == []
        put(10)
        second.wake()

        assert drained(second) == []
        assert said == ["another process is delivering the outbox"]
        assert delivered == [("first", 5), ("second", 10)]
