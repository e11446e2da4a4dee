"""Whether training and scoring on a GPU are right, with the embedded base."""

import math
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from decoding import generate
from reporting import DEVICE, IS_GPU, Cap, Report, free, peaks
from safetensors.torch import load_file

from pricer.commands.parts.opening import load_scorer
from pricer.commands.parts.setup import Setup, prepare
from pricer.config import AdapterConfig, DataConfig, ModelConfig, RunConfig, TrainConfig
from pricer.core.predictions import Prediction
from pricer.ml.adapters import add_adapter
from pricer.ml.base import load_base
from pricer.ml.micro_batch import StepSettings, requested_settings
from pricer.ml.sft import fine_tune

STEPS = 24 if IS_GPU else 4
PROMPTS = 96 if IS_GPU else 8
# How far the loss may be from the CPU's in float32, relatively: at the first step, and on average over all.
TOLERANCE = {"float32": (1e-3, 2e-3), "bfloat16": (1e-2, 8e-2), "float16": (1e-2, 2e-2)}


@dataclass
class Trained:
    """A short training: the folder of its states, its losses by step, and what it said."""

    setup: Setup
    model: Any
    folder: Path
    losses: dict[int, float]
    notes: list[str]

    def adapter(self, step: int = STEPS) -> dict[str, torch.Tensor]:
        """The weights of the adapter at a step."""
        return load_file(self.folder / f"checkpoint-{step}" / "adapter_model.safetensors")


def train(
    device: Any,
    dtype: Any,
    adapter: AdapterConfig,
    *,
    every: int = STEPS,
    stop_after: int | None = None,
    goes_on: Path | None = None,
    settings: StepSettings | None = None,
) -> Trained:
    """Some steps on the embedded base."""
    train = TrainConfig(epochs=1, batch_size=8, learning_rate=2e-3, checkpoint_every=every, log_every=1, val_items=0)
    config = RunConfig(
        model=ModelConfig(device=device, compute_dtype=dtype),
        data=DataConfig(train_limit=8 * STEPS),
        adapter=adapter,
        train=train,
    )
    setup = prepare(config)
    model = add_adapter(load_base(setup.base.folder, setup.precision), adapter, seed=0)
    result = Trained(setup, model, goes_on or Path(tempfile.mkdtemp()), {}, [])
    fine_tune(
        model,
        setup.tokenizer,
        setup.encoder.examples([setup.template.example(item) for item in setup.items.train]),
        train,
        setup.precision,
        state_folder=result.folder,
        resume_from=goes_on / f"checkpoint-{every}" if goes_on else None,
        on_checkpoint=lambda _folder, _step, _hurries: None,
        on_progress=lambda p: result.losses.update({p.step: p.loss}) if p.loss is not None else None,
        should_stop=lambda: stop_after is not None and len(result.losses) >= stop_after,
        settings=settings or requested_settings(train),
        note=result.notes.append,
    )
    return result


def run(report: Report) -> None:
    """All checks of this part."""
    reference: dict[int, float] = {}
    small = AdapterConfig(r=8, alpha=16, dropout=0.0)

    def compute_losses(dtype: str) -> Callable[[], None]:
        def check() -> None:
            if not reference:
                reference.update(train("cpu", "float32", small).losses)
            trained = train(DEVICE, dtype, small)
            off = {step: abs(loss / reference[step] - 1) for step, loss in trained.losses.items()}
            first, mean = off[1], sum(off.values()) / len(off)
            state = {file.name for file in (trained.folder / f"checkpoint-{STEPS}").iterdir()}
            kinds = {str(p.dtype) for p in trained.model.parameters() if p.requires_grad}
            report.say(
                f"loss {dtype}",
                ok=all(map(math.isfinite, trained.losses.values()))
                and first <= TOLERANCE[dtype][0]
                and mean <= TOLERANCE[dtype][1]
                and kinds == {"torch.float32"}
                and ("scaler.pt" in state) == (dtype == "float16" and IS_GPU),
                first=first,
                mean=mean,
                largest=max(off.values()),
                last=trained.losses[STEPS],
                **peaks(),
            )

        return check

    for dtype in ("float32", "bfloat16", "float16") if IS_GPU else ("float32", "bfloat16"):
        report.run(f"loss {dtype}", compute_losses(dtype))
    for dtype in ("bfloat16", "float16") if IS_GPU else ("float32",):
        report.run(f"resume {dtype}", lambda dtype=dtype: _resume(report, dtype))  # type: ignore[misc]
    report.run("answers", lambda: _answers(report))
    report.run("memory runs out in training", lambda: _small_card(report))
    report.run("commands", lambda: _commands(report))


def _resume(report: Report, dtype: str) -> None:
    """Twice the same, and once in two parts: equal, or by how much not."""
    large, half = AdapterConfig(r=256, alpha=256, dropout=0.1), STEPS // 2
    one, again = (train(DEVICE, dtype, large, every=half) for _ in range(2))
    stopped = train(DEVICE, dtype, large, every=half, stop_after=half)
    resumed = train(DEVICE, dtype, large, every=half, goes_on=stopped.folder)
    repeated, parts = _apart(one.adapter(), again.adapter()), _apart(one.adapter(), resumed.adapter())
    report.say(f"resume {dtype}", ok=parts <= repeated, repeated_apart=repeated, resumed_apart=parts)


def _apart(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


def _answers(report: Report) -> None:
    """Ours against `generate`, in batches against one at a time, and in a memory too small for a batch."""
    # In 16 bits, one answer in some tens is another one, and a CPU gets few prompts.
    trained = train(DEVICE, "auto" if IS_GPU else "float32", AdapterConfig(r=8, alpha=16, dropout=0.0))
    setup = trained.setup
    prompts = setup.encoder.prompts([setup.template.prompt(item) for item in setup.items.val[:PROMPTS]])
    scorer = load_scorer(setup)
    untuned = scorer.predict(prompts)
    scorer.use(trained.folder / f"checkpoint-{STEPS}")
    whole = scorer.predict(prompts)
    single = [scorer.predict([prompt])[0] for prompt in prompts]
    trained.model.eval()
    greedy = generate(trained.model, setup.tokenizer, prompts, setup.encoder.answer_tokens)
    same_as_generate = sum(a.completion == completion for a, completion in zip(whole, greedy, strict=True))
    facts = {
        "as_generate": same_as_generate,
        "batch_as_single": sum(a.completion == b.completion for a, b in zip(whole, single, strict=True)),
        "median_batch_as_single": sum(_median(a) == _median(b) for a, b in zip(whole, single, strict=True)),
        "median_largest_difference": max(abs(_median(a) - _median(b)) for a, b in zip(whole, single, strict=True)),
        "changed_by_adapter": sum(_median(a) != _median(b) for a, b in zip(untuned, whole, strict=True)),
    }
    if IS_GPU:
        torch.cuda.empty_cache()
        used = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        scorer.predict(prompts)
        need = torch.cuda.max_memory_allocated() - used
        torch.cuda.empty_cache()
        with Cap((torch.cuda.memory_reserved() + 0.6 * need) / 1e9 + 0.03):
            cramped = scorer.predict(prompts)
        facts["in_halves_as_whole"] = sum(_median(a) == _median(b) for a, b in zip(whole, cramped, strict=True))
    report.say("answers", ok=same_as_generate >= 0.97 * len(prompts), of=len(prompts), **facts)


def _median(prediction: Prediction) -> float:
    assert prediction.distribution is not None
    return prediction.distribution.quantiles[2]


def _small_card(report: Report) -> None:
    """Steps that do not fit are taken in parts, with nearly the same losses."""
    small = AdapterConfig(r=8, alpha=16, dropout=0.0)
    whole = train(DEVICE, "float32", small)
    need = 0.0
    if IS_GPU:
        # Of what a step takes beside the model, there is room for two thirds.
        fixed, peak = torch.cuda.memory_allocated() / 1e9, peaks()["allocated_gb"]
        need = peak - fixed
        free()
    with Cap(fixed + 0.67 * need) if IS_GPU else nullcontext():
        parts = train(DEVICE, "float32", small)
    off = max(abs(parts.losses[step] / loss - 1) for step, loss in whole.losses.items())
    report.say(
        "memory runs out in training",
        ok=off < 1e-2 and (bool(parts.notes) or not IS_GPU),
        notes=parts.notes,
        largest_difference=off,
        step_needs_gb=need,
    )


def _commands(report: Report) -> None:
    """`pricer train`, `eval --all-checkpoints` and `pick`, as processes."""
    home = tempfile.mkdtemp()
    root = str(Path(__file__).resolve().parent.parent)
    env = {**os.environ, "PYTHONPATH": root + os.pathsep + os.environ.get("PYTHONPATH", "")}
    sizes = {"data.train_limit": 640 if IS_GPU else 32, "train.epochs": 2}
    sizes |= {"train.checkpoint_every": 40 if IS_GPU else 2, "train.val_items": 64 if IS_GPU else 4}
    settings = [part for key, value in sizes.items() for part in ("--set", f"{key}={value}")]
    for command in (
        ["train", "quickstart", "--run", "q", *settings],
        ["eval", "--run", "q", "--all-checkpoints", "--limit", "120" if IS_GPU else "6"],
        ["pick", "--run", "q"],
    ):
        done = subprocess.run(
            [sys.executable, "-m", "pricer", *command],
            check=False,
            cwd=home,
            env=env,
            capture_output=True,
            text=True,
            timeout=300,
        )
        report.say(f"pricer {command[0]}", ok=done.returncode == 0, tail=(done.stdout + done.stderr)[-400:])
