"""What a training learns from, batch by batch, in an order that a restart repeats."""

from collections.abc import Iterator, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Sampler

from pricer.ml.tokens import TokenizedExample, right_padded_ids

# Batches of similar length are cut from pools of this many batches: long enough to save most padding, short enough
# to stay random.
_POOL = 50


def build_dataset(examples: Sequence[TokenizedExample]) -> datasets.Dataset:
    """The examples as the Trainer takes them: token ids, and where the completion starts in them."""
    return datasets.Dataset.from_dict(
        {"input_ids": [example.ids for example in examples], "start": [example.start for example in examples]}
    )


def collate(rows: Sequence[dict[str, Any]], pad: int) -> dict[str, Any]:
    """A batch: `input_ids` (items, longest), right-padded, and `spans`, each completion's start and end."""
    ids_BT = right_padded_ids([row["input_ids"] for row in rows], pad)
    spans = [(row["start"], len(row["input_ids"])) for row in rows]
    return {"input_ids": torch.from_numpy(ids_BT), "spans": spans}


class EpochOrder(Sampler[int]):
    """The order of items in an epoch: a function of seed and epoch alone, so a resumed epoch is the same epoch.

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
