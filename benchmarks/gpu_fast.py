"""Memory and speed on a GPU, on bases of the 8B's and the 3B's shape."""

import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from gpu_bases import PRICES, Words, made_up, make_base, real_tokenizer
from peft import LoraConfig
from reporting import DEVICE, IS_GPU, Cap, Report, free, peaks, synchronize
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, PrinterCallback, TrainerCallback
from trl import SFTConfig, SFTTrainer

from pricer.config import AdapterConfig, TrainConfig
from pricer.core.prices import PriceFormat
from pricer.ml.adapters import add_adapter
from pricer.ml.base import dense_bytes, load_base
from pricer.ml.batches import make_batches
from pricer.ml.devices import Precision
from pricer.ml.micro_batch import StepSettings, choose_step_settings, compile_layers
from pricer.ml.predict import CheckpointPredictor, TreeDecoder
from pricer.ml.sft import fine_tune
from pricer.ml.tokens import TokenizedExample

HALF = Precision(DEVICE, "nf4", "bfloat16" if IS_GPU else "float32")
ATTENTION = ["q_proj", "k_proj", "v_proj", "o_proj"]
BATCH, LENGTH, STEPS = (16, 182, 12) if IS_GPU else (2, 32, 6)
LARGE, SHORT = (256, 128) if IS_GPU else (4, 24)
R32 = AdapterConfig(r=32 if IS_GPU else 4, alpha=64, dropout=0.1, target_modules=ATTENTION)
R256 = AdapterConfig(r=256 if IS_GPU else 8, alpha=512, dropout=0.1)


def run(report: Report) -> None:
    """All checks of this part."""
    adapters: dict[str, Path] = {}

    def training(name: str, base: str, check: Callable[[], dict[str, Any]]) -> None:
        report.run(name, lambda: report.say(name, base=base, **check()))

    report.run("ceiling", lambda: _ceiling(report))
    training("8b load", "8b", _load)
    with Cap(39.4):  # an A100 with 40 GB
        training("8b train", "8b", partial(_ours, "8b", R32, BATCH, LENGTH, keep=adapters, dense=False))
    training("8b train dequantized", "8b", partial(_ours, "8b", R32, BATCH, LENGTH, dense=True))
    for again in (False, True):
        training(f"8b plain trl, checkpointing {again}", "8b", partial(_plain_trl, "8b", BATCH, LENGTH, again))
    for dense in (False, True):
        name = f"8b answers{' dequantized' if dense else ''}"
        training(name, "8b", partial(_answers, "8b", R32, adapters, dense=dense))
    if IS_GPU:
        training("8b train compiled", "8b", partial(_ours, "8b", R32, BATCH, LENGTH, dense=True, compiled=True))
    training("3b r256, batch of 256", "3b", partial(_ours, "3b", R256, LARGE, SHORT, keep=adapters, spread=12))
    with Cap(39.4):
        training("3b r256, batch of 256 in 40 GB", "3b", partial(_ours, "3b", R256, LARGE, SHORT, spread=12))
    training("3b r256 answers", "3b", partial(_answers, "3b", R256, adapters, dense=None))
    with Cap(14.6):  # a T4
        half = Precision(DEVICE, "nf4", "float16" if IS_GPU else "float32")
        training(
            "3b float16, batch of 32 in 15 GB",
            "3b",
            partial(_ours, "3b", R32, 32 if IS_GPU else 2, SHORT, precision=half, dense=False, spread=12),
        )
    report.run("8b profile", lambda: _profile(report))  # last: what it hooks in makes all that follows slower


def _ceiling(report: Report) -> None:
    """What the card multiplies at most: bfloat16 matrices of 8,192."""
    if not IS_GPU:
        report.say("ceiling", card="cpu", torch=torch.__version__)
        return
    a = torch.randn(8192, 8192, device=DEVICE, dtype=torch.bfloat16)
    for _ in range(3):
        a @ a
    synchronize()
    start = time.perf_counter()
    for _ in range(10):
        a @ a
    synchronize()
    tflops = 10 * 2 * 8192**3 / (time.perf_counter() - start) / 1e12
    report.say("ceiling", card=torch.cuda.get_device_name(), tflops=round(tflops), torch=torch.__version__)


def _load() -> dict[str, Any]:
    folder = make_base("8b")
    free()
    start = time.monotonic()
    model = load_base(folder, HALF, dense=False)
    synchronize()
    facts = {"load_s": round(time.monotonic() - start, 1), "dense_gb": round(dense_bytes(model) / 1e9, 2)}
    return facts | {"attention": model.config._attn_implementation, **peaks()}


def _ours(
    base: str,
    adapter: AdapterConfig,
    batch: int,
    length: int,
    *,
    precision: Precision = HALF,
    dense: bool | None = None,
    compiled: bool = False,
    spread: int = 5,
    keep: dict[str, Path] | None = None,
) -> dict[str, Any]:
    """A training as `pricer train` does it, its way of computing a step found by trial."""
    model = add_adapter(load_base(make_base(base), precision, dense=dense), adapter, 0)
    config = TrainConfig(
        epochs=1,
        batch_size=batch,
        learning_rate=1e-4,
        checkpoint_every=10**6,
        log_every=1,
        val_items=0,
        compile=False,
    )
    examples = made_up(batch * STEPS, length, spread)
    notes: list[str] = []
    start = time.monotonic()
    if compiled:
        compile_layers(model)
        settings = StepSettings(batch, compiled=True)
    else:
        settings = choose_step_settings(model, examples, config, 1, notes.append)
    settled = time.monotonic() - start
    free()
    marks, losses = [], []

    def on_progress(progress: Any) -> None:
        if progress.loss is not None:
            synchronize()
            marks.append(time.perf_counter())
            losses.append(progress.loss)

    kept = Path(tempfile.mkdtemp())

    def keep_it(folder: Path, _step: int, _hurries: bool) -> None:
        shutil.copytree(folder, kept, dirs_exist_ok=True)

    fine_tune(
        model,
        real_tokenizer(),
        examples,
        config,
        precision,
        state_folder=Path(tempfile.mkdtemp()),
        resume_from=None,
        on_checkpoint=keep_it,
        on_progress=on_progress,
        should_stop=lambda: False,
        settings=settings,
        note=notes.append,
    )
    if keep is not None:
        keep[base] = kept
    gaps = np.diff(marks)
    seconds = float(np.median(gaps[2:]))
    return {
        "s_per_step": round(seconds, 4),
        "tokens_per_s": round(sum(len(e.ids) for e in examples) / STEPS / seconds),
        "first_steps_s": [round(float(gap), 2) for gap in gaps[:3]],
        "micro_batch": settings.micro_batch,
        "recomputed": settings.activation_checkpointing,
        "settled_s": round(settled, 1),
        "loss": losses[-1],
        "notes": notes,
        **peaks(),
    }


class _Marks(TrainerCallback):
    """When each step ended."""

    def __init__(self) -> None:
        self.times: list[float] = []

    def on_step_end(self, *_: Any, **__: Any) -> None:
        synchronize()
        self.times.append(time.perf_counter())


def _plain_trl(base: str, batch: int, length: int, checkpointing: bool) -> dict[str, Any]:
    """SFTTrainer as it comes: random order, a bfloat16 adapter, the recipe's paged optimizer."""
    dtype = torch.bfloat16 if IS_GPU else torch.float32
    torch.backends.cuda.enable_cudnn_sdp(True)  # as torch has it
    quantization = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )
    model = AutoModelForCausalLM.from_pretrained(
        make_base(base), dtype=dtype, device_map={"": 0 if IS_GPU else "cpu"}, quantization_config=quantization
    )
    free()
    examples: list[TokenizedExample] = made_up(batch * STEPS, length, 5)
    labels = [np.r_[np.full(e.start, -100), e.ids[e.start :]] for e in examples]
    data = datasets.Dataset.from_dict({"input_ids": [e.ids for e in examples], "labels": labels})
    arguments = SFTConfig(
        output_dir=tempfile.mkdtemp(),
        per_device_train_batch_size=batch,
        max_length=None,
        num_train_epochs=1,
        activation_checkpointing=checkpointing,
        bf16=IS_GPU,
        use_cpu=not IS_GPU,
        optim="paged_adamw_32bit" if IS_GPU else "adamw_torch",
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        logging_strategy="no",
    )
    marks = _Marks()
    lora = LoraConfig(r=R32.r, lora_alpha=64, lora_dropout=0.1, target_modules=ATTENTION, task_type="CAUSAL_LM")
    trainer = SFTTrainer(
        model=model,
        args=arguments,
        train_dataset=data,
        processing_class=real_tokenizer(),
        callbacks=[marks],
        peft_config=lora,
    )
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    torch.backends.cuda.enable_cudnn_sdp(False)
    seconds = float(np.median(np.diff(marks.times)[2:]))
    tokens = sum(len(e.ids) for e in examples) / STEPS
    return {"s_per_step": round(seconds, 4), "tokens_per_s": round(tokens / seconds), **peaks()}


def _answers(base: str, adapter: AdapterConfig, adapters: dict[str, Path], *, dense: bool | None) -> dict[str, Any]:
    """Items scored in a second, whole distributions, and seconds to change the checkpoint."""
    model = load_base(make_base(base), HALF, dense=dense)
    if base not in adapters:
        adapters[base] = Path(tempfile.mkdtemp())
        add_adapter(load_base(make_base(base), HALF), adapter, 0).save_pretrained(adapters[base])
    levels = (np.arange(PRICES, PRICES + 1000, dtype=np.int64),)
    scorer = CheckpointPredictor(model, TreeDecoder(model, Words(), PriceFormat("plain"), 4, levels, 0.02))
    swaps = []
    for _ in range(3):
        start = time.perf_counter()
        scorer.use(adapters[base])
        synchronize()
        swaps.append(round(time.perf_counter() - start, 2))
    prompts = [example.prompt for example in made_up(3000 if IS_GPU else 12, LENGTH, 5)]
    facts: dict[str, Any] = {"swaps_s": swaps}
    for budget in (8192, 32768) if IS_GPU else (64,):
        batches = make_batches([len(prompt.ids) for prompt in prompts], budget)[:6]
        free()
        times = []
        for batch in batches:
            start = time.perf_counter()
            scorer.predict([prompts[index] for index in batch])
            synchronize()
            times.append((time.perf_counter() - start) / len(batch))
        facts[f"items_per_s {budget}"] = round(1 / statistics.median(times[1:]), 1)
        facts[f"allocated_gb {budget}"] = peaks().get("allocated_gb")
    return facts


def _profile(report: Report) -> None:
    """Where a step's time goes, kept beside the lines."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    if IS_GPU:
        activities.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=activities) as profiler:
        facts = _ours("8b", R32, BATCH, LENGTH, dense=False)
    order = "self_cuda_time_total" if IS_GPU else "self_cpu_time_total"
    report.keep("profile.txt", profiler.key_averages().table(sort_by=order, row_limit=40))
    report.say("8b profile", s_per_step=facts["s_per_step"])
