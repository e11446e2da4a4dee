"""Candidates: what is ranked, in which order, and as JSON."""

import json
from dataclasses import replace
from typing import Any

import pytest

from pricer.core.candidates import Candidate
from pricer.core.checkpoints import Member
from tests.builders import a_checkpoint

TRAINED = Candidate.of(a_checkpoint(7))
BASELINE = Candidate("constant")
SOUP = Candidate.of(a_checkpoint(7, members=(Member(5, "f" * 40), Member(7, "e" * 40))))


def test_a_candidate_says_which_checkpoint_it_is() -> None:
    assert Candidate("step-000007", a_checkpoint(7).id, 7, 0.7) == TRAINED
    assert (SOUP.name, SOUP.step, SOUP.members) == ("soup-000005-000007", 7, (5, 7))
    assert [(one.is_baseline, one.is_soup) for one in (BASELINE, TRAINED, SOUP)] == [
        (True, False),
        (False, False),
        (False, True),
    ]


def test_baselines_come_first_then_checkpoints_by_step_then_soups() -> None:
    later, longer = Candidate.of(a_checkpoint(10)), replace(SOUP, name="soup-000003-000005-000007", members=(3, 5, 7))
    ordered = [replace(BASELINE, name="a"), BASELINE, TRAINED, later, SOUP, longer]

    shuffled = [ordered[index] for index in (5, 0, 3, 1, 4, 2)]
    assert sorted(shuffled, key=lambda candidate: candidate.order) == ordered


@pytest.mark.parametrize("candidate", [TRAINED, BASELINE, SOUP, replace(TRAINED, epoch=None)])
def test_a_candidate_reads_back_as_it_was_written(candidate: Candidate) -> None:
    assert Candidate.from_json(json.loads(json.dumps(candidate.to_json()))) == candidate


@pytest.mark.parametrize(
    "damage",
    [{"name": 7}, {"step": None}, {"step": True}, {"id": None}, {"epoch": "0.7"}, {"members": None}, {"members": "ab"}],
)
def test_what_is_no_candidate_is_not_read(damage: dict[str, Any]) -> None:
    with pytest.raises((KeyError, TypeError)):
        Candidate.from_json({**TRAINED.to_json(), **damage})
