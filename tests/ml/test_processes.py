"""What the processes of a training say when one of them ends."""

from typing import Any

import pytest
from torch.distributed import HashStore  # type: ignore[attr-defined]

from pricer.core.ranks import Ranks
from pricer.errors import LostProcess, ModelError
from pricer.ml.processes import Processes

GLOO = "[/pytorch/third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [127.0.0.1]:4"


@pytest.fixture
def store() -> Any:
    return HashStore()


def lose(process: Processes) -> LostProcess:
    """The error of a process that loses the connection to another one."""
    with pytest.raises(LostProcess) as caught, process.noticing():
        raise RuntimeError(GLOO)
    return caught.value


def test_one_process_of_each_machine_says_why_all_end(store: Any) -> None:
    # Two machines with two processes each.
    processes = [Processes(Ranks(rank, 4, rank % 2, 2), store) for rank in range(4)]

    assert [process.may_speak() for process in processes] == [True, False, True, False]


def test_a_connection_that_is_lost_is_said_with_what_was_seen_of_it(store: Any) -> None:
    process = Processes(Ranks(0, 2, 0, 2), store)
    process.step = 1200

    error = lose(process)

    assert error.message == (
        "another of the 2 processes of this training was ended after step 1,200 "
        "(Connection closed by peer [127.0.0.1]:4)"
    )
    assert isinstance(error.__cause__, RuntimeError)


def test_another_failure_of_an_exchange_stays_as_it_is(store: Any) -> None:
    with pytest.raises(RuntimeError, match=r"^expected scalar type Float$"), Processes(Ranks(0, 2), store).noticing():
        raise RuntimeError("expected scalar type Float")


def test_the_first_failure_is_the_one_that_is_said(store: Any) -> None:
    first, second, third = (Processes(Ranks(rank, 3, 0, 1), store) for rank in range(3))

    second.tell(ModelError("memory ran out", "a smaller train.micro_batch"))
    third.tell(RuntimeError("a failure that follows from it"))

    error = lose(first)
    assert error.message == "process 1 of 0 to 2 has failed before the first step: memory ran out"
    assert error.hint == "a smaller train.micro_batch"
