"""Sizes from a config.json alone, against the figures published for the Llama bases."""

from pathlib import Path

import pytest

from pricer.config import AdapterConfig
from pricer.ml.devices import Precision
from pricer.ml.plan import measure

BASES = Path(__file__).parent.parent / "bases"
NF4 = Precision("cpu", "nf4", "bfloat16")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
ALL = [*ATTENTION, "gate_proj", "up_proj", "down_proj"]


@pytest.mark.parametrize(
    ("base", "rank", "targets", "adapter_parameters", "base_gb"),
    [
        # 32 layers × 32 × (4096+4096 + 4096+1024 + 4096+1024 + 4096+4096) = 27,262,976
        ("llama-3.1-8b", 32, ATTENTION, 27_262_976, 5.59),
        # 28 layers × 32 × (3072+3072 + 3072+1024 + 3072+1024 + 3072+3072) = 18,350,080
        ("llama-3.2-3b", 32, ATTENTION, 18_350_080, 2.2),
        # 28 layers × 256 × (20,480 + 3 × (3072+8192)) = 389,021,696
        ("llama-3.2-3b", 256, ALL, 389_021_696, 2.2),
    ],
)
def test_sizes_of_the_published_runs(
    base: str, rank: int, targets: list[str], adapter_parameters: int, base_gb: float
) -> None:
    sizes = measure(BASES / base, AdapterConfig(r=rank, target_modules=targets), NF4)

    assert sizes.adapter_parameters == adapter_parameters
    assert sizes.adapter_bytes == 4 * adapter_parameters
    assert sizes.base_bytes / 1e9 == pytest.approx(base_gb, rel=0.03)


def test_an_unquantized_base_takes_two_bytes_a_parameter_in_bfloat16() -> None:
    sizes = measure(BASES / "llama-3.2-3b", AdapterConfig(), Precision("cpu", "none", "bfloat16"))

    assert sizes.base_bytes == 2 * sizes.base_parameters == 2 * 3_212_749_824
