"""Columns that give the price away: another price, its logarithm, or the price divided by another column."""

from collections.abc import Mapping, Sequence

import numpy as np

# The rank correlation with the price from which a column is taken for another form of the price.
_SAME_ORDER = 0.995
# A column and the price divided by another column are the same up to rounding: in this share of rows, within 1 %.
_SAME_SHARE, _SAME_WITHIN = 0.95, 0.01
# Fewer rows or values show nothing.
_MIN_ROWS, _MIN_VALUES = 20, 20


def find_leaks(price: Sequence[float], columns: Mapping[str, Sequence[float]]) -> dict[str, str]:
    """The columns that give the price away, each with the reason. All are numbers, NaN where there is none.

    Of two columns that give the price together, such as the price per square metre and the area, the first is left out.
    Therefore put those first that are more likely to be made from the price.
    """
    target = np.asarray(price, dtype=np.float64)
    numbers = {name: np.asarray(values, dtype=np.float64) for name, values in columns.items()}
    varied = {name: values for name, values in numbers.items() if _varies(values)}
    leaks = {name: "moves with the price" for name, values in varied.items() if _has_same_order(target, values)}
    for name, values in varied.items():
        for other, against in varied.items():
            if other != name and not leaks.keys() & {name, other} and _is_quotient(target, values, against):
                leaks[name] = f"gives the price together with {other}"
    return leaks


def find_ratios(
    price: Sequence[float], columns: Mapping[str, Sequence[float]], others: Mapping[str, Sequence[float]]
) -> dict[str, str]:
    """The columns that are the price in relation to one of the `others`, such as the sale price in percent of the
    list price, each with the reason. Before a sale, nobody knows them.
    """
    target = np.asarray(price, dtype=np.float64)
    against = {name: np.asarray(values, dtype=np.float64) for name, values in others.items()}
    ratios: dict[str, str] = {}
    for name, cells in columns.items():
        numbers = np.asarray(cells, dtype=np.float64)
        quotients = (other for other, values in against.items() if _is_quotient(target, numbers, values))
        if _varies(numbers) and (other := next(quotients, None)) is not None:
            ratios[name] = f"gives the price together with {other}"
    return ratios


def _varies(values: np.ndarray) -> bool:
    known = values[~np.isnan(values)]
    return len(known) >= _MIN_ROWS and len(np.unique(known)) >= _MIN_VALUES


def _has_same_order(price: np.ndarray, values: np.ndarray) -> bool:
    both = ~np.isnan(price) & ~np.isnan(values)
    if both.sum() < _MIN_ROWS or len(np.unique(price[both])) < 2 or len(np.unique(values[both])) < 2:
        return False
    return bool(abs(np.corrcoef(_ranks(price[both]), _ranks(values[both]))[0, 1]) >= _SAME_ORDER)


def _is_quotient(price: np.ndarray, values: np.ndarray, other: np.ndarray) -> bool:
    """Whether values × other or values ÷ other is the price, up to a constant factor."""
    usable = (price > 0) & (values > 0) & (other > 0)
    if usable.sum() < _MIN_ROWS:
        return False
    target, log, against = (np.log(each[usable]) for each in (price, values, other))
    # A column that hardly varies would be near any constant.
    if np.std(log) < 5 * _SAME_WITHIN or np.std(against) < 5 * _SAME_WITHIN:
        return False
    residuals = (target - log - against, target - log + against)
    return any(np.mean(np.abs(each - np.median(each)) < _SAME_WITHIN) >= _SAME_SHARE for each in residuals)


def _ranks(values: np.ndarray) -> np.ndarray:
    """The rank of each value; equal values share their mean rank."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
