"""Curves by step, prepared for drawing: thinning, smoothing, ends of epochs, round ticks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# A screen cannot show many more points than this, and they would make the page slow.
MAX_POINTS = 1000


@dataclass(frozen=True, slots=True, eq=False)
class Curve:
    """Values measured at steps in increasing order: `step` and `value` (n,). A diverged loss is NaN."""

    step: np.ndarray
    value: np.ndarray

    @classmethod
    def of(cls, points: Sequence[tuple[int, float | None]]) -> "Curve":
        """The curve through points (step, value). A value of None becomes NaN."""
        steps = np.array([step for step, _ in points], dtype=np.int64)
        return cls(steps, np.array([np.nan if value is None else value for _, value in points], dtype=np.float64))

    def __len__(self) -> int:
        return len(self.step)

    @property
    def has_number(self) -> bool:
        """Whether any value is a number."""
        return bool(np.isfinite(self.value).any())


NO_CURVE = Curve.of(())


@dataclass(frozen=True, slots=True, eq=False)
class Thinned:
    """A curve in buckets of `per` values each (the last may have fewer). All columns are (buckets,); `step` is the
    middle of each bucket. NaN values are ignored; a bucket without a number is NaN.
    """

    step: np.ndarray
    mean: np.ndarray
    lowest: np.ndarray
    highest: np.ndarray
    per: int


def thinned(curve: Curve, most: int = MAX_POINTS) -> Thinned:
    """The curve in at most `most` buckets."""
    per = max(1, math.ceil(len(curve) / most))
    value, step = _in_rows(curve.value, per), _in_rows(curve.step.astype(np.float64), per)
    known = np.isfinite(value)
    count = known.sum(axis=1)
    total = np.where(known, value, 0.0).sum(axis=1)
    none = count == 0
    return Thinned(
        step=np.nanmean(step, axis=1) if len(step) else step[:, 0],
        mean=np.where(none, np.nan, total / np.maximum(count, 1)),
        lowest=np.where(none, np.nan, np.where(known, value, np.inf).min(axis=1, initial=np.inf)),
        highest=np.where(none, np.nan, np.where(known, value, -np.inf).max(axis=1, initial=-np.inf)),
        per=per,
    )


def _in_rows(values: np.ndarray, per: int) -> np.ndarray:
    """The values in rows of `per`. The last row is filled up with NaN."""
    rows = math.ceil(len(values) / per)
    padded = np.full(rows * per, np.nan)
    padded[: len(values)] = values
    return padded.reshape(rows, per)


def smoothed(values: np.ndarray, weight: float) -> np.ndarray:
    """The exponential moving average: each value has `weight` (0 to below 1) times the weight of the value after it.
    It is divided by the sum of the weights, so that it does not start near zero. NaN stays NaN and is ignored. page.js
    computes the same for its slider.
    """
    found = np.full(len(values), np.nan)
    total = counted = 0.0
    for index, value in enumerate(values):
        if math.isfinite(value):
            total = weight * total + (1 - weight) * value
            counted = weight * counted + (1 - weight)
            found[index] = total / counted
    return found


def epoch_ends(epoch: Curve, most: int = 12) -> list[tuple[int, float]]:
    """Each finished epoch and its last step. If there are more than `most`, only every second, third, … epoch."""
    if not epoch.has_number:
        return []
    known = np.isfinite(epoch.value)
    step, value = epoch.step[known], epoch.value[known]
    # The epoch is computed from the number of steps, so its end may not be exactly a whole number.
    last = math.floor(float(value.max()) + 1e-6)
    every = max(1, math.ceil(last / most))
    return [(number, float(np.interp(number, value, step))) for number in range(every, last + 1, every)]


def round_prices(low: float, high: float) -> list[float]:
    """Ticks for a logarithmic axis from `low` to `high` (both above zero): 1, 2 and 5 times powers of ten. If
    these are too few, there are more ticks; if they are too many, only powers of ten.
    """
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for digits in ((1,), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7)):
        ticks = [digit * 10.0**decade for decade in decades for digit in digits if low <= digit * 10.0**decade <= high]
        if len(ticks) >= 5:
            break
    return ticks
