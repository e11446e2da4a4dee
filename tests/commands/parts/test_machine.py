"""What a machine cannot train is said before anything is downloaded or loaded; a GPU and launchers are faked."""

from pathlib import Path
from typing import Any

import pytest
import torch

from pricer.commands import train
from pricer.commands.evaluate import evaluate_run
from pricer.commands.parts.resuming import settle_optimizer, settle_resumed
from pricer.commands.parts.setup import prepare
from pricer.config import ModelConfig, PromptConfig, RunConfig, TrainConfig
from pricer.config_file import load_config, to_yaml
from pricer.core.items import Split
from pricer.errors import CheckpointError, ModelError, PricerError, RunError
from pricer.stores.runs import Run, create_run
from tests.commands.conftest import CONFIG, Listener
from tests.loopback_hub import LoopbackHub, Repo
from tests.repositories import Cli, adopt

# What Adam keeps of the first parameter, in the words of torch and of bitsandbytes.
TORCH = {"step": torch.tensor(2.0), "exp_avg": torch.zeros(4), "exp_avg_sq": torch.zeros(4)}
BITSANDBYTES = {"step": 2, "__bnb_optimizer_quant_state__": {"state1": torch.zeros(4), "state2": torch.zeros(4)}}


def gpus(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine with so many A100s."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)


@pytest.fixture
def nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails as soon as data or a base would be looked for."""
    monkeypatch.setattr(train, "prepare", lambda *_: pytest.fail("data and base were looked for"))


def a_config(optimizer: str = "auto", **model: Any) -> RunConfig:
    train = TrainConfig.model_validate({"optimizer": optimizer})
    return RunConfig(model=ModelConfig(**{"compute_dtype": "float32", **model}), train=train)


HALF = "nf4/float16, adapter float16, logits float32"


def interrupted(config: RunConfig, of_parameter: dict[str, Any], *more: str, precision: str = "nf4/float32") -> Run:
    """The run `cut` with a training state of step 2, which has these files `more`."""
    run = create_run(config, "cut", "cut", {"precision": precision})
    state = run.training_states.folder / "checkpoint-2"
    state.mkdir(parents=True)
    torch.save({"state": {0: of_parameter}, "param_groups": []}, state / "optimizer.pt")
    for name in more:
        torch.save({"cuda": torch.zeros(4)}, state / name)
    run.training_states.mark_complete(state)
    return run


def refusal(kind: type[PricerError] = ModelError, run: str = "cut") -> tuple[str, str]:
    with pytest.raises(kind) as caught:
        train.resume(run, Listener())
    return caught.value.message, caught.value.hint


@pytest.mark.usefixtures("nothing_is_read")
class TestANewRun:
    def test_one_of_several_processes_reads_and_makes_nothing(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("WORLD_SIZE", "2")

        result = Cli("train")

        assert result.code == 1
        assert result.err.splitlines() == [
            "error: a launcher started 2 processes (WORLD_SIZE), which cannot find each other",
            " hint: torchrun --nproc-per-node 2 -m -- pricer train",
        ]
        assert not Path("runs").exists()

    @pytest.mark.parametrize(("kind", "problem"), [("file", "is not a folder"), ("link", "is a link to nothing")])
    def test_something_in_the_place_of_runs_is_met_before_data_and_base(self, kind: str, problem: str) -> None:
        if kind == "file":
            Path("runs").write_text("", encoding="utf-8")
        else:
            Path("runs").symlink_to("gone")

        with pytest.raises(RunError) as caught:
            train.start(CONFIG, "quickstart", None, Listener())

        runs = Path.cwd() / "runs"
        assert (caught.value.message, caught.value.hint) == (f"{runs} {problem}", f"remove or rename {runs}")

    def test_several_gpus_are_met_before_data_and_base(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus(2, monkeypatch)

        with pytest.raises(ModelError, match="several GPUs are visible"):
            train.start(CONFIG, "quickstart", None, Listener())

        assert not Path("runs").exists()

    @pytest.mark.parametrize(
        ("device", "why"), [("auto", "this machine has no CUDA device"), ("cpu", "model.device is cpu")]
    )
    def test_a_paged_optimizer_on_a_cpu(self, device: str, why: str) -> None:
        with pytest.raises(ModelError) as caught:
            train.start(a_config("paged_adamw_32bit", device=device), "quickstart", None, Listener())

        assert caught.value.message == f"train.optimizer is paged_adamw_32bit, which needs a GPU, but {why}"
        assert caught.value.hint == "train.optimizer: auto"


def test_the_optimizer_is_settled_alike_on_every_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settle_optimizer(a_config()).train.optimizer == "adamw_torch_fused"
    gpus(1, monkeypatch)
    assert settle_optimizer(a_config()).train.optimizer == "adamw_torch_fused"
    assert settle_optimizer(a_config("adamw_torch")).train.optimizer == "adamw_torch"


def test_the_optimizer_is_pinned_with_the_run(trained: Path) -> None:
    assert load_config(trained / "config.yaml").train.optimizer == "adamw_torch_fused"


def test_evaluation_is_prepared_on_a_machine_with_several_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus(2, monkeypatch)

    assert prepare(CONFIG.model_copy(update={"prompt": PromptConfig(max_length=96)})).precision.device == "cuda"


def test_the_peak_of_scoring_is_that_of_the_runs_device(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pricer.commands.parts.opening.peak_memory", lambda device: {"cpu": 11, "cuda": 22}[device])

    evaluate_run(run, "last", Split.VAL, 2, Listener())

    assert run.facts()["peak_memory_eval"] == 11


@pytest.mark.usefixtures("nothing_is_read")
class TestGoingOn:
    def test_several_gpus(self, monkeypatch: pytest.MonkeyPatch) -> None:
        interrupted(a_config("adamw_torch"), TORCH)
        gpus(2, monkeypatch)

        assert refusal()[0] == "several GPUs are visible (2), and one process trains on one"

    def test_a_paged_optimizer_without_a_gpu(self) -> None:
        interrupted(a_config("paged_adamw_32bit"), BITSANDBYTES)

        assert refusal() == (
            "train.optimizer is paged_adamw_32bit, which needs a GPU, but this machine has no CUDA device",
            "on a machine with a GPU: pricer train --resume --run cut",
        )

    def test_a_state_of_another_optimizer_than_the_config_says(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus(1, monkeypatch)
        interrupted(a_config("paged_adamw_32bit"), TORCH)

        assert refusal(CheckpointError) == (
            "the training state of cut was not written by train.optimizer = paged_adamw_32bit",
            "put runs/cut/config.yaml back as it was, or train another run",
        )

    def test_a_run_that_was_trained_in_float16_on_a_gpu(self) -> None:
        config = a_config("adamw_torch", compute_dtype="float16")
        interrupted(config, TORCH, "scaler.pt", precision=HALF)

        assert refusal(RunError) == (
            f"cut began to train in {HALF}, this is nf4/float16, adapter float32, logits float32",
            "on a machine with a GPU: pricer train --resume --run cut",
        )

    def test_another_precision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        gpus(1, monkeypatch)
        interrupted(a_config("adamw_torch", compute_dtype="auto"), TORCH, precision=HALF)

        assert refusal(RunError) == (
            f"cut began to train in {HALF}, this is nf4/bfloat16, adapter bfloat16, logits float32",
            "put runs/cut/config.yaml back as it was, or train another run",
        )


def test_a_run_that_began_on_a_cpu_keeps_its_optimizer_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    run = interrupted(a_config("adamw_torch"), TORCH, "scheduler.pt")
    gpus(1, monkeypatch)
    listener = Listener()

    settled = settle_resumed(run, run.training_states.folder / "checkpoint-2", listener.note)

    # `auto` would be adamw_torch_fused here; the run keeps what it began with.
    assert (settled.train.optimizer, settled.model.compute_dtype) == ("adamw_torch", "float32")
    assert listener.notes == [
        "cut was trained on a CPU so far; on a GPU it will not end with the same adapter bit for bit"
    ]


def test_a_run_goes_on_on_another_gpu_without_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    # From a T4 to an A100: in float16, as it began, though `auto` would be bfloat16.
    config = a_config("paged_adamw_32bit", compute_dtype="float16")
    run = interrupted(config, BITSANDBYTES, "rng_state.pth", "scaler.pt", precision=HALF)
    gpus(1, monkeypatch)
    listener = Listener()

    assert settle_resumed(run, run.training_states.folder / "checkpoint-2", listener.note) == config
    assert listener.notes == []


def test_a_run_that_was_stopped_before_its_first_state_begins_again_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    run = create_run(a_config("adamw_torch"), "cut", "cut", {"precision": "nf4/float32"})
    gpus(1, monkeypatch)

    assert settle_resumed(run, None, Listener().note).train.optimizer == "adamw_torch"


class TestFromTheHub:
    """`pricer train --resume --repo`."""

    def test_several_gpus_are_met_before_the_state_is_downloaded(
        self, stopped: Repo, hub: LoopbackHub, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        gpus(2, monkeypatch)

        with pytest.raises(ModelError, match="several GPUs are visible"):
            train.resume_repo("ann/stopped", None, Listener())

        assert not [request for request in hub.requests if request.path.endswith("optimizer.pt")]
        assert not list(Path().glob("runs/*/run.json"))

    def test_a_paged_optimizer_without_a_gpu(self, stopped: Repo, hub: LoopbackHub) -> None:
        config = load_config_of(stopped)
        paged = config.model_copy(update={"train": config.train.model_copy(update={"optimizer": "paged_adamw_32bit"})})
        stopped.commit({"config.yaml": to_yaml(paged).encode()}, "paged", branch="state")

        result = Cli("train", "--resume", "--repo", "ann/stopped")

        assert result.code == 1
        assert result.err.splitlines() == [
            "error: train.optimizer is paged_adamw_32bit, which needs a GPU, but this machine has no CUDA device",
            " hint: on a machine with a GPU: pricer train --resume --repo ann/stopped",
        ]
        assert not [request for request in hub.requests if request.path.endswith("optimizer.pt")]

    def test_the_optimizer_travels_with_the_run(self, stopped: Repo) -> None:
        assert load_config_of(stopped).train.optimizer == "adamw_torch_fused"
        assert adopt("ann/stopped").config().train.optimizer == "adamw_torch_fused"


def load_config_of(repo: Repo) -> RunConfig:
    """What a repository's branch `state` has as its config."""
    path = Path("theirs.yaml")
    path.write_bytes(repo.files("state")["config.yaml"])
    return load_config(path)
