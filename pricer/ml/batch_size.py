"""The batch size finder of evaluations: how many tokens a batch of prompts should have on this machine."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from pricer.ml.tokens import TokenizedPrompt, batches_of

# Tokens in the smallest batch that is tried, and in the largest.
_MIN_TOKENS, _MAX_TOKENS = 512, 131_072
# A larger batch takes more memory, so it has to be faster by this factor.
_FASTER = 1.03


class BatchPredictor(Protocol):
    """Predicts a batch of prompts."""

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Any]:
        """One prediction per prompt."""


def find_batch_tokens(
    prompts: Sequence[TokenizedPrompt],
    max_tokens: int,
    load: Callable[[], BatchPredictor],
    clock: Callable[[], float] = time.perf_counter,
) -> int | None:
    """The number of tokens per batch at which the longest prompts are predicted fastest: it is doubled as long as that
    helps. None if `max_tokens` tokens are too few to measure two sizes; then `load` is not called.
    """
    lengths = [len(prompt.ids) for prompt in prompts]

    def first_batch(tokens: int) -> list[TokenizedPrompt]:
        return [prompts[index] for index in batches_of(lengths, tokens)[0]]

    tokens, spent = _MIN_TOKENS, 2 * _MIN_TOKENS  # the first batch takes longer, and is not counted
    if spent + 2 * _MIN_TOKENS > max_tokens or len(first_batch(_MIN_TOKENS)) == len(prompts):
        return None
    predictor = load()
    predictor.predict(first_batch(_MIN_TOKENS))
    best, best_speed = tokens, 0.0
    while True:
        batch = first_batch(tokens)
        start = clock()
        predictor.predict(batch)
        speed = sum(len(prompt.ids) for prompt in batch) / (clock() - start)
        if speed > best_speed * _FASTER:
            best, best_speed = tokens, speed
        elif tokens > 2 * best:
            return best
        tokens *= 2
        spent += tokens
        if spent > max_tokens or tokens > _MAX_TOKENS or len(batch) == len(prompts):
            return best
