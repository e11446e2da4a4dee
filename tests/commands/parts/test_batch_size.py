"""How many tokens a batch should have, by trial."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest

from pricer.commands.parts.batch_size import fastest_batch, settle_batch_tokens
from pricer.commands.parts.setup import prepare
from pricer.config import EvalConfig
from pricer.ml.tokens import TokenizedPrompt
from pricer.stores.runs import Run

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


def found(machine: Machine, affordable: int = 10**9, prompts: Sequence[TokenizedPrompt] = PROMPTS) -> int | None:
    return fastest_batch(prompts, affordable, machine.predict, clock=lambda: machine.time)


def test_the_budget_doubles_as_long_as_that_helps() -> None:
    machine = Machine(lambda tokens: min(tokens, 2048))

    assert found(machine) == 2048
    # The first does not count; after the best two that are no faster are tried.
    assert machine.asked == [512, 512, 1024, 2048, 4096, 8192]


def test_a_batch_that_is_hardly_faster_is_not_worth_its_memory() -> None:
    assert found(Machine(lambda tokens: 1000 + tokens / 100)) == 512


def test_one_slow_batch_does_not_end_the_trial() -> None:
    assert found(Machine(lambda tokens: 1 if tokens == 1024 else tokens)) == 65_536


def test_a_trial_takes_no_more_than_it_may() -> None:
    machine = Machine(lambda tokens: tokens)

    assert found(machine, affordable=4000) == 1024
    assert sum(machine.asked) <= 4000


@pytest.mark.parametrize(("affordable", "prompts"), [(2000, PROMPTS), (10**9, PROMPTS[:8])])
def test_little_work_is_not_worth_a_trial(affordable: int, prompts: Sequence[TokenizedPrompt]) -> None:
    machine = Machine(float)

    assert found(machine, affordable, prompts) is None
    assert machine.asked == []


class TestSettle:
    def test_what_was_found_stays_with_the_run(self, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        run, notes = Run(trained), list[str]()
        setup = prepare(run.config())
        monkeypatch.setattr("pricer.commands.parts.batch_size.fastest_batch", lambda *_: 4096)

        first = settle_batch_tokens(run, setup, PROMPTS, 3, Machine(float).predict, notes.append)
        monkeypatch.setattr("pricer.commands.parts.batch_size.fastest_batch", lambda *_: 512)
        again = settle_batch_tokens(run, setup, PROMPTS, 3, Machine(float).predict, notes.append)

        assert (first, again) == (4096, 4096)
        assert run.facts()["batch_tokens"] == {"cpu": 4096}
        assert notes == ["batches of up to 4,096 tokens"]

    def test_a_config_may_say_it(self, trained: Path) -> None:
        config = Run(trained).config().model_copy(update={"eval": EvalConfig(batch_tokens=640)})

        assert settle_batch_tokens(Run(trained), prepare(config), PROMPTS, 3, Machine(float).predict, print) == 640
