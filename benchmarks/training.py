"""Training against a plain TRL SFTTrainer script, in turns.

    python benchmarks/training.py [BASE] [--source FILE] [--quantization none|nf4] [--precision float32|bfloat16]
                                  [--dropout 0.1] [--steps 8] [--batch 16] [--rounds 3] [--max-length N]
                                  [--learning-rate 1e-4]

Both train the same items of the same data for one epoch: the same LoRA (r = 32 on q, k, v, o), batch, precision,
learning rate and schedule, activation checkpointing off. TRL takes the items in random order. Every round is a process
of its own for each side, and the sides take turns. Speed is counted in real tokens, without padding, from the end of
the first step to the end of the last. The loss is that of 64 validation items after the training, computed by one
function for both. The matrix products of the same run and precision say how much of the machine was there. Without
BASE, the bundled base is trained on the bundled data.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj"]
_WARMUP, _CLIP, _DECAY, _HELD_OUT = 0.03, 0.3, 0.001, 64
_MATRIX = 1024
# What `fine_tune` calls for each part of a batch.
_LOSS = "completion_loss"


def main() -> None:
    """Print each round, and the ratios of the medians."""
    options = _options()
    if options.side:
        print(json.dumps(_measure(options)))
        return
    found: dict[str, list[dict[str, Any]]] = {"pricer": [], "TRL": []}
    for number in range(1, options.rounds + 1):
        for side in found if number % 2 else reversed(found):
            command = [sys.executable, __file__, *sys.argv[1:], "--side", side]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            facts = json.loads(done.stdout.splitlines()[-1])
            found[side].append(facts)
            print(f"round {number}, {side}: " + ", ".join(f"{key} {value}" for key, value in facts.items()), flush=True)
    medians = {
        side: {key: statistics.median(facts[key] for facts in rounds) for key in rounds[0]}
        for side, rounds in found.items()
    }
    print("| | real tokens/s | padding | of the matrix products | held-out loss | peak memory |")
    print("| --- | --- | --- | --- | --- | --- |")
    for side, facts in medians.items():
        print(
            f"| {side} | {facts['tokens_per_s']:,.0f} | {facts['padding']:.1%} | {facts['of_products']:.0%} "
            f"| {facts['loss']:.4f} | {facts['peak_gb']:.2f} GB |"
        )
    print(f"ratio of the medians: {medians['pricer']['tokens_per_s'] / medians['TRL']['tokens_per_s']:.2f}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base", nargs="?", default="builtin:base")
    parser.add_argument("--source", default="builtin:computers")
    parser.add_argument("--quantization", default="none", choices=["none", "nf4"])
    parser.add_argument("--precision", default="float32", choices=["float32", "bfloat16"])
    parser.add_argument("--dropout", type=float, default=0.1)
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--max-length", type=int, help="tokens of an item at most; longer descriptions are cut")
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--side", choices=["pricer", "TRL"], help=argparse.SUPPRESS)
    return parser.parse_args()


def _measure(options: argparse.Namespace) -> dict[str, Any]:
    """One training of one side."""
    # Of libraries that know nothing of each other.
    warnings.simplefilter("ignore")
    import torch  # noqa: PLC0415  # the parent measures nothing

    from pricer.commands.parts.setup import prepare  # noqa: PLC0415
    from pricer.config import RunConfig  # noqa: PLC0415

    config = RunConfig.model_validate(
        {
            "model": {
                "base": options.base,
                "quantization": options.quantization,
                "device": "cpu",
                "compute_dtype": options.precision,
            },
            "data": {"source": options.source, "train_limit": options.batch * options.steps, "val_limit": _HELD_OUT},
            "prompt": {"max_length": options.max_length or "auto"},
            "adapter": {"r": 32, "alpha": 64, "dropout": options.dropout, "target_modules": _TARGETS},
            "train": {
                "epochs": 1,
                "batch_size": options.batch,
                "learning_rate": options.learning_rate,
                "warmup": _WARMUP,
                "weight_decay": _DECAY,
                "max_grad_norm": _CLIP,
                "checkpoint_every": 10**6,
                "val_items": 0,
                "log_every": 1,
            },
        }
    )
    setup = prepare(config)
    train, held_out = (
        setup.encoder.examples([setup.template.example(item) for item in items])
        for items in (setup.items.train, setup.items.val)
    )
    dtype = getattr(torch, options.precision)
    products = _products(torch, dtype)
    train_side = _train_ours if options.side == "pricer" else _train_trl
    model, marks, tokens, padded = train_side(setup, train)
    parameters = sum(p.numel() for p in model.parameters() if not p.requires_grad)
    facts = {
        "tokens_per_s": round(sum(tokens[1:]) / (marks[-1] - marks[0]), 1),
        "padding": round(1 - sum(tokens) / sum(padded), 4),
        "loss": round(_loss(torch, model, held_out), 5),
        "peak_gb": round(_peak_gb(), 2),
        "gflops": round((products + _products(torch, dtype)) / 2),
    }
    # Each frozen weight outside of the embeddings takes 2 floating-point operations forward, and 2 backward.
    weights = parameters - model.get_input_embeddings().weight.numel() * (1 if _is_tied(model) else 2)
    return facts | {"of_products": round(4 * weights * facts["tokens_per_s"] / 1e9 / facts["gflops"], 3)}


def _train_ours(setup: Any, examples: Any) -> tuple[Any, list[float], list[int], list[int]]:
    from pricer.ml import sft  # noqa: PLC0415
    from pricer.ml.adapters import add_adapter  # noqa: PLC0415
    from pricer.ml.base import load_base  # noqa: PLC0415
    from pricer.ml.micro_batch import choose_step_settings  # noqa: PLC0415

    config = setup.config
    model = add_adapter(load_base(setup.base.folder, setup.precision), config.adapter, config.train.seed)
    marks: list[float] = []
    tokens: list[int] = []
    padded: list[int] = []
    inner = getattr(sft, _LOSS)

    def counted(model: Any, ids: Any, spans: Any) -> Any:
        tokens.append(sum(end for _, end in spans))
        padded.append(len(spans) * max(end for _, end in spans))
        return inner(model, ids, spans)

    setattr(sft, _LOSS, counted)
    with tempfile.TemporaryDirectory() as state:
        sft.fine_tune(
            model,
            setup.tokenizer,
            examples,
            config.train,
            setup.precision,
            state_folder=Path(state),
            resume_from=None,
            on_checkpoint=lambda *_: None,
            on_progress=lambda progress: marks.append(time.perf_counter()) if progress.loss is None else None,
            should_stop=lambda: False,
            settings=choose_step_settings(model, examples, config.train, setup.tokenizer.pad_token_id, print),
            note=print,
        )
    return model, marks, tokens, padded


def _train_trl(setup: Any, examples: Any) -> tuple[Any, list[float], list[int], list[int]]:
    """The recipe's script, as short as people write it."""
    import datasets  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from peft import LoraConfig  # noqa: PLC0415
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig, TrainerCallback  # noqa: PLC0415
    from trl import SFTConfig, SFTTrainer  # noqa: PLC0415

    config = setup.config
    dtype = getattr(torch, setup.precision.dtype)
    quantization = None
    if setup.precision.quantization == "nf4":
        quantization = BitsAndBytesConfig(
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=dtype,
        )
    model = AutoModelForCausalLM.from_pretrained(
        setup.base.folder, dtype=dtype, device_map={"": "cpu"}, quantization_config=quantization
    )
    ids = [example.ids.tolist() for example in examples]
    masks = [[int(index >= example.start) for index in range(len(example.ids))] for example in examples]
    marks: list[float] = []
    tokens: list[int] = []
    padded: list[int] = []

    class _Marks(TrainerCallback):
        def on_step_end(self, *_: Any, **__: Any) -> None:
            marks.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as folder:
        trainer = SFTTrainer(
            model=model,
            args=SFTConfig(
                output_dir=folder,
                per_device_train_batch_size=config.train.batch_size,
                num_train_epochs=1,
                learning_rate=config.train.learning_rate,
                lr_scheduler_type="cosine",
                warmup_steps=_WARMUP,
                weight_decay=_DECAY,
                max_grad_norm=_CLIP,
                max_length=None,
                activation_checkpointing=False,
                completion_only_loss=True,
                use_cpu=True,
                bf16=dtype == torch.bfloat16,
                logging_steps=1,
                save_strategy="no",
                report_to="none",
                disable_tqdm=True,
            ),
            train_dataset=datasets.Dataset.from_dict({"input_ids": ids, "completion_mask": masks}),
            processing_class=setup.tokenizer,
            callbacks=[_Marks()],
            peft_config=LoraConfig(
                r=32,
                lora_alpha=64,
                lora_dropout=config.adapter.dropout,
                target_modules=_TARGETS,
                bias="none",
                task_type="CAUSAL_LM",
            ),
        )
        inner: Callable[..., Any] = trainer.data_collator

        def counted(rows: Any) -> Any:
            batch = inner(rows)
            tokens.append(int(batch["attention_mask"].sum()))
            padded.append(batch["input_ids"].numel())
            return batch

        trainer.data_collator = counted
        trainer.train()
    return trainer.model, marks, tokens, padded


def _loss(torch: Any, model: Any, examples: Any) -> float:
    """Nats per token of the completions."""
    for layer in model.modules():
        if hasattr(layer, "support_avx512bf16_for_cpu"):
            # In eval mode, bitsandbytes would repack 4-bit weights for a kernel in bfloat16, and fail for some widths.
            layer.support_avx512bf16_for_cpu = False
    model.eval()
    total = count = 0.0
    with torch.inference_mode():
        for example in examples:
            ids = torch.from_numpy(example.ids.astype("int64"))[None]
            logits = model(input_ids=ids).logits[0, example.start - 1 : -1].float()
            total += float(torch.nn.functional.cross_entropy(logits, ids[0, example.start :], reduction="sum"))
            count += len(example.ids) - example.start
    return total / count


def _products(torch: Any, dtype: Any) -> float:
    """Billion floating-point operations a second in products of matrices of a dtype."""
    a = torch.randn(_MATRIX, _MATRIX, dtype=dtype)
    for _ in range(5):
        a @ a
    start = time.perf_counter()
    for _ in range(40):
        a @ a
    return float(40 * 2 * _MATRIX**3 / (time.perf_counter() - start) / 1e9)


def _peak_gb() -> float:
    # The kernel counts what the parent had into a child's `ru_maxrss`; VmHWM is the child's alone.
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(re.findall(r"VmHWM:\s*(\d+)", status)[0]) / 1e6


def _is_tied(model: Any) -> bool:
    return model.get_input_embeddings().weight is model.get_output_embeddings().weight


if __name__ == "__main__":
    main()
