"""Whether a machine can train: each part good and bad, and the exact line with what to do."""

import math

import pytest

from pricer.core import machine_checks as checks
from pricer.core.gpus import Card, Cuda, Driver, Product, has_kernels, judge_cuda, judge_driver, judge_product
from pricer.core.machine_checks import Finding, HubAnswer, Package, is_fit

A100 = Card("NVIDIA A100-SXM4-40GB", (8, 0), 41_900_000_000, 42_400_000_000)
T4 = Card("Tesla T4", (7, 5), 15_600_000_000, 15_800_000_000)
WORKS = Driver("works", "580.82.07", "13.0", ("NVIDIA A100-SXM4-40GB",))
ABSENT = Driver("absent", problem="NVML Shared Library Not Found")
INSTALL = "https://pytorch.org/get-started/locally"
HUB = "https://huggingface.co"


def test_only_what_failed_makes_a_machine_unfit() -> None:
    assert is_fit([Finding("a", "ok", ""), Finding("b", "warning", ""), Finding("c", "unknown", "")])
    assert not is_fit([Finding("a", "ok", ""), Finding("b", "failed", "")])


def line(finding: Finding) -> str:
    """A finding as one text: name, status, text and hint."""
    return " | ".join(filter(None, (finding.name, finding.status, finding.text, finding.hint)))


TRL = Package("trl", "1.17.0", "1.16.0")
PACKAGES: dict[str, tuple[list[Package], str]] = {
    "a build of the tested version is the tested version": (
        [Package("torch", "2.13.0+cu130", "2.13.0"), Package("odd", "1", None)],
        "packages | ok | all 2 as tested together, torch 2.13.0+cu130",
    ),
    "another version is a warning with both": (
        [Package("torch", "2.13.0", "2.13.0"), TRL],
        "packages | warning | trl 1.17.0 (tested: 1.16.0) | pip install trl==1.16.0",
    ),
    # Colab's: pip would put one for another CUDA in its place.
    "another torch that pricer takes stays": (
        [Package("torch", "2.11.0+cu128", "2.13.0")],
        "packages | warning | torch 2.11.0+cu128 (tested: 2.13.0)",
    ),
    "one below the lower bound is a warning, since the imports are tried": (
        [Package("torch", "2.11.0", "2.13.0", wanted=">=2.13"), Package("x", "1", None, wanted=">=2")],
        "packages | warning | torch 2.11.0 (pricer asks for >=2.13); x 1 (pricer asks for >=2)"
        " | pip install torch==2.13.0 x",
    ),
    "missing ones fail and are what to install": (
        [Package("peft", None, "0.21.2"), TRL, Package("bitsandbytes", None, "0.50.2")],
        "packages | failed | missing: peft, bitsandbytes; trl 1.17.0 (tested: 1.16.0)"
        " | pip install peft==0.21.2 bitsandbytes==0.50.2",
    ),
}


@pytest.mark.parametrize(("packages", "said"), PACKAGES.values(), ids=PACKAGES)
def test_packages(packages: list[Package], said: str) -> None:
    assert line(checks.judge_packages(packages)) == said


NO_GPU = Cuda("2.13.0", "13.0", problem="No CUDA GPUs are available")
NO_DRIVER = Cuda("2.13.0", "13.0", problem="Found no NVIDIA driver")
ERROR = Cuda("2.13.0", "13.0", problem="CUDA unknown error")
OLD_DRIVER = Driver("works", "470.42.01", "11.4", ("Tesla T4",))
IS_IT_RIGHT = "does nvidia-smi work? After an update of the driver: restart the machine"
# 80 % of 40 GB are 32 GB.
ENOUGH, LITTLE = (Card("X", (9, 0), free, 40_000_000_000) for free in (32_000_000_000, 31_900_000_000))
# What torch says of its cards, what the driver says, and CUDA_VISIBLE_DEVICES.
GPUS: dict[str, tuple[Cuda, Driver, str | None, list[str]]] = {
    "one card": (
        *(Cuda("2.13.0", "13.0", (A100,)), WORKS, None),
        [
            "GPU | ok | NVIDIA A100-SXM4-40GB, compute capability 8.0: computes in bfloat16",
            "GPU memory | ok | 41.9 GB of 42.4 GB free",
        ],
    ),
    "an older card computes in float16": (
        *(Cuda("2.13.0", "13.0", (T4,)), WORKS, None),
        [
            "GPU | ok | Tesla T4, compute capability 7.5: computes in float16, for want of bfloat16",
            "GPU memory | ok | 15.6 GB of 15.8 GB free",
        ],
    ),
    "memory that others have is a warning": (
        *(Cuda("2.13.0", "13.0", (ENOUGH, LITTLE)), WORKS, "2,3"),
        [
            "GPU 0 | ok | X, compute capability 9.0: computes in bfloat16",
            "GPU 0 memory | ok | 32.0 GB of 40.0 GB free",
            "GPU 1 | ok | X, compute capability 9.0: computes in bfloat16",
            "GPU 1 memory | warning | 31.9 GB of 40.0 GB free | other processes have the rest; nvidia-smi shows which",
            "GPUs | warning | 2 are visible, and pricer train takes one process for each | "
            "torchrun --nproc-per-node 2 -m -- pricer train …, or for one: export CUDA_VISIBLE_DEVICES=2",
        ],
    ),
    "no GPU and nobody to ask": (
        *(NO_DRIVER, Driver("unknown", problem="nvidia-ml-py is missing"), None),
        ["GPU | warning | none found: the CPU is enough for the demo, an 8B or 3B needs a GPU"],
    ),
    "no GPU and no driver": (
        *(NO_DRIVER, ABSENT, None),
        ["GPU | warning | none: the CPU is enough for the demo, an 8B or 3B needs a GPU"],
    ),
    "a variable that names no card is the cause": (
        *(NO_GPU, WORKS, "GPU-1"),
        [
            "GPU | warning | CUDA_VISIBLE_DEVICES=GPU-1 names no GPU here (NVIDIA A100-SXM4-40GB)"
            " | unset CUDA_VISIBLE_DEVICES"
        ],
    ),
    "a variable that hides the card is the cause": (
        *(NO_GPU, WORKS, "-1"),
        ["GPU | warning | CUDA_VISIBLE_DEVICES=-1 hides NVIDIA A100-SXM4-40GB | unset CUDA_VISIBLE_DEVICES"],
    ),
    "a variable that names a card is not the cause": (
        *(ERROR, WORKS, "0"),
        [f"GPU | warning | NVIDIA A100-SXM4-40GB cannot be used: CUDA unknown error | {IS_IT_RIGHT}"],
    ),
    "a GPU that torch is not built for": (
        *(Cuda("2.13.0+cpu", None, problem="Torch not compiled"), WORKS, None),
        [
            "GPU | warning | torch 2.13.0+cpu is built without CUDA and cannot use NVIDIA A100-SXM4-40GB"
            f" | install a torch with CUDA: {INSTALL}"
        ],
    ),
    "a driver that is too old": (
        *(Cuda("2.13.0", "13.0", problem="The driver is too old"), OLD_DRIVER, None),
        [
            "GPU | warning | Tesla T4 cannot be used: The driver is too old"
            f" | update the NVIDIA driver, or install a torch for CUDA 11.4: {INSTALL}"
        ],
    ),
    "a driver that is broken": (
        *(ERROR, Driver("fails", problem="version mismatch"), None),
        [f"GPU | warning | a GPU cannot be used: CUDA unknown error | {IS_IT_RIGHT}"],
    ),
}


@pytest.mark.parametrize(("cuda", "driver", "visible", "said"), GPUS.values(), ids=GPUS)
def test_gpus(cuda: Cuda, driver: Driver, visible: str | None, said: list[str]) -> None:
    assert [line(finding) for finding in judge_cuda(cuda, driver, visible)] == said


@pytest.mark.parametrize(
    ("card", "said"),
    [
        (
            T4,
            "GPU | failed | Tesla T4, compute capability 7.5: torch 2.13.0 has nothing that runs on it (it has sm_80, "
            f"sm_90) | install a torch built for it (an older CUDA): {INSTALL}",
        ),
        (
            Card("B200", (10, 0), 1, 1),
            "GPU | failed | B200, compute capability 10.0: torch 2.13.0 has nothing that runs on it (it has sm_80, "
            f"sm_90) | install a torch built for it (a newer CUDA): {INSTALL}",
        ),
    ],
)
def test_a_card_that_this_torch_has_no_kernels_for(card: Card, said: str) -> None:
    cuda = Cuda("2.13.0", "13.0", (card,), archs=("sm_80", "sm_90"))

    assert line(judge_cuda(cuda, WORKS, None)[0]) == said


@pytest.mark.parametrize(
    ("capability", "archs", "runs"),
    [
        ((8, 6), ["sm_80"], True),  # a later minor version of the same major
        ((8, 0), ["sm_86"], False),
        ((9, 0), ["sm_80"], False),
        ((9, 0), ["compute_80"], True),  # PTX, translated by the driver
        ((7, 5), ["compute_80"], False),
        ((9, 0), ["sm_90a"], True),
        ((12, 1), ["sm_120a"], False),
        ((12, 1), ["sm_120f"], True),
        ((12, 0), ["compute_90a"], False),
        ((7, 5), ["sm_50", "sm_75", "sm_120"], True),
        ((9, 4), ["gfx942"], True),  # nothing is known of others' cards
        ((8, 0), [], True),
    ],
)
def test_kernels_run_on_later_minor_versions_and_ptx_on_all_later_ones(
    capability: tuple[int, int], archs: list[str], runs: bool
) -> None:
    assert has_kernels(capability, archs) is runs


@pytest.mark.parametrize(
    ("driver", "cuda", "said"),
    [
        (
            WORKS,
            Cuda("2.13.0", "12.8", (A100,)),
            "driver | ok | 580.82.07, for CUDA up to 13.0; torch is built for 12.8",
        ),
        (WORKS, Cuda("2", None), "driver | ok | 580.82.07, for CUDA up to 13.0; torch is built without CUDA"),
        (ABSENT, Cuda("2.13.0", None), "driver | unknown | none from NVIDIA"),
        # In a container its library may be missing beside a card that works.
        (
            *(ABSENT, Cuda("2.13.0", "13.0", (A100,))),
            "driver | unknown | its library (NVML) is not here: utilisation will not be logged",
        ),
        (
            *(Driver("fails", problem="Driver/library version mismatch"), Cuda("2", None)),
            "driver | warning | Driver/library version mismatch | does nvidia-smi work? If not, restart the machine",
        ),
    ],
)
def test_the_driver(driver: Driver, cuda: Cuda, said: str) -> None:
    assert line(judge_driver(driver, cuda)) == said


class TestProduct:
    def test_right_with_how_far(self) -> None:
        assert judge_product(Product("cuda", "bfloat16", 0.09, {"1 rows": 0.002, "gradient": 0.003})) == (
            Finding("4-bit product", "ok", "right on the GPU in bfloat16, to 3e-03")
        )
        assert judge_product(Product("cpu", "float32", 0.09, {"1 rows": 0.0})) == Finding(
            "4-bit product", "ok", "right on the CPU in float32, to the last bit"
        )

    @pytest.mark.parametrize("error", [0.021, 1.4, math.nan, math.inf])
    def test_a_wrong_one_fails(self, error: float) -> None:
        found = judge_product(Product("cuda", "bfloat16", 0.09, {"1 rows": error, "16 rows": 0.02}))

        assert found == Finding(
            *("4-bit product", "failed", f"wrong on the GPU in bfloat16: 1 rows off by {error:.0%}"),
            "another version of bitsandbytes, or model.quantization: none",
        )

    def test_what_is_right_in_bfloat16_may_be_wrong_in_float32(self) -> None:
        assert judge_product(Product("cpu", "float32", 0.09, {"1 rows": 0.003})).status == "failed"

    @pytest.mark.parametrize("quantisation", [0.5, math.nan])
    def test_weights_that_are_not_what_was_quantised_fail(self, quantisation: float) -> None:
        found = judge_product(Product("cpu", "float32", quantisation, {"1 rows": 0.0}))

        assert (found.status, found.text) == (
            "failed",
            f"wrong on the CPU in float32: weights off by {quantisation:.0%}",
        )


class TestMemoryAndDisk:
    def test_memory(self) -> None:
        assert checks.judge_memory(2_000_000_000, 8_000_000_000) == Finding(
            "memory", "ok", "2.0 GB of 8.0 GB available"
        )
        assert checks.judge_memory(1_900_000_000, 8_000_000_000) == Finding(
            "memory", "warning", "1.9 GB of 8.0 GB available", "end other programs"
        )

    @pytest.mark.parametrize(
        ("free", "status"), [(5e9, "ok"), (4.9e9, "warning"), (0.5e9, "warning"), (0.4e9, "failed")]
    )
    def test_a_disk_for_runs_that_is_almost_full_fails(self, free: float, status: str) -> None:
        found = checks.judge_runs_disk("/data/runs", int(free), "")

        assert (found.status, found.text) == (status, f"{free / 1e9:.1f} GB free for /data/runs")
        assert (found.hint != "") == (status != "ok")

    def test_one_that_cannot_be_written_fails(self) -> None:
        assert checks.judge_runs_disk("/data/runs", 9_000_000_000, "Read-only file system") == Finding(
            *("disk", "failed", "/data/runs cannot be written: Read-only file system"),
            "make room, or start pricer in a folder on another disk",
        )

    def test_the_cache_never_fails_for_what_is_in_it_can_be_used(self) -> None:
        hint = "make room, or set HF_HOME to a folder on another disk"

        assert checks.judge_cache_disk("/hf", 20_000_000_000, "") == Finding("Hub cache", "ok", "20.0 GB free for /hf")
        assert checks.judge_cache_disk("/hf", 0, "") == Finding(
            "Hub cache", "warning", "0.0 GB free for /hf (an 8B is a download of 16 GB)", hint
        )
        assert checks.judge_cache_disk("/hf", None, "Permission denied") == Finding(
            "Hub cache", "warning", "/hf cannot be written, nothing can be downloaded: Permission denied", hint
        )

    def test_a_file_in_the_place_of_the_folder_is_to_be_moved_away(self) -> None:
        assert checks.judge_runs_disk("/data/runs", None, "/data/runs is not a folder", "/data/runs") == Finding(
            "disk", "failed", "/data/runs is not a folder", "remove or rename /data/runs"
        )


class TestHub:
    def test_logged_in(self) -> None:
        answer = HubAnswer(HUB, True, status=200, account="ann", role="write", skew=-1.2)

        assert checks.judge_hub(answer) == [
            Finding("Hub", "ok", "https://huggingface.co answers"),
            Finding("Hub login", "ok", "ann, token of role write"),
            Finding("clock", "ok", "within 2 s of the Hub's"),
        ]

    def test_a_token_that_only_reads_cannot_push(self) -> None:
        login = checks.judge_hub(HubAnswer(HUB, True, status=200, account="ann", role="read"))[1]

        assert login == Finding(
            *("Hub login", "warning", "ann, token of role read: it cannot push"),
            "to push, a token of role write: https://huggingface.co/settings/tokens",
        )

    def test_addresses_are_of_the_hub_that_is_in_use(self) -> None:
        own = "http://hub.example:8080"

        login = checks.judge_hub(HubAnswer(own, True, status=200, account="ann", role="read"))[1]
        endpoint = checks.judge_hub(HubAnswer(own, True, status=503))[0]

        assert login.hint == "to push, a token of role write: http://hub.example:8080/settings/tokens"
        assert endpoint.hint == "later again; is http://hub.example:8080 up?"

    def test_a_token_that_is_refused(self) -> None:
        endpoint, login, _ = checks.judge_hub(HubAnswer(HUB, True, status=401))

        assert endpoint.status == "ok"
        assert login == Finding(
            *("Hub login", "warning", "the Hub refuses the token (401)"),
            "hf auth login; a token in HF_TOKEN goes before that login",
        )

    def test_no_token(self) -> None:
        assert checks.judge_hub(HubAnswer(HUB, False, status=401))[1] == Finding(
            *("Hub login", "warning", "no token: needed for gated bases, for private repositories and to push"),
            "hf auth login, or set HF_TOKEN",
        )

    def test_a_hub_that_is_not_reachable_is_a_warning_and_the_rest_is_unknown(self) -> None:
        assert checks.judge_hub(HubAnswer(HUB, True, problem="Connection refused")) == [
            Finding(
                *("Hub", "warning", "https://huggingface.co is not reachable: Connection refused"),
                "to download and to push: check the network, and HF_ENDPOINT",
            ),
            Finding("Hub login", "unknown", "a token is there; who it belongs to was not answered"),
            Finding("clock", "unknown", "not compared, for want of an answer from the Hub"),
        ]

    @pytest.mark.parametrize("variable", ["HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"])
    def test_one_that_is_switched_off(self, variable: str) -> None:
        assert checks.judge_hub(HubAnswer(HUB, False, problem="switched off", off_by=variable))[0] == Finding(
            "Hub", "warning", f"switched off by {variable}", f"to download and to push: unset {variable}"
        )

    def test_one_that_has_troubles_of_its_own(self) -> None:
        endpoint, login, clock = checks.judge_hub(HubAnswer(HUB, True, status=503, skew=0.0))

        assert (endpoint.status, endpoint.text) == ("warning", "https://huggingface.co answers 503")
        assert login.status == "unknown"
        assert clock == Finding("clock", "ok", "within 1 s of the Hub's")

    @pytest.mark.parametrize(
        ("skew", "text"),
        [
            (59.9, None),
            (-59.9, None),
            (60.0, "1 min ahead of the Hub's"),
            (-720.0, "12 min behind the Hub's"),
            (7200.0, "2 h ahead of the Hub's"),
            (-3 * 86400.0, "3 days behind the Hub's"),
        ],
    )
    def test_a_clock_that_is_minutes_off(self, skew: float, text: str | None) -> None:
        clock = checks.judge_hub(HubAnswer(HUB, False, status=401, skew=skew))[2]

        if text is None:
            assert clock.status == "ok"
        else:
            assert clock == Finding(
                *("clock", "warning", f"{text}, and uploads may be refused"), "set it: sudo timedatectl set-ntp true"
            )


def test_wandb_with_a_key_and_without() -> None:
    assert checks.judge_wandb("https://api.wandb.ai", has_key=True) == Finding(
        "W&B", "ok", "a key for https://api.wandb.ai is there (not tried): tracking.mode auto is online"
    )
    assert checks.judge_wandb("https://api.wandb.ai", has_key=False) == Finding(
        *("W&B", "warning", "no key for https://api.wandb.ai: tracking.mode auto is offline"),
        "wandb login, or set WANDB_API_KEY",
    )
