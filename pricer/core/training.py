"""What a training reports while it runs."""

import math
from dataclasses import asdict, dataclass
from typing import Any

from pricer.core.units import DOLLARS, PriceUnit


@dataclass(frozen=True, slots=True)
class Progress:
    """The progress of a training. Fields from `loss` on are None between logged steps. `loss` is the mean since the
    last logged step, in nats per completion token. Memory is in bytes, `gpu_utilisation` in percent.
    """

    step: int
    steps: int
    epoch: float
    loss: float | None = None
    learning_rate: float | None = None
    grad_norm: float | None = None
    tokens_per_second: float | None = None
    memory_used: int | None = None
    memory_total: int | None = None
    gpu_utilisation: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The entries of a logged step's line in metrics.jsonl, without the step itself."""
        line = asdict(self) | {
            "epoch": round(self.epoch, 6),
            "loss": finite(self.loss),
            "grad_norm": finite(self.grad_norm),
            "tokens_per_second": self.tokens_per_second and round(self.tokens_per_second, 1),
        }
        absent = ["step", "steps"] + ["gpu_utilisation"] * (self.gpu_utilisation is None)
        return {name: value for name, value in line.items() if name not in absent}


@dataclass(frozen=True, slots=True)
class Validation:
    """Validation error during training. `loss` is in nats per completion token, None if no validation price fits the
    run's price format. `mae` is in `unit`. `no_price` of the `n` items got no price.
    """

    loss: float | None
    mae: float
    no_price: int
    n: int
    unit: PriceUnit = DOLLARS

    def to_json(self) -> dict[str, Any]:
        """The entries of a validation in metrics.jsonl."""
        return {"val_loss": finite(self.loss), "val_mae": self.mae, "val_no_price": self.no_price}


def finite(value: float | None) -> float | None:
    """The value; None for infinity and NaN, which JSON cannot express."""
    return value if value is not None and math.isfinite(value) else None
