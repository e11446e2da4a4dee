"""Batches: groups items of similar length, pads them, and finds a batch size that fits into memory."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.utils.data import Sampler

from pricer.errors import ModelError
from pricer.ml.tokens import TokenizedExample, TokenizedPrompt

Result = TypeVar("Result")

# Messages of out-of-memory errors without an exception class in torch: from the CPU's allocator, from CUDA calls
# outside of torch's allocator, and from cuBLAS and cuDNN when they allocate a workspace.
_MESSAGES = (
    "can't allocate memory",
    "out of memory",
    "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED",
    "cudaErrorMemoryAllocation",
)
# Number of tokens in the smallest and in the largest batch that is tried.
_MIN_TOKENS, _MAX_TOKENS = 512, 131_072
# A larger batch takes more memory, so it has to be faster by this factor.
_FASTER = 1.03
# In training, items are sorted by length within pools of this many batches. Larger pools need less padding, smaller
# pools are more random.
_POOL = 50


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


def make_batches(lengths: Sequence[int], batch_tokens: int) -> list[list[int]]:
    """Indices in batches of similar length, each with at most `batch_tokens` tokens, padding included.

    The longest come first, so a batch that does not fit into memory fails at once and not after an hour. Equal lengths
    keep their order, so an interrupted evaluation gets the same batches when it is resumed.
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
    """The order of items in an epoch of training. It depends only on seed and epoch, so a resumed epoch has the same
    order.

    Batches have items of similar length. Their composition and order are random. (The Trainer's own length grouping
    uses the global random state, which a restart does not restore.)
    """

    def __init__(self, lengths: Sequence[int] | np.ndarray, batch_size: int, seed: int) -> None:
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
        order = np.concatenate([part[np.argsort(-self._lengths[part], kind="stable")] for part in pools])
        whole = len(order) // self._batch_size * self._batch_size
        batches = order[:whole].reshape(-1, self._batch_size)
        # The incomplete batch stays last: anywhere else, it would shift all later batches.
        yield from (int(index) for index in batches[random.permutation(len(batches))].ravel())
        yield from (int(index) for index in order[whole:])


class OutOfMemoryError(ModelError):
    """Even the smallest part of a step or batch does not fit into memory."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that memory ran out."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and any(message in str(error) for message in _MESSAGES)
    )


def free_memory() -> None:
    """Release torch's cached memory. Call it after the `except` block: inside, the traceback keeps tensors alive."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class BatchSplitter:
    """Splits batches that do not fit into memory into halves. Later batches of that size are split at once.

    `action` completes "there is no memory left to …" for a single member of a batch. Unless `may_split`, the first
    batch that does not fit is an OutOfMemoryError.
    """

    def __init__(self, action: str, *, may_split: bool = True) -> None:
        self._action = action
        self._may_split = may_split
        # Number of tokens, including padding, in the smallest batch that did not fit.
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
            if not self._may_split:
                raise OutOfMemoryError(f"there is no memory left to {self._action} {len(batch):,} items at once")
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
    """Find the number of tokens per batch with the highest speed, measured on the longest prompts. The number is
    doubled as long as this increases the speed. The measurement may use `max_tokens` tokens in total. Returns None,
    without calling `load`, if this is too few to measure two sizes.
    """
    lengths = [len(prompt.ids) for prompt in prompts]

    def first_batch(tokens: int) -> list[TokenizedPrompt]:
        return [prompts[index] for index in make_batches(lengths, tokens)[0]]

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
