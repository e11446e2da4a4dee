"""Batches: of similar length, padded, split where memory is short, and of a size that is found."""

from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from pricer.core.predictions import Prediction
from pricer.ml.batches import BatchSplitter, OutOfMemoryError, find_batch_tokens, make_batches
from pricer.ml.tokens import TokenizedPrompt


def test_batches_are_longest_first_and_within_the_budget() -> None:
    # 5 × 2 = 10 fits a budget of 10, a third would make 15; then 3 × 2 = 6, and a third of 3 makes 9.
    assert make_batches([3, 5, 3, 5, 3], batch_tokens=10) == [[1, 3], [0, 2, 4]]


def test_a_prompt_longer_than_the_budget_is_a_batch_by_itself() -> None:
    assert make_batches([20, 4, 4], batch_tokens=10) == [[0], [1, 2]]


def test_no_prompts_are_no_batches() -> None:
    assert make_batches([], batch_tokens=10) == []


class Cramped:
    """A decoder on a machine that has room for so many prompts at once."""

    def __init__(self, room: int, error: RuntimeError) -> None:
        self.sizes: list[int] = []
        self._room = room
        self._error = error

    def predict(self, prompts: Sequence[TokenizedPrompt]) -> list[Prediction]:
        self.sizes.append(len(prompts))
        if len(prompts) > self._room:
            raise self._error
        return [Prediction(prompt.item_id, "1", 1.0) for prompt in prompts]


OUT_OF_MEMORY = {
    "torch's own": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "outside of its allocator": torch.AcceleratorError("CUDA error: out of memory"),
    "cuBLAS": RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    "on the CPU": RuntimeError("[enforce fail at alloc_cpu.cpp:118] . DefaultCPUAllocator: can't allocate memory: you"),
}


def five_prompts() -> list[TokenizedPrompt]:
    return [TokenizedPrompt(key, np.array([1]), cut=False) for key in "abcde"]


def splitter() -> BatchSplitter:
    return BatchSplitter("answer about")


@pytest.mark.parametrize("error", OUT_OF_MEMORY.values(), ids=OUT_OF_MEMORY.keys())
def test_a_batch_that_does_not_fit_is_answered_in_halves(error: RuntimeError) -> None:
    decoder = Cramped(2, error)

    answers = splitter().run(decoder.predict, five_prompts())

    assert [answer.item_id for answer in answers] == list("abcde")
    # 5 do not fit; of its halves 2 do and 3 do not, whose halves 1 and 2 do.
    assert decoder.sizes == [5, 2, 3, 1, 2]


def test_a_batch_that_may_not_be_split_is_an_error() -> None:
    decoder = Cramped(2, OUT_OF_MEMORY["cuBLAS"])

    with pytest.raises(OutOfMemoryError) as caught:
        BatchSplitter("answer about", may_split=False).run(decoder.predict, five_prompts())

    assert caught.value.message == "there is no memory left to answer about 5 items at once"
    assert decoder.sizes == [5]


def test_the_size_that_fitted_is_kept_for_the_batches_after() -> None:
    decoder, batches = Cramped(2, OUT_OF_MEMORY["cuBLAS"]), splitter()

    for _ in range(2):
        batches.run(decoder.predict, five_prompts())

    # The second time it is known that 3 do not fit: nothing is tried in vain.
    assert decoder.sizes == [5, 2, 3, 1, 2, 2, 1, 2]


def test_one_prompt_that_does_not_fit_is_named() -> None:
    with pytest.raises(OutOfMemoryError, match=r"^there is no memory left to answer about a by itself$"):
        splitter().run(Cramped(0, OUT_OF_MEMORY["torch's own"]).predict, five_prompts())


def test_another_error_is_not_taken_for_a_lack_of_memory() -> None:
    decoder = Cramped(0, RuntimeError("shapes do not match"))

    with pytest.raises(RuntimeError, match=r"^shapes do not match$"):
        splitter().run(decoder.predict, five_prompts())


def test_a_lack_of_memory_that_no_smaller_batch_helps_against_leaves_the_batches_after_as_they_were() -> None:
    batches = splitter()
    with pytest.raises(OutOfMemoryError):
        batches.run(Cramped(0, OUT_OF_MEMORY["torch's own"]).predict, five_prompts())
    recovered = Cramped(5, OUT_OF_MEMORY["torch's own"])

    batches.run(recovered.predict, five_prompts())

    assert recovered.sizes == [5]


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
