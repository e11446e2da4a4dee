"""Facts about prompts as the model gets them: their lengths in tokens, the share that is cut, and samples."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# Bands of token lengths in a histogram.
_BANDS = 10
_QUANTILES = (0.5, 0.95, 0.99, 1.0)


@dataclass(frozen=True, slots=True)
class WrittenPrice:
    """A price, the completion that the model learns to write for it, and the tokens of the completion."""

    price: float
    completion: str
    tokens: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PromptSample:
    """A prompt with its completion, and their number of tokens before anything is cut."""

    prompt: str
    completion: str
    tokens: int


@dataclass(frozen=True, slots=True)
class TokenLengths:
    """Lengths of prompt plus completion in tokens, before anything is cut. `items` were measured. `bands` has the
    shortest and the longest length of each band, and its number of items. `cut` is the share above the maximum length.
    """

    items: int
    median: int
    q95: int
    q99: int
    longest: int
    cut: float
    bands: tuple[tuple[int, int, int], ...]


@dataclass(frozen=True, slots=True)
class PromptFacts:
    """What a base makes of the items. `max_length` and `price_format` are settled, each with the reason, which may be
    empty.
    """

    base: str
    max_length: int
    max_length_reason: str
    price_format: str
    lengths: TokenLengths
    prices: tuple[WrittenPrice, ...]
    samples: tuple[PromptSample, ...]


def measure_lengths(lengths: Sequence[int], max_length: int) -> TokenLengths:
    """The distribution of token lengths, of which there is at least one."""
    values = np.asarray(lengths)
    median, q95, q99, longest = (int(each) for each in np.quantile(values, _QUANTILES, method="inverted_cdf"))
    # A few very long texts would squeeze all others into one band, so all above the 99 % quantile share the last one.
    width = _band_width(q99)
    counts = np.bincount(np.minimum(values // width, q99 // width + 1))
    bands = [
        (place * width, longest if place == len(counts) - 1 else (place + 1) * width - 1, int(count))
        for place, count in enumerate(counts)
    ]
    filled = next(place for place, (_, _, count) in enumerate(bands) if count)
    return TokenLengths(
        len(values), median, q95, q99, longest, float(np.mean(values > max_length)), tuple(bands[filled:])
    )


def _band_width(length: int) -> int:
    """A round width that needs about ten bands for lengths up to this one."""
    widths = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
    return next((width for width in widths if length / width <= _BANDS), widths[-1])
