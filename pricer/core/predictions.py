"""Predictions: what one Checkpoint answered about one Item."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Prediction:
    """The answer about one Item. `price` is in dollars; None means that there was no price in the completion."""

    item_id: str
    completion: str
    price: float | None
