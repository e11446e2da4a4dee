"""Processes of a training that fall silent."""

import threading
from typing import Any

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from pricer.ml.heartbeats import heartbeats

# Seconds. A loss that is expected is waited for as long as it takes.
EVERY, SILENCE, LONG = 0.02, 0.5, 60.0


@pytest.fixture
def store() -> Any:
    return TCPStore("127.0.0.1", 0, 1, True)


def test_a_process_that_says_nothing_is_lost(store: Any) -> None:
    lost = threading.Event()

    with heartbeats(store, 0, 2, lost.set, every=EVERY, silence=SILENCE):
        assert lost.wait(LONG)


def test_processes_that_live_and_those_that_have_left_are_not_lost(store: Any) -> None:
    lost = threading.Event()

    with (
        heartbeats(store, 0, 3, lost.set, every=EVERY, silence=SILENCE),
        heartbeats(store.clone(), 1, 3, lost.set, every=EVERY, silence=SILENCE),
    ):
        with heartbeats(store.clone(), 2, 3, lost.set, every=EVERY, silence=SILENCE):
            assert not lost.wait(3 * SILENCE)
        assert not lost.wait(3 * SILENCE)


def test_a_store_that_is_gone_is_a_loss() -> None:
    lost = threading.Event()

    class Gone:
        """A store that answers once, and then never again."""

        def set(self, key: str, value: str) -> None:
            if value != "left" and threading.current_thread() is not threading.main_thread():
                threading.Event().wait()

    with heartbeats(Gone(), 0, 2, lost.set, every=EVERY, silence=SILENCE):
        assert lost.wait(LONG)
