"""Defaults that look at the data: every setting that is `auto`, settled from facts, each with its reason."""

from typing import Literal

Auto = Literal["auto"]

# The share of each held-out split where its limits do not decide.
_HELD_OUT = 0.1
# The largest share of each held-out split: the rest is for training.
_MAX_HELD_OUT = 0.2
# Fewer held-out items than this cannot tell checkpoints apart: the 95 % interval of their error is a fifth of its
# standard deviation.
MIN_HELD_OUT = 100
# A hash puts 100 expected items somewhere between 70 and 130 (three standard deviations of a Poisson count), so a split
# that must have 100 aims at 130, and its share may be a little above a fifth.
_AIM, _MAX_SHARE_AT_AIM = 130, 0.25
# More items than these narrow the interval less than they cost: $1.3 at 10,000 items of the published models.
_MAX_VAL, _MAX_TEST = 2_000, 10_000


def held_out_fractions(items: int, val: float | Auto, test: float | Auto) -> tuple[float, float]:
    """The shares of the validation and the test split of this number of items. A number is kept as it is.

    `auto` is 10 %, but at least 100 items if 20 % of the items are that many, and at most 2,000 validation items and
    10,000 test items. It has two digits, so that a few more items move none to another split.
    """
    least_val = min(_AIM / max(items, 1), _MAX_SHARE_AT_AIM if items * _MAX_HELD_OUT >= MIN_HELD_OUT else _MAX_HELD_OUT)
    least_test = min(MIN_HELD_OUT / max(items, 1), _MAX_HELD_OUT)
    settled_val = _settle_share(items, least_val, _MAX_VAL) if val == "auto" else val
    settled_test = _settle_share(items, least_test, _MAX_TEST) if test == "auto" else test
    # A split with a given share leaves at least as many items for training as for the other one.
    if val == "auto":
        settled_val = min(settled_val, (1 - settled_test) / 2)
    if test == "auto":
        settled_test = min(settled_test, (1 - settled_val) / 2)
    return settled_val, settled_test


def _settle_share(items: int, least: float, most: int) -> float:
    """10 %, at least the share `least` and at most `most` items, with two digits."""
    return float(f"{min(max(_HELD_OUT, least), most / max(items, 1)):.2g}")
