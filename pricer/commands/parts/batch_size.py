"""How many tokens a batch of prompts should have on this machine, found by trying."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pricer.commands.parts.setup import Setup
from pricer.ml.devices import device_name
from pricer.ml.tokens import TokenizedPrompt, batches_of
from pricer.stores.runs import Run

# Tokens in the smallest batch that is tried, and in the largest.
_FEWEST, _MOST = 512, 131_072
# A larger batch takes more memory, and so has to be faster by that factor.
_FASTER = 1.03
# The most of all the work that trying may take.
_SHARE = 0.05


class Answerer(Protocol):
    """Answers a batch of prompts."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Any]:
        """One answer per prompt."""


def settle_batch_tokens(
    run: Run,
    setup: Setup,
    prompts: Sequence[TokenizedPrompt],
    checkpoints: int,
    load: Callable[[], Answerer],
    note: Callable[[str], None],
) -> int:
    """The token budget of a run's batches: as its config says or, with `auto`, as a trial on this device found once.

    `checkpoints` are to answer the prompts; `load` is called if they are worth a trial. What was found stays in
    run.json: an evaluation that goes on must make the batches that it made before.
    """
    if setup.config.eval.batch_tokens != "auto":
        return setup.batch_tokens
    device = device_name(setup.precision)
    found = run.facts().get("batch_tokens", {})
    if device in found:
        return int(found[device])
    if not checkpoints:
        return setup.batch_tokens
    affordable = int(_SHARE * checkpoints * sum(len(prompt.ids) for prompt in prompts))
    budget = fastest_batch(prompts, affordable, load) or setup.batch_tokens
    run.record(batch_tokens={**found, device: budget})
    note(f"batches of up to {budget:,} tokens")
    return budget


def fastest_batch(
    prompts: Sequence[TokenizedPrompt],
    affordable: int,
    load: Callable[[], Answerer],
    clock: Callable[[], float] = time.perf_counter,
) -> int | None:
    """The token budget at which the longest prompts are answered fastest, doubling it as long as that helps; None if
    less than two can be told apart with `affordable` tokens.
    """
    lengths = [len(prompt.ids) for prompt in prompts]

    def batch(budget: int) -> list[TokenizedPrompt]:
        return [prompts[index] for index in batches_of(lengths, budget)[0]]

    budget, spent = _FEWEST, 2 * _FEWEST  # the first time takes longer, and does not count
    if spent + 2 * _FEWEST > affordable or len(batch(_FEWEST)) == len(prompts):
        return None
    answerer = load()
    answerer.predict(batch(_FEWEST))
    best, fastest = budget, 0.0
    while True:
        asked = batch(budget)
        start = clock()
        answerer.predict(asked)
        speed = sum(len(prompt.ids) for prompt in asked) / (clock() - start)
        if speed > fastest * _FASTER:
            best, fastest = budget, speed
        elif budget > 2 * best:
            return best
        budget *= 2
        spent += budget
        if spent > affordable or budget > _MOST or len(asked) == len(prompts):
            return best
