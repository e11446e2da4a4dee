"""The variants of training that benchmarks/quality.py compares. Each one changes one thing in the baseline, `ce`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

BASELINE = "ce"


@dataclass(frozen=True, slots=True)
class Variant:
    """What is trained. `loss` is a key of quality_losses.LOSSES. `scale` multiplies the adapter's output: alpha / r.
    `b_rate` multiplies the learning rate of the matrix B. `prompts` is a key of Prepared.prompts.
    """

    name: str
    says: str
    loss: str = "ce"
    dropout: float = 0.1
    r: int = 32
    scale: float = 2.0
    attention_only: bool = False
    b_rate: float = 1.0
    dora: bool = False
    quantization: Literal["none", "nf4"] = "none"
    prompts: str = "padded"

    @property
    def stack(self) -> tuple[object, ...]:
        """Variants with the same key can be trained side by side: they share a base, and no matrix of one is padded to
        a much larger size of another.
        """
        has_neighbours = self.prompts in ("near", "shuffled")
        return self.quantization, self.dora, self.r > 32, has_neighbours, self.loss.startswith("prompt")


_ALL = (
    # The first ones matter most: if time runs out, the last ones are missing.
    Variant(BASELINE, "cross-entropy, dropout 0.1, r = 32, alpha / r = 2, all linear layers"),
    Variant("d0", "dropout 0", dropout=0.0),
    Variant("ntl03", "+ 0.3 Wasserstein distance of each digit (number-token loss)", loss="ntl03"),
    Variant("crps", "the distribution's absolute error (CRPS) in place of the digits' cross-entropy", loss="crps"),
    Variant("ce+crps", "+ CRPS", loss="ce+crps"),
    Variant("plain", "prices as 227.00 instead of 0227", prompts="plain"),
    Variant("qkvo", "adapter on the attention's layers only", attention_only=True),
    Variant("raft", "squared error of the mean in place of the digits' cross-entropy", loss="raft"),
    Variant("r8", "r = 8, alpha / r = 2", r=8),
    Variant("loraplus", "LoRA+: 16 times the learning rate for B", b_rate=16.0),
    Variant("rslora", "rsLoRA: alpha / sqrt(r) = 11.3 instead of alpha / r = 2", scale=64 / 32**0.5),
    Variant("ce+raft", "+ squared error of the mean", loss="ce+raft"),
    Variant("near", "3 nearest training items with their prices in the prompt", prompts="near"),
    Variant("nearx", "the same with shuffled prices (control)", prompts="shuffled"),
    Variant("nf4", "base in 4 bits (NF4)", quantization="nf4"),
    Variant("r128", "r = 128, alpha / r = 2", r=128),
    Variant("rslora128", "r = 128, scale 1: the baseline's scale continued by rsLoRA's 1 / sqrt(r)", r=128, scale=1.0),
    Variant("dora", "DoRA: magnitude and direction of each weight apart", dora=True),
    Variant("pl001", "+ 0.01 cross-entropy of each token of the prompt", loss="prompt0.01"),
    Variant("pl01", "+ 0.1 cross-entropy of each token of the prompt", loss="prompt0.1"),
    Variant("pl05", "+ 0.5 cross-entropy of each token of the prompt", loss="prompt0.5"),
)
VARIANTS = {variant.name: variant for variant in _ALL}


@dataclass(frozen=True, slots=True)
class Job:
    """One training: a variant with a seed."""

    variant: str
    seed: int


@dataclass(frozen=True, slots=True)
class Stack:
    """Jobs that are trained side by side. Jobs without dropout come first."""

    jobs: tuple[Job, ...]

    @property
    def variants(self) -> list[Variant]:
        """The variant of each job."""
        return [VARIANTS[job.variant] for job in self.jobs]

    @property
    def name(self) -> str:
        """A name for a file and for lines about it."""
        variants = "+".join(dict.fromkeys(job.variant for job in self.jobs))
        return f"{variants[:60]}-s{''.join(str(seed) for seed in sorted({job.seed for job in self.jobs}))}"


def plan_stacks(names: Sequence[str], seeds: int, size: int) -> list[Stack]:
    """Stacks of at most `size` jobs, in order of importance: the stacks with the baseline, then all others seed by
    seed. Stacks of one or two variants have all seeds in one stack, if there is room.
    """
    by_key: dict[tuple[object, ...], list[str]] = {}
    for name in names:
        by_key.setdefault(VARIANTS[name].stack, []).append(name)
    chunks = [members[start : start + size] for members in by_key.values() for start in range(0, len(members), size)]
    first: list[Stack] = []
    rest: dict[int, list[Stack]] = {seed: [] for seed in range(seeds)}
    for chunk in chunks:
        together = len(chunk) <= 2 and len(chunk) * seeds <= size and BASELINE not in chunk
        for group in [range(seeds)] if together else [[seed] for seed in range(seeds)]:
            stack = _sort_by_dropout([Job(name, seed) for seed in group for name in chunk])
            (first if BASELINE in chunk else rest[group[0]]).append(stack)
    return [*first, *(stack for seed in range(seeds) for stack in rest[seed])]


def _sort_by_dropout(jobs: Sequence[Job]) -> Stack:
    return Stack(tuple(sorted(jobs, key=lambda job: VARIANTS[job.variant].dropout > 0)))
