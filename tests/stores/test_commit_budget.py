"""The commit budget."""

import json
from pathlib import Path

import pytest

from pricer.errors import HubError
from pricer.stores.commit_budget import COMMITS_PER_HOUR, CommitBudget

TIMES = Path("outbox/commits.jsonl")


class Clock:
    def __init__(self, now: float = 1_000_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def taken(budget: CommitBudget, times: int) -> int:
    """How many of so many commits the budget allows at once."""
    for number in range(times):
        try:
            budget.take()
        except HubError:
            return number
    return times


def refusal(budget: CommitBudget) -> HubError:
    with pytest.raises(HubError) as raised:
        budget.take()
    return raised.value


def test_so_many_commits_can_be_made_at_once_and_no_more() -> None:
    assert taken(CommitBudget(TIMES, per_hour=3, clock=Clock()), 10) == 3
    assert len(TIMES.read_text().splitlines()) == 3  # a refusal is no commit


def test_the_one_too_many_says_how_long_to_wait() -> None:
    clock = Clock()
    budget = CommitBudget(TIMES, per_hour=2, clock=clock)
    budget.take()
    clock.now += 600
    budget.take()
    clock.now += 300

    error = refusal(budget)

    # The first was 900 seconds ago: it counts for 3600 - 900 more.
    assert error.message == "the Hub allows 2 commits in an hour: the next one can be made in 45 minutes"
    assert (error.transient, error.limited, error.retry_after) == (True, True, 2700.0)
    clock.now += 2700
    budget.take()


def test_no_hour_has_more_commits_than_allowed() -> None:
    clock = Clock()
    budget = CommitBudget(TIMES, per_hour=5, clock=clock)
    made = []
    for _ in range(300):  # one try every 100 seconds, 8 hours and 20 minutes
        if taken(budget, 1):
            made.append(clock.now)
        clock.now += 100

    assert max(sum(start <= time < start + 3600 for time in made) for start in made) == 5
    # 5 in the first 500 seconds, and again whenever an hour is over: 9 hours have begun.
    assert len(made) == 45


def test_a_restart_forgets_nothing() -> None:
    clock = Clock()
    for _ in range(2):
        CommitBudget(TIMES, per_hour=2, clock=clock).take()

    assert refusal(CommitBudget(TIMES, per_hour=2, clock=clock)).retry_after == 3600.0


@pytest.mark.parametrize("seconds", [1, 1800, 3600, 3601, 864_000])
def test_a_clock_that_was_set_back_locks_nobody_out(seconds: int) -> None:
    clock = Clock()
    budget = CommitBudget(TIMES, per_hour=2, clock=clock)
    taken(budget, 2)

    clock.now -= seconds

    # What lies ahead does not count, what is made from now on does.
    assert taken(budget, 3) == 2


def test_a_line_that_a_kill_tore_is_left_out() -> None:
    budget = CommitBudget(TIMES, per_hour=2, clock=Clock())
    budget.take()
    with TIMES.open("a") as file:
        file.write('{"time": 100')

    assert taken(budget, 3) == 1
    assert [json.loads(line) for line in TIMES.read_text().splitlines()] == [{"time": 1_000_000.0}] * 2


@pytest.mark.parametrize(
    "content",
    [b"not JSON\n", b"[]\n", b"{}\n", b'{"time": null}\n', b'{"time": "noon"}\n', b"\xff\n", b'{"time": NaN}\n'],
)
def test_a_damaged_file_does_not_keep_anybody_from_committing(content: bytes) -> None:
    TIMES.parent.mkdir()
    TIMES.write_bytes(content)

    CommitBudget(TIMES, per_hour=1, clock=Clock()).take()


def test_some_commits_of_the_hubs_128_are_left_to_others() -> None:
    assert taken(CommitBudget(TIMES, clock=Clock()), 200) == COMMITS_PER_HOUR == 120
