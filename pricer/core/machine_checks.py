"""Whether a machine can train: what was found of each part of it, judged, in one line with what to do."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from pricer.core.launchers import several_processes, show_one_gpu
from pricer.core.machine_facts import Cuda, Driver, HubAnswer, Package, Product

Status = Literal["ok", "warning", "failed", "unknown"]
"""`failed`: training cannot work. `warning`: it can, but something is missing or unusual. `unknown`: not looked at."""

# Bytes. The libraries alone take 0.5 GB of memory; a checkpoint of an 8B is 0.1 GB, its optimizer's state 0.2 GB, its
# base a download of 16 GB.
_LITTLE_MEMORY = 2e9
_LITTLE_GPU_SHARE = 0.8
_LITTLE_RUNS, _NO_RUNS = 5e9, 0.5e9
_LITTLE_CACHE = 20e9
# Seconds. Addresses that uploads go to are signed for some minutes to an hour; an answer's Date has whole seconds.
_SKEW = 60.0

_INSTALL = "https://pytorch.org/get-started/locally"
# What torch says where there is no driver, and where the driver has no GPU to give.
_NO_DRIVER = "no NVIDIA driver"
_NONE_LEFT = "No CUDA GPUs"


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check found. `hint` says what to do (empty: nothing)."""

    name: str
    status: Status
    text: str
    hint: str = ""


def is_fit(findings: Sequence[Finding]) -> bool:
    """Whether training can work."""
    return all(finding.status != "failed" for finding in findings)


def unexpected(name: str, status: Status, error: Exception) -> Finding:
    """A check that could not be carried out."""
    lines = str(error).strip().splitlines()
    text = f"could not be checked: {type(error).__name__}{f': {lines[0]}' if lines else ''}"
    if isinstance(error, ModuleNotFoundError) and error.name:
        return Finding(name, status, text, f"pip install {error.name.partition('.')[0]}")
    return Finding(name, status, text, "if all packages are as tested: please report it, with this output")


def judge_packages(packages: Sequence[Package]) -> Finding:
    """One line for all of them: those that are missing or not as tested are named."""
    missing = [package for package in packages if package.installed is None]
    unlike = [p for p in packages if p.installed is not None and (p.wanted is not None or not p.is_as_tested)]
    parts = ["missing: " + ", ".join(package.name for package in missing)] if missing else []
    for p in unlike:
        why = f"tested: {p.tested}" if p.wanted is None else f"pricer asks for {p.wanted}"
        parts.append(f"{p.name} {p.installed} ({why})")
    if not parts:
        torch = next((f", torch {p.installed}" for p in packages if p.name == "torch"), "")
        return Finding("packages", "ok", f"all {len(packages)} as tested together{torch}")
    # Another torch that pricer takes stays: pip's may be built for another CUDA than this machine's, or for none.
    wanted = missing or [p for p in unlike if p.wanted is not None or p.name != "torch"]
    install = " ".join(f"{p.name}=={p.tested}" if p.tested else p.name for p in wanted)
    hint = f"pip install {install}" if install else ""
    return Finding("packages", "failed" if missing else "warning", "; ".join(parts), hint)


def judge_cuda(cuda: Cuda, driver: Driver, visible: str | None) -> list[Finding]:
    """A line for each GPU and for its memory, and one if there are several or none; `visible`: CUDA_VISIBLE_DEVICES."""
    if not cuda.cards:
        return [_no_gpu(cuda, driver, visible)]
    several = len(cuda.cards) > 1
    findings = []
    for index, card in enumerate(cuda.cards):
        number = f" {index}" if several else ""
        capability = ".".join(str(part) for part in card.capability)
        lacks = "" if card.dtype == "bfloat16" else ", for want of bfloat16"
        text = f"{card.name}, compute capability {capability}: "
        if has_kernels(card.capability, cuda.archs):
            findings.append(Finding(f"GPU{number}", "ok", f"{text}computes in {card.dtype}{lacks}"))
        else:
            text += f"torch {cuda.torch} has nothing that runs on it (it has {', '.join(cuda.archs)})"
            other = "an older" if card.capability < _oldest(cuda.archs) else "a newer"
            hint = f"install a torch built for it ({other} CUDA): {_INSTALL}"
            findings.append(Finding(f"GPU{number}", "failed", text, hint))
        taken = card.free < _LITTLE_GPU_SHARE * card.total
        hint = "other processes have the rest; nvidia-smi shows which" if taken else ""
        room = f"{_size(card.free)} of {_size(card.total)} free"
        findings.append(Finding(f"GPU{number} memory", "warning" if taken else "ok", room, hint))
    if several:
        text = f"{len(cuda.cards)} are visible, and pricer train refuses more than one"
        findings.append(Finding("GPUs", "warning", text, show_one_gpu(visible)))
    return findings


def has_kernels(capability: tuple[int, int], archs: Sequence[str]) -> bool:
    """Whether a torch built for `archs` (of torch.cuda.get_arch_list) can compute on a card. Binaries (sm_75) run on
    the same major version from that minor version on, PTX (compute_75) on all later ones; what is built for one card
    (sm_90a) runs on that alone. True where nothing of CUDA is listed.
    """
    built = [found for arch in archs if (found := _ARCH.fullmatch(arch))]
    return not built or any(_runs(found, capability) for found in built)


_ARCH = re.compile(r"(sm|compute)_(\d+)(\d)([af]?)")


def _runs(arch: re.Match[str], capability: tuple[int, int]) -> bool:
    built = (int(arch[2]), int(arch[3]))
    if arch[4] == "a":
        return built == capability
    if arch[1] == "compute" and not arch[4]:
        return built <= capability
    return built[0] == capability[0] and built <= capability


def _oldest(archs: Sequence[str]) -> tuple[int, int]:
    return min((int(found[2]), int(found[3])) for arch in archs if (found := _ARCH.fullmatch(arch)))


def judge_launcher(environment: Mapping[str, str]) -> list[Finding]:
    """A line where this is one of several processes, which training refuses; nothing is said of a single one."""
    several = several_processes(environment)
    return [Finding("launcher", "failed", *several)] if several else []


def _no_gpu(cuda: Cuda, driver: Driver, visible: str | None) -> Finding:
    enough = "the CPU is enough for the demo, an 8B or 3B needs a GPU"
    if driver.state == "absent":
        return Finding("GPU", "warning", f"none: {enough}")
    if driver.state == "unknown" and (cuda.built_for is None or _NO_DRIVER in cuda.problem):
        return Finding("GPU", "warning", f"none found: {enough}")
    names = ", ".join(driver.cards) or "a GPU"
    if cuda.built_for is None:
        text = f"torch {cuda.torch} is built without CUDA and cannot use {names}"
        return Finding("GPU", "warning", text, f"install a torch with CUDA: {_INSTALL}")
    if visible is not None and not visible.replace("-1", "").strip():
        return Finding("GPU", "warning", f"CUDA_VISIBLE_DEVICES={visible} hides {names}", "unset CUDA_VISIBLE_DEVICES")
    if visible is not None and driver.state == "works" and _names_none(visible, cuda, driver):
        text = f"CUDA_VISIBLE_DEVICES={visible} names no GPU here ({names})"
        return Finding("GPU", "warning", text, "unset CUDA_VISIBLE_DEVICES")
    # Within a major version an older driver runs what was built for a newer CUDA.
    too_old = driver.cuda != "" and _major(driver.cuda) < _major(cuda.built_for)
    hint = (
        f"update the NVIDIA driver, or install a torch for CUDA {driver.cuda}: {_INSTALL}"
        if too_old
        else "does nvidia-smi work? After an update of the driver: restart the machine"
    )
    return Finding("GPU", "warning", f"{names} cannot be used: {cuda.problem or 'torch does not say why'}", hint)


def _names_none(visible: str, cuda: Cuda, driver: Driver) -> bool:
    """Whether the first GPU that the variable names, without which none is used, is none of the machine's."""
    first = visible.partition(",")[0].strip()
    if first.isdecimal():
        return int(first) >= len(driver.cards)
    # CUDA knows by itself which names (GPU-8a…, MIG-…) are those of a GPU.
    return _NONE_LEFT in cuda.problem


def judge_driver(driver: Driver, cuda: Cuda) -> Finding:
    """The driver's version and CUDA against torch's."""
    if driver.state == "absent":
        # In a container the library that answers may be missing though the card can be used.
        text = "its library (NVML) is not here: utilisation will not be logged" if cuda.cards else "none from NVIDIA"
        return Finding("driver", "unknown", text)
    if driver.state == "unknown":
        return Finding("driver", "unknown", driver.problem)
    if driver.state == "fails":
        return Finding("driver", "warning", driver.problem, "does nvidia-smi work? If not, restart the machine")
    built = f"torch is built for {cuda.built_for}" if cuda.built_for else "torch is built without CUDA"
    return Finding("driver", "ok", f"{driver.version}, for CUDA up to {driver.cuda}; {built}")


# Rounding to 8, 11 and 24 bits of mantissa, with room for another order of summation; a wrong kernel is off by 1.
_BOUNDS = {"bfloat16": 2e-2, "float16": 5e-3, "float32": 1e-4}
# NormalFloat of 4 bits is off by about 0.09 for weights from a normal distribution.
_QUANTISATION = 0.2


def judge_product(product: Product) -> Finding:
    """Whether 4-bit weights give, forward and backward, what the dequantised ones do."""
    where = "the GPU" if product.device == "cuda" else "the CPU"
    bound = _BOUNDS[product.dtype]
    wrong = [f"{name} off by {error:.0%}" for name, error in product.errors.items() if not error <= bound]
    if not product.quantisation <= _QUANTISATION:
        wrong.insert(0, f"weights off by {product.quantisation:.0%}")
    if wrong:
        text = f"wrong on {where} in {product.dtype}: {', '.join(wrong)}"
        return Finding("4-bit product", "failed", text, "another version of bitsandbytes, or model.quantization: none")
    worst = max(product.errors.values())
    text = f"right on {where} in {product.dtype}, {f'to {worst:.0e}' if worst else 'to the last bit'}"
    return Finding("4-bit product", "ok", text)


def judge_memory(available: int, total: int) -> Finding:
    """Main memory in bytes."""
    text = f"{_size(available)} of {_size(total)} available"
    if available < _LITTLE_MEMORY:
        return Finding("memory", "warning", text, "end other programs")
    return Finding("memory", "ok", text)


def judge_runs_disk(folder: str, free: int | None, problem: str, obstacle: str = "") -> Finding:
    """The disk that runs are written to; `free` in bytes, None if it cannot be said; `obstacle`: what is where a folder
    should be (empty: nothing).
    """
    hint = "make room, or start pricer in a folder on another disk"
    if obstacle:
        return Finding("disk", "failed", problem, f"remove or rename {obstacle}")
    if problem:
        return Finding("disk", "failed", f"{folder} cannot be written: {problem}", hint)
    return _judge_free("disk", folder, free, hint, little=_LITTLE_RUNS, none=_NO_RUNS)


def judge_cache_disk(folder: str, free: int | None, problem: str) -> Finding:
    """The disk that bases and data sets are downloaded to. What is there already can be used even if it is full."""
    hint = "make room, or set HF_HOME to a folder on another disk"
    if problem:
        return Finding(
            "Hub cache", "warning", f"{folder} cannot be written, nothing can be downloaded: {problem}", hint
        )
    return _judge_free("Hub cache", folder, free, hint, little=_LITTLE_CACHE, none=-math.inf)


def judge_data_cache(folder: str, variable: str, problem: str) -> list[Finding]:
    """The folder that `datasets` reads everything through, local files too; `variable` of the environment moves it.
    Nothing is said if it can be written.
    """
    if not problem:
        return []
    text = f"{folder} cannot be written, and no data can be read without it: {problem}"
    return [Finding("data cache", "failed", text, f"set {variable} to a folder that can be written")]


def _judge_free(name: str, folder: str, free: int | None, hint: str, *, little: float, none: float) -> Finding:
    if free is None:
        return Finding(name, "unknown", f"how much is free for {folder} cannot be said")
    text = f"{_size(free)} free for {folder}"
    if free < little:
        need = "" if name == "disk" else " (an 8B is a download of 16 GB)"
        return Finding(name, "failed" if free < none else "warning", text + need, hint)
    return Finding(name, "ok", text)


def judge_hub(answer: HubAnswer) -> list[Finding]:
    """Three lines: the endpoint, the login there, and this machine's clock against the endpoint's."""
    return [_endpoint(answer), _login(answer), _clock(answer)]


def _endpoint(answer: HubAnswer) -> Finding:
    if answer.off_by:
        hint = f"to download and to push: unset {answer.off_by}"
        return Finding("Hub", "warning", f"switched off by {answer.off_by}", hint)
    if answer.problem:
        text = f"{answer.endpoint} is not reachable: {answer.problem}"
        return Finding("Hub", "warning", text, "to download and to push: check the network, and HF_ENDPOINT")
    if answer.status not in (200, 401, 403):
        hint = "later again; https://status.huggingface.co"
        return Finding("Hub", "warning", f"{answer.endpoint} answers {answer.status}", hint)
    return Finding("Hub", "ok", f"{answer.endpoint} answers")


def _login(answer: HubAnswer) -> Finding:
    if not answer.has_token:
        text = "no token: needed for gated bases, for private repositories and to push"
        return Finding("Hub login", "warning", text, "hf auth login, or set HF_TOKEN")
    if answer.status in (401, 403):
        text = f"the Hub refuses the token ({answer.status})"
        return Finding("Hub login", "warning", text, "hf auth login; a token in HF_TOKEN goes before that login")
    if answer.account is None:
        return Finding("Hub login", "unknown", "a token is there; who it belongs to was not answered")
    text = f"{answer.account}, token of role {answer.role}" if answer.role else answer.account
    if answer.role == "read":
        hint = "to push, a token of role write: https://huggingface.co/settings/tokens"
        return Finding("Hub login", "warning", f"{text}: it cannot push", hint)
    return Finding("Hub login", "ok", text)


def _clock(answer: HubAnswer) -> Finding:
    if answer.skew is None:
        return Finding("clock", "unknown", "not compared, for want of an answer from the Hub")
    if abs(answer.skew) < _SKEW:
        return Finding("clock", "ok", f"within {max(1, math.ceil(abs(answer.skew)))} s of the Hub's")
    way = "ahead of" if answer.skew > 0 else "behind"
    text = f"{_duration(abs(answer.skew))} {way} the Hub's, and uploads may be refused"
    return Finding("clock", "warning", text, "set it: sudo timedatectl set-ntp true")


def judge_wandb(host: str, *, has_key: bool) -> Finding:
    """Whether runs with `tracking.mode: auto` go to W&B at once."""
    if has_key:
        return Finding("W&B", "ok", f"a key for {host} is there (not tried): tracking.mode auto is online")
    text = f"no key for {host}: tracking.mode auto is offline"
    return Finding("W&B", "warning", text, "wandb login, or set WANDB_API_KEY")


def _size(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"


def _duration(seconds: float) -> str:
    if seconds < 2 * 3600:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.0f} h" if seconds < 48 * 3600 else f"{seconds / 86400:,.0f} days"


def _major(version: str) -> int:
    return int(version.partition(".")[0])
