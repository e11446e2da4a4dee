"""Defaults that look at the data: the value of each setting that is `auto`, from facts, with its reason.

Two kinds of facts support the rules. The published recipes: Llama 3.1 8B on 400,000 items, and Llama 3.2 3B on 20,000
and 800,000 items. And measurements with the bundled base, which EXPERIMENTS.md describes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

Auto = Literal["auto"]


@dataclass(frozen=True, slots=True)
class Default:
    """The value that `auto` stands for (a number, a text, or None for nothing), and the reason: a phrase that continues
    `because`.
    """

    value: Any
    reason: str

    @property
    def text(self) -> str:
        """The value as it is shown, a sentence in quotes."""
        if isinstance(self.value, str):
            return f'"{self.value}"' if " " in self.value else self.value
        return "none" if self.value is None else f"{self.value:g}"


# The share of each held-out split where its limits do not decide.
_HELD_OUT = 0.1
# The largest share of each held-out split: the rest is for training.
_MAX_HELD_OUT = 0.2
MIN_HELD_OUT = 100
"""Fewer items cannot tell checkpoints apart: the 95 % interval of their error is over a fifth of its standard
deviation."""
# A hash puts 100 expected items somewhere between 70 and 130 (three standard deviations of a Poisson count). A split
# that must have 100 therefore aims at 130, and its share may be a little above a fifth.
_AIM, _MAX_SHARE_AT_AIM = 130, 0.25
# Published figures: the error's standard deviation is about $70. 2,000 items give ± $3, and 10,000 give ± $1.3.
_MAX_VAL, _MAX_TEST = 2_000, 10_000


def held_out_fractions(items: int, val: float | Auto, test: float | Auto) -> tuple[float, float]:
    """The shares of the validation and the test split of this number of items. A number is kept as it is.

    `auto` is 10 %, but at least 100 items if a fifth of the items are that many, and at most 2,000 validation items and
    10,000 test items. It has two digits: where the limits decide, a few more items rarely change it.
    """
    share_at_aim = _MAX_SHARE_AT_AIM if items * _MAX_HELD_OUT >= MIN_HELD_OUT else _MAX_HELD_OUT
    least_val = min(_AIM / max(items, 1), share_at_aim)
    least_test = min(MIN_HELD_OUT / max(items, 1), _MAX_HELD_OUT)
    settled_val = _settle_share(items, least_val, _MAX_VAL) if val == "auto" else val
    settled_test = _settle_share(items, least_test, _MAX_TEST) if test == "auto" else test
    # If one share is given, the other takes at most half of the rest.
    if val == "auto":
        settled_val = min(settled_val, (1 - settled_test) / 2)
    if test == "auto":
        settled_test = min(settled_test, (1 - settled_val) / 2)
    return settled_val, settled_test


def _settle_share(items: int, least: float, most: int) -> float:
    """10 %, at least the share `least` and at most `most` items, with two digits."""
    return float(f"{min(max(_HELD_OUT, least), most / max(items, 1)):.2g}")


def half_width(errors: Sequence[float], items: int) -> float | None:
    """Half of the 95 % interval of a mean absolute error over a number of items. `errors` are the absolute errors of
    the median training price for a sample. A model that is better than the median has smaller errors, and usually a
    narrower interval. None if there are too few errors or items.
    """
    if len(errors) < 2 or not items:
        return None
    mean = math.fsum(errors) / len(errors)
    deviation = math.sqrt(math.fsum((error - mean) ** 2 for error in errors) / (len(errors) - 1))
    return 1.96 * deviation / math.sqrt(items)


def choose_batch_size(items: int) -> Default:
    """The power of two nearest to a quarter of the root of the number of training items, from 8 to 256.

    It follows two recipes and the quickstart: 256 for 800,000 items, 32 for 20,000, 16 for 5,013. The recipe for
    400,000 items takes 16 instead of 128. No other size was measured.
    """
    nearest = round(math.log2(max(math.sqrt(items) / 4, 1)))
    size = 2 ** min(max(nearest, 3), 8)
    return Default(size, f"{items:,} training items give {math.ceil(items / size):,} steps an epoch")


# The bundled base with the learning rate measured for it, and that of the recipes for 3 and 8 billion parameters.
_SMALL_BASE, _SMALL_RATE = 2.2e6, 2e-3
_LARGE_BASE, _LARGE_RATE = 3e9, 1e-4


def choose_learning_rate(parameters: int) -> Default:
    """1e-4 from 3 billion parameters of the base on, 2e-3 up to 2.2 million, and between them a power law, rounded to
    one digit.
    """
    exponent = math.log(_SMALL_RATE / _LARGE_RATE) / math.log(_LARGE_BASE / _SMALL_BASE)
    size = min(max(parameters, _SMALL_BASE), _LARGE_BASE)
    rate = float(f"{_SMALL_RATE * (size / _SMALL_BASE) ** -exponent:.1g}")
    return Default(rate, f"the base has {format_parameters(parameters)} parameters, and smaller bases need more")


def format_parameters(parameters: int) -> str:
    """A number of parameters in millions or billions: `2.2 M`, `135 M`, `8 B`."""
    amount, letter = (parameters / 1e9, "B") if parameters >= 1e9 else (parameters / 1e6, "M")
    return f"{amount:.2g} {letter}" if amount < 100 else f"{amount:,.0f} {letter}"


# Epochs for 100,000 items and more: the recipes train 3 and 4, and found the best checkpoint after the third.
_MANY_ITEMS, _EPOCHS = 100_000, 3
# With more epochs, 3 checkpoints an epoch would be more than 40.
_MAX_EPOCHS = 13
# Parameters from which a base is fluent enough to learn a data set in fewer passes.
_FLUENT = 10**9


def choose_epochs(items: int, parameters: int) -> Default:
    """3 epochs for 100,000 training items and more. Fewer items need more passes: with the fourth root of their number,
    and with the eighth root for a base of a billion parameters or more. At most 13.

    The bundled base on 350 items, one seed: of 20 epochs the 13th was the best, and of 10 epochs the 8th. Nothing was
    measured with a large base on few items.
    """
    root = 8 if parameters >= _FLUENT else 4
    epochs = min(round(_EPOCHS * max(1.0, _MANY_ITEMS / max(items, 1)) ** (1 / root)), _MAX_EPOCHS)
    return Default(
        float(epochs), f"fewer items need more passes, and there are {items:,}; pricer pick finds the best one"
    )


# An epoch may hold the best checkpoint anywhere, and fewer than 8 say little about the curve. Each takes disk and
# minutes of scoring, so there are at most 40.
_PER_EPOCH, _MIN_CHECKPOINTS, _MAX_CHECKPOINTS = 3, 8, 40
# What is aimed at where the limits leave a choice.
_CHECKPOINTS = 12


def choose_checkpoint_every(steps: int, epochs: float) -> Default:
    """Optimizer steps between checkpoints, for a training of `steps` in all: about 12 checkpoints, at least 3 an epoch.

    Where 3 an epoch are more than 40 in all, 40 is the limit: checkpoints are then still close to each other compared
    with the whole training. Fewer than 8 steps have a checkpoint each.
    """
    wanted = min(max(_CHECKPOINTS, math.ceil(_PER_EPOCH * epochs)), _MAX_CHECKPOINTS)
    every = max(1, steps // wanted)
    if math.ceil(steps / every) > _MAX_CHECKPOINTS:
        every = math.ceil(steps / _MAX_CHECKPOINTS)
    checkpoints = math.ceil(steps / every)
    if every == 1 and checkpoints < _MIN_CHECKPOINTS:
        return Default(1, f"the training has only {_count(steps, 'step')}: a checkpoint after each")
    reason = f"{checkpoints} checkpoints, {checkpoints / epochs:.2g} an epoch"
    if checkpoints < _PER_EPOCH * epochs:
        reason += f": at most {_MAX_CHECKPOINTS} in all"
    return Default(every, reason)


# Share of the descriptions that may be cut. max_length is a multiple of 8, which GPUs compute fastest.
_MAX_CUT, _MULTIPLE = 0.01, 8


def choose_max_length(lengths: Sequence[int], least: int, context: int | None, room: int | None) -> Default:
    """Tokens of prompt plus completion so that at most 1 % of descriptions are cut, rounded up to a multiple of 8.

    `lengths` are those of a sample of training prompts, each with the longest completion. `least` is the length without
    any description. `context` is the base's maximum, `room` the length that fits into the GPU; None: no limit.
    """
    ordered = sorted(lengths)
    enough = max(ordered[math.ceil((1 - _MAX_CUT) * len(ordered)) - 1], least)
    length = -(-enough // _MULTIPLE) * _MULTIPLE
    limits = {"the base's context": context, "what fits into the GPU's memory": room}
    limit, name = min((most, name) for name, most in {**limits, "": length}.items() if most is not None)
    limit = max(limit, least)
    cut = count_cut(lengths, limit)
    if name:
        return Default(limit, f"it is {name}; {cut:.0%} of the descriptions are longer and will be cut")
    longest = f"the longest of {len(lengths):,} prompts has {ordered[-1]} tokens with its price"
    return Default(limit, f"{longest}, and {cut:.1%} are cut" if cut else longest)


def count_cut(lengths: Sequence[int], max_length: int) -> float:
    """The share of prompts that are longer than `max_length`."""
    return sum(length > max_length for length in lengths) / max(len(lengths), 1)


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


MUCH_CUT = 0.1
"""Where more descriptions are cut, most of what they say may be lost."""


def find_waste(
    *, steps: int, epochs: float, checkpoint_every: int, val_items: int, cut: float, max_length: int, enough: int
) -> list[str]:
    """Sentences about settings that would waste a run, each with what to set. An empty list if there is nothing wrong.

    `cut` is the share of the descriptions that `max_length` cuts; `enough` is the length that `auto` would choose.
    """
    found = []
    if steps <= checkpoint_every:
        every = choose_checkpoint_every(steps, epochs).value
        remedy = f"train.checkpoint_every={every}" if steps > 1 else "train.epochs=8"
        found.append(
            f"there will be one checkpoint and nothing to choose from, because train.checkpoint_every is "
            f"{checkpoint_every:,} and the training has {_count(steps, 'step')}: --set {remedy}"
        )
    if cut > MUCH_CUT:
        remedy = f"--set prompt.max_length={enough}" if enough > max_length else "take a base with a longer context"
        found.append(
            f"{cut:.0%} of the descriptions are longer than prompt.max_length ({max_length:,} tokens) and will be cut: "
            f"{remedy}"
        )
    if val_items < MIN_HELD_OUT:
        found.append(
            f"{_count(val_items, 'validation item')} cannot tell checkpoints apart, {MIN_HELD_OUT} are a minimum: set "
            "a larger data.val_fraction or data.val_limit, or get more items"
        )
    return found
