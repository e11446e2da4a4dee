"""GPUs by name: how much memory torch finds on each, and whether it computes in bfloat16."""

from dataclasses import dataclass

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Gpu:
    """`memory` is in bytes, as `torch.cuda.mem_get_info` has it in all, which is a little less than what is printed on
    the box. `bfloat16` is there from compute capability 8 on; older cards compute in float16.
    """

    name: str
    memory: int
    bfloat16: bool


# Memory in GiB as torch reports it in out-of-memory errors; it differs by a few tenths between drivers and boards.
GPUS = {
    name: Gpu(name, round(gib * _GIB), bfloat16)
    for name, gib, bfloat16 in (
        ("t4", 14.7, False),
        ("v100-16", 15.8, False),
        ("v100-32", 31.7, False),
        ("rtx-16", 15.6, True),
        ("rtx-24", 23.6, True),
        ("rtx-32", 31.4, True),
        ("l4", 22.0, True),
        ("a10", 22.0, True),
        ("l40s", 44.4, True),
        ("a100-40", 39.5, True),
        ("a100-80", 79.2, True),
        ("h100", 79.1, True),
        ("h200", 139.8, True),
    )
}
