"""What was found of a machine: its packages, GPUs, driver, 4-bit products, and what the Hub answers it."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Package:
    """A package that is needed. `installed`: its version, None: missing. `tested`: the version that the tests ran with,
    None: any. `wanted`: the lower bound that `installed` does not meet, None: it does.
    """

    name: str
    installed: str | None
    tested: str | None
    wanted: str | None = None

    @property
    def is_as_tested(self) -> bool:
        """Whether this is the tested version, in whatever build: 2.13.0+cpu is 2.13.0."""
        return self.installed is not None and self.tested in (None, self.installed.partition("+")[0])


@dataclass(frozen=True, slots=True)
class Card:
    """A GPU that torch can use, or a part of one (MIG). `free` and `total` in bytes."""

    name: str
    capability: tuple[int, int]
    free: int
    total: int

    @property
    def dtype(self) -> str:
        """The compute dtype that `auto` stands for on it."""
        return "bfloat16" if self.capability[0] >= 8 else "float16"


@dataclass(frozen=True, slots=True)
class Cuda:
    """What torch says. `built_for`: the CUDA of this build, None: built without. `problem`: why it finds no GPU.
    `archs`: what its kernels are built for (sm_75 …), empty: not known.
    """

    torch: str
    built_for: str | None
    cards: tuple[Card, ...] = ()
    problem: str = ""
    archs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Driver:
    """What NVIDIA's driver says: its version, the newest CUDA it can run, and the names of all GPUs of the machine.
    Where the `state` is not works, they are empty: there is no driver (absent), it fails, or it could not be asked
    (unknown); `problem` says why.
    """

    state: Literal["works", "absent", "fails", "unknown"]
    version: str = ""
    cuda: str = ""
    cards: tuple[str, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Product:
    """Products of 4-bit weights. `errors`: by what was computed, the distance from the product of the dequantised
    weights, as a share of its length; `quantisation`: that of the dequantised weights from the original ones.
    """

    device: str
    dtype: str
    quantisation: float
    errors: dict[str, float]


@dataclass(frozen=True, slots=True)
class HubAnswer:
    """What the Hub answered to "who am I". `problem`: why there was no answer; then the rest is None. `off_by`: the
    variable of the environment that forbids to ask, empty if none does. `account` and `role` (read, write, fineGrained
    …) belong to the token; `skew`: seconds by which this machine's clock is ahead.
    """

    endpoint: str
    has_token: bool
    problem: str = ""
    off_by: str = ""
    status: int | None = None
    account: str | None = None
    role: str | None = None
    skew: float | None = None
