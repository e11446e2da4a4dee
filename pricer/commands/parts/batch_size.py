"""The batch size finder: how many tokens a batch of prompts should have on this device, found by trying."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pricer.commands.parts.setup import Setup
from pricer.ml.devices import device_name
from pricer.ml.tokens import TokenizedPrompt, batches_of
from pricer.stores.runs import Run

# Tokens in the smallest and in the largest batch that is tried.
_SMALLEST, _LARGEST = 512, 131_072
# A larger batch takes more memory, so it has to be faster by this factor.
_FASTER = 1.03
# Trying may take at most this share of the tokens that are to be answered.
_SHARE = 0.05

Predict = Callable[[Sequence[TokenizedPrompt]], Any]
"""Answers a batch of prompts."""


def settle_batch_tokens(
    run: Run,
    setup: Setup,
    prompts: Sequence[TokenizedPrompt],
    checkpoints: int,
    predict: Predict,
    note: Callable[[str], None],
) -> int:
    """The maximum number of tokens in a batch: what the config says or, with `auto`, what was found on this device.

    `checkpoints` are to answer the prompts. `predict` is called only if that is enough work to try several sizes. What
    was found is kept in run.json, for the next evaluation on this device.
    """
    if setup.config.eval.batch_tokens != "auto":
        return setup.batch_tokens
    device = device_name(setup.precision)
    found = run.facts().get("batch_tokens", {})
    if device in found:
        return int(found[device])
    affordable = int(_SHARE * checkpoints * sum(len(prompt.ids) for prompt in prompts))
    batch_tokens = fastest_batch(prompts, affordable, predict) or setup.batch_tokens
    run.record(batch_tokens={**found, device: batch_tokens})
    note(f"batches of up to {batch_tokens:,} tokens")
    return batch_tokens


def fastest_batch(
    prompts: Sequence[TokenizedPrompt],
    affordable: int,
    predict: Predict,
    clock: Callable[[], float] = time.perf_counter,
) -> int | None:
    """The number of tokens in a batch at which the longest prompts are answered fastest, doubled as long as that helps.
    None if `affordable` tokens are not enough to compare two sizes.
    """
    lengths = [len(prompt.ids) for prompt in prompts]

    def batch(batch_tokens: int) -> list[TokenizedPrompt]:
        return [prompts[index] for index in batches_of(lengths, batch_tokens)[0]]

    tried, spent = _SMALLEST, 2 * _SMALLEST  # the first call takes longer, and does not count
    if spent + 2 * _SMALLEST > affordable or len(batch(_SMALLEST)) == len(prompts):
        return None
    predict(batch(_SMALLEST))
    best, fastest = tried, 0.0
    while True:
        asked = batch(tried)
        start = clock()
        predict(asked)
        speed = sum(len(prompt.ids) for prompt in asked) / (clock() - start)
        if speed > fastest * _FASTER:
            best, fastest = tried, speed
        elif tried > 2 * best:
            return best
        tried *= 2
        spent += tried
        if spent > affordable or tried > _LARGEST or len(asked) == len(prompts):
            return best
