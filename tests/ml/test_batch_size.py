"""The batch size finder."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from pricer.ml.batch_size import find_batch_tokens
from pricer.ml.tokens import TokenizedPrompt

# 1,000 prompts of 64 tokens: eight fit 512 tokens.
PROMPTS = [TokenizedPrompt(str(n), np.zeros(64, dtype=np.int32), cut=False) for n in range(1000)]


class Machine:
    """Answers batches of so many tokens at the tokens per second it is told, by a clock of its own."""

    def __init__(self, speed: Callable[[int], float]) -> None:
        self.time = 0.0
        self.asked: list[int] = []
        self._speed = speed

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[str]:
        tokens = sum(len(prompt.ids) for prompt in prompts)
        self.asked.append(tokens)
        self.time += tokens / self._speed(tokens)
        return ["" for _ in prompts]


def found(machine: Machine, max_tokens: int = 10**9, prompts: Sequence[TokenizedPrompt] = PROMPTS) -> int | None:
    return find_batch_tokens(prompts, max_tokens, lambda: machine, clock=lambda: machine.time)


def test_the_budget_doubles_as_long_as_that_helps() -> None:
    machine = Machine(lambda tokens: min(tokens, 2048))

    assert found(machine) == 2048
    # The first does not count; after the best two that are no faster are tried.
    assert machine.asked == [512, 512, 1024, 2048, 4096, 8192]


def test_a_batch_that_is_hardly_faster_is_not_worth_its_memory() -> None:
    assert found(Machine(lambda tokens: 1000 + tokens / 100)) == 512


def test_one_slow_batch_does_not_end_the_search() -> None:
    assert found(Machine(lambda tokens: 1 if tokens == 1024 else tokens)) == 65_536


def test_a_search_takes_no_more_tokens_than_it_may() -> None:
    machine = Machine(lambda tokens: tokens)

    assert found(machine, max_tokens=4000) == 1024
    assert sum(machine.asked) <= 4000


@pytest.mark.parametrize(("max_tokens", "prompts"), [(2000, PROMPTS), (10**9, PROMPTS[:8])])
def test_little_work_is_not_worth_a_search(max_tokens: int, prompts: Sequence[TokenizedPrompt]) -> None:
    def load() -> Machine:
        raise AssertionError("nothing is loaded for it")

    assert find_batch_tokens(prompts, max_tokens, load) is None
