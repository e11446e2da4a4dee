"""Batches: which items come together, how they are padded, and how large a batch this machine's memory takes."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import Sampler

from pricer.errors import ModelError
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt

Result = TypeVar("Result")

# Messages for which torch has no exception class: from the CPU's allocator, from a CUDA call outside of torch's
# allocator, and from cuBLAS and cuDNN when they ask for a workspace.
_MESSAGES = (
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
)
# Tokens in the smallest batch that is tried, and in the largest.
_MIN_TOKENS, _MAX_TOKENS = 512, 131_072
# A larger batch takes more memory, so it has to be faster by this factor.
_FASTER = 1.03
# In training, batches of similar length are cut from pools of this many batches: long enough to save most padding,
# short enough to stay random.
_POOL = 50


def left_padded(sequences: Sequence[np.ndarray], pad: int) -> tuple[np.ndarray, np.ndarray]:
    """Token ids and mask, both (sequences, longest), with every sequence at the end of its row: generation continues
    from the last position, so prompts must end together.
    """
    longest = max(len(sequence) for sequence in sequences)
    ids = np.full((len(sequences), longest), pad, dtype=np.int64)
    mask = np.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, longest - len(sequence) :] = sequence
        mask[row, longest - len(sequence) :] = 1
    return ids, mask


def right_padded(examples: Sequence[TokenizedExample], pad: int) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Token ids (examples, longest), and the start and end of each completion."""
    ids = right_padded_ids([example.ids for example in examples], pad)
    return ids, [(example.start, len(example.ids)) for example in examples]


def right_padded_ids(sequences: Sequence[Sequence[int] | np.ndarray], pad: int) -> np.ndarray:
    """Token ids (sequences, longest), with every sequence at the start of its row."""
    ids = np.full((len(sequences), max(len(sequence) for sequence in sequences)), pad, dtype=np.int64)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = sequence
    return ids


def batches_of(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, each with at most `batch_tokens` tokens, padding included.

    The longest come first, so that a batch that does not fit in memory fails at once and not after an hour. Equal
    lengths keep their order, so that an interrupted evaluation gets the same batches when it is resumed.
    """
    order = sorted(range(len(lengths)), key=lambda index: -lengths[index])
    batches: list[list[int]] = []
    for index in order:
        if batches and (len(batches[-1]) + 1) * lengths[batches[-1][0]] <= batch_tokens:
            batches[-1].append(index)
        else:
            batches.append([index])
    return batches


class EpochOrder(Sampler[int]):
    """The order of items in an epoch of training: a function of seed and epoch alone, so a resumed epoch is the same.

    (The Trainer's own length grouping draws from the global random state, which a restart does not rebuild.)
    Batches hold items of similar length; which ones, and the order of batches, is random.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = np.asarray(lengths)
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by the Trainer at the start of each epoch."""
        self._epoch = int(epoch)

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        random = np.random.default_rng([self._seed, self._epoch])
        order = random.permutation(len(self._lengths))
        pool = self._batch_size * _POOL
        pools = [order[start : start + pool] for start in range(0, len(order), pool)]
        order = np.concatenate([own[np.argsort(-self._lengths[own], kind="stable")] for own in pools])
        whole = len(order) // self._batch_size * self._batch_size
        batches = order[:whole].reshape(-1, self._batch_size)
        # The incomplete batch stays last: anywhere else it would shift all that follow.
        yield from (int(index) for index in batches[random.permutation(len(batches))].ravel())
        yield from (int(index) for index in order[whole:])


class OutOfMemoryError(ModelError):
    """Not even the smallest part fits."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of torch's means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)
    )


def free_memory() -> None:
    """Return the memory that torch has cached. To be called after the `except` block, whose traceback keeps tensors."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class BatchSplitter:
    """Splits batches that do not fit into memory into halves, and continues with the size that did fit.

    `action` completes "there is no memory left to …" for a single member of a batch.
    """

    def __init__(self, action: str) -> None:
        self._action = action
        # Tokens, padding included, in the smallest batch that did not fit.
        self._too_large: int | None = None

    def run(self, call: Callable[[Sequence[Any]], list[Result]], batch: Sequence[Any]) -> list[Result]:
        """The results of `call` for a batch of tokenized prompts or examples, computed at once or in parts. An
        OutOfMemoryError if a single one does not fit.
        """
        tokens = len(batch) * max(len(member.ids) for member in batch)
        if len(batch) == 1 or self._too_large is None or tokens < self._too_large:
            try:
                return call(batch)
            except RuntimeError as error:
                if not is_out_of_memory(error):
                    raise
            free_memory()
            if len(batch) == 1:
                self._too_large = None  # smaller batches would not have helped
                raise OutOfMemoryError(
                    f"there is no memory left to {self._action} {batch[0].item_id} by itself",
                    "model.quantization: nf4, or a GPU with more",
                )
            self._too_large = tokens
        half = len(batch) // 2
        return [*self.run(call, batch[:half]), *self.run(call, batch[half:])]


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
